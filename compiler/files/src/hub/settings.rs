//! Where the hub and its cache are, as the environment says it to the hub's own tools.

use std::env;
use std::fs;
use std::path::PathBuf;

use s2dit_backends::input::read_text;

/// The hub that is asked where none is named.
const ENDPOINT: &str = "https://huggingface.co";
/// Limit for a file with a token.
const LARGEST_TOKEN: u64 = 1 << 12;

/// The hub: its cache, its address, and whether it may be asked.
#[derive(Clone, Debug)]
pub struct Hub {
    /// The folder of the cache; `None` where the environment names neither it nor a home.
    pub(super) cache: Option<PathBuf>,
    /// The address, without a slash at its end.
    pub(super) endpoint: String,
    /// What gives access to repositories that are not public.
    pub(super) token: Option<String>,
    /// What says that nothing is fetched.
    pub(super) offline: Option<&'static str>,
}

impl Hub {
    /// The hub as `HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH` and `HF_HUB_OFFLINE` say; `offline` forbids to ask it whatever they
    /// say.
    #[must_use]
    pub fn from_env(offline: bool) -> Hub {
        let hub = Hub::of(|name| env::var(name).ok().filter(|value| !value.is_empty()));
        Hub { offline: offline.then_some("--offline").or(hub.offline), ..hub }
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Hub {
        let home = variable("HF_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(variable("XDG_CACHE_HOME")?).join("huggingface")));
        let user = || variable("HOME").or_else(|| variable("USERPROFILE")).map(PathBuf::from);
        let home = home.or_else(|| Some(user()?.join(".cache/huggingface")));
        let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")).map(PathBuf::from);
        let stored = variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join("token")));
        let stored =
            || Some(read_text(&stored?, LARGEST_TOKEN).ok()?.trim().to_owned()).filter(|text| !text.is_empty());
        let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN"));
        let is_on = |value: &str| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str());
        Hub {
            cache: cache.or_else(|| Some(home.as_ref()?.join("hub"))).map(absolute),
            endpoint: variable("HF_ENDPOINT").as_deref().unwrap_or(ENDPOINT).trim_end_matches('/').to_owned(),
            token: token.map(|token| token.trim().to_owned()).or_else(stored),
            offline: variable("HF_HUB_OFFLINE").is_some_and(|value| is_on(&value)).then_some("HF_HUB_OFFLINE"),
        }
    }
}

/// Links in a cache lead from place to place in it: one that is named from here is made whole.
fn absolute(path: PathBuf) -> PathBuf {
    fs::canonicalize(&path).or_else(|_| std::path::absolute(&path)).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(set: &[(&str, &str)]) -> Hub {
        let set: Vec<(String, String)> = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Hub::of(|key| set.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone()))
    }

    #[test]
    fn the_cache_is_where_the_tools_of_the_hub_have_it() {
        let of = |set: &[(&str, &str)]| hub(set).cache;
        let all = [("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")];
        assert_eq!(of(&all), Some("/c".into()));
        assert_eq!(of(&all[..3]), Some("/f/hub".into()));
        assert_eq!(of(&all[..2]), Some("/x/huggingface/hub".into()));
        assert_eq!(of(&all[..1]), Some("/h/.cache/huggingface/hub".into()));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_token_is_in_the_environment_or_in_the_file_of_the_hub_s_tools() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().to_str().unwrap();
        assert_eq!(hub(&[("HF_HOME", path)]).token, None);
        fs::write(home.path().join("token"), "hf_stored\n").unwrap();
        assert_eq!(hub(&[("HF_HOME", path)]).token.as_deref(), Some("hf_stored"));
        assert_eq!(hub(&[("HF_HOME", path), ("HF_TOKEN", "hf_given")]).token.as_deref(), Some("hf_given"));
    }

    #[test]
    fn the_hub_is_asked_unless_it_is_said_otherwise() {
        assert_eq!(hub(&[]).endpoint, "https://huggingface.co");
        assert_eq!(hub(&[("HF_ENDPOINT", "http://127.0.0.1:1/")]).endpoint, "http://127.0.0.1:1");
        for (value, offline) in [("1", true), ("true", true), ("on", true), ("0", false), ("no", false)] {
            assert_eq!(hub(&[("HF_HUB_OFFLINE", value)]).offline.is_some(), offline, "{value}");
        }
    }
}
