//! The archive of `torch.export.save`, in both of its layouts.
//!
//! ```text
//! torch 2.8 and later               torch 2.5 to 2.7
//! ROOT/archive_format "pt2"         version "3"
//! ROOT/models/NAME.json             serialized_exported_program.json
//! ROOT/data/weights/…_config.json   serialized_state_dict.pt, serialized_constants.pt: files of torch.save
//! ROOT/data/weights/weight_N        serialized_example_inputs.pt
//! ROOT/data/constants/…
//! ```
//! Tensors are mapped where they lie, as views with offset and strides: names that share a storage share it here too. The JSON may be
//! compressed.

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read as _};
use std::ops::Range;

use s2dit_files::problems::{Problems, quoted, shown};
use s2dit_files::{StridedTensor, named_tensors};
use serde::Deserialize;
use zip::{CompressionMethod, ZipArchive};

use super::schema::{self, SymInt, TensorMeta};

const EXPECTED: &str = "a file of torch.export.save, whole";
/// Bytes of the largest JSON that is read. The graph of the largest public model has some ten megabytes.
const LARGEST_JSON: u64 = 256 << 20;
/// Entries of the largest archive: one for each weight.
const MOST_ENTRIES: usize = 1 << 17;

/// What an archive holds.
pub(super) struct Archive {
    /// The program's JSON.
    pub program: String,
    /// Parameters and persistent buffers by name.
    pub weights: BTreeMap<String, StridedTensor>,
    /// Constants and other buffers by name.
    pub constants: BTreeMap<String, StridedTensor>,
}

struct Entry {
    range: Range<usize>,
    stored: bool,
}

struct Zip<'a> {
    bytes: &'a [u8],
    place: &'a str,
    entries: HashMap<String, Entry>,
    root: String,
}

impl Archive {
    /// Reads the directory and the JSON of a whole file; `place` names it in problems.
    ///
    /// # Errors
    /// A damaged file, another format; tensors that are compressed or lie beyond their storage.
    pub(super) fn open(bytes: &[u8], place: &str) -> Result<Archive, Problems> {
        let zip = Zip::open(bytes, place)?;
        match zip.entries.contains_key("serialized_exported_program.json") {
            true => zip.older(),
            false => zip.newer(),
        }
    }
}

impl<'a> Zip<'a> {
    fn open(bytes: &'a [u8], place: &'a str) -> Result<Self, Problems> {
        let damaged =
            |error: &dyn std::fmt::Display| Problems::one(place, format!("a bad zip file ({error})"), EXPECTED);
        let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
        if zip.len() > MOST_ENTRIES {
            return Err(Problems::one(place, format!("{} entries", zip.len()), format!("at most {MOST_ENTRIES}")));
        }
        let mut entries = HashMap::new();
        for index in 0..zip.len() {
            let entry = zip.by_index_raw(index).map_err(|error| damaged(&error))?;
            let name = entry.name().to_owned();
            if entry.encrypted() {
                return Err(Problems::one(format!("{place}: {}", shown(&name)), "an encrypted entry", "plain ones"));
            }
            let range = entry.data_start().and_then(|start| {
                let (start, len) = (usize::try_from(start).ok()?, usize::try_from(entry.compressed_size()).ok()?);
                let end = start.checked_add(len).filter(|end| *end <= bytes.len())?;
                Some(start..end)
            });
            let range = range.ok_or_else(|| damaged(&format!("entry {} beyond the end", shown(&name))))?;
            entries.insert(name, Entry { range, stored: entry.compression() == CompressionMethod::Stored });
        }
        let root = entries.keys().filter_map(|name| name.split_once('/')).map(|(root, _)| format!("{root}/")).min();
        Ok(Zip { bytes, place, entries, root: root.unwrap_or_default() })
    }

    fn at(&self, name: &str) -> String {
        format!("{}: {}", self.place, shown(name))
    }

    /// The text of an entry, which may be compressed.
    fn text(&self, name: &str) -> Result<String, Problems> {
        let damaged = |what: String| Problems::one(self.at(name), what, "JSON text");
        let mut zip = ZipArchive::new(Cursor::new(self.bytes)).map_err(|error| damaged(error.to_string()))?;
        let entry = zip.by_name(name).map_err(|error| damaged(error.to_string()))?;
        let mut text = Vec::new();
        entry.take(LARGEST_JSON + 1).read_to_end(&mut text).map_err(|error| damaged(error.to_string()))?;
        if text.len() as u64 > LARGEST_JSON {
            return Err(damaged(format!("more than {LARGEST_JSON} bytes")));
        }
        String::from_utf8(text)
            .map_err(|error| damaged(format!("a byte that is not UTF-8 at {}", error.utf8_error().valid_up_to())))
    }

