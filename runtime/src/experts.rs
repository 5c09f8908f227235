//! Two transformers that share the timesteps: `experts.json`, and an artifact for each.
//!
//! A pipeline such as Wan 2.2 A14B has an expert for high noise and one for low noise. A step asks the first from the boundary on, and
//! the second below it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use s2dit_backends::input::{LARGEST_JSON, read_text};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;

/// The description's file in a folder of experts.
pub const FILE: &str = "experts.json";
/// The value of the field `format`.
pub const FORMAT: &str = "s2dit-experts";
/// The version that this build writes and reads.
pub const VERSION: u32 = 1;
/// Timesteps are in [0, 1000].
const LAST_TIMESTEP: f64 = 1000.0;

/// `experts.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// The timestep from which on the first expert is asked; below it the second one is.
    pub boundary: f64,
    /// The two experts: that of high noise, then that of low noise, which is the order of their names.
    pub experts: Vec<Expert>,
}

/// A transformer that serves some of the timesteps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expert {
    /// The component of the pipeline that it was compiled from.
    pub name: String,
    /// Its file, package or folder of packages, beside the description: the name, with an extension if it is no folder of packages.
    pub file: String,
}

impl Description {
    /// The description of two experts.
    #[must_use]
    pub fn new(boundary: f64, experts: [Expert; 2]) -> Description {
        Description { format: FORMAT.into(), version: VERSION, boundary, experts: experts.into() }
    }

    /// Reads the description of the folder `dir`; `None` if it has none.
    ///
    /// # Errors
    /// A description of another format; a field that is missing, unknown or of another type; other than two experts, one of them twice, or
    /// each in the place of the other; a file name that leads out of the folder.
    pub fn read(dir: &Path) -> Result<Option<Description>, Error> {
        Description::opened(dir).map_err(Error::artifact)
    }

    fn opened(dir: &Path) -> Result<Option<Description>> {
        let path = dir.join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let shown = path.display();
        let text = read_text(&path, LARGEST_JSON).with_context(|| format!("cannot read `{shown}`"))?;
        let place = format!("`{shown}`");
        let value: Value = serde_json::from_str(&text).with_context(|| format!("{place}: not JSON"))?;
        check_fields(&value, &place)?;
        // What is left to be wrong is a field that is there twice.
        let read: Description = serde_json::from_str(&text).with_context(|| place.clone())?;
        read.check(&place)?;
        Ok(Some(read))
    }

    /// Checks the values of the fields; `place` names the file in errors.
    fn check(&self, place: &str) -> Result<()> {
        let [high, low] = self.experts.as_slice() else {
            bail!("{place}: experts: found {}, expected 2", self.experts.len());
        };
        if !(self.boundary > 0.0 && self.boundary < LAST_TIMESTEP) {
            bail!("{place}: boundary: found {}, expected a timestep between 0 and {LAST_TIMESTEP}", self.boundary);
        }
        for (i, Expert { name, file }) in self.experts.iter().enumerate() {
            if Path::new(file).file_name().is_none_or(|plain| plain != file.as_str()) {
                bail!("{place}: experts[{i}].file: found {file:?}, expected a plain name of something beside it");
            }
            if file != name && Path::new(file).file_stem().is_none_or(|stem| stem != name.as_str()) {
                bail!(
                    "{place}: experts[{i}].file: found {file:?}, expected {name:?}, the name of this expert, with an extension or without"
                );
            }
        }
        if high.name == low.name {
            bail!("{place}: experts[1].name: found {:?}, expected another one than that of experts[0]", low.name);
        }
        if high.name > low.name {
            bail!(
                "{place}: experts: found {:?} before {:?}, expected the expert of high noise first, which is the order of their names",
                high.name,
                low.name
            );
        }
        Ok(())
    }

    /// The expert that is asked at a timestep: 0 or 1.
    #[must_use]
    pub fn at(&self, timestep: f64) -> usize {
        usize::from(timestep < self.boundary)
    }

    /// The paths of the experts in the folder `dir`.
    #[must_use]
    pub fn paths(&self, dir: &Path) -> Vec<PathBuf> {
        self.experts.iter().map(|expert| dir.join(&expert.file)).collect()
    }
}

/// A field of a JSON object: its name, whether a value is of its type, and the type in words.
type Field = (&'static str, fn(&Value) -> bool, &'static str);

const FIELDS: [Field; 4] = [
    ("format", |v| v == FORMAT, "\"s2dit-experts\""),
    ("version", |v| *v == VERSION, "1, the version that this build reads"),
    ("boundary", Value::is_number, "a timestep between 0 and 1000"),
    ("experts", Value::is_array, "a list of two experts"),
];
const EXPERT_FIELDS: [Field; 2] = [("name", Value::is_string, "a text"), ("file", Value::is_string, "a text")];

/// Checks which fields a description has and of which types; `place` names the file in errors.
fn check_fields(value: &Value, place: &str) -> Result<()> {
    check_object(value, &FIELDS, place, "")?;
    for (i, expert) in value["experts"].as_array().into_iter().flatten().enumerate() {
        check_object(expert, &EXPERT_FIELDS, place, &format!("experts[{i}]"))?;
    }
    Ok(())
}

