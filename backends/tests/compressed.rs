//! Every scheme of `tests/ops/compress.s2` as an mlpackage: the reader finds exactly the numbers that the IR means, and so
//! does coremltools (`tests/conformance/decompress.py`).

#[path = "../../tests/common/python.rs"]
mod python;
#[path = "../../tests/common/wire/mod.rs"]
#[allow(dead_code)]
mod wire;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use s2dit_backends::coreml::{self, Package, raise};
use s2dit_ir::interp::{self, Bindings};
use s2dit_ir::{DType, Function, Module, Op, Tensor, TensorType, ValueId, WeightError, WeightSource, text};

fn repo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

/// Numbers that depend on a position only, with a few large ones.
fn numbers(ty: &TensorType) -> Tensor {
    let values = (0..ty.elements() as u64).map(|i| {
        let x = (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1u64 << 24) as f64 - 0.5;
        ty.dtype.round(x * x * x * 8.0)
    });
    Tensor::from_values(ty, values.collect()).unwrap()
}

/// Any tensor that is asked for.
struct Any(BTreeMap<String, TensorType>);

impl Any {
    fn of(f: &Function) -> Any {
        let loads = f.order().into_iter().filter_map(|v| match f.op(v) {
            Op::Load(load) => Some((load.tensor.clone(), f.ty(v).clone())),
            _ => None,
        });
        Any(loads.collect())
    }
}

impl WeightSource for Any {
    fn ty(&self, name: &str) -> Option<TensorType> {
        self.0.get(name).cloned()
    }
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        Ok(numbers(&self.0[name]).to_le_bytes().into())
    }
}

fn functions(dtype: DType) -> Vec<Function> {
    let ir = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ops/compress.s2")).unwrap();
    text::parse(&ir.replace("f32", dtype.name())).unwrap().functions
}

fn compressed_value(f: &Function) -> ValueId {
    f.order().into_iter().find(|v| matches!(f.op(*v), Op::Compress(_))).unwrap()
}

fn write(f: &Function, source: &dyn WeightSource, package: &Path) -> Result<coreml::Summary, s2dit_backends::Error> {
    fs::create_dir_all(package).unwrap();
    let module = Module::single(f.clone());
    coreml::write_package(&module, source, &coreml::Options::default(), BTreeMap::new, package, &mut |_, _| {})
}

#[test]
fn packages_hold_exactly_the_numbers_of_the_ir() {
    let work = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for dtype in [DType::F32, DType::F16] {
        for f in functions(dtype) {
            let path = work.path().join(format!("{}_{dtype}.mlpackage", f.name));
            let source = Any::of(&f);
            write(&f, &source, &path).unwrap();
            assert_eq!(wire::judge_all(&path), 1);
            let package = Package::open(&path).unwrap();
            let module = raise(&package, None).unwrap();
            let raised = &module.functions[0];

            let x = f.params()[0];
            let bindings = Bindings { params: [("x".to_string(), numbers(f.ty(x)))].into(), ..Bindings::default() };
            let wanted = interp::run(&f, &source, &bindings).unwrap();
            let found = interp::run(raised, &package, &bindings).unwrap();
            assert_eq!(found, wanted, "{} in {dtype}", f.name);

            let weight = interp::evaluate(&f, &[compressed_value(&f)], &source, &Bindings::default()).unwrap();
            let bytes: Vec<u8> = weight[0].data.iter().flat_map(|x| x.to_le_bytes()).collect();
            expected.push((path, bytes));
        }
    }
    let script = repo().join("tests/conformance/decompress.py");
    let output = Command::new(std::env::var_os("S2DITC_PYTHON").map_or_else(python::interpreter, PathBuf::from))
        .arg(script)
        .args(expected.iter().map(|(path, _)| path))
        .output()
        .expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (path, wanted) in expected {
        let found = fs::read(format!("{}.f64", path.display())).unwrap();
        assert!(found == wanted, "{}: coremltools decompresses to other numbers", path.display());
    }
}

#[test]
fn both_precisions_store_the_same_codes() {
    let work = tempfile::tempdir().unwrap();
    for (f32, f16) in functions(DType::F32).iter().zip(&functions(DType::F16)) {
        // The weights themselves are fp16 numbers, in an fp32 and in an fp16 graph.
        struct Halves(Any);
        impl WeightSource for Halves {
            fn ty(&self, name: &str) -> Option<TensorType> {
                self.0.ty(name)
            }
            fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
                let ty = &self.0.0[name];
                let halves = numbers(&ty.with_dtype(DType::F16));
                Ok(Tensor { dtype: ty.dtype, ..halves }.to_le_bytes().into())
            }
        }
        let codes = |f: &Function| {
            let path = work.path().join(format!("{}_{}.mlpackage", f.name, f.dtype(f.params()[0])));
            write(f, &Halves(Any::of(f)), &path).unwrap();
            let package = Package::open(&path).unwrap();
            let record = package.weights().unwrap().records().unwrap()[0];
            package.weights().unwrap().data(&record).to_vec()
        };
        assert_eq!(codes(f32), codes(f16), "{}", f32.name);
    }
}

#[test]
fn what_is_computed_from_a_compressed_weight_is_refused() {
    let ir = r#"module { func @main(%x: f16[1, 8]) {
        %0 = load {tensor = "w"} : f16[8, 4]
        %1 = compress(%0) {scheme = "palette2"} : f16[8, 4]
        %2 = transpose(%1) {perm = [1, 0]} : f16[4, 8]
        %y = linear(%x, %2) : f16[1, 4]
        return y = %y
    } }"#;
    let f = text::parse(ir).unwrap().functions.remove(0);
    let work = tempfile::tempdir().unwrap();
    let error = write(&f, &Any::of(&f), &work.path().join("x.mlpackage")).unwrap_err();
    assert!(format!("{error:#}").contains("`transpose` of a compressed weight"), "{error:#}");
}

#[test]
fn damaged_packages_are_refused() {
    let f = functions(DType::F16).into_iter().find(|f| f.name == "compress_linear_palette4_group2").unwrap();
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("x.mlpackage");
    write(&f, &Any::of(&f), &path).unwrap();
    let weights = path.join("Data/com.apple.CoreML/weights/weight.bin");
    let good = fs::read(&weights).unwrap();
    // The first record's type code: uint4 becomes uint8, then its size shrinks.
    for (at, byte, what) in [(64 + 4, 3, "expected Uint4"), (64 + 8, 14, "14 bytes")] {
        let mut bad = good.clone();
        bad[at] = byte;
        fs::write(&weights, bad).unwrap();
        let error = Package::open(&path).and_then(|p| raise(&p, None).map(|_| ())).unwrap_err();
        assert!(format!("{error:#}").contains(what), "{error:#}");
    }
}
