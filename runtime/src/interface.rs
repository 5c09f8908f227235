//! The interface of an artifact: read from its metadata, or told from the names that inputs usually have.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use s2dit_ir::Interface;
use s2dit_ir::interface::{Distribution, Input, InputRole, Milestone, Output, OutputRole};

/// The metadata field with an artifact's [`Interface`] as JSON.
pub const INTERFACE: &str = "s2ditc.interface";

/// The interface in an artifact's metadata; `None` if the artifact does not say.
///
/// # Errors
/// A field that is not an interface.
pub fn of(metadata: &BTreeMap<String, String>) -> Result<Option<Interface>> {
    let Some(text) = metadata.get(INTERFACE) else { return Ok(None) };
    let read = serde_json::from_str(text);
    read.map(Some).with_context(|| format!("metadata `{INTERFACE}`: expected the roles of inputs and results"))
}

/// The metadata that [`of`] reads.
///
/// # Errors
/// Never for an interface of the IR: its names are text and its numbers finite.
pub fn metadata(interface: &Interface) -> Result<(String, String)> {
    Ok((INTERFACE.into(), serde_json::to_string(interface)?))
}

/// Names that latents, times and texts have in diffusers, in its exports and in artifacts of earlier versions of this compiler.
const LATENTS: &[&str] = &["latent", "hidden_states", "sample"];
const TIMES: &[&str] = &["timestep", "timesteps"];
const TEXTS: &[&str] = &["text", "encoder_hidden_states"];

/// The interface of an artifact that does not say its own, by names: an input that is called as diffusers calls a latent, a time or a text
/// is one. Values called `block0`, `block1`, … end blocks.
#[must_use]
pub fn conventional<'a>(
    inputs: impl IntoIterator<Item = &'a str>,
    outputs: impl IntoIterator<Item = &'a str>,
    values: impl IntoIterator<Item = &'a str>,
) -> Interface {
    let role = |name: &str| match name {
        n if LATENTS.contains(&n) => InputRole::Latent,
        n if TIMES.contains(&n) => InputRole::Time { low: 0.0, high: 1000.0 },
        n if TEXTS.contains(&n) => InputRole::Text,
        _ => InputRole::Other { distribution: Distribution::Normal },
    };
    let output = |name: &str| if name == "velocity" { OutputRole::Velocity } else { OutputRole::Other };
    let mut blocks: Vec<usize> = values.into_iter().filter_map(block).collect();
    blocks.sort_unstable();
    blocks.dedup();
    Interface {
        inputs: inputs.into_iter().map(|name| Input { name: name.into(), role: role(name) }).collect(),
        outputs: outputs.into_iter().map(|name| Output { name: name.into(), role: output(name) }).collect(),
        milestones: blocks
            .into_iter()
            .map(|n| Milestone { value: format!("block{n}"), scope: format!("blocks.{n}") })
            .collect(),
    }
}

/// The number of the block that a value ends by convention: `block12` → 12.
#[must_use]
pub fn block(name: &str) -> Option<usize> {
    let number = name.strip_prefix("block")?.parse().ok()?;
    (name == format!("block{number}")).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_gives_the_interface_back() {
        let interface = conventional(["hidden_states", "timestep"], ["velocity"], ["block1", "x", "block0", "block01"]);
        let written = BTreeMap::from([metadata(&interface).unwrap()]);
        assert_eq!(of(&written).unwrap(), Some(interface.clone()));
        assert_eq!(
            (interface.latent(), interface.time(), interface.text()),
            (Some("hidden_states"), Some("timestep"), None)
        );
        assert_eq!(interface.milestones.len(), 2);
        assert_eq!(of(&BTreeMap::new()).unwrap(), None);
        let wrong = BTreeMap::from([(INTERFACE.to_string(), "{}".to_string())]);
        assert!(of(&wrong).is_err());
    }
}
