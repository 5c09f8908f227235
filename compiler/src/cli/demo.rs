//! `s2ditc demo`

use std::process::ExitCode;

use anyhow::Result;

use super::Context;

/// Make a small checkpoint, compile it to both targets and prove both
#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args, _: Context) -> Result<ExitCode> {
    anyhow::bail!("not yet")
}
