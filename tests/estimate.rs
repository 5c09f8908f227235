//! `s2ditc estimate`: what it says of a configuration, a checkpoint and what is compiled from it, beside the artifacts themselves.

mod common;
