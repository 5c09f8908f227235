//! Whole-program tests of quantization: schemes, plans, goals, and int8 activations.

#[path = "../common/mod.rs"]
mod common;

mod quantize;
mod quantize_goals;
mod quantize_plan;
mod quantize_w8a8;
mod trained;
