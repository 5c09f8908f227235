//! Which files this program wrote: each kind says so near its start, in a form that no other program's files have by chance.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::input::{check_regular, read_text};

/// What every mark says.
pub const NAME: &str = "s2ditc";
/// The metadata of a safetensors file by which it is known: who made it.
pub const MADE_BY: &str = "made_by";
/// Bytes in which a mark is found.
const HEAD: u64 = 64 << 10;

/// Whether an ONNX file names us as its producer. The protobuf message begins with the IR version and the producer's name.
#[must_use]
pub fn onnx(path: &Path) -> bool {
    let head = head(path);
    head.first() == Some(&(1 << 3)) && head.get(2..).is_some_and(|rest| rest.starts_with(b"\x12\x06s2ditc"))
}

/// Whether a safetensors file says in its metadata that we made it.
#[must_use]
pub fn safetensors(path: &Path) -> bool {
    // After eight bytes of length; the writers put the metadata first. Inside a string the mark's quotes would be escaped.
    let head = head(path);
    let header = head.get(8..).unwrap_or_default();
    header.starts_with(br#"{"__metadata__":{"#) && contains(header, &format!("\"{MADE_BY}\":\"{NAME}"))
}

/// What [`MADE_BY`] says.
#[must_use]
pub fn by() -> String {
    format!("{NAME} {}", env!("CARGO_PKG_VERSION"))
}

/// Whether a plan, or a device's figures, lie there as we wrote them: people edit such files, and what they edited is theirs.
#[must_use]
pub fn sealed(path: &Path) -> bool {
    let text = read_text(path, LARGEST_SEALED).unwrap_or_default();
    let Some((body, seal)) = text.trim_end().rsplit_once(SEAL) else { return false };
    has_format(body) && seal == blake3::hash(body.as_bytes()).to_hex().as_str()
}

/// A text of TOML with a last line that says what it was when we wrote it.
#[must_use]
pub fn seal(body: &str) -> String {
    format!("{body}{SEAL}{}\n", blake3::hash(body.as_bytes()).to_hex())
}

/// What stands before the hash of all that is above.
const SEAL: &str = "\n# Written by s2ditc, which replaces this file only while it is as it was: blake3:";
/// Sealed files have at most so many bytes.
const LARGEST_SEALED: u64 = 1 << 28;

/// Whether a configuration says that we made it.
#[must_use]
pub fn config(path: &Path) -> bool {
    contains(&head(path), &format!("\"_{MADE_BY}\": \"{NAME}"))
}

/// Whether a text of TOML names a format of ours.
fn has_format(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("format = \"s2ditc."))
}

/// Whether a page or a drawing begins with our comment.
#[must_use]
pub fn markup(path: &Path) -> bool {
    contains(&head(path), COMMENT)
}

/// The comment near the start of pages and drawings.
pub const COMMENT: &str = "<!-- made by s2ditc -->";

/// Whether a moving picture has our comment, after its palette.
#[must_use]
pub fn gif(path: &Path) -> bool {
    let head = head(path);
    let comment = [&[0x21, GIF_COMMENT, NAME.len() as u8], NAME.as_bytes()].concat();
    head.starts_with(b"GIF89a") && contains_bytes(&head, &comment)
}

/// Whether an animated WebP has our metadata at its end.
#[must_use]
pub fn webp(path: &Path) -> bool {
    let is_webp = head(path).get(8..12) == Some(b"WEBP");
    is_webp && tail(path).starts_with(XMP.as_bytes())
}

/// The metadata at the end of an animated WebP. Its length is even: nothing follows it.
pub const XMP: &str = r#"<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="s2ditc" /></rdf:RDF></x:xmpmeta>"#;

/// The end of a file, as long as [`XMP`].
fn tail(path: &Path) -> Vec<u8> {
    let mut tail = Vec::new();
    let mut read = || {
        check_regular(path)?;
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(-(XMP.len() as i64)))?;
        file.read_to_end(&mut tail)
    };
    read().map(|_| tail).unwrap_or_default()
}

/// Whether an MP4 says that we made it, in the box after its brand.
#[must_use]
pub fn mp4(path: &Path) -> bool {
    let head = head(path);
    let mark = [b"free", NAME.as_bytes()].concat();
    head.get(4..8) == Some(b"ftyp") && contains_bytes(&head[..head.len().min(64)], &mark)
}

/// Whether a PNG names us as its software.
#[must_use]
pub fn png(path: &Path) -> bool {
    let head = head(path);
    let mark = [SOFTWARE.as_bytes(), b"\0", NAME.as_bytes()].concat();
    head.starts_with(b"\x89PNG") && contains_bytes(&head[..head.len().min(128)], &mark)
}

/// PNG's keyword of the program that made a picture.
pub const SOFTWARE: &str = "Software";

/// GIF's label of a comment extension.
pub const GIF_COMMENT: u8 = 0xfe;

/// Whether a file is a module in the IR's text form.
#[must_use]
pub fn ir(path: &Path) -> bool {
    head(path).starts_with(b"module {\n")
}

/// The start of a file; nothing of what cannot be read.
fn head(path: &Path) -> Vec<u8> {
    let mut head = Vec::new();
    let read = check_regular(path).and_then(|()| File::open(path)?.take(HEAD).read_to_end(&mut head));
    read.map(|_| head).unwrap_or_default()
}

fn contains(bytes: &[u8], mark: &str) -> bool {
    contains_bytes(bytes, mark.as_bytes())
}

fn contains_bytes(bytes: &[u8], mark: &[u8]) -> bool {
    bytes.windows(mark.len()).any(|at| at == mark)
}
