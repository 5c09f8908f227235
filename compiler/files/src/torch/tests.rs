use std::io::{Cursor, Write};
use std::path::PathBuf;

use s2dit_ir::DType;
use tempfile::TempDir;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;
use crate::SafetensorsFile;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/doors").join(name)
}

/// No name is known: the only dictionary there is.
const ONLY: StateDict<'_> = StateDict::Known(&|_| false);

/// What torch.save wrote of tensors, against the same tensors as safetensors wrote them: views, parameters and all.
#[test]
fn tensors_are_those_that_torch_saved() {
    let expected = SafetensorsFile::open(&fixture("original.safetensors")).unwrap();
    for (name, computed) in [("flat.pt", 0), ("views.pt", 3)] {
        let file = TorchFile::open(&fixture(name), ONLY).unwrap();
        let names: Vec<&str> = expected.tensors().map(|(name, _)| name).collect();
        assert_eq!(file.names(), names);
        let mut gathered = 0;
        for (tensor, info) in expected.tensors() {
            let (bytes, wanted) = (file.bytes(tensor).unwrap(), expected.data(tensor).unwrap());
            assert_eq!(file.ty(tensor).unwrap(), info.ty, "{name}: {tensor}");
            assert!(*bytes == *wanted, "{name}: {tensor}");
            for range in [0..2, 2..wanted.len(), wanted.len() - 6..wanted.len() - 4] {
                match file.part(tensor, range.clone()) {
                    Some(part) => assert_eq!(part.unwrap(), wanted[range]),
                    None => assert!(matches!(bytes, Cow::Borrowed(_)) && file.region(tensor).is_some()),
                }
            }
            gathered += usize::from(matches!(bytes, Cow::Owned(_)));
            file.done(tensor);
        }
        assert_eq!(gathered, computed, "{name}");
    }
}

#[test]
fn one_of_several_dictionaries_is_named() {
    let open = |name: Option<&str>| TorchFile::open(&fixture("training.pt"), name.map_or(ONLY, StateDict::Named));
    let message = open(None).unwrap_err().to_string();
    assert!(message.contains("2 dictionaries of tensors: \"generator\" (1 tensors), \"generator_ema\" ("), "{message}");
    assert!(message.contains("--state-dict") && !message.contains("optimizer"), "{message}");
    let ema = open(Some("generator_ema")).unwrap();
    assert!(ema.format().contains("generator_ema"));
    assert!(ema.names().iter().all(|name| name.starts_with("model._fsdp_wrapped_module.")));
    assert_eq!(open(Some("generator")).unwrap().names(), ["model.head.head.bias"]);
    let message = open(Some("critic")).unwrap_err().to_string();
    assert!(message.contains("no dictionary of tensors \"critic\", but \"generator\""), "{message}");
}

/// As trainers save it: a loose tensor at the top, a dictionary of the optimizer, and values of Python and NumPy.
#[test]
fn a_model_is_found_beside_other_dictionaries_and_values() {
    let open = |how: StateDict<'_>| TorchFile::open(&fixture("trainer.pt"), how);
    let expected = SafetensorsFile::open(&fixture("original.safetensors")).unwrap();
    let known = open(StateDict::Known(&|name| name == "head.head.bias")).unwrap();
    for file in [known, open(StateDict::Named("state_dict")).unwrap()] {
        assert!(file.format.contains("\"state_dict\""), "{}", file.format);
        assert_eq!(file.names(), expected.tensors().map(|(name, _)| name).collect::<Vec<_>>());
    }
    assert_eq!(open(StateDict::Named("")).unwrap().names(), ["global_step"]);
    assert_eq!(open(StateDict::Named("optimizer.state.head.head.bias")).unwrap().names(), ["exp_avg"]);
    let message = open(ONLY).unwrap_err().to_string();
    assert!(
        message.contains(
            "3 dictionaries of tensors: one at the top (1 tensors), \"state_dict\" (42 tensors), \"optimizer.state.head"
        ),
        "{message}"
    );
    // Values in the opcodes of another protocol.
    assert_eq!(TorchFile::open(&fixture("protocol4.pt"), ONLY).unwrap().names(), ["model.head.head.bias"]);
}

