//! The zip file of `torch.save`: `NAME/data.pkl`, `NAME/byteorder`, and the storages as `NAME/data/KEY`, stored without compression.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;

use rayon::prelude::*;
use zip::read::ZipFile;
use zip::{CompressionMethod, ZipArchive};

use crate::problems::{Problems, quoted, shown};

const PICKLE: &str = "data.pkl";
const EXPECTED: &str = "a zip file of torch.save, whole: fetch or copy it again";
/// The pickle of the largest public checkpoint has a few megabytes; objects take some ten times as much memory.
const LARGEST_PICKLE: usize = 64 << 20;

/// The directory of a file, and its pickle.
pub(super) struct Archive<'a> {
    bytes: &'a [u8],
    /// The folder inside the zip file that everything lies in, with its slash.
    root: String,
    entries: HashMap<String, Entry>,
}

/// An entry of the zip file.
#[derive(Clone, Debug)]
struct Entry {
    /// Its bytes in the file.
    data: Range<usize>,
    /// The checksum that the directory has; `None` if PyTorch was told to compute none.
    crc32: Option<u32>,
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
        let mut spans: Vec<(Range<usize>, String)> = Vec::new();
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
                    "stored ones, as PyTorch writes them: unpack the file and pack it again with `zip -0 -r`",
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
            let header = usize::try_from(entry.header_start()).unwrap_or(usize::MAX);
            if let Some(found) = contradiction(bytes, header, &entry) {
                return Err(Problems::one(
                    at(),
                    found,
                    "an entry whose two headers, its own and that of the directory, agree",
                ));
            }
            spans.push((header..range.end, name.clone()));
            let crc32 = Some(entry.crc32()).filter(|crc32| *crc32 != 0);
            if entries.insert(name.clone(), Entry { data: range, crc32 }).is_some() {
                return Err(Problems::one(at(), "the entry twice", "it once"));
            }
        }
        spans.sort_unstable_by_key(|(span, _)| (span.start, span.end));
        for pair in spans.windows(2) {
            if let [(before, first), (after, second)] = pair
                && after.start < before.end
            {
                let place = format!("{place}: {}", shown(second));
                return Err(Problems::one(place, format!("bytes of the entry {}", quoted(first)), "bytes of its own"));
            }
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
        archive.check_sums([PICKLE.to_owned(), "byteorder".to_owned()], place)?;
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
        let entry = self.entries.get(&format!("{}{name}", self.root))?;
        Some(&self.bytes[entry.data.clone()])
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
        self.entries.get(&format!("{}data/{key}", self.root)).map(|entry| entry.data.clone())
    }

    /// Compares the checksums of storages with those of the directory.
    ///
    /// # Errors
    /// Every storage that differs.
    pub(super) fn check_storages<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k str>,
        place: &str,
    ) -> Result<(), Problems> {
        self.check_sums(keys.into_iter().map(|key| format!("data/{key}")), place)
    }

    fn check_sums(&self, names: impl IntoIterator<Item = String>, place: &str) -> Result<(), Problems> {
        let names: Vec<String> = names.into_iter().map(|name| format!("{}{name}", self.root)).collect();
        let differs = |name: &String| {
            let entry = self.entries.get(name)?;
            let (expected, found) = (entry.crc32?, crc32fast::hash(&self.bytes[entry.data.clone()]));
            (found != expected).then(|| (name.clone(), found, expected))
        };
        let mut problems = Problems::new();
        let differing: Vec<_> = names.par_iter().filter_map(differs).collect();
        for (name, found, expected) in differing {
            problems.push(
                format!("{place}: {}", shown(&name)),
                format!("bytes with the checksum {found:08x}"),
                format!(
                    "{expected:08x}, as the zip file's directory says: the file is damaged, fetch or copy it again"
                ),
            );
        }
        problems.into_result()
    }
}

/// What an entry's own header, at `header`, says otherwise than the directory. Sizes and checksum may stand behind the data, and sizes in a field for large
/// files.
fn contradiction(bytes: &[u8], header: usize, entry: &ZipFile<'_, Cursor<&[u8]>>) -> Option<String> {
    const LATER: u16 = 8;
    let fixed: &[u8; 30] = bytes.get(header..)?.first_chunk()?;
    let short = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
    let long = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let name = bytes.get(header + 30..)?.get(..usize::from(short(26)))?;
    if name != entry.name_raw() {
        return Some(format!("the name {} in its own header", quoted(&String::from_utf8_lossy(name))));
    }
    if short(8) != 0 {
        return Some(format!("the method {} in its own header", short(8)));
    }
    let sizes = [(18, entry.compressed_size()), (22, entry.size())];
    let differs = |(at, size): &(usize, u64)| long(*at) != u32::MAX && u64::from(long(*at)) != *size;
    if short(6) & LATER != 0 {
        return None;
    }
    if let Some((at, size)) = sizes.iter().find(|size| differs(size)) {
        return Some(format!("{} bytes in its own header, {size} in the directory", long(*at)));
    }
    (long(14) != entry.crc32()).then(|| format!("the checksum {:08x} in its own header", long(14)))
}
