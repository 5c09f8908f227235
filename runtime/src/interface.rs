//! The interface of an artifact: read from its metadata, or told from the names that inputs usually have.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result, bail, ensure};
use s2dit_ir::Interface;
use s2dit_ir::interface::{Distribution, Input, InputRole, Milestone, Output, OutputRole};

use crate::Error;
use crate::ort_engine::Port;

/// The metadata field with an artifact's [`Interface`] as JSON.
pub const INTERFACE: &str = "s2ditc.interface";

/// The interface in an artifact's metadata; `None` if the artifact does not say.
///
/// # Errors
/// A field that is not an interface.
pub fn of(metadata: &BTreeMap<String, String>) -> Result<Option<Interface>, Error> {
    let Some(text) = metadata.get(INTERFACE) else { return Ok(None) };
    let read = serde_json::from_str(text)
        .with_context(|| format!("metadata `{INTERFACE}`: expected the roles of inputs and results"));
    read.map(Some).map_err(Error::artifact)
}

/// Checks an interface that an artifact says against what the artifact takes and computes: names of ports, roles that their types and shapes
/// allow, ranges that numbers can be drawn from.
///
/// # Errors
/// The first name, role or range that does not fit.
pub fn check(interface: &Interface, inputs: &[Port], outputs: &[String], values: &HashSet<&str>) -> Result<(), Error> {
    fits(interface, inputs, outputs, values).map_err(Error::artifact)
}

fn fits(interface: &Interface, inputs: &[Port], outputs: &[String], values: &HashSet<&str>) -> Result<()> {
    let mut seen = HashSet::new();
    for Input { name, role } in &interface.inputs {
        let place = format!("metadata `{INTERFACE}`: input `{name}`");
        ensure!(seen.insert(name), "{place}: found twice, expected once");
        let Some(port) = inputs.iter().find(|port| port.name == *name) else {
            let there: Vec<&str> = inputs.iter().map(|port| port.name.as_str()).collect();
            bail!("{place}: no such input, expected one of {}", there.join(", "));
        };
        let float = port.dtype.starts_with('f') || port.dtype.starts_with("bf");
        let (fits, expected) = match role {
            InputRole::Latent => (float && port.shape.len() == 5, "floats [1, C, F, H, W], as a latent has".to_owned()),
            InputRole::Text => (float && port.shape.len() == 3, "floats [1, L, width], as a text has".to_owned()),
            InputRole::Image => (float && port.shape.len() == 3, "floats [1, M, width], as an image has".to_owned()),
            InputRole::Pooled => (float && port.shape.len() == 2, "floats [1, width], as one embedding has".to_owned()),
            InputRole::Guidance => (float && port.shape.len() <= 1, "one float [1], as a strength has".to_owned()),
            InputRole::Time { low, high } => {
                let (low, high) = (*low as f32, *high as f32);
                let drawn = low < high && low.is_finite() && high.is_finite() && (high - low).is_finite();
                (float && drawn, format!("floats from `low` to a larger `high`, found {low} and {high}"))
            }
            InputRole::Tokens { vocabulary } => {
                let few = (1..=1 << 24).contains(vocabulary);
                (!float && few, format!("integers, and a vocabulary of 1 to {}, found {vocabulary}", 1 << 24))
            }
            _ => (true, String::new()),
        };
        ensure!(fits, "{place}: found {}{:?}, expected {expected}", port.dtype, port.shape);
    }
    let mut seen = HashSet::new();
    ensure!(!interface.outputs.is_empty(), "metadata `{INTERFACE}`: outputs: found none, expected at least one");
    for Output { name, .. } in &interface.outputs {
        let place = format!("metadata `{INTERFACE}`: output `{name}`");
        ensure!(seen.insert(name), "{place}: found twice, expected once");
        ensure!(outputs.contains(name), "{place}: no such output, expected one of {}", outputs.join(", "));
    }
    let mut seen = HashSet::new();
    for Milestone { value, .. } in &interface.milestones {
        let place = format!("metadata `{INTERFACE}`: milestone `{value}`");
        ensure!(seen.insert(value), "{place}: found twice, expected once");
        ensure!(values.contains(value.as_str()), "{place}: expected a value that the artifact computes, found none");
    }
    Ok(())
}

