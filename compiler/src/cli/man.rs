//! Manual pages, written from the same definitions as `--help`.

use anyhow::Result;
use clap_mangen::Man;

use super::usage::refuse;

/// The manual page of a command, or of the program, in roff.
pub(super) fn page(command: Option<&str>) -> Result<String> {
    let mut program = super::command().disable_help_subcommand(true);
    program.build();
    let man = match command {
        None => Man::new(program),
        Some(name) => {
            let Some(found) = program.get_subcommands().find(|known| known.get_name() == name && !known.is_hide_set())
            else {
                let known: Vec<&str> =
                    program.get_subcommands().filter(|c| !c.is_hide_set()).map(clap::Command::get_name).collect();
                refuse!("man: found the command `{name}`, expected one of {}", known.join(", "));
            };
            Man::new(found.clone())
        }
    };
    let mut roff = Vec::new();
    man.render(&mut roff)?;
    Ok(String::from_utf8(roff)?)
}