/// One dictionary under two keys is found under either.
#[test]
fn a_dictionary_under_two_keys_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let inner = tensor(6, 0, &[2, 3], &[3, 1]);
    let shared =
        [b"\x80\x02}(X\x01\0\0\0a".to_vec(), inner[2..inner.len() - 1].to_vec(), b"q\x07X\x01\0\0\0bh\x07u.".to_vec()]
            .concat();
    let only = saved(&dir, &shared, 24).unwrap();
    assert_eq!(only.names(), ["w"]);
    for keys in ["a", "b"] {
        assert_eq!(TorchFile::open(only.path(), StateDict::Named(keys)).unwrap().names(), ["w"]);
    }
}

/// Arrays as NumPy 1 names them, and a class that only looks like a known one.
#[test]
fn values_are_dropped_and_other_classes_refused() {
    let dir = tempfile::tempdir().unwrap();
    let inner = tensor(6, 0, &[2, 3], &[3, 1]);
    let beside = |value: &[u8]| {
        let pickle = [&inner[..inner.len() - 1], b"X\x01\0\0\0v", value, b"s."].concat();
        saved(&dir, &pickle, 24).map(|file| file.names().len()).map_err(|problems| problems.to_string())
    };
    let array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85U\x01bt R(K\x01K\x03\x85U\x01xtb";
    let array: Vec<u8> = array.iter().copied().filter(|byte| *byte != b' ').collect();
    assert_eq!(beside(&array), Ok(1));
    assert_eq!(beside(b"cargparse\nNamespace\n)\x81}X\x02\0\0\0lrK\x01sb"), Ok(1));
    assert_eq!(beside(b"ccollections\ndefaultdict\nc__builtin__\nlist\n\x85RK\x01K\x02s"), Ok(1));
    for (value, part) in [
        (&b"cargparse\nFileType\n)\x81"[..], "the global `argparse.FileType`: a pickle with code in it"),
        (b"cbuiltins\ngetattr\n)R", "the global `builtins.getattr`: a pickle with code in it"),
        (b"cnumpy.core.multiarray\nfromfile\n)R", "the global `numpy.core.multiarray.fromfile`"),
        (b"ctorch\nSize\n)\x81", "makes an object of a class"),
    ] {
        let message = beside(value).unwrap_err();
        assert!(message.contains(part), "{message}\nlacks {part}");
    }
}

#[test]
fn nothing_of_a_pickle_is_run() {
    let problem = |name: &str| TorchFile::open(&fixture(name), ONLY).unwrap_err().to_string();
    let code = problem("code.pt");
    assert!(code.contains("the global `posix.system`: a pickle with code in it"), "{code}");
    let small = problem("fp8.pt");
    assert!(
        small.contains("a tensor of fp8, expected bf16, f16 or f32: fp8 is not read; take a bf16 or a GGUF"),
        "{small}"
    );
    let compressed = problem("compressed.pt");
    assert!(compressed.contains("a compressed entry") && compressed.contains("zip -0"), "{compressed}");
    let big = problem("big_endian.pt");
    assert!(big.contains("\"big\"") && big.contains("little"), "{big}");
    let old = problem("old.pt");
    assert!(old.contains("a bad zip file"), "{old}");
}

/// A zip file as torch.save makes it, of a pickle and a storage `0` of so many bytes.
fn saved(dir: &TempDir, pickle: &[u8], storage: usize) -> Result<TorchFile, Problems> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    for (name, bytes) in [("x/data.pkl", pickle.to_vec()), ("x/data/0", (0..storage).map(|i| i as u8).collect())] {
        zip.start_file(name, options).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    let path = dir.path().join("x.pt");
    std::fs::write(&path, zip.finish().unwrap().into_inner()).unwrap();
    TorchFile::open(&path, ONLY)
}

/// A dictionary with one tensor `w` of fp32, spelled out; numbers are single bytes.
fn tensor(numel: u8, offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let tuple = |items: &[u8]| [b"(".to_vec(), items.iter().flat_map(|n| [b'K', *n]).collect(), b"t".to_vec()].concat();
    [
        b"\x80\x02}X\x01\0\0\0w".to_vec(),
        b"ctorch._utils\n_rebuild_tensor_v2\n(".to_vec(),
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK".to_vec(),
        vec![numel, b't', b'Q', b'K', offset],
        tuple(shape),
        tuple(strides),
        b"\x89}tRs.".to_vec(),
    ]
    .concat()
}

#[test]
fn a_view_stays_inside_its_storage() {
    let dir = tempfile::tempdir().unwrap();
    let file = saved(&dir, &tensor(6, 0, &[2, 3], &[3, 1]), 24).unwrap();
    assert_eq!(file.ty("w").unwrap(), TensorType::new(DType::F32, vec![2, 3]));
    assert_eq!(*file.bytes("w").unwrap(), (0..24).collect::<Vec<u8>>());
    let turned = saved(&dir, &tensor(6, 0, &[3, 2], &[1, 3]), 24).unwrap();
    assert_eq!(turned.bytes("w").unwrap()[..8], [0, 1, 2, 3, 12, 13, 14, 15]);
    // A stride says nothing where there is one index, and nothing is read of an empty tensor.
    assert!(saved(&dir, &tensor(6, 5, &[1, 1], &[200, 9]), 24).unwrap().region("w").is_some());
    assert_eq!(saved(&dir, &tensor(6, 6, &[0, 9], &[9, 9]), 24).unwrap().bytes("w").unwrap().len(), 0);
    for (pickle, storage, part) in [
        (tensor(6, 0, &[1; 65], &[1; 65]), 24, "a tensor of 65 axes"),
        (tensor(6, 1, &[2, 3], &[3, 1]), 24, "strides [3, 1] from element 1"),
        (tensor(6, 0, &[2, 3], &[4, 1]), 24, "shape [2, 3]"),
        (tensor(6, 7, &[0], &[1]), 24, "shape [0]"),
        (tensor(6, 0, &[2, 3], &[3, 1]), 23, "a storage of 23 bytes"),
        (tensor(6, 0, &[2, 3], &[1]), 24, "other axes than strides"),
    ] {
        let message = saved(&dir, &pickle, storage).unwrap_err().to_string();
        assert!(message.contains(part), "{message}\nlacks {part}");
    }
}

#[test]
fn damaged_pickles_are_problems() {
    let dir = tempfile::tempdir().unwrap();
    let whole = tensor(6, 0, &[2, 3], &[3, 1]);
    for len in 0..whole.len() {
        assert!(saved(&dir, &whole[..len], 24).is_err(), "{len}");
    }
    // Every byte in turn replaced: any answer will do, and none may be a panic.
    for at in 0..whole.len() {
        for byte in [0, b'(', b't', b'R', b'.', b'b', 0x81, 0xff] {
            let mut other = whole.clone();
            other[at] = byte;
            let _ = saved(&dir, &other, 24);
        }
    }
    for (pickle, part) in [
        (&b"\x80\x02}."[..], "no dictionary of tensors"),
        (b"\x80\x02)R.", "an opcode without its values"),
        (b"\x80\x02]]\x81.", "makes an object of a class"),
        (b"\x80\x02cbuiltins\neval\n.", "the global `builtins.eval`"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "the global `os.system`"),
        (b"\x80\x02h\x07.", "memo 7"),
        (b"\x80\x02e.", "an opcode without its mark"),
        (b"\x80\x02X\xff\xff\xff\xff.", "the end of the pickle"),
        // A dictionary that contains itself.
        (b"\x80\x02}q\0X\x01\0\0\0ah\0s.", "no dictionary of tensors"),
    ] {
        let message = saved(&dir, pickle, 0).unwrap_err().to_string();
        assert!(message.contains(part), "{message}\nlacks {part}");
    }
}

/// A file of [`saved`] with a tensor of 6 numbers, after `change`: where its `x/data/0` has its own header, and where the directory's is.
fn changed(change: impl FnOnce(&mut Vec<u8>, usize, usize)) -> String {
    let dir = tempfile::tempdir().unwrap();
    saved(&dir, &tensor(6, 0, &[2, 3], &[3, 1]), 24).unwrap();
    let path = dir.path().join("x.pt");
    let mut bytes = std::fs::read(&path).unwrap();
    let name = b"x/data/0";
    let at: Vec<usize> = (0..bytes.len() - name.len()).filter(|i| bytes[*i..].starts_with(name)).collect();
    change(&mut bytes, at[0] - 30, at[1] - 46);
    std::fs::write(&path, bytes).unwrap();
    TorchFile::open(&path, ONLY).map_or_else(|problems| problems.to_string(), |_| "read".into())
}

#[test]
fn a_zip_file_that_contradicts_itself_is_refused() {
    assert_eq!(changed(|_, _, _| {}), "read");
    let says = |message: String, part: &str| assert!(message.contains(part), "{message}\nlacks {part}");
    // A byte of the storage, and the file of a PyTorch that was told to compute no checksums.
    let data = |bytes: &[u8], own: usize| own + 38 + usize::from(bytes[own + 28]);
    let flip = |bytes: &mut Vec<u8>, own| {
        let at = data(bytes, own);
        bytes[at + 23] ^= 1;
    };
    says(changed(|bytes, own, _| flip(bytes, own)), "x/data/0: found bytes with the checksum");
    let unchecked = changed(|bytes, own, directory| {
        flip(bytes, own);
        bytes[own + 14..own + 18].fill(0);
        bytes[directory + 16..directory + 20].fill(0);
    });
    assert_eq!(unchecked, "read");
    says(changed(|bytes, own, _| bytes[own + 37] = b'1'), "the name \"x/data/1\" in its own header");
    says(changed(|bytes, own, _| bytes[own + 14] ^= 1), "in its own header");
    // An entry that begins where the pickle does.
    let overlap = changed(|bytes, _, directory| {
        bytes[directory + 42..directory + 46].fill(0);
    });
    says(overlap, "in its own header");
    let swallowed = changed(|bytes, own, _| {
        // The directory says that the pickle, which comes first, reaches into the storage: its sizes are in a field for large files.
        let first = (own..bytes.len()).find(|i| bytes[*i..].starts_with(b"PK\x01\x02")).unwrap();
        let field = first + 46 + b"x/data.pkl".len();
        assert_eq!(bytes[field..field + 2], [1, 0]);
        for at in [field + 4, field + 12] {
            let size = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) + 60;
            bytes[at..at + 8].copy_from_slice(&size.to_le_bytes());
        }
    });
    says(swallowed, "bytes of the entry \"x/data.pkl\"");
}

