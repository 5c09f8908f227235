//! Pipeline folders: what diffusers saves around a transformer (text encoder, autoencoder, scheduler), with an index.

use std::path::{Path, PathBuf};

use s2dit_backends::input::read_file;
use s2dit_files::json::{Entries, compact};
use s2dit_files::problems::{Problem, Problems, quoted, shown};
use serde_json::Value;

/// The configuration of a transformer.
pub const CONFIG_FILE: &str = "config.json";
/// The file that a pipeline folder has in place of a configuration.
pub const PIPELINE_FILE: &str = "model_index.json";
/// The folder and file of its scheduler's configuration.
pub(super) const SCHEDULER_FILE: &str = "scheduler/scheduler_config.json";
/// Timesteps that a model of flow matching was trained with: what a share of them is a share of.
const TRAIN_TIMESTEPS: f64 = 1000.0;
/// Limit for these files, far above any list of components.
const LARGEST_FILE: u64 = 1 << 20;

/// A pipeline folder: its index.
#[derive(Clone, Debug)]
pub struct PipelineFolder {
    dir: PathBuf,
    entries: Vec<(String, Value)>,
}

impl PipelineFolder {
    /// Opens `dir` if it is a pipeline folder; `None` for any other folder, such as that of a checkpoint.
    ///
    /// # Errors
    /// An index that is not a JSON object.
    pub fn open(dir: &Path) -> Result<Option<PipelineFolder>, Problems> {
        if dir.join(CONFIG_FILE).exists() {
            return Ok(None);
        }
        let entries = entries(&dir.join(PIPELINE_FILE))?;
        Ok(entries.map(|entries| PipelineFolder { dir: dir.into(), entries }))
    }

    /// Names of its transformers and their classes, in the order of their names.
    #[must_use]
    pub fn transformers(&self) -> Vec<(&str, &str)> {
        let mut found = self.components();
        found.retain(|(name, class)| name.starts_with("transformer") || class.contains("Transformer"));
        found
    }

    /// The checkpoint folder of one of its models: a transformer, a text encoder, a decoder.
    ///
    /// # Errors
    /// A name that the index does not list among them.
    pub fn component(&self, name: &str) -> Result<PathBuf, Problem> {
        let models = self.models();
        match models.iter().any(|(known, _)| *known == name) {
            true => Ok(self.dir.join(name)),
            false => Err(Problem {
                place: format!("--component: {}", self.dir.join(PIPELINE_FILE).display()),
                found: quoted(name),
                expected: format!("a model of the pipeline folder: {}", self.listed(&models)),
            }),
        }
    }

    /// Names of the components that have weights, and their classes, in the order of their names.
    fn models(&self) -> Vec<(&str, &str)> {
        let mut found = self.components();
        let transformers = self.transformers();
        found.retain(|model| transformers.contains(model) || self.dir.join(model.0).join(CONFIG_FILE).exists());
        found
    }

