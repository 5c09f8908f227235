//! `s2ditc run`: packages that coremltools made of PyTorch models compute what PyTorch computes.
//!
//! `examples/reference/package_goldens.py` makes the packages, their inputs and PyTorch's results.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::common::{arg, fails, ok};
use s2dit_files::arrays::{self, Array, Arrays, Format};
use s2dit_ir::{DType, Tensor, TensorType};

fn package(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/packages").join(name)
}

/// The largest difference, relative to the largest number of the reference.
fn difference(found: &Array, expected: &Array) -> f64 {
    assert_eq!(found.ty.shape, expected.ty.shape);
    let (found, expected) = (found.tensor().data, expected.tensor().data);
    let largest = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let pairs = found.iter().zip(&expected);
    pairs.map(|(x, y)| if x.is_finite() { (x - y).abs() / largest } else { f64::INFINITY }).fold(0.0, f64::max)
}

#[test]
fn packages_of_pytorch_models_compute_what_pytorch_computes() {
    let work = tempfile::tempdir().expect("a folder");
    for name in ["cnn", "unet", "lstm", "loop"] {
        let folder = package(name);
        for ending in ["npz", "safetensors"] {
            let out = work.path().join(format!("{name}.{ending}"));
            let inputs = arg(&folder.join("inputs.npz"));
            let model = arg(&folder.join("model.mlpackage"));
            ok(&["run", "-q", &model, "--inputs", &inputs, "-o", &arg(&out)]);
            let (found, expected) = (arrays::read(&out).expect("outputs"), arrays::read(&folder.join("outputs.npz")));
            let expected = expected.expect("the golden");
            assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
            for (output, reference) in &expected {
                let difference = difference(&found[output], reference);
                assert!(difference < 1e-5, "{name}: {output}: {difference:e}");
            }
        }
    }
}

/// Runs a model that must be refused, with an error that says all of `parts`.
fn refused(model: &str, inputs: &Path, out: &Path, parts: &[&str]) {
    let said = fails(&["run", "-q", model, "--inputs", &arg(inputs), "-o", &arg(out)]);
    for part in parts {
        assert!(said.contains(part), "{said}: expected {part}");
    }
    assert!(!out.exists());
}

/// A file of inputs.
fn write(path: &Path, inputs: &[(&str, Tensor)]) {
    let inputs: Arrays = inputs.iter().map(|(name, tensor)| (name.to_string(), Array::of(tensor))).collect();
    let file = fs::File::create(path).expect("a file");
    arrays::write(Format::of(path).expect("a format"), &inputs, file).expect("written");
}

#[test]
fn open_shapes_are_those_of_the_inputs() {
    let work = tempfile::tempdir().expect("a folder");
    let (inputs, out) = (work.path().join("in.npz"), work.path().join("out.npz"));
    let model = arg(&package("loop").join("model.mlpackage"));
    for rows in [1, 5] {
        write(&inputs, &[("x", Tensor::splat(&TensorType::new(DType::F32, [rows, 3]), 1.0))]);
        let report = ok(&["run", "-q", &model, "--inputs", &arg(&inputs), "-o", &arg(&out), "--json"]);
        let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
        assert_eq!(report["outputs"][0]["shape"], serde_json::json!([rows, 3]));
        // 3·rows doubled until it is 100 or more.
        let doubled = (0..).map(|n| f64::from(1 << n)).find(|y| y * 3.0 * rows as f64 >= 100.0);
        assert_eq!(report["outputs"][0]["max"].as_f64(), doubled);
    }
}

