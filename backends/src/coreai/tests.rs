//! Programs of ours are, byte for byte, what Apple's library makes of them.
//!
//! A fixture is a graph (`NAME.s2`) and the bytecode that the library wrote after it had read ours (`NAME.mlirb`), by
//! `examples/reference/coreai_fixtures.py`. `S2DITC_BLESS=1` writes ours in their place for that program.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use s2dit_ir::{DType, TensorType, WeightError, WeightSource, text, verify};

use super::program::Attribute;
use super::write::{bytes_of, laid_out};

/// The producer that LLVM's writer of the library names.
const LIBRARY: &str = "MLIR22.0.0git";

const FIXTURES: [(&str, &str, &[u8]); 7] = [
    ("compressed", include_str!("fixtures/compressed.s2"), include_bytes!("fixtures/compressed.mlirb")),
    ("convolutions", include_str!("fixtures/convolutions.s2"), include_bytes!("fixtures/convolutions.mlirb")),
    ("elementwise", include_str!("fixtures/elementwise.s2"), include_bytes!("fixtures/elementwise.mlirb")),
    ("layers", include_str!("fixtures/layers.s2"), include_bytes!("fixtures/layers.mlirb")),
    ("logic", include_str!("fixtures/logic.s2"), include_bytes!("fixtures/logic.mlirb")),
    ("reduce", include_str!("fixtures/reduce.s2"), include_bytes!("fixtures/reduce.mlirb")),
    ("shapes", include_str!("fixtures/shapes.s2"), include_bytes!("fixtures/shapes.mlirb")),
];

/// Weights that follow from their names and places.
struct Made(BTreeMap<String, TensorType>);

impl WeightSource for Made {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.0.get(name).cloned()
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        let ty = self.0.get(name).ok_or_else(|| WeightError::Missing { name: name.into() })?;
        let seed = name.bytes().map(usize::from).sum::<usize>();
        let value = |i: usize| ((i * 37 + seed) % 101) as f32 / 50.0 - 1.0;
        let bytes = |i: usize| match ty.dtype {
            DType::F16 => half::f16::from_f32(value(i)).to_le_bytes().to_vec(),
            _ => value(i).to_le_bytes().to_vec(),
        };
        Ok((0..ty.elements()).flat_map(bytes).collect::<Vec<u8>>().into())
    }
}

/// The bytes of a graph's program.
fn ours(name: &str, graph: &str, producer: &str) -> Vec<u8> {
    let module = text::parse(graph).unwrap_or_else(|e| panic!("{name}: {e}"));
    verify::verify(&module).unwrap_or_else(|e| panic!("{name}: {e}"));
    let f = &module.functions[0];
    let types = f.order().into_iter().filter_map(|v| match f.op(v) {
        s2dit_ir::Op::Load(load) => Some((load.tensor.clone(), f.ty(v).clone())),
        _ => None,
    });
    let source = Made(types.collect());
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
        let types = module.functions[0].order().into_iter().filter_map(|v| match module.functions[0].op(v) {
            s2dit_ir::Op::Load(load) => Some((load.tensor.clone(), module.functions[0].ty(v).clone())),
            _ => None,
        });
        let lowered = super::lower::lower(&module, &Made(types.collect())).unwrap();
        assert!(read.root == lowered.root, "{name}");
        let blobs = lowered.blobs.iter().map(|b| (b.name.clone(), b.bytes as usize));
        assert!(read.resources.iter().map(|(name, range)| (name.clone(), range.len())).eq(blobs), "{name}");
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
    let source = Made(
        [("to_q.weight", vec![8, 8]), ("to_q.bias", vec![8]), ("norm.weight", vec![8]), ("norm.bias", vec![8])]
            .into_iter()
            .map(|(name, shape)| (name.to_string(), TensorType::new(DType::F32, shape)))
            .collect(),
    );
    let lowered = super::lower::lower(&module, &source).unwrap();
    let names: Vec<&str> = lowered.blobs.iter().map(|b| b.name.as_str()).collect();
    assert_eq!(names, ["to_q.weight"]);
    let layout = laid_out(&lowered, "s2ditc");
    assert!(layout.resources.iter().all(|at| at % 16 == 0));
    let resources = |region: &super::program::Region| {
        let constants = region.operations.iter().flat_map(|op| &op.properties);
        constants.filter(|p| matches!(p, super::program::Property::Required(Attribute::Resource(_)))).count()
    };
    assert_eq!(resources(&lowered.root.regions[0].operations[0].regions[0]), 1);
}
