//! The engine that a Core ML package is shaped for.

use std::sync::Arc;

use s2dit_passes::pipelines::Engine;
use s2dit_passes::{Lowerings, channels_first};
use serde::Serialize;

use super::Target;
use crate::plan::Quantize;
use s2dit_files::choice;

/// The engine whose rules the graph is shaped by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compute {
    /// The Neural Engine: channels first, tokens on the last axis, 1×1 convolutions, fp16 throughout.
    #[default]
    Ane,
    /// The GPU: the graph as PyTorch has it, tokens before channels.
    Gpu,
    /// Any: the same graph.
    Any,
}

/// The treatment of softmax attention's heads on the Neural Engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attention {
    /// All heads in one batched product: the fewest ops.
    #[default]
    Batched,
    /// A product for each head and each 512 queries: the smallest intermediate values.
    PerHead,
}

choice!(Compute, "compute", Ane = "ane", Gpu = "gpu", Any = "any");
choice!(Attention, "attention", Batched = "batched", PerHead = "per-head");

/// The shape of a Core ML package: engine, treatment of attention, and what a device asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// See [`Compute`].
    pub compute: Compute,
    /// See [`Attention`].
    pub attention: Attention,
    /// Weights are not joined, even if none is compressed: what a compressed package is measured against.
    pub apart: bool,
    /// The device that the package is for, if there is one.
    pub device: Option<Arc<str>>,
    /// What it asks for.
    pub lowerings: Lowerings,
}

/// Metadata key of [`Compute`].
pub const COMPUTE: &str = "s2ditc.compute";
/// Metadata key of [`Attention`].
pub const ATTENTION: &str = "s2ditc.attention";
/// Metadata key of the device that a package is for.
pub const DEVICE: &str = "s2ditc.device";
/// Metadata key of [`Lowerings`], as [`Lowerings::names`] has them.
pub const LOWERINGS: &str = "s2ditc.lowerings";

impl Layout {
    /// The metadata that a package of this layout carries.
    pub(super) fn metadata(&self, target: Target) -> Vec<(String, String)> {
        if target == Target::Onnx {
            return Vec::new();
        }
        let mut metadata = vec![(COMPUTE.into(), self.compute.to_string())];
        if self.compute == Compute::Ane {
            metadata.push((ATTENTION.into(), self.attention.to_string()));
        }
        if let Some(device) = &self.device {
            metadata.push((DEVICE.into(), device.to_string()));
            metadata.push((LOWERINGS.into(), self.lowerings.names().join(",")));
        }
        metadata
    }

    /// How the Neural Engine gets a graph. Weights that are compressed one by one are not joined.
    pub(super) fn engine(&self, quantize: Option<&Quantize>, partitioned: bool) -> Engine {
        let layout = channels_first::Options {
            across_blocks: !partitioned,
            apart: self.apart || quantize.is_some(),
            per_head: self.attention == Attention::PerHead,
            ..channels_first::Options::default()
        };
        Engine { layout, lowerings: self.lowerings }
    }
}
