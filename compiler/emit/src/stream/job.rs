//! A compile job for a kernel, and what passes make of it.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use s2dit_ir::{Function, Module};
use s2dit_passes::split::Kernel;
use s2dit_passes::states::{self, Place};

use crate::parts::Partition;
use crate::plan::Quantize;
use crate::{Compute, Layout, Opset, Precision, Target, TimestepChoice};
use s2dit_files::choice;

/// The place of the states between calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum States {
    /// Inputs and outputs: the host carries them.
    #[default]
    Io,
    /// The model keeps them: Core ML states, packed into one, or a handle of Core AI each.
    Native,
}

/// The spread of the functions over packages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Functions {
    /// One package with three functions, one weight file.
    #[default]
    Shared,
    /// A package each, with one weight file between them on this disk.
    Separate,
}

choice!(States, "states", Io = "io", Native = "native");

impl States {
    /// The place of the states in what a target stores.
    pub(crate) fn place(self, target: Target) -> Place {
        match (self, target) {
            (States::Io, _) => Place::Io,
            (States::Native, Target::CoreAi) => Place::Handles,
            (States::Native, Target::CoreMl | Target::Onnx) => Place::Native,
        }
    }

    /// Refuses what a target cannot keep.
    pub(crate) fn check(self, target: Target, precision: Precision) -> Result<()> {
        match (self, target, precision) {
            (States::Native, Target::Onnx, _) => {
                bail!("--states native is for --target coreml and coreai: ONNX has no states; use --states io")
            }
            (States::Native, Target::CoreMl, Precision::Fp32) => bail!(
                "--states native needs --precision fp16: Core ML's states are fp16 only; use --states io for fp32"
            ),
            _ => Ok(()),
        }
    }
}

choice!(Functions, "functions", Shared = "shared", Separate = "separate");

/// A compile job for a kernel.
#[derive(Clone, Debug)]
pub struct Options {
    /// Format of the output.
    pub target: Target,
    /// Arithmetic.
    pub precision: Precision,
    /// The newest ONNX operator set that may be used.
    pub opset: Opset,
    /// Shape of Core ML packages.
    pub layout: Layout,
    /// Latent rows and columns.
    pub rows: usize,
    /// See [`Options::rows`].
    pub cols: usize,
    /// Timesteps that `denoise` can be asked for.
    pub timesteps: TimestepChoice,
    /// Place of the states between calls.
    pub states: States,
    /// Spread of the functions over packages.
    pub functions: Functions,
    /// Storage of large weights; `None` stores them in the precision.
    pub quantize: Option<Quantize>,
    /// Several packages or assets for each function [Core ML, Core AI].
    pub partition: Option<Partition>,
}

impl Options {
    /// Whether functions share artifacts. Those of Core AI always do.
    pub(super) fn shared(&self) -> bool {
        match self.target {
            Target::Onnx => false,
            Target::CoreMl => self.partition.is_none() && self.functions == Functions::Shared,
            Target::CoreAi => true,
        }
    }

    /// The kernel that others are compared with: fp32, for ONNX Runtime.
    #[must_use]
    pub fn reference(rows: usize, cols: usize) -> Options {
        Options {
            target: Target::Onnx,
            precision: Precision::Fp32,
            opset: Opset::V21,
            layout: Layout { compute: Compute::Any, ..Layout::default() },
            rows,
            cols,
            timesteps: TimestepChoice::Any,
            states: States::Io,
            functions: Functions::Separate,
            quantize: None,
            partition: None,
        }
    }
}

/// A lowered kernel: what is written, and what the contract says of it.
pub struct Lowered {
    /// Functions `denoise`, the one that writes the states, and `prompt`, as the target gets them.
    pub module: Module,
    pub(super) kernel: Kernel,
    pub(super) packing: Vec<states::Packed>,
    /// If the functions are partitioned: each one's parts, with their place among the blocks.
    pub(super) parts: BTreeMap<String, Vec<(usize, Function)>>,
}

impl Lowered {
    /// The network as it was split: what its host inputs and states are.
    #[must_use]
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Where each state lies in the packed one, if there is one.
    #[must_use]
    pub fn packing(&self) -> &[states::Packed] {
        &self.packing
    }
}
