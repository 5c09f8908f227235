//! Files of other formats, known by their first bytes: whoever gives one in place of another is told what it is, and what to do.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::Path;

use crate::input::check_regular;
use crate::wire;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// `torch.save` since PyTorch 1.6.
    TorchCheckpoint,
    /// `torch.jit.save`.
    TorchScript,
    /// `torch.export.save`.
    TorchExport,
    /// Any pickle, `torch.save` before PyTorch 1.6 among them.
    Pickle,
    /// llama.cpp's format.
    Gguf,
    /// Tensors by name.
    Safetensors,
    /// An ONNX model.
    Onnx,
    /// The specification inside an mlpackage.
    MlProgram,
    /// A Core ML model that is no ML Program.
    CoreMl,
    /// An mlpackage in a zip file.
    ZippedPackage,
    /// Keras and others.
    Hdf5,
    /// TensorFlow Lite.
    TfLite,
    /// An array or archive of NumPy.
    NumPy,
    /// JSON text.
    Json,
    /// A web page.
    Html,
    /// A compressed file or archive.
    Archive,
    /// The beginning of a zip file, whose directory would stand at its end.
    CutZip,
}

const ONNX_EXPORT: &str = "export the model with torch.onnx.export(..., dynamo=True)";
const CHECKPOINT: &str = "a checkpoint of compile, with --config config.json";

impl Foreign {
    /// What it is, with its article.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Foreign::TorchCheckpoint => "a PyTorch checkpoint (torch.save)",
            Foreign::TorchScript => "a TorchScript program (torch.jit.save)",
            Foreign::TorchExport => "an exported PyTorch program (torch.export.save)",
            Foreign::Pickle => "a Python pickle (torch.save of old, perhaps)",
            Foreign::Gguf => "a GGUF file",
            Foreign::Safetensors => "a safetensors file",
            Foreign::Onnx => "an ONNX file",
            Foreign::MlProgram => "the model specification of a Core ML ML Program",
            Foreign::CoreMl => "a Core ML model that is no ML Program (a neural network, a tree, a pipeline)",
            Foreign::ZippedPackage => "a zip file with an mlpackage in it",
            Foreign::Hdf5 => "an HDF5 file (Keras, perhaps)",
            Foreign::TfLite => "a TensorFlow Lite model",
            Foreign::NumPy => "a NumPy file",
            Foreign::Json => "JSON text",
            Foreign::Html => "a web page (a download that went wrong, perhaps)",
            Foreign::Archive => "a compressed file or archive",
            Foreign::CutZip => "the beginning of a zip file, whose end is not there",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(self) -> Option<&'static str> {
        Some(match self {
            Foreign::TorchCheckpoint | Foreign::Gguf => CHECKPOINT,
            Foreign::Pickle => "load it with torch.load(FILE, weights_only=True) and torch.save it again",
            Foreign::TorchScript => ONNX_EXPORT,
            Foreign::TorchExport => "a graph: compile it first",
            Foreign::Safetensors => "name the folder that holds it if it is a checkpoint's",
            Foreign::Onnx | Foreign::Json => return None,
            Foreign::MlProgram => "name the .mlpackage folder that holds it",
            Foreign::CoreMl => "convert it from its source with coremltools: convert_to=\"mlprogram\"",
            Foreign::ZippedPackage | Foreign::Archive => "unpack it first",
            Foreign::Hdf5 | Foreign::TfLite => "export the model to ONNX",
            Foreign::NumPy => "write its arrays with safetensors.numpy.save_file",
            Foreign::Html | Foreign::CutZip => "fetch the file again",
        })
    }

    /// What a file is, if it is one of these.
    ///
    /// # Errors
    /// What is no regular file, or cannot be read.
    pub fn of(path: &Path) -> io::Result<Option<Foreign>> {
        check_regular(path)?;
        let mut head = Vec::new();
        File::open(path)?.take(HEAD).read_to_end(&mut head)?;
        let found = recognise(&head);
        let is_zip = head.starts_with(b"PK\x03\x04");
        Ok(match found {
            Some(Foreign::Archive | Foreign::NumPy | Foreign::ZippedPackage) if is_zip && !has_directory(path)? => {
                Some(Foreign::CutZip)
            }
            found => found,
        })
    }
}

/// `a GGUF file (a checkpoint of compile, with --config config.json)`
impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.remedy().map_or(Ok(()), |remedy| write!(f, " ({remedy})"))
    }
}

/// Whether the end of a zip file's directory is there: within a comment's length of the file's end.
fn has_directory(path: &Path) -> io::Result<bool> {
    const LONGEST: u64 = 22 + 0xffff;
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(io::SeekFrom::Start(len.saturating_sub(LONGEST)))?;
    let mut tail = Vec::new();
    file.take(LONGEST).read_to_end(&mut tail)?;
    Ok(tail.windows(4).any(|window| window == b"PK\x05\x06"))
}

/// So many bytes are looked at: an archive's first names are in them.
const HEAD: u64 = 64 << 10;

