use std::path::PathBuf;

use super::*;
use crate::SafetensorsFile;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/doors").join(name)
}

/// Every type against what llama.cpp's own package makes of the same blocks, whole and in parts.
#[test]
fn blocks_are_what_ggml_makes_of_them() {
    let file = GgufFile::open(&fixture("types.gguf")).unwrap();
    let expected = SafetensorsFile::open(&fixture("gguf_expected.safetensors")).unwrap();
    let names: Vec<&str> = expected.tensors().map(|(name, _)| name).collect();
    assert_eq!(file.names(), names);
    assert_eq!(names.len(), Kind::ALL.len());
    for name in names {
        let ty = file.ty(name).unwrap();
        assert_eq!(ty.shape, [3, 512], "{name}");
        let bytes = file.bytes(name).unwrap();
        let mut values = vec![0.0; ty.elements()];
        s2dit_ir::convert::to_f32(ty.dtype, &bytes, &mut values);
        let expected = expected.tensor_f32(name).unwrap();
        assert!(expected.iter().any(|x| *x != 0.0) && expected.iter().all(|x| x.is_finite()), "{name}");
        for (at, (value, expected)) in values.iter().zip(&expected).enumerate() {
            assert_eq!(value.to_bits(), expected.to_bits(), "{name} element {at}: {value} and {expected}");
        }
        for range in [0..4, 4..8, 1020..1028, 100 * 4..900 * 4, 1535 * 4..1536 * 4] {
            match file.part(name, range.clone()) {
                None => assert!(file.region(name).is_some(), "{name}"),
                Some(part) => assert_eq!(part.unwrap(), bytes[range], "{name}"),
            }
        }
        assert!(file.part(name, 0..4 * 3 * 512 + 4).is_none_or(|part| part.is_err()));
    }
}

#[test]
fn files_that_are_damaged_or_of_another_kind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let whole = std::fs::read(fixture("types.gguf")).unwrap();
    let message = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        GgufFile::open(&path).unwrap_err().to_string()
    };
    assert!(message(&[b"GGUF", &1u32.to_le_bytes()[..]].concat()).contains("version 1"));
    assert!(message(&[b"GGUF", &3u32.to_be_bytes()[..]].concat()).contains("big-endian"));
    let cut = message(&whole[..whole.len() - 100]);
    assert!(cut.contains("truncated"), "{cut}");
    for len in 5..200 {
        let cut = message(&whole[..len]);
        assert!(cut.contains("at byte ") && cut.contains("download the file again"), "{len}: {cut}");
    }
    // The type of the first tensor: after its name, the number of axes and two sizes.
    let name = whole.windows(4).position(|bytes| bytes == b"Q8_0").unwrap();
    let mut other = whole.clone();
    other[name + 4 + 4 + 16] = 99;
    let unknown = message(&other);
    assert!(unknown.contains("type 99") && unknown.contains("\"Q8_0\"") && unknown.contains("Q4_K"), "{unknown}");
    let mut huge = whole;
    huge[name + 8..name + 24].fill(0xff);
    assert!(message(&huge).contains("Q8_0"));
}

/// A value of the metadata: its type by number, and its bytes.
type Key<'a> = (&'a [u8], u32, Vec<u8>);
/// A tensor: its name, its sizes, where its data starts.
type Tensor<'a> = (&'a [u8], &'a [u64], u64);

fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat()
}

/// A file of fp32 tensors with `data` bytes of data, which starts at a multiple of 32.
fn file(keys: &[Key], tensors: &[Tensor], data: usize) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((keys.len() as u64).to_le_bytes());
    for (key, kind, value) in keys {
        file.extend([text(key), kind.to_le_bytes().to_vec(), value.clone()].concat());
    }
    for (name, sizes, offset) in tensors {
        file.extend([text(name), (sizes.len() as u32).to_le_bytes().to_vec()].concat());
        file.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
        file.extend([&0u32.to_le_bytes()[..], &offset.to_le_bytes()].concat());
    }
    file.resize(file.len().next_multiple_of(32) + data, 0);
    file
}

/// What is wrong with a file; it is all right if nothing is.
fn fault(bytes: &[u8]) -> String {
    header::read(bytes, "x.gguf").map_or_else(|problems| problems.to_string(), |_| "all right".into())
}

#[track_caller]
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{message}\nlacks {part}");
    }
}

