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
        assert!(message(&whole[..len]).contains("a bad header"), "{len}");
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