/// The metadata that [`of`] reads.
///
/// # Errors
/// Never for an interface of the IR: its names are text and its numbers finite.
pub fn metadata(interface: &Interface) -> Result<(String, String), Error> {
    let text = serde_json::to_string(interface).map_err(|error| Error::input(error.into()))?;
    Ok((INTERFACE.into(), text))
}

/// Names that latents, times, texts with their masks and pooled embeddings, and guidance have in diffusers, in its exports and in artifacts of
/// earlier versions of this compiler.
const LATENTS: &[&str] = &["latent", "hidden_states", "sample"];
const TIMES: &[&str] = &["timestep", "timesteps"];
const TEXTS: &[&str] = &["text", "encoder_hidden_states"];
const MASKS: &[&str] = &["text_mask", "encoder_attention_mask"];
const POOLED: &[&str] = &["pooled", "pooled_projections"];
const STRENGTH: &str = "guidance";

/// The interface of an artifact that does not say its own, by names: an input that is called as diffusers calls a latent, a time, a text, its
/// mask, its pooled embedding or guidance is one. Values called `block0`, `block1`, … end blocks.
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
        n if MASKS.contains(&n) => InputRole::TextMask,
        n if POOLED.contains(&n) => InputRole::Pooled,
        STRENGTH => InputRole::Guidance,
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
    fn what_an_artifact_says_of_itself_is_checked() {
        let port = |name: &str, dtype: &str, shape: &[i64]| Port {
            name: name.into(),
            dtype: dtype.into(),
            shape: shape.into(),
        };
        let ports =
            [port("latent", "f32", &[1, 4, 3, 8, 8]), port("timestep", "f32", &[1]), port("text", "f16", &[1, 8, 32])];
        let (outputs, values) = (["velocity".to_string()], HashSet::from(["block0", "velocity"]));
        let good = conventional(["latent", "timestep", "text"], ["velocity"], ["block0"]);
        let said = |change: &dyn Fn(&mut Interface)| {
            let mut changed = good.clone();
            change(&mut changed);
            check(&changed, &ports, &outputs, &values).map_err(|error| error.to_string())
        };
        assert_eq!(said(&|_| {}), Ok(()));
        let refused = |change: &dyn Fn(&mut Interface), part: &str| {
            let message = said(change).unwrap_err();
            assert!(message.contains(INTERFACE) && message.contains(part), "{message}");
        };
        refused(
            &|i| i.inputs[0].name = "latenx".into(),
            "input `latenx`: no such input, expected one of latent, timestep, text",
        );
        refused(&|i| i.inputs[1].name = "latent".into(), "found twice");
        refused(&|i| i.inputs[2].role = InputRole::Latent, "input `text`: found f16[1, 8, 32]");
        refused(&|i| i.inputs[2].role = InputRole::Tokens { vocabulary: 7 }, "integers");
        for (low, high) in
            [(1000.0, 0.0), (5.0, 5.0), (0.0, f64::INFINITY), (0.0, 1e39), (-3e38, 3e38), (f64::NAN, 1.0)]
        {
            refused(&|i| i.inputs[1].role = InputRole::Time { low, high }, "input `timestep`");
        }
        refused(&|i| i.outputs.clear(), "outputs: found none");
        refused(&|i| i.outputs[0].name = "veloc".into(), "output `veloc`: no such output, expected one of velocity");
        refused(&|i| i.milestones[0].value = "blockx".into(), "milestone `blockx`");
        refused(&|i| i.milestones.push(i.milestones[0].clone()), "found twice");
    }

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
