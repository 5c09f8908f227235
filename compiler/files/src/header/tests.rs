use std::fs::{self, File};

use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use tempfile::TempDir;

use super::*;
use s2dit_ir::WeightSource;

use crate::SafetensorsFile;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn raw(header: &[u8], data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.resize(file.len() + data, 0);
    file
}

fn parse(file: &[u8]) -> Result<Header, Problems> {
    super::parse("f", file)
}

/// The problems of a header.
#[track_caller]
fn bad(header: &Value, data: usize) -> String {
    parse(&raw(header.to_string().as_bytes(), data)).expect_err("a problem").to_string()
}

/// A file by safetensors' own writer, with f32 tensors of rising values.
fn oracle(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, shape)| (0..shape.iter().product()).flat_map(|i: usize| (i as f32).to_le_bytes()).collect())
        .collect();
    let views = tensors
        .iter()
        .zip(&data)
        .map(|((name, shape), data)| (*name, TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap()));
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    serialize(views, Some(metadata)).unwrap()
}

#[test]
fn files_of_the_reference_writer_are_read() {
    let dir = folder();
    let path = dir.path().join("g.safetensors");
    fs::write(&path, oracle(&[("b", &[2, 3]), ("a", &[]), ("empty", &[0, 4])])).unwrap();
    let file = SafetensorsFile::open(&path).unwrap();
    let names: Vec<&str> = file.tensors().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "b", "empty"]);
    assert_eq!(file.metadata()["format"], "pt");
    assert_eq!(file.get("b").unwrap().ty.to_string(), "f32[2, 3]");
    assert_eq!(file.tensor_f64("b").unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(file.tensor_f32("a").unwrap(), [0.0]);
    assert!(file.tensor_f32("empty").unwrap().is_empty());
    let region = file.region("b").unwrap();
    let bytes = fs::read(&path).unwrap();
    let range = region.offset as usize..(region.offset + region.len) as usize;
    assert_eq!(bytes[range], *file.data("b").unwrap());
    file.done("b");
    file.done("empty");
    assert_eq!(file.tensor_f32("b").unwrap()[5], 5.0);
    assert!(file.tensor_f64("c").unwrap_err().to_string().contains("no tensor `c`"));
    assert!(WeightSource::bytes(&file, "c").is_err());
}

#[test]
fn every_element_type_converts() {
    let types = [
        ("F64", 8),
        ("F32", 4),
        ("F16", 2),
        ("BF16", 2),
        ("I64", 8),
        ("I32", 4),
        ("I16", 2),
        ("I8", 1),
        ("U32", 4),
        ("U16", 2),
        ("U8", 1),
        ("BOOL", 1),
    ];
    for (dtype, size) in types {
        let one: Vec<u8> = match dtype {
            "F64" => 1f64.to_le_bytes().into(),
            "F32" => 1f32.to_le_bytes().into(),
            "F16" => half::f16::ONE.to_le_bytes().into(),
            "BF16" => half::bf16::ONE.to_le_bytes().into(),
            _ => 1u64.to_le_bytes()[..size].into(),
        };
        let header = json!({ "x": { "dtype": dtype, "shape": [1], "data_offsets": [0, size] } });
        let mut bytes = raw(header.to_string().as_bytes(), 0);
        bytes.extend(one);
        let dir = folder();
        let path = dir.path().join("x");
        fs::write(&path, bytes).unwrap();
        let file = SafetensorsFile::open(&path).unwrap();
        assert_eq!(file.tensor_f64("x").unwrap(), [1.0], "{dtype}");
        assert_eq!(file.tensor_f32("x").unwrap(), [1.0], "{dtype}");
    }
}

#[test]
fn a_file_that_is_no_safetensors_is_one_problem() {
    let too_long = |length: u64| [&length.to_le_bytes()[..], b"{}      "].concat();
    let files: [(Vec<u8>, &str); 11] = [
        (vec![], "found 0 bytes"),
        (vec![1, 2, 3], "found 3 bytes"),
        (too_long(1 << 63), "header length of 9223372036854775808"),
        (too_long(u64::MAX), "header length"),
        (too_long(9), "at most 8"),
        (raw(b"\xff\xfe", 0), "not UTF-8 at byte 8"),
        (raw(b"", 0), "bad header"),
        (raw(b"[]", 0), "a JSON object"),
        (raw(b"{} x", 0), "trailing"),
        (raw(&b"[".repeat(100_000), 0), "bad header"),
        (raw(b"{\"x\": 5}", 0), "\"x\": invalid type"),
    ];
    for (bytes, expected) in files {
        let problems = parse(&bytes).unwrap_err();
        assert_eq!(problems.0.len(), 1, "{problems}");
        assert!(problems.to_string().contains(expected), "{problems}");
    }
}