fn recognise(head: &[u8]) -> Option<Foreign> {
    let contains = |text: &str| head.windows(text.len()).any(|window| window == text.as_bytes());
    let begins = |magic: &[u8]| head.starts_with(magic);
    let text = head.trim_ascii_start();
    let lower: Vec<u8> = text.iter().take(16).map(u8::to_ascii_lowercase).collect();
    Some(match () {
        () if begins(b"PK\x03\x04") => match () {
            () if contains("/code/__torch__") => Foreign::TorchScript,
            () if contains("archive_format")
                || contains("models/model.json")
                || contains("serialized_exported_program") =>
            {
                Foreign::TorchExport
            }
            () if contains("/data.pkl") => Foreign::TorchCheckpoint,
            () if contains(".mlpackage/") || contains("com.apple.CoreML") => Foreign::ZippedPackage,
            () if contains(".npy") => Foreign::NumPy,
            () => Foreign::Archive,
        },
        () if begins(b"GGUF") => Foreign::Gguf,
        // Before a pickle, whose first byte the length of a header may have.
        () if head.get(8) == Some(&b'{') && head.get(4..8) == Some(&[0; 4]) => Foreign::Safetensors,
        () if matches!(head, [0x80, 2..=5, ..]) => Foreign::Pickle,
        () if begins(b"\x89HDF\r\n") => Foreign::Hdf5,
        () if begins(b"\x93NUMPY") => Foreign::NumPy,
        () if head.get(4..8) == Some(b"TFL3") => Foreign::TfLite,
        () if begins(b"\x1f\x8b") || begins(b"\xfd7zXZ") || begins(b"\x28\xb5\x2f\xfd") || begins(b"7z\xbc\xaf") => {
            Foreign::Archive
        }
        () if begins(b"BZh") || head.get(257..262) == Some(b"ustar") => Foreign::Archive,
        () if lower.starts_with(b"<!doctype") || lower.starts_with(b"<html") => Foreign::Html,
        () if matches!(text, [b'{', ..]) && std::str::from_utf8(&head[..head.len().min(256)]).is_ok() => Foreign::Json,
        () => return of_protobuf(head),
    })
}

/// Both formats begin with a version as field 1. ONNX has fields up to 26, Core ML's kinds of model begin at 200.
fn of_protobuf(head: &[u8]) -> Option<Foreign> {
    let (0x08, version) = (*head.first()?, *head.get(1)?) else { return None };
    let tags: Vec<u32> = wire::tags(head).collect();
    match tags.iter().find(|tag| **tag >= 200) {
        Some(502) => Some(Foreign::MlProgram),
        Some(200..=3000) => Some(Foreign::CoreMl),
        Some(_) => None,
        None => ((3..=30).contains(&version) && tags.contains(&7) && tags.iter().all(|tag| *tag <= 26))
            .then_some(Foreign::Onnx),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes() {
        let zip = |name: &str| [&b"PK\x03\x04"[..], &[0; 26], name.as_bytes()].concat();
        let core_ml = |kind: u32| {
            let mut key = Vec::new();
            prost::encoding::encode_varint(u64::from(kind << 3 | 2), &mut key);
            // A description, then a model that is longer than what is read of it.
            [&[0x08, 4, 0x12, 2, 0x0a, 0][..], &key, &[0xff, 0xff, 0x7f, 1, 2, 3]].concat()
        };
        for (bytes, expected) in [
            (zip("model/data.pkl"), Foreign::TorchCheckpoint),
            (zip("model/archive_format"), Foreign::TorchExport),
            (zip("model/data.pklPK\x03\x04model/code/__torch__.py"), Foreign::TorchScript),
            (zip("x.mlpackage/Manifest.json"), Foreign::ZippedPackage),
            (zip("arr_0.npy"), Foreign::NumPy),
            (zip("thesis.pdf"), Foreign::Archive),
            (b"\x80\x02}q\x00.".to_vec(), Foreign::Pickle),
            (b"GGUF\x03\0\0\0".to_vec(), Foreign::Gguf),
            (b"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94.".to_vec(), Foreign::Pickle),
            (b"\x10\0\0\0\0\0\0\0{\"a\":{}}        ".to_vec(), Foreign::Safetensors),
            (b"\x80\x02\0\0\0\0\0\0{\"a\":{}}        ".to_vec(), Foreign::Safetensors),
            (b"\x1c\0\0\0TFL3".to_vec(), Foreign::TfLite),
            (b"\n <!DOCTYPE html><html>".to_vec(), Foreign::Html),
            (b"{\"a\": 1}".to_vec(), Foreign::Json),
            (core_ml(500), Foreign::CoreMl),
            (core_ml(502), Foreign::MlProgram),
            (b"\x08\x08\x12\x01x\x3a\x7fgraph".to_vec(), Foreign::Onnx),
        ] {
            assert_eq!(recognise(&bytes), Some(expected), "{bytes:?}");
        }
        for unknown in [&b""[..], b"\x08", b"hello, world", &[0; 64], &[0xab; 4096]] {
            assert_eq!(recognise(unknown), None, "{unknown:?}");
        }
    }
}
