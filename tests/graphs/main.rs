//! Whole-program tests of graphs: imported, recognised, rewritten, written field by field.

#[path = "../common/mod.rs"]
mod common;

mod import_onnx;
mod import_onnx_nodes;
mod import_pt2;
mod import_stream;
mod import_text;
mod mutants;
mod random_models;
mod recognition;
mod wire;
