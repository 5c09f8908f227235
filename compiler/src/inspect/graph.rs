//! An imported graph: where it is from, what its inputs and results are for, and what it costs.

use anyhow::Result;
use s2dit_ir::interface::InputRole;
use s2dit_ir::{Op, TensorType};
use serde::Serialize;
use serde_json::Value;

use super::model::{BlockCost, costs};
use super::recognition::{Recognition, recognition};
use s2dit_models::checkpoint::{Checkpoint, Merged};
use s2dit_models::graph::Graph;
use s2dit_models::model::Model as _;
use s2dit_models::size::Size;

/// An imported graph.
#[derive(Debug, Serialize)]
pub struct GraphReport {
    /// The file.
    pub path: String,
    /// The format and its producer, such as `PT2 of torch 2.7.1`.
    pub format: String,
    /// Inputs, in order.
    pub inputs: Vec<RoleReport>,
    /// Results, the one that a proof judges by first.
    pub outputs: Vec<RoleReport>,
    /// Adapters that are merged into the weights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<Merged>,
    /// Files.
    pub files: usize,
    /// Tensors.
    pub tensors: usize,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Tensors by dtype.
    pub dtypes: Vec<(String, usize)>,
    /// blake3 of the tensors.
    pub hash: String,
    /// Module paths of the blocks, in order.
    pub blocks: Vec<String>,
    /// Ops that depend on an input.
    pub ops: usize,
    /// Costs of blocks and other parts, in order of the forward pass.
    pub costs: Vec<BlockCost>,
    /// Formulas and blocks recognised in the graph.
    pub recognised: Vec<Recognition>,
}

/// An input or a result of a graph.
#[derive(Debug, Serialize)]
pub struct RoleReport {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: String,
    /// What it is for, such as `latent`.
    pub role: String,
    /// Whether the role is a guess.
    pub guessed: bool,
}

impl GraphReport {
    /// The report of an open graph.
    ///
    /// # Errors
    /// A size that is not the graph's.
    pub(super) fn new(checkpoint: &Checkpoint, graph: &Graph, size: Option<Size>) -> Result<GraphReport> {
        let weights = checkpoint.weights();
        let module = graph.build(checkpoint, size.unwrap_or(Size::Only))?;
        let f = &module.functions[0];
        let report = |name: &str, ty: Option<&TensorType>, role: String| RoleReport {
            name: name.to_owned(),
            ty: ty.map(ToString::to_string).unwrap_or_default(),
            role,
            guessed: graph.guessed().iter().any(|guessed| guessed == name),
        };
        let interface = &module.interface;
        let inputs = interface
            .inputs
            .iter()
            .map(|input| report(&input.name, f.by_name(&input.name).map(|v| f.ty(v)), role_in_words(&input.role)));
        let outputs = interface.outputs.iter().map(|output| {
            let value = f.results.iter().find(|(name, _)| *name == output.name).map(|(_, v)| f.ty(*v));
            report(&output.name, value, word(&serde_json::to_value(output.role).unwrap_or_default()))
        });
        let computed = f.order().into_iter().filter(|&v| !f.is_const(v) && !matches!(f.op(v), Op::Input(_))).count();
        Ok(GraphReport {
            path: checkpoint.path().display().to_string(),
            format: graph.format().to_owned(),
            inputs: inputs.collect(),
            outputs: outputs.collect(),
            loras: checkpoint.loras().cloned().collect(),
            files: checkpoint.files().len(),
            tensors: weights.names().len(),
            parameters: weights.parameters(),
            bytes: weights.stored_bytes(),
            dtypes: weights.dtypes().iter().map(|(d, n)| (d.to_string(), *n)).collect(),
            hash: format!("blake3:{}", checkpoint.content_hash().to_hex()),
            blocks: interface.milestones.iter().map(|milestone| milestone.scope.clone()).collect(),
            ops: computed,
            costs: costs(&module, &graph.outline()),
            recognised: recognition(module)?,
        })
    }
}

/// `time from 0 to 1000`, `tokens of 49408`, `latent`
fn role_in_words(role: &InputRole) -> String {
    match role {
        InputRole::Time { low, high } => format!("time from {low} to {high}"),
        InputRole::Tokens { vocabulary } => format!("tokens of {vocabulary}"),
        other => word(&serde_json::to_value(other).unwrap_or_default()["role"]),
    }
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().replace('_', " ")
}
