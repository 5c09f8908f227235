//! A second codec: what the compiler wrote, as the wire reader of the crate `protobuf` sees it through tables of the published field
//! numbers. It shares no line with `backends/src/*/proto.rs`, whose messages it judges.

mod coreml;
mod onnx;
pub mod schema;
pub mod tree;

use std::fs;
use std::path::Path;

use schema::Schema;
use tree::Message;

/// The field tables: the format's name and its text.
pub const TABLES: [(&str, &str); 2] =
    [("onnx", include_str!("onnx.fields")), ("coreml", include_str!("coreml.fields"))];

/// Judges the bytes of an ONNX file that lies in `folder`.
///
/// # Errors
/// The first thing that is not as ONNX has it.
pub fn judge_onnx(bytes: &[u8], folder: &Path) -> Result<(), String> {
    onnx::judge(&Message::read(bytes, &Schema::parse(TABLES[0].1), "ModelProto")?, folder)
}

/// Judges the bytes of a package's `model.mlmodel` that lies in `folder`.
///
/// # Errors
/// The first thing that is not as Core ML has it.
pub fn judge_coreml(bytes: &[u8], folder: &Path) -> Result<(), String> {
    coreml::judge(&Message::read(bytes, &Schema::parse(TABLES[1].1), "Model")?, folder)
}

/// Judges every ONNX file and every `.mlmodel` at or below a path; returns how many there are.
#[track_caller]
pub fn judge_all(place: &Path) -> usize {
    if place.is_dir() {
        let entries = fs::read_dir(place).expect("a readable folder");
        return entries.map(|entry| judge_all(&entry.expect("an entry").path())).sum();
    }
    let judge = match place.extension().and_then(|e| e.to_str()) {
        Some("onnx") => judge_onnx,
        Some("mlmodel") => judge_coreml,
        _ => return 0,
    };
    let bytes = fs::read(place).expect("a readable file");
    let folder = place.parent().expect("a file is in a folder");
    judge(&bytes, folder).unwrap_or_else(|e| panic!("{}: {e}", place.display()));
    1
}
