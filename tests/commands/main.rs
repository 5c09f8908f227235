//! Whole-program tests of the commands: what they take, refuse, print and write.

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod ci_workflow;
mod cli;
mod determinism;
mod docs;
mod doors;
mod estimate;
mod found_cases;
mod hub;
mod outputs;
mod python_module;
mod search;
mod strangers;
