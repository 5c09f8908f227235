//! The timesteps that an artifact was compiled for, if it has tables for some and knows no others.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::anyhow;
use s2dit_ir::DType;
use serde::{Deserialize, Serialize};

use crate::error::refuse;
use crate::{Error, ErrorKind, HostTensor};

/// The metadata field with an artifact's [`Timesteps`] as a JSON list; an artifact without it takes any timestep.
pub const TIMESTEPS: &str = "s2ditc.timesteps";

/// The only timesteps that an artifact answers; for any other its result would mean nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timesteps(Vec<f64>);

impl Timesteps {
    /// A list, in the sampler's order.
    #[must_use]
    pub fn new(timesteps: Vec<f64>) -> Timesteps {
        Timesteps(timesteps)
    }

    /// The timesteps in an artifact's metadata; `None` if it takes any.
    ///
    /// # Errors
    /// A field that is not a list of numbers.
    pub fn of(metadata: &BTreeMap<String, String>) -> Result<Option<Timesteps>, Error> {
        let Some(text) = metadata.get(TIMESTEPS) else { return Ok(None) };
        let read = serde_json::from_str::<Timesteps>(text).ok();
        let numbers = |listed: &Timesteps| !listed.0.is_empty() && listed.0.iter().all(|t| (*t as f32).is_finite());
        let short: String = text.chars().take(60).collect();
        let unread = || anyhow!("metadata `{TIMESTEPS}`: found `{short}`, expected a list of at least one number");
        read.filter(numbers).map(Some).ok_or_else(|| Error::new(ErrorKind::Artifact, unread()))
    }

    /// The list.
    #[must_use]
    pub fn list(&self) -> &[f64] {
        &self.0
    }

    /// The metadata that [`Timesteps::of`] reads.
    #[must_use]
    pub fn metadata(&self) -> (String, String) {
        (TIMESTEPS.into(), serde_json::Value::from(self.0.as_slice()).to_string())
    }

    /// Checks that a timestep is listed: to a millionth, or rounded to fp16.
    ///
    /// # Errors
    /// The timestep, and those that there are.
    pub fn check(&self, asked: f64) -> Result<(), Error> {
        let is = |t: &f64| (asked - t).abs() <= 1e-6 * t.abs() || asked == DType::F16.round(*t);
        if self.0.iter().any(is) {
            return Ok(());
        }
        refuse!(
            Input,
            "timestep: found {}, expected {self}, which the artifact was compiled for: ask for those (leave out --steps), or compile it with --timesteps any for others",
            short(asked)
        )
    }

    /// [`Timesteps::check`] of the elements of the input `time`, if there is one.
    ///
    /// # Errors
    /// See [`Timesteps::check`].
    pub fn check_inputs(&self, inputs: &BTreeMap<String, HostTensor>, time: Option<&str>) -> Result<(), Error> {
        let asked = time.and_then(|time| inputs.get(time)).map(|t| t.data.as_slice()).unwrap_or_default();
        asked.iter().try_for_each(|&t| self.check(f64::from(t)))
    }
}

/// Timesteps of a list that is shown whole.
const MOST_SHOWN: usize = 8;

/// A timestep with as many digits as fp32 has.
fn short(t: f64) -> String {
    format!("{}", t as f32)
}

/// `1000, 937.5, 833.3333 or 625`; of a long list the ends.
impl fmt::Display for Timesteps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.0.iter().map(|t| short(*t)).collect();
        match shown.as_slice() {
            [first, second, third, .., last] if shown.len() > MOST_SHOWN => {
                write!(f, "one of {} timesteps ({first}, {second}, {third}, … {last})", shown.len())
            }
            [rest @ .., last] if !rest.is_empty() => write!(f, "{} or {last}", rest.join(", ")),
            _ => f.write_str(&shown.concat()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestep_is_listed_as_fp32_and_as_fp16() {
        let listed = Timesteps::new(vec![1000.0, f64::from(833.333_3_f32), 0.0]);
        for t in [1000.0, 2500.0 / 3.0, f64::from(833.333_3_f32), 833.5, 0.0] {
            listed.check(t).unwrap();
        }
        for t in [999.5, 833.0, 833.4, 1e-3, f64::NAN] {
            let message = listed.check(t).unwrap_err().to_string();
            assert!(message.contains("1000, 833.3333 or 0"), "{message}");
            assert!(message.contains(&format!("found {}", short(t))), "{message}");
        }
    }

    #[test]
    fn metadata_gives_the_list_back() {
        let listed = Timesteps::new(vec![1000.0, f64::from(833.333_3_f32)]);
        let metadata = BTreeMap::from([listed.metadata()]);
        assert_eq!(Timesteps::of(&metadata).unwrap(), Some(listed));
        assert_eq!(Timesteps::of(&BTreeMap::new()).unwrap(), None);
        let wrong = BTreeMap::from([(TIMESTEPS.to_string(), "soon".to_string())]);
        assert!(Timesteps::of(&wrong).unwrap_err().to_string().contains("`soon`"));
    }
}