    /// The bytes of an entry that is stored as it is.
    fn stored(&self, name: &str) -> Result<Range<usize>, Problems> {
        match self.entries.get(name) {
            Some(Entry { range, stored: true }) => Ok(range.clone()),
            Some(_) => Err(Problems::one(
                self.at(name),
                "a compressed entry",
                "tensors that are stored as they are: unpack the file and pack it again with `zip -0 -r`",
            )),
            None => Err(Problems::one(self.place, format!("no entry {}", quoted(name)), EXPECTED)),
        }
    }

    fn older(&self) -> Result<Archive, Problems> {
        let tensors = |name: &str| match self.entries.contains_key(name) {
            true => named_tensors(self.bytes, self.stored(name)?, &self.at(name)),
            false => Ok(BTreeMap::new()),
        };
        Ok(Archive {
            program: self.text("serialized_exported_program.json")?,
            weights: tensors("serialized_state_dict.pt")?,
            constants: tensors("serialized_constants.pt")?,
        })
    }

    fn newer(&self) -> Result<Archive, Problems> {
        let root = &self.root;
        self.check_order()?;
        let folder = format!("{root}models/");
        let mut models: Vec<&String> =
            self.entries.keys().filter(|name| name.starts_with(&folder) && name.ends_with(".json")).collect();
        models.sort();
        let [model] = models.as_slice() else {
            return Err(Problems::one(self.place, format!("{} programs {folder}*.json", models.len()), "one program"));
        };
        let name = model[folder.len()..].trim_end_matches(".json").to_owned();
        Ok(Archive {
            program: self.text(model)?,
            weights: self.described(
                "weights",
                &[&format!("{name}_weights_config.json"), &format!("{name}_model_param_config.json")],
            )?,
            constants: self.described("constants", &[&format!("{name}_constants_config.json")])?,
        })
    }

    fn check_order(&self) -> Result<(), Problems> {
        let name = format!("{}byteorder", self.root);
        match self.entries.get(&name).map(|entry| &self.bytes[entry.range.clone()]) {
            None | Some(b"little") => Ok(()),
            Some(other) => Err(Problems::one(
                self.at(&name),
                quoted(&String::from_utf8_lossy(other)),
                "\"little\": save the program on a machine of that order",
            )),
        }
    }

    /// The tensors of a folder of `data`, as one of these files describes them.
    fn described(&self, folder: &str, names: &[&str]) -> Result<BTreeMap<String, StridedTensor>, Problems> {
        let folder = format!("{}data/{folder}/", self.root);
        let Some(file) = names.iter().map(|name| format!("{folder}{name}")).find(|f| self.entries.contains_key(f))
        else {
            return Ok(BTreeMap::new());
        };
        let text = self.text(&file)?;
        let payload: Payload = serde_json::from_str(&text).map_err(|error| {
            Problems::one(self.at(&file), shown(&error.to_string()), "where tensors lie, as torch writes it")
        })?;
        let mut problems = Problems::new();
        let mut tensors = BTreeMap::new();
        for (name, tensor) in payload.config {
            // Objects of Python that no tensor depends on are refused where a program asks for them.
            let Some(meta) = tensor.tensor_meta else { continue };
            let place = self.at(&name);
            let found = match tensor.use_pickle {
                true => Err(Problems::one(&place, "a pickled tensor of a class of its own", "plain tensors")),
                false => self.view(&format!("{folder}{}", tensor.path_name), &meta, &place),
            };
            tensors.extend(problems.absorb(found).map(|tensor| (name, tensor)));
        }
        problems.into_result().map(|()| tensors)
    }

    fn view(&self, entry: &str, meta: &TensorMeta, place: &str) -> Result<StridedTensor, Problems> {
        let storage = self.stored(entry)?;
        let Some(dtype) = schema::dtype(meta.dtype) else {
            return Err(Problems::one(
                place,
                format!("element type {}", meta.dtype),
                "floats, integers or truth values",
            ));
        };
        let numbers = |list: &[SymInt]| -> Option<Vec<i64>> {
            list.iter().map(|n| if let SymInt::AsInt(n) = n { Some(*n) } else { None }).collect()
        };
        let offset = meta.storage_offset.iter().cloned().collect::<Vec<_>>();
        let (Some(shape), Some(strides), Some(offset)) =
            (numbers(&meta.sizes), numbers(&meta.strides), numbers(&offset))
        else {
            return Err(Problems::one(place, "symbolic sizes of a weight", "numbers"));
        };
        StridedTensor::new(dtype, storage, &shape, &strides, offset.first().copied().unwrap_or(0), place)
    }
}

/// Where tensors lie.
#[derive(Deserialize)]
struct Payload {
    config: BTreeMap<String, Located>,
}

#[derive(Deserialize)]
struct Located {
    path_name: String,
    #[serde(default)]
    use_pickle: bool,
    #[serde(default)]
    tensor_meta: Option<TensorMeta>,
}
