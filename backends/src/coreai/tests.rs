//! Programs of ours are, byte for byte, what Apple's library makes of them.
//!
//! A fixture is a graph (`NAME.s2`) and the bytecode that the library wrote after it had read ours (`NAME.mlirb`), by
//! `examples/reference/coreai_fixtures.py`. `S2DITC_BLESS=1` writes ours in their place for that program.

mod hostile;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use s2dit_ir::interp::{self, Bindings};
use s2dit_ir::{DType, Function, Op, TensorType, WeightError, WeightSource, text, verify};

use super::program::{Attribute, Property, Region};
use super::write::{bytes_of, laid_out};

/// The producer that LLVM's writer of the library names.
const LIBRARY: &str = "MLIR22.0.0git";

const FIXTURES: [(&str, &str, &[u8]); 8] = [
    ("compressed", include_str!("fixtures/compressed.s2"), include_bytes!("fixtures/compressed.mlirb")),
    ("convolutions", include_str!("fixtures/convolutions.s2"), include_bytes!("fixtures/convolutions.mlirb")),
    ("elementwise", include_str!("fixtures/elementwise.s2"), include_bytes!("fixtures/elementwise.mlirb")),
    ("formulas", include_str!("fixtures/formulas.s2"), include_bytes!("fixtures/formulas.mlirb")),
    ("layers", include_str!("fixtures/layers.s2"), include_bytes!("fixtures/layers.mlirb")),
    ("logic", include_str!("fixtures/logic.s2"), include_bytes!("fixtures/logic.mlirb")),
    ("reduce", include_str!("fixtures/reduce.s2"), include_bytes!("fixtures/reduce.mlirb")),
    ("shapes", include_str!("fixtures/shapes.s2"), include_bytes!("fixtures/shapes.mlirb")),
];

/// Weights that follow from their names and places.
pub(super) struct Made(pub(super) BTreeMap<String, TensorType>);

impl WeightSource for Made {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.0.get(name).cloned()
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        let ty = self.0.get(name).ok_or_else(|| WeightError::Missing { name: name.into() })?;
        let seed = name.bytes().fold(0, |seed, b| (seed * 31 + usize::from(b)) % 99_991);
        let value = |i: usize| ((i * 37 + seed * 7919) % 65_537) as f32 / 32_768.0 - 1.0;
        let bytes = |i: usize| match ty.dtype {
            DType::F16 => half::f16::from_f32(value(i)).to_le_bytes().to_vec(),
            DType::BF16 => half::bf16::from_f32(value(i)).to_le_bytes().to_vec(),
            _ => value(i).to_le_bytes().to_vec(),
        };
        Ok((0..ty.elements()).flat_map(bytes).collect::<Vec<u8>>().into())
    }
}

/// Every weight of a function.
fn source_of(f: &Function) -> Made {
    let load = |v| match f.op(v) {
        Op::Load(load) => Some((load.tensor.clone(), f.ty(v).clone())),
        _ => None,
    };
    Made(f.order().into_iter().filter_map(load).collect())
}

/// The bytes of a graph's program.
fn ours(name: &str, graph: &str, producer: &str) -> Vec<u8> {
    let module = text::parse(graph).unwrap_or_else(|e| panic!("{name}: {e}"));
    verify::verify(&module).unwrap_or_else(|e| panic!("{name}: {e}"));
    let source = source_of(&module.functions[0]);
    bytes_of(&module, &source, producer).unwrap_or_else(|e| panic!("{name}: {e:#}"))
}

#[test]
fn the_bytes_are_those_of_the_library() {
    let bless = std::env::var_os("S2DITC_BLESS").is_some();
    for (name, graph, expected) in FIXTURES {
        let found = ours(name, graph, LIBRARY);
        if bless {
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/coreai/fixtures");
            fs::write(folder.join(name).with_extension("mlirb"), found).unwrap();
            continue;
        }
        let differs = found.iter().zip(expected).position(|(a, b)| a != b);
        assert!(
            found == expected,
            "{name}: {} bytes, expected {}; the first that differs is {differs:?}",
            found.len(),
            expected.len()
        );
    }
}

/// The reader shares the encodings with the writer: what is read is what was written.
#[test]
fn what_is_written_is_read() {
    for (name, graph, expected) in FIXTURES {
        let module = text::parse(graph).unwrap();
        let read = super::bytecode::read::read(expected).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert_eq!(read.producer, LIBRARY);
        let lowered = super::lower::lower(&module, &source_of(&module.functions[0])).unwrap();
        assert!(read.root == lowered.root, "{name}");
        let blobs = lowered.blobs.iter().map(|b| (b.name.clone(), b.bytes as usize));
        assert!(read.resources.iter().map(|(name, range)| (name.clone(), range.len())).eq(blobs), "{name}");
    }
}