#[test]
fn headers_over_the_limit_are_refused_unread() {
    let dir = folder();
    let path = dir.path().join("x");
    let file = File::create(&path).unwrap();
    file.set_len(1 << 30).unwrap();
    fs::write(&path, (200_000_000u64).to_le_bytes()).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(1 << 30).unwrap();
    let problems = SafetensorsFile::open(&path).unwrap_err();
    assert!(problems.to_string().contains("at most 100000000"), "{problems}");
}

#[test]
fn entries_are_checked_one_by_one() {
    let entry = |dtype: &str, shape: Value, offsets: Value| json!({ "x": { "dtype": dtype, "shape": shape, "data_offsets": offsets } });
    let cases = [
        (
            entry("F8_E4M3", json!([4]), json!([0, 4])),
            "f: found 1 tensor(s) of fp8, such as `x`, expected bf16, f16 or f32: fp8 is not read",
        ),
        (entry("X9", json!([4]), json!([0, 4])), "f: x: found dtype \"X9\""),
        (entry("F32", json!([-1]), json!([0, 4])), "found shape [-1]"),
        (entry("F32", json!([1.5]), json!([0, 4])), "found shape [1.5]"),
        (entry("F32", json!(1), json!([0, 4])), "found shape 1"),
        (entry("F32", json!([1]), json!([4, 0])), "found data_offsets [4,0]"),
        (entry("F32", json!([1]), json!([0, 8])), "expected [begin, end] with begin <= end <= 4"),
        (entry("F32", json!([1]), json!([0, 4, 8])), "found data_offsets [0,4,8]"),
        (entry("F32", json!([1]), json!([u64::MAX, u64::MAX])), "found data_offsets"),
        (entry("F32", json!([2]), json!([0, 4])), "found 4 bytes of data, expected 8 (f32[2])"),
        (entry("F32", json!([1u64 << 62, 4]), json!([0, 4])), "more than 2^64 bytes"),
        (entry("F32", json!([u64::MAX, u64::MAX, 0]), json!([0, 0])), "more than 2^64 bytes"),
        (json!({ "x": { "dtype": "F32", "shape": [1] } }), "no `data_offsets`"),
        (json!({ "__metadata__": { "a": 1 } }), "f: __metadata__.a: found 1, expected a string"),
    ];
    for (header, expected) in cases {
        let message = bad(&header, 4);
        assert!(message.contains(expected), "{message}\nlacks {expected}");
    }
}

#[test]
fn duplicates_are_found() {
    let x = r#"{"dtype":"U8","shape":[2],"data_offsets":[0,2]}"#;
    let twice = format!("{{\"x\":{x},\"x\":{x}}}");
    assert_eq!(
        parse(&raw(twice.as_bytes(), 2)).unwrap_err().to_string(),
        "f: x: found the tensor twice, expected it once"
    );
    let field = r#"{"x":{"dtype":"U8","dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#;
    assert!(parse(&raw(field.as_bytes(), 2)).unwrap_err().to_string().contains("more than one `dtype`"));
    assert!(parse(&raw(br#"{"__metadata__":{},"__metadata__":{}}"#, 0)).is_err());
}

#[test]
fn tensors_cover_the_data_once() {
    let header = |a: [usize; 2], b: [usize; 2]| {
        let entry =
            |[begin, end]: [usize; 2]| json!({ "dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end] });
        json!({ "b": entry(b), "a": entry(a) })
    };
    assert!(parse(&raw(header([0, 4], [4, 8]).to_string().as_bytes(), 8)).is_ok());
    assert!(parse(&raw(header([4, 8], [0, 4]).to_string().as_bytes(), 8)).is_ok());
    assert!(bad(&header([0, 5], [4, 8]), 8).contains("f: b: found data that begins at 4, inside \"a\""));
    assert!(bad(&header([0, 8], [2, 4]), 8).contains("inside \"a\""));
    assert!(bad(&header([0, 4], [0, 4]), 4).contains("begins at 0"));
    assert!(bad(&header([0, 3], [4, 8]), 8).contains("1 unused bytes before it"));
    assert!(bad(&header([1, 4], [4, 8]), 8).contains("f: a: found 1 unused bytes"));
    assert!(bad(&header([0, 4], [4, 8]), 9).contains("1 unused bytes at the end"));
    assert!(bad(&header([0, 4], [4, 8]), 7).contains("is the file truncated?"));
    // Several tensors beyond the end are one problem.
    let cut = bad(&header([0, 4], [4, 8]), 3);
    assert!(cut.contains("2 tensors, such as `b`, lie beyond the end") && !cut.contains("data_offsets"), "{cut}");
}

/// Any cut and any flipped byte of a good file is answered, not crashed on.
#[test]
fn damaged_files_are_answered() {
    let good = oracle(&[("a", &[2, 2]), ("b", &[3])]);
    for length in 0..good.len() {
        assert!(parse(&good[..length]).is_err(), "{length}");
    }
    for position in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[position] ^= flip;
            if let Ok(header) = parse(&bytes) {
                assert!(header.tensors.values().all(|info| info.end() <= bytes.len() as u64));
            }
        }
    }
}
