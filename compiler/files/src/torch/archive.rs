//! The zip file of `torch.save`: `NAME/data.pkl`, `NAME/byteorder`, and the storages as `NAME/data/KEY`, stored without compression.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use crate::problems::{Problems, quoted, shown};

const PICKLE: &str = "data.pkl";
const EXPECTED: &str = "a zip file of torch.save, whole";
/// The pickle of the largest public checkpoint has a few megabytes; objects take some ten times as much memory.
const LARGEST_PICKLE: usize = 64 << 20;

/// The directory of a file, and its pickle.
pub(super) struct Archive<'a> {
    bytes: &'a [u8],
    /// The folder inside the zip file that everything lies in, with its slash.
    root: String,
    entries: HashMap<String, Range<usize>>,
}

impl<'a> Archive<'a> {
    /// Reads the directory of a whole file; `place` names it in problems.
    ///
    /// # Errors
    /// A damaged file; an entry that is compressed or encrypted; numbers of another byte order; no pickle.
    pub(super) fn open(bytes: &'a [u8], place: &str) -> Result<Self, Problems> {
        let damaged =
            |error: &dyn std::fmt::Display| Problems::one(place, format!("a bad zip file ({error})"), EXPECTED);
        let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
        let mut entries = HashMap::new();
        for index in 0..zip.len() {
            let entry = zip.by_index_raw(index).map_err(|error| damaged(&error))?;
            let name = entry.name().to_owned();
            let at = || format!("{place}: {}", shown(&name));
            if entry.encrypted() {
                return Err(Problems::one(at(), "an encrypted entry", "plain ones"));
            }
            if entry.compression() != CompressionMethod::Stored {
                return Err(Problems::one(
                    at(),
                    "a compressed entry",
                    "stored ones, as torch.save writes them: unpack the file and pack it again with `zip -0 -r`",
                ));
            }
            let range = entry.data_start().and_then(|start| {
                let (start, len) = (usize::try_from(start).ok()?, usize::try_from(entry.size()).ok()?);
                let end = start.checked_add(len).filter(|end| *end <= bytes.len())?;
                Some(start..end)
            });
            let Some(range) = range else {
                return Err(Problems::one(at(), "an entry beyond the end of the file", EXPECTED));
            };
            entries.insert(name, range);
        }
        let mut roots: Vec<String> = entries
            .keys()
            .filter_map(|name| name.strip_suffix(PICKLE))
            .filter(|root| root.is_empty() || root.ends_with('/') && root.matches('/').count() == 1)
            .map(str::to_owned)
            .collect();
        roots.sort();
        let [root] = roots.as_slice() else {
            return Err(Problems::one(
                place,
                format!("{} entries {PICKLE}", roots.len()),
                "one, as torch.save writes it",
            ));
        };
        let archive = Archive { bytes, root: root.clone(), entries };
        archive.check_order(place)?;
        let pickle = archive.pickle().len();
        if pickle > LARGEST_PICKLE {
            let expected = format!("at most {LARGEST_PICKLE}");
            return Err(Problems::one(format!("{place}: {root}{PICKLE}"), format!("{pickle} bytes"), expected));
        }
        Ok(archive)
    }

    /// PyTorch writes the byte order since 2.1; before, everybody's was little.
    fn check_order(&self, place: &str) -> Result<(), Problems> {
        match self.data("byteorder") {
            None | Some(b"little") => Ok(()),
            Some(other) => Err(Problems::one(
                format!("{place}: {}byteorder", self.root),
                quoted(&String::from_utf8_lossy(other)),
                "\"little\": load the file with torch on the machine that wrote it, and save it with safetensors",
            )),
        }
    }

    fn data(&self, name: &str) -> Option<&'a [u8]> {
        let range = self.entries.get(&format!("{}{name}", self.root))?;
        Some(&self.bytes[range.clone()])
    }

    /// The pickle.
    pub(super) fn pickle(&self) -> &'a [u8] {
        self.data(PICKLE).unwrap_or_default()
    }

    /// The pickle's entry.
    pub(super) fn pickle_name(&self) -> String {
        format!("{}{PICKLE}", self.root)
    }

    /// Where the bytes of a storage lie in the file.
    pub(super) fn storage(&self, key: &str) -> Option<Range<usize>> {
        self.entries.get(&format!("{}data/{key}", self.root)).cloned()
    }
}
