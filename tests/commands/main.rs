//! Whole-program tests of the commands: what they take, refuse, print and write.

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod ci_workflow;
mod cli;
mod determinism;
mod device;
mod docs;
mod doors;
mod errors;
mod estimate;
mod found_cases;
mod hub;
mod library;
mod outputs;
mod python_module;
mod search;
mod strangers;
mod tutorials;
