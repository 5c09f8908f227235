//! Pipeline folders: what diffusers saves around a model (text encoder, autoencoder, scheduler), told apart from a checkpoint folder.

use std::path::Path;

use s2dit_backends::input::read_file;
use s2dit_files::json::Entries;
use s2dit_files::problems::{Problem, quoted, shown};

use super::CONFIG_FILE;

/// The file that a pipeline folder has in place of a configuration.
const PIPELINE_FILE: &str = "model_index.json";
/// Limit for the file, far above any list of components.
const LARGEST_FILE: u64 = 1 << 20;

/// Says which component to give, if `dir` is a pipeline folder; `None` for any other folder.
pub fn pipeline_problem(dir: &Path) -> Option<Problem> {
    let index = dir.join(PIPELINE_FILE);
    if dir.join(CONFIG_FILE).exists() || !index.is_file() {
        return None;
    }
    let text = read_file(&index, LARGEST_FILE).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let entries = serde_json::from_str(&text).map(|Entries(entries)| entries).unwrap_or_default();
    let class = entries.iter().find(|(name, _)| name == "_class_name").and_then(|(_, class)| class.as_str());
    let of = class.map_or(String::new(), |class| format!(" of {}", shown(class)));
    // A component is written as `"transformer": ["diffusers", "WanTransformer3DModel"]`.
    let transformers: Vec<String> = (entries.iter())
        .filter_map(|(name, value)| Some((name, value.get(1)?.as_str()?)))
        .filter(|(name, class)| name.starts_with("transformer") || class.contains("Transformer"))
        .map(|(name, class)| format!("{} ({})", quoted(&dir.join(name).display().to_string()), shown(class)))
        .collect();
    Some(Problem {
        place: dir.display().to_string(),
        found: format!("a pipeline folder ({PIPELINE_FILE}{of})"),
        expected: match transformers.as_slice() {
            [] => format!("the folder of its transformer, with {CONFIG_FILE}"),
            some => format!("the folder of its transformer: {}", some.join(" or ")),
        },
    })
}