#[test]
fn data_that_is_not_where_it_should_be() {
    let of = |one: u64, two: u64| fault(&file(&[], &[(b"one", &[8, 2], one), (b"two", &[4], two)], 128));
    assert_eq!(of(0, 64), "all right");
    assert_eq!(of(32, 0), "all right");
    says(&of(0, 65), &["x.gguf: two: found data from byte 65 on", "a multiple of the alignment, 32"]);
    let over = ["x.gguf: two: found bytes 32 to 48 of the data", "over those of \"one\", 0 to 64"];
    says(&of(0, 32), &over);
    says(&of(32, 32), &["x.gguf: one: found bytes 32 to 96 of the data, over those of \"two\", 32 to 48"]);
    says(&of(0, 128), &["x.gguf: two: found 16 bytes from 128 on", "download the file again"]);
    // Nothing lies over what has no data.
    assert_eq!(fault(&file(&[], &[(b"one", &[8], 0), (b"none", &[0], 0)], 32)), "all right");
}

#[test]
fn an_alignment_is_a_power_of_two_once() {
    let key: &[u8] = b"general.alignment";
    let of = |keys: &[(u32, Vec<u8>)]| {
        let keys: Vec<Key> = keys.iter().map(|(kind, value)| (key, *kind, value.clone())).collect();
        fault(&file(&keys, &[(b"one", &[8], 0)], 256))
    };
    let uint32 = |n: u32| (4, n.to_le_bytes().to_vec());
    assert_eq!(of(&[uint32(64)]), "all right");
    for (value, found) in [
        (uint32(0), "found 0 of type uint32"),
        (uint32(3), "found 3 of type uint32"),
        ((8, text(b"x")), "found a text"),
        ((11, (-32i64).to_le_bytes().to_vec()), "found -32 of type int64"),
        ((6, 32f32.to_le_bytes().to_vec()), "found 32 of type float32"),
        ((9, [&4u32.to_le_bytes()[..], &1u64.to_le_bytes(), &32u32.to_le_bytes()].concat()), "found a list"),
    ] {
        says(&of(&[value]), &["x.gguf: metadata key \"general.alignment\"", found, "a power of two of type uint32"]);
    }
    says(&of(&[uint32(32), uint32(64)]), &["metadata key \"general.alignment\": found the key twice"]);
}

/// What is at fault is said by name, with the byte, and what to do.
#[test]
fn a_damaged_header_says_what_is_at_fault() {
    let huge = u64::MAX.to_le_bytes();
    let list = |kind: u32, len: u64| [&kind.to_le_bytes()[..], &len.to_le_bytes()].concat();
    let of_key = |kind, value| fault(&file(&[(b"a", kind, value)], &[(b"one", &[8], 0)], 64));
    let name = "x.gguf: metadata key \"a\" at byte ";
    says(&of_key(8, huge.to_vec()), &[name, "a text of 18446744073709551615 bytes"]);
    says(&of_key(99, Vec::new()), &[name, "type 99", "from 0 to 12"]);
    says(&of_key(9, list(4, 1 << 62)), &[name, "the number 4611686018427387904"]);
    says(&of_key(9, list(9, 0)), &[name, "a list of lists"]);
    says(&of_key(9, list(77, 0)), &[name, "type 77"]);

    let good = file(&[(b"a", 8, text(b"b"))], &[(b"one", &[8], 0)], 64);
    assert_eq!(fault(&good), "all right");
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        fault(&file)
    };
    says(&with(8, &huge), &["x.gguf: the number of tensors at byte 8", "the rest of the file has room"]);
    says(&with(16, &huge), &["x.gguf: the number of metadata keys at byte 16"]);
    says(&with(24, &huge), &["x.gguf: metadata key 1 of 1 at byte 24", "a text of 18446744073709551615 bytes"]);
    let tensor = 24 + 9 + 4 + 9;
    says(&with(tensor, &huge), &[&format!("x.gguf: the name of tensor 1 of 1 at byte {tensor}")]);
    says(&with(tensor + 8, &[0xff]), &["the name of tensor 1 of 1", "no UTF-8"]);
    let dimensions =
        format!("x.gguf: tensor \"one\" at byte {}: found 4294967295 dimensions, expected at most 8", tensor + 11);
    says(&with(tensor + 11, &[0xff; 4]), &[&dimensions]);
    let cut = fault(&good[..tensor + 13]);
    says(&cut, &["x.gguf: ", "at byte ", "download the file again"]);
    assert!(!cut.contains("a bad header"), "{cut}");
}
