//! Two transformers that share the timesteps: `experts.json`, and an artifact for each.
//!
//! A pipeline such as Wan 2.2 A14B has an expert for high noise and one for low noise. A step asks the first from the boundary on, and
//! the second below it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use s2dit_backends::input::{LARGEST_JSON, read_text};
use serde::{Deserialize, Serialize};

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
    /// The two experts: that of high noise, then that of low noise.
    pub experts: Vec<Expert>,
}

/// A transformer that serves some of the timesteps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expert {
    /// The component of the pipeline that it was compiled from.
    pub name: String,
    /// Its file, package or folder of packages, beside the description.
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
    /// A description of another format; other than two experts; a file name that leads out of the folder.
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
        let read: Description = serde_json::from_str(&text).with_context(|| format!("`{shown}`: not experts"))?;
        if (read.format.as_str(), read.version) != (FORMAT, VERSION) {
            bail!(
                "`{shown}`: found format {:?}, version {}, expected {FORMAT:?}, version {VERSION}",
                read.format,
                read.version
            );
        }
        if read.experts.len() != 2 {
            bail!("`{shown}`: experts: found {}, expected 2", read.experts.len());
        }
        if !(read.boundary > 0.0 && read.boundary < LAST_TIMESTEP) {
            bail!("`{shown}`: boundary: found {}, expected a timestep between 0 and {LAST_TIMESTEP}", read.boundary);
        }
        let plain = |file: &str| Path::new(file).file_name().is_some_and(|name| name == file);
        if let Some(expert) = read.experts.iter().find(|expert| !plain(&expert.file)) {
            bail!("`{shown}`: file: found {:?}, expected a plain name of something beside it", expert.file);
        }
        Ok(Some(read))
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
        wrong(|d| d.format = "other".into(), "format");
        wrong(|d| d.experts.truncate(1), "found 1, expected 2");
        wrong(|d| d.boundary = 1000.0, "boundary: found 1000");
        wrong(|d| d.experts[1].file = "../low.onnx".into(), "found \"../low.onnx\"");
        wrong(|d| d.experts[1].file = String::new(), "found \"\"");
    }
}
