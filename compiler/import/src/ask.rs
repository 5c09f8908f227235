//! What the command line says of a graph: roles of its inputs and results, and values of symbolic sizes.

use std::collections::BTreeMap;
use std::str::FromStr;

use s2dit_files::problems::{Problem, Problems, quoted};
use s2dit_ir::interface::{Distribution, InputRole, OutputRole};

/// What the command line says of a graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ask {
    /// Roles of inputs.
    pub inputs: Vec<GivenInput>,
    /// Roles of results.
    pub outputs: Vec<GivenOutput>,
    /// Values of symbolic sizes.
    pub bind: Vec<Binding>,
}

impl Ask {
    /// Whether nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.outputs.is_empty() && self.bind.is_empty()
    }

    /// Checks that nothing is said twice.
    ///
    /// # Errors
    /// An input or a result with two roles; a size with two values.
    pub fn check(&self) -> Result<(), Problems> {
        let mut problems = Problems::new();
        let mut twice = |flag: &str, names: Vec<&str>| {
            for (i, name) in names.iter().enumerate() {
                if names[..i].contains(name) {
                    problems.push(format!("{flag} {}", quoted(name)), "the name twice", "each name once");
                }
            }
        };
        twice("--input", self.inputs.iter().map(|given| given.name.as_str()).collect());
        twice("--result", self.outputs.iter().map(|given| given.name.as_str()).collect());
        twice("--bind", self.bind.iter().map(|binding| binding.size.as_str()).collect());
        problems.into_result()
    }

    /// The values of symbolic sizes by name.
    #[must_use]
    pub fn sizes(&self) -> BTreeMap<&str, usize> {
        self.bind.iter().map(|binding| (binding.size.as_str(), binding.value)).collect()
    }
}

/// A role that is given to an input: `ROLE=NAME`, and of some roles numbers behind the name, such as `time=t:0:1`.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenInput {
    /// Name of the input.
    pub name: String,
    /// Role of the input. If it was not said, the vocabulary of tokens is 0, and so are both ends of a time's range.
    pub role: InputRole,
}

const INPUT: &str = "ROLE=NAME with a role of latent, time, text, text_mask, tokens, image, pooled, guidance or other, such as latent=x, \
                     time=t:0:1 (its range) or tokens=ids:49408 (the vocabulary)";

impl FromStr for GivenInput {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let problem = || Problem { place: "--input".into(), found: quoted(text), expected: INPUT.into() };
        let (role, name) = text.split_once('=').ok_or_else(problem)?;
        let mut parts = name.split(':');
        let name = parts.next().filter(|name| !name.is_empty()).ok_or_else(problem)?.to_owned();
        let numbers: Vec<f64> = parts.map(|n| n.trim().parse().map_err(|_| problem())).collect::<Result<_, _>>()?;
        let role = match (role.trim(), numbers.as_slice()) {
            ("latent", []) => InputRole::Latent,
            ("time", []) => InputRole::Time { low: 0.0, high: 0.0 },
            ("time", &[low, high]) if low.is_finite() && high.is_finite() && low < high => {
                InputRole::Time { low, high }
            }
            ("text", []) => InputRole::Text,
            ("text_mask", []) => InputRole::TextMask,
            ("tokens", []) => InputRole::Tokens { vocabulary: 0 },
            ("tokens", &[n]) if n >= 1.0 && n.fract() == 0.0 && n < 1e9 => InputRole::Tokens { vocabulary: n as usize },
            ("image", []) => InputRole::Image,
            ("pooled", []) => InputRole::Pooled,
            ("guidance", []) => InputRole::Guidance,
            ("other", []) => InputRole::Other { distribution: Distribution::Normal },
            _ => return Err(problem()),
        };
        Ok(GivenInput { name, role })
    }
}

/// A role that is given to a result: `ROLE=NAME`.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenOutput {
    /// Name of the result.
    pub name: String,
    /// Role of the result.
    pub role: OutputRole,
}

impl FromStr for GivenOutput {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let problem = || Problem {
            place: "--result".into(),
            found: quoted(text),
            expected: "ROLE=NAME with a role of velocity, video, text, pooled, embedding or other, such as velocity=y"
                .into(),
        };
        let (role, name) = text.split_once('=').filter(|(_, name)| !name.is_empty()).ok_or_else(problem)?;
        let role = match role.trim() {
            "velocity" => OutputRole::Velocity,
            "video" => OutputRole::Video,
            "text" => OutputRole::Text,
            "pooled" => OutputRole::Pooled,
            "embedding" => OutputRole::Embedding,
            "other" => OutputRole::Other,
            _ => return Err(problem()),
        };
        Ok(GivenOutput { name: name.to_owned(), role })
    }
}

/// The value of a symbolic size: `NAME=N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Name of the size in the file, such as `s0`.
    pub size: String,
    /// Value of the size.
    pub value: usize,
}

impl FromStr for Binding {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let parsed = text.split_once('=').and_then(|(size, value)| {
            let value = value.trim().parse().ok().filter(|n| (1..=1 << 31).contains(n))?;
            (!size.trim().is_empty()).then(|| Binding { size: size.trim().to_owned(), value })
        });
        parsed.ok_or_else(|| Problem {
            place: "--bind".into(),
            found: quoted(text),
            expected: "SIZE=NUMBER, such as s0=77".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_and_sizes_are_read() {
        let input = |text: &str| text.parse::<GivenInput>();
        assert_eq!(input("latent=x").unwrap(), GivenInput { name: "x".into(), role: InputRole::Latent });
        assert_eq!(input("time=t:0:1").unwrap().role, InputRole::Time { low: 0.0, high: 1.0 });
        assert_eq!(input("tokens=ids:10").unwrap().role, InputRole::Tokens { vocabulary: 10 });
        for bad in ["x", "latent=", "pixels=x", "time=t:1:0", "time=t:0", "tokens=i:0.5", "latent=x:1", "time=t:0:nan"]
        {
            assert!(input(bad).unwrap_err().to_string().contains("--input"), "{bad}");
        }
        assert_eq!("velocity=y".parse::<GivenOutput>().unwrap().role, OutputRole::Velocity);
        assert!("latent=y".parse::<GivenOutput>().is_err());
        assert_eq!("s0=77".parse::<Binding>().unwrap(), Binding { size: "s0".into(), value: 77 });
        for bad in ["s0", "s0=0", "=1", "s0=-1", "s0=99999999999"] {
            assert!(bad.parse::<Binding>().is_err(), "{bad}");
        }
    }
}
