//! NumPy's `.npz`: a zip archive with one `.npy` an array.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::{Arrays, npy};
use crate::problems::Problems;

/// The archive's comment, at its end.
const COMMENT: &str = "made by s2ditc";
const EXPECTED: &str = "an .npz of NumPy";

/// Bytes that the header of an array may have: most have a hundred or so.
const HEADER: u64 = 1 << 16;

pub(super) fn read(path: &Path, most: u64) -> Result<Arrays, Problems> {
    let place = path.display().to_string();
    let file = File::open(path).map_err(|e| Problems::one(&place, e.to_string(), EXPECTED))?;
    let mut archive =
        ZipArchive::new(BufReader::new(file)).map_err(|e| Problems::one(&place, e.to_string(), EXPECTED))?;
    let mut arrays = Arrays::new();
    let mut problems = Problems::new();
    let mut left = most;
    for i in 0..archive.len() {
        let mut bytes = Vec::new();
        let entry = archive.by_index(i).and_then(|mut entry| {
            entry.by_ref().take(left.saturating_add(HEADER + 1)).read_to_end(&mut bytes)?;
            Ok(entry.name().to_string())
        });
        let name = match entry {
            Ok(name) => name,
            Err(e) => {
                problems.push(&place, e.to_string(), EXPECTED);
                continue;
            }
        };
        let name = name.strip_suffix(".npy").unwrap_or(&name);
        if bytes.len() as u64 > left.saturating_add(HEADER) {
            let found = format!("more than {most} bytes of arrays");
            return Err(Problems::one(place, found, "no more than the model takes"));
        }
        left = left.saturating_sub((bytes.len() as u64).saturating_sub(HEADER));
        match npy::decode(&bytes) {
            Ok(array) => drop(arrays.insert(name.to_string(), array)),
            Err(found) => problems.push(format!("{place}: array `{name}`"), found, npy::EXPECTED),
        }
    }
    problems.into_result().map(|()| arrays)
}

/// Whether an archive ends with our comment.
pub(super) fn is_ours(path: &Path) -> bool {
    let ends = || -> std::io::Result<bool> {
        let mut file = File::open(path)?;
        let mut end = vec![0; COMMENT.len()];
        file.seek(SeekFrom::End(-(COMMENT.len() as i64)))?;
        file.read_exact(&mut end)?;
        Ok(end == COMMENT.as_bytes())
    };
    ends().unwrap_or(false)
}

pub(super) fn write(arrays: &Arrays, to: impl Write + Seek) -> std::io::Result<()> {
    let mut archive = ZipWriter::new(to);
    archive.set_comment(COMMENT).map_err(std::io::Error::other)?;
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    for (name, array) in arrays {
        archive.start_file(format!("{name}.npy"), options).map_err(std::io::Error::other)?;
        archive.write_all(&npy::encode(array))?;
    }
    archive.finish().map(drop).map_err(std::io::Error::other)
}