#[test]
fn what_does_not_fit_is_one_error() {
    let work = tempfile::tempdir().expect("a folder");
    let (inputs, out) = (work.path().join("in.npz"), work.path().join("out.npz"));
    let model = arg(&package("cnn").join("model.mlpackage"));
    write(&inputs, &[("z", Tensor::splat(&TensorType::new(DType::F32, [2]), 1.0))]);
    let nothing = "input `x`: found nothing, expected f32[2, 3, 21, 17]";
    refused(&model, &inputs, &out, &[nothing, "found input `z` f32[2], expected x"]);
    write(&inputs, &[("x", Tensor::splat(&TensorType::new(DType::F32, [2, 3]), 1.0))]);
    refused(&model, &inputs, &out, &["input `x`: found f32[2, 3], expected f32[2, 3, 21, 17]"]);
    let lstm = arg(&package("lstm").join("model.mlpackage"));
    write(&inputs, &[("tokens", Tensor::splat(&TensorType::new(DType::F32, [7, 1]), 0.5))]);
    let half = "input `tokens`: found numbers that i32 does not hold, expected i32[7, 1]";
    refused(&lstm, &inputs, &out, &[half]);
}

/// A few bytes that hold gigabytes of zeros are not read.
#[test]
fn an_archive_holds_no_more_than_the_model_takes() {
    let work = tempfile::tempdir().expect("a folder");
    let (inputs, out) = (work.path().join("in.npz"), work.path().join("out.npz"));
    let model = arg(&package("cnn").join("model.mlpackage"));
    let mut archive = zip::ZipWriter::new(fs::File::create(&inputs).expect("a file"));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    archive.start_file("x.npy", options).expect("an entry");
    let mut header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4000000,), }".to_vec();
    header.resize(117, b' ');
    header.push(b'\n');
    archive.write_all(&[b"\x93NUMPY\x01\x00\x76\x00".as_slice(), &header].concat()).expect("a header");
    (0..16).for_each(|_| archive.write_all(&vec![0; 1_000_000]).expect("zeros"));
    archive.finish().expect("an archive");
    assert!(fs::metadata(&inputs).expect("a file").len() < 100_000);
    refused(&model, &inputs, &out, &["more than", "bytes of arrays", "no more than the model takes"]);
}

/// `run --serve` answers each line, whatever it holds, and replaces only files that this program made.
#[test]
fn a_server_answers_every_line_and_keeps_the_files_of_others() {
    let work = tempfile::tempdir().expect("a folder");
    let folder = package("cnn");
    let (foreign, out) = (work.path().join("foreign.npz"), work.path().join("out.npz"));
    fs::copy(folder.join("inputs.npz"), &foreign).expect("a copy");
    let (model, inputs) = (arg(&folder.join("model.mlpackage")), arg(&folder.join("inputs.npz")));
    let request = |to: &Path| serde_json::json!({ "model": model, "inputs": inputs, "outputs": arg(to) }).to_string();
    let lines = [
        request(&foreign).into_bytes(),
        b"\xff\xfe".to_vec(),
        vec![b' '; 3 << 20],
        request(&out).into_bytes(),
        request(&out).into_bytes(),
        request(&folder.join("model.mlpackage/x.npz")).into_bytes(),
        request(&folder.join("inputs.npz")).into_bytes(),
    ];
    let asked = work.path().join("requests");
    fs::write(&asked, lines.join(&b'\n')).expect("requests");
    let asked = fs::File::open(&asked).expect("requests");
    let done = crate::common::s2ditc().args(["run", "--serve"]).stdin(asked).output().expect("s2ditc starts");
    let answers = String::from_utf8(done.stdout).expect("UTF-8");
    let answers: Vec<serde_json::Value> =
        answers.lines().map(|line| serde_json::from_str(line).expect("an answer")).collect();
    let said: Vec<&str> = answers.iter().map(|answer| answer["error"].as_str().unwrap_or("")).collect();
    assert_eq!(said.len(), 7, "{said:?}");
    assert!(
        said[0].contains("foreign.npz") && said[1].contains("not UTF-8") && said[2].contains("more than"),
        "{said:?}"
    );
    assert!(said[3].is_empty() && said[4].is_empty(), "{said:?}");
    assert!(said[5..].iter().all(|said| said.contains("a place of its own")), "{said:?}");
    assert_eq!(fs::read(&foreign).expect("a file"), fs::read(folder.join("inputs.npz")).expect("a file"));
    assert!(arrays::read(&out).is_ok());
}