/// Checks an object, which is the field `of` of the file, or the whole file if that is empty.
fn check_object(value: &Value, fields: &[Field], place: &str, of: &str) -> Result<()> {
    let names: Vec<&str> = fields.iter().map(|(name, ..)| *name).collect();
    let names = names.join(", ");
    let (inside, dot) = if of.is_empty() { (place.to_owned(), ": ") } else { (format!("{place}: {of}"), ".") };
    let Some(object) = value.as_object() else {
        bail!("{inside}: found {}, expected an object with {names}", shown(value));
    };
    for (name, fits, expected) in fields {
        match object.get(*name) {
            None => bail!("{inside}{dot}{name}: found no such field, expected {expected}"),
            Some(value) if !fits(value) => bail!("{inside}{dot}{name}: found {}, expected {expected}", shown(value)),
            Some(_) => {}
        }
    }
    match object.keys().find(|key| fields.iter().all(|(name, ..)| name != key)) {
        Some(key) => bail!("{inside}{dot}{}: found an unknown field, expected {names} only", key.escape_debug()),
        None => Ok(()),
    }
}

/// A value as JSON, cut where it gets long.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Description {
        let expert = |name: &str| Expert { name: name.into(), file: format!("{name}.onnx") };
        Description::new(875.0, [expert("high"), expert("low")])
    }

    #[test]
    fn the_boundary_belongs_to_high_noise() {
        let pair = pair();
        let asked: Vec<usize> = [1000.0, 875.0, 874.999, 0.0].map(|t| pair.at(t)).to_vec();
        assert_eq!(asked, [0, 0, 1, 1]);
    }

    #[test]
    fn what_is_written_is_read_and_what_is_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Description::read(dir.path()).unwrap(), None);
        let read = |description: &Description| {
            std::fs::write(dir.path().join(FILE), serde_json::to_string(description).unwrap()).unwrap();
            Description::read(dir.path()).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(read(&pair()), Ok(Some(pair())));
        let wrong = |change: fn(&mut Description), part: &str| {
            let mut changed = pair();
            change(&mut changed);
            let message = read(&changed).unwrap_err();
            assert!(message.contains(FILE) && message.contains(part), "{message}");
        };
        wrong(|d| d.format = "other".into(), ": format: found \"other\", expected \"s2dit-experts\"");
        wrong(|d| d.version = 2, ": version: found 2, expected 1");
        wrong(|d| d.experts.truncate(1), "found 1, expected 2");
        wrong(|d| d.boundary = 1000.0, "boundary: found 1000");
        wrong(|d| d.experts[1].file = "../low.onnx".into(), "found \"../low.onnx\"");
        wrong(|d| d.experts[1].file = String::new(), "found \"\"");
        // One expert for the other.
        wrong(|d| d.experts[1] = d.experts[0].clone(), "experts[1].name: found \"high\", expected another one");
        wrong(|d| d.experts[1].file = "high.onnx".into(), "experts[1].file: found \"high.onnx\", expected \"low\"");
        wrong(|d| d.experts.swap(0, 1), "experts: found \"low\" before \"high\"");
        wrong(
            |d| {
                let name = d.experts[0].name.clone();
                d.experts[0].name = std::mem::replace(&mut d.experts[1].name, name);
            },
            "experts[0].file: found \"high.onnx\", expected \"low\"",
        );
    }

    #[test]
    fn fields_of_another_type_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            format!("{:#}", Description::read(dir.path()).unwrap_err())
        };
        let changed = |pointer: &str, value: Value| {
            let mut description = serde_json::to_value(pair()).unwrap();
            *description.pointer_mut(pointer).unwrap() = value;
            read(&description.to_string())
        };
        let says =
            |message: String, part: &str| assert!(message.contains(&format!("experts.json`: {part}")), "{message}");
        says(changed("/boundary", "875".into()), "boundary: found \"875\", expected a timestep between 0 and 1000");
        says(changed("/experts", Value::Null), "experts: found null, expected a list of two experts");
        says(changed("/experts/1/name", 5.into()), "experts[1].name: found 5, expected a text");
        says(changed("/experts/0", "high".into()), "experts[0]: found \"high\", expected an object with name, file");
        let lacking = |pointer: &str, name: &str| {
            let mut description = serde_json::to_value(pair()).unwrap();
            description.pointer_mut(pointer).and_then(Value::as_object_mut).unwrap().remove(name);
            read(&description.to_string())
        };
        says(lacking("", "boundary"), "boundary: found no such field, expected a timestep");
        says(lacking("/experts/1", "file"), "experts[1].file: found no such field, expected a text");
        says(read("[]"), "found [], expected an object with format, version, boundary, experts");
        says(read("{"), "not JSON");
        let whole = serde_json::to_string(&pair()).unwrap();
        says(read(&whole.replacen('{', "{\"x\":1,", 1)), "x: found an unknown field");
        assert!(read(&whole.replacen('{', "{\"boundary\":1,", 1)).contains("duplicate field `boundary`"));
    }
}