    /// Names of all components and their classes, in the order of their names: in the index, `"transformer": ["diffusers", CLASS]`. A
    /// component that a pipeline does without is `[null, null]`.
    pub(super) fn components(&self) -> Vec<(&str, &str)> {
        let mut found: Vec<(&str, &str)> =
            (self.entries.iter()).filter_map(|(name, value)| Some((name.as_str(), value.get(1)?.as_str()?))).collect();
        found.sort_unstable();
        found
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The class that its index names.
    #[must_use]
    pub fn class(&self) -> Option<&str> {
        self.value("_class_name").and_then(Value::as_str)
    }

    /// The folder of a component that a whole pipeline needs.
    ///
    /// # Errors
    /// An index that does not list it, or a folder that is not there.
    pub fn needed(&self, name: &str) -> Result<PathBuf, Problem> {
        let problem = |found: String| Problem {
            place: self.dir.display().to_string(),
            found,
            expected: format!("a pipeline folder with the component {}", quoted(name)),
        };
        if !self.components().iter().any(|(known, _)| *known == name) {
            return Err(problem(format!("{PIPELINE_FILE} without {}", quoted(name))));
        }
        let folder = self.dir.join(name);
        match folder.is_dir() {
            true => Ok(folder),
            false => Err(problem(format!("no folder `{}`", folder.display()))),
        }
    }

    /// The class of a component, as the index names it.
    #[must_use]
    pub fn class_of(&self, name: &str) -> Option<&str> {
        self.components().into_iter().find(|(known, _)| *known == name).map(|(_, class)| class)
    }

    /// The entries of the scheduler's configuration and the file's name.
    ///
    /// # Errors
    /// No such file, or one that is no JSON object.
    pub fn scheduler(&self) -> Result<(Vec<(String, Value)>, String), Problems> {
        let path = self.dir.join(SCHEDULER_FILE);
        let place = path.display().to_string();
        match entries(&path)? {
            Some(entries) => Ok((entries, place)),
            None => Err(Problems::one(place, "no such file", "the configuration of the pipeline's scheduler")),
        }
    }

    /// The licence that its README names in the lines between `---` at its head; `None` if it names none.
    #[must_use]
    pub fn licence(&self) -> Option<String> {
        let text = read_file(&self.dir.join("README.md"), LARGEST_FILE).ok()?;
        let text = String::from_utf8(text).ok()?;
        let head = text.strip_prefix("---")?.split("\n---").next()?;
        let value = |field: &str| head.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let named = value("license_name").or_else(|| value("license"))?.trim().trim_matches('"');
        (!named.is_empty() && named.len() < 200).then(|| named.to_owned())
    }

    /// The checkpoint folder of its one transformer.
    ///
    /// # Errors
    /// None of them, or several.
    pub fn only_transformer(&self) -> Result<PathBuf, Problem> {
        if let [(name, _)] = self.transformers()[..] {
            return Ok(self.dir.join(name));
        }
        let of = self.class().map_or(String::new(), |class| format!(" of {}", shown(class)));
        let (count, expected) = match self.transformers().len() {
            0 => ("no transformer".to_owned(), format!("the folder of its transformer, with {CONFIG_FILE}")),
            n => (
                format!("{n} transformers"),
                format!("the folder of one of them: {}", self.listed(&self.transformers())),
            ),
        };
        Err(Problem {
            place: self.dir.display().to_string(),
            found: format!("a pipeline folder ({PIPELINE_FILE}{of}) with {count}"),
            expected,
        })
    }

    /// The timestep from which on its first transformer is asked, and below which its second one is: `boundary_ratio` of the 1000
    /// timesteps of training.
    ///
    /// # Errors
    /// An index without the field, or one that is no share.
    pub fn boundary(&self) -> Result<f64, Problem> {
        const FIELD: &str = "boundary_ratio";
        let found = self.value(FIELD);
        match found.and_then(Value::as_f64) {
            Some(ratio) if ratio > 0.0 && ratio < 1.0 => Ok(ratio * TRAIN_TIMESTEPS),
            _ => Err(Problem {
                place: format!("{}: {FIELD}", self.dir.join(PIPELINE_FILE).display()),
                found: found.map_or("no such field".into(), compact),
                expected: "a number between 0 and 1: where one transformer takes over from the other; or one of them, with --component"
                    .into(),
            }),
        }
    }

    fn value(&self, field: &str) -> Option<&Value> {
        self.entries.iter().find(|(name, _)| name == field).map(|(_, value)| value)
    }

    fn listed(&self, components: &[(&str, &str)]) -> String {
        let one = |(name, class): &(&str, &str)| {
            format!("{} ({})", quoted(&self.dir.join(name).display().to_string()), shown(class))
        };
        components.iter().map(one).collect::<Vec<_>>().join(" or ")
    }
}

/// The entries of a JSON object in a file; `None` if there is no such file.
///
/// # Errors
/// A file that cannot be read, or holds something else.
pub(super) fn entries(path: &Path) -> Result<Option<Vec<(String, Value)>>, Problems> {
    if !path.is_file() {
        return Ok(None);
    }
    let problem = |found: String| Problems::one(path.display().to_string(), found, "a JSON object");
    let bytes = read_file(path, LARGEST_FILE).map_err(|error| problem(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| problem("bytes that are not UTF-8".into()))?;
    let Entries(entries) =
        serde_json::from_str(&without_infinities(&text)).map_err(|error| problem(format!("bad JSON ({error})")))?;
    Ok(Some(entries))
}

/// The text with `null` for `Infinity`, `-Infinity` and `NaN`, which diffusers writes, and JSON lacks: a scheduler's bound that bounds nothing.
fn without_infinities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // Every other piece between quotes that no backslash escapes is a string.
    let (mut rest, mut is_string) = (text, false);
    while !rest.is_empty() {
        let mut escaped = false;
        let end = rest.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = is_string && c == '\\' && !escaped;
            ends
        });
        let (piece, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
        if is_string {
            out += piece;
        } else {
            out += &piece.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null");
        }
        (rest, is_string) = (after, !is_string);
    }
    out
}

#[cfg(test)]
mod infinities {
    #[test]
    fn become_null_but_in_strings() {
        let text = r#"{"a": -Infinity, "Infinity \" NaN": [NaN, "\\", Infinity], "b": "-Infinity"}"#;
        let value: serde_json::Value = serde_json::from_str(&super::without_infinities(text)).unwrap();
        let wanted = serde_json::json!({"a": null, "Infinity \" NaN": [null, "\\", null], "b": "-Infinity"});
        assert_eq!(value, wanted);
    }
}
