//! The ops that are read: a file for each group of them.
//!
//! A reader of an op is found by domain and name. It gets the node with its inputs, adds to the graph what the op means in plain tensor ops, as
//! PyTorch would trace it, and gives the node's outputs. Where all inputs are known, it computes.

mod activation;
mod arithmetic;
mod attention;
mod compare;
mod constant;
mod conv;
mod einsum;
mod gather;
mod layout;
mod microsoft;
mod norm;
mod product;
mod quantized;
mod reduce;
mod resize;
mod scatter;
mod slice;

pub(super) use compare::{COMPARED, Comparison, NEVER};
pub(super) use scatter::Written;

use super::node::{Made, Node};
use super::walk::Walk;
use crate::Rewrite;

/// A function that reads an op.
pub(super) type Handler = for<'w, 'm> fn(&mut Walk<'w>, &Node<'m>) -> Made;

/// The domain of ONNX Runtime's own ops.
const MICROSOFT: &str = "com.microsoft";

/// The reader of an op; the standard domain is `""`.
pub(super) fn handler(domain: &str, op: &str) -> Option<Handler> {
    match domain {
        "" => activation::handler(op)
            .or_else(|| arithmetic::handler(op))
            .or_else(|| compare::handler(op))
            .or_else(|| constant::handler(op))
            .or_else(|| layout::handler(op))
            .or_else(|| slice::handler(op))
            .or_else(|| gather::handler(op))
            .or_else(|| scatter::handler(op))
            .or_else(|| reduce::handler(op))
            .or_else(|| norm::handler(op))
            .or_else(|| product::handler(op))
            .or_else(|| einsum::handler(op))
            .or_else(|| conv::handler(op))
            .or_else(|| resize::handler(op))
            .or_else(|| attention::handler(op))
            .or_else(|| quantized::handler(op)),
        MICROSOFT => microsoft::handler(op),
        _ => None,
    }
}

/// Ways around ops that are not read.
pub(super) const REWRITES: &[Rewrite] = &[
    Rewrite { op: "Loop", instead: "a loop of fixed length, which the exporter unrolls" },
    Rewrite { op: "Scan", instead: "a loop of fixed length, which the exporter unrolls" },
    Rewrite { op: "If", instead: "a condition that is settled when the model is exported" },
    Rewrite { op: "NonZero", instead: "a mask that multiplies, in place of chosen positions" },
    Rewrite { op: "Where", instead: "a product with a mask of 0 and 1" },
    Rewrite { op: "RandomNormal", instead: "an input that holds the noise" },
    Rewrite { op: "RandomUniform", instead: "an input that holds the noise" },
    Rewrite { op: "Dropout", instead: "`model.eval()` before the export" },
    Rewrite { op: "LSTM", instead: "a model without recurrence" },
    Rewrite { op: "GRU", instead: "a model without recurrence" },
    Rewrite { op: "DFT", instead: "a product with a table of sines and cosines" },
];