#[test]
fn a_fault_of_a_pickle_comes_with_the_key_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let message = |pickle: &[u8]| saved(&dir, pickle, 24).unwrap_err().to_string();
    let whole = tensor(6, 0, &[2, 3], &[3, 1]);
    // The dtype's global in the storage of `w` is one that is not known.
    let at = whole.windows(12).position(|part| part == b"FloatStorage").unwrap();
    let mut other = whole.clone();
    other[at] = b'X';
    assert!(message(&other).contains("after \"w\": found the global `torch.XloatStorage`"), "{}", message(&other));
    let mut complex = whole.clone();
    complex.splice(at..at, *b"Complex");
    assert!(message(&complex).contains("after \"w\": found a tensor of complex numbers, expected real ones"));
    let cut = message(&whole[..whole.len() - 3]);
    assert!(cut.contains("after \"w\": found the end of the pickle"), "{cut}");
}

/// `{"a.b": {"x": w}, "a": {"b": {"x": w}}}`: both are called `a.b`.
#[test]
fn a_name_of_two_dictionaries_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let inner = tensor(6, 0, &[2, 3], &[3, 1]);
    let inner = &inner[2..inner.len() - 1];
    let pickle = [b"\x80\x02}X\x03\0\0\0a.b", inner, b"sX\x01\0\0\0a}X\x01\0\0\0b", inner, b"ss."].concat();
    saved(&dir, &pickle, 24).unwrap_err();
    let named = TorchFile::open(&dir.path().join("x.pt"), StateDict::Named("a.b")).unwrap_err().to_string();
    assert!(named.contains("2 dictionaries of tensors that are called \"a.b\""), "{named}");
}