/// What is read back computes what the graph computes: the reader knows nothing of the lowering.
#[test]
fn what_is_read_back_computes_the_same() {
    for (name, graph, _) in FIXTURES {
        let module = text::parse(graph).unwrap();
        let f = &module.functions[0];
        let source = source_of(f);
        let folder = tempfile::tempdir().unwrap();
        let options = super::Options::default();
        super::write_asset(&module, &source, &options, Default::default, folder.path(), &mut |_, _| {}).unwrap();
        let asset = super::Asset::open(folder.path()).unwrap();
        let raised = super::raise(&asset, None).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        verify::verify(&raised).unwrap_or_else(|e| panic!("{name}: {e}"));
        let params = f.params().iter().enumerate().map(|(k, &p)| {
            let ty = f.ty(p);
            let value = |i: usize| match ty.dtype {
                DType::I32 => (i % 2) as f64,
                DType::Bool => ((i + k) % 2) as f64,
                _ => ((i * 7919 + k * 31) % 2003) as f64 / 1001.0 - 1.0,
            };
            let values = (0..ty.elements()).map(|i| ty.dtype.round(value(i))).collect();
            (f.node(p).name.clone().unwrap().to_string(), s2dit_ir::Tensor::from_values(ty, values).unwrap())
        });
        let bindings = Bindings { params: params.collect(), ..Bindings::default() };
        let expected = interp::run(f, &source, &bindings).unwrap();
        let found = interp::run(&raised.functions[0], &asset, &bindings).unwrap();
        assert_eq!(expected.len(), found.len());
        for ((expected, found), (result, v)) in expected.iter().zip(&found).zip(&f.results) {
            assert_eq!(expected.data.shape(), found.data.shape());
            // fp16 rounds after each op, and the lowering has more ops.
            let bar = if f.dtype(*v) == DType::F16 { 4e-3 } else { 1e-6 };
            for (a, b) in expected.data.iter().zip(&found.data) {
                let near = (a - b).abs() <= bar * (1.0 + a.abs()) || (a.is_nan() && b.is_nan());
                assert!(near, "{name}, {result}: {a} and {b}");
            }
        }
    }
}

/// A file that is cut or changed anywhere is an error or another program, and never a panic.
#[test]
fn damaged_files_are_refused() {
    let (_, _, whole) = FIXTURES[6];
    for end in 0..whole.len() {
        assert!(super::bytecode::read::read(&whole[..end]).is_err(), "cut to {end}");
    }
    for at in 0..whole.len() {
        for flip in [1, 0x80, 0xff] {
            let mut changed = whole.to_vec();
            changed[at] ^= flip;
            let _ = super::bytecode::read::read(&changed);
        }
    }
}

/// A producer, and nothing else, changes with who writes.
#[test]
fn the_producer_is_named() {
    let (name, graph, _) = FIXTURES[0];
    let found = ours(name, graph, "s2ditc");
    assert!(found.starts_with(b"ML\xefR\x0ds2ditc\0"));
}

/// Weights are stored once, whoever uses them, and begin at multiples of 16.
#[test]
fn weights_are_stored_once_and_aligned() {
    let module = text::parse(include_str!("fixtures/layers.s2")).unwrap();
    let lowered = super::lower::lower(&module, &s2dit_ir::weights::NoWeights);
    // The two vectors are small enough to be computed when the graph is lowered, and there is nothing to compute them from.
    assert!(lowered.is_err());
    let source = source_of(&module.functions[0]);
    let lowered = super::lower::lower(&module, &source).unwrap();
    let names: Vec<&str> = lowered.blobs.iter().map(|b| b.name.as_str()).collect();
    assert_eq!(names, ["to_q.weight"]);
    let layout = laid_out(&lowered, "s2ditc");
    assert!(layout.resources.iter().all(|at| at % 16 == 0));
    let resources = |region: &Region| {
        let constants = region.operations.iter().flat_map(|op| &op.properties);
        constants.filter(|p| matches!(p, Property::Required(Attribute::Resource(_)))).count()
    };
    assert_eq!(resources(&lowered.root.regions[0].operations[0].regions[0]), 1);
}
