//! The functions of the Python module are the commands, with a keyword for each flag: `_commands.py` is written from what `--help` is written from.

use std::any::TypeId;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use clap::{Arg, ArgAction, Command};

use crate::common::repo;

const PLACE: &str = "compiler/python/python/s2ditc/_commands.py";

/// Commands and flags that make no sense in Python.
const LEFT_OUT: [&str; 7] = ["completions", "help", "man", "version", "json", "quiet", "serve"];

const HEAD: &str = r#""""The commands of s2ditc as functions.

Written from `--help` by `S2DITC_BLESS=1 cargo test -p s2ditc --all-features --locked --test commands python_module`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Optional, Union

from ._command import Path, Watch, command, many, sides

"#;

/// How a flag is in Python: its type, its default, and what is handed on.
struct Keyword {
    name: String,
    ty: String,
    default: &'static str,
    value: String,
}

fn is_named(arg: &Arg) -> bool {
    arg.get_long().is_some()
}

fn name(arg: &Arg) -> String {
    arg.get_long().unwrap_or(arg.get_id().as_str()).replace('-', "_")
}

/// What one value of an argument is.
fn value_type(arg: &Arg) -> String {
    let values: Vec<String> = arg.get_possible_values().iter().map(|v| format!("\"{}\"", v.get_name())).collect();
    let ty = arg.get_value_parser().type_id();
    let is_one_of = |types: &[TypeId]| types.iter().any(|known| ty == *known);
    let is_named = |parts: &[&str]| {
        let names = arg.get_value_names().unwrap_or_default();
        names.iter().any(|name| parts.iter().any(|part| name.contains(part)))
    };
    let is_size = arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.as_str() == "FxHxW"));
    match () {
        () if !values.is_empty() => format!("Literal[{}]", values.join(", ")),
        () if is_one_of(&[TypeId::of::<PathBuf>()]) => "Path".into(),
        () if is_named(&["SIZE"]) && !is_named(&["="]) => "Union[int, str]".into(),
        () if is_one_of(&[TypeId::of::<f64>()]) => "float".into(),
        () if is_one_of(&[
            TypeId::of::<u8>(),
            TypeId::of::<u16>(),
            TypeId::of::<u32>(),
            TypeId::of::<u64>(),
            TypeId::of::<usize>(),
        ]) =>
        {
            "int".into()
        }
        () if is_named(&["G["]) => "Union[float, str]".into(),
        () if arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.as_str() == "N")) => "int".into(),
        () if is_size => "Union[str, Sequence[int]]".into(),
        () if is_named(&["FILE", "PLAN", "DIR"]) && !is_named(&["="]) => "Path".into(),
        // What a text says, such as a scheme.
        () => "str".into(),
    }
}

fn keyword(arg: &Arg) -> Keyword {
    let name = name(arg);
    let one = value_type(arg);
    let takes_none = arg.get_num_args().is_some_and(|range| range.min_values() == 0 && range.max_values() > 0);
    let (ty, default, value) = match arg.get_action() {
        ArgAction::Append => {
            let several = format!("Union[{one}, Sequence[{one}], None]");
            (several, " = None", format!("many({name})"))
        }
        action if !action.takes_values() => ("bool".into(), " = False", name.clone()),
        _ if takes_none => (format!("Union[bool, {one}]"), " = False", name.clone()),
        _ if one.contains("Sequence[int]") => (format!("Optional[{one}]"), " = None", format!("sides({name})")),
        _ if arg.is_required_set() => (one, "", name.clone()),
        _ => (format!("Optional[{one}]"), " = None", name.clone()),
    };
    Keyword { name, ty, default, value }
}

/// A text as lines of a docstring.
fn wrapped(text: &str, indent: &str) -> String {
    let mut out = String::new();
    let mut line = indent.to_string();
    for word in text.split_whitespace() {
        if line.len() + word.len() >= 150 && line.trim() != "" {
            out += &(line.trim_end().to_string() + "\n");
            line = format!("{indent}    ");
        }
        line += word;
        line.push(' ');
    }
    (out + line.trim_end()).replace('\\', "\\\\")
}

fn help(arg: &Arg) -> String {
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    if arg.get_action().takes_values() && !defaults.is_empty() {
        text += &format!(" [default: {}]", defaults.join(" "));
    }
    text
}

fn function(command: &Command) -> String {
    let named = |arg: &&Arg| !LEFT_OUT.contains(&name(arg).as_str()) && !arg.is_hide_set();
    let (flags, subjects): (Vec<&Arg>, Vec<&Arg>) =
        command.get_arguments().filter(named).partition(|arg| is_named(arg));
    let has_json = command.get_arguments().any(|arg| name(arg) == "json");
    let mut out = format!("\n\ndef {}(\n", command.get_name());
    for subject in &subjects {
        // A path that is not required in one use of the command is required in the others.
        let ty = value_type(subject);
        let line = if subject.is_required_set() { ty } else { format!("Optional[{ty}] = None") };
        let _ = writeln!(out, "    {}: {line},", name(subject));
    }
    out += "    *,\n";
    let keywords: Vec<Keyword> = flags.iter().map(|arg| keyword(arg)).collect();
    let (required, others): (Vec<&Keyword>, Vec<&Keyword>) = keywords.iter().partition(|k| k.default.is_empty());
    for k in required.into_iter().chain(others) {
        let _ = writeln!(out, "    {}: {}{},", k.name, k.ty, k.default);
    }
    out += "    progress: Watch = None,\n) -> Any:\n";
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(out, "    \"\"\"{}.\n\n    Args:", wrapped(&about, "").trim_end_matches('.'));
    for arg in subjects.iter().chain(&flags) {
        let _ =
            writeln!(out, "{}", wrapped(&format!("{}: {}.", name(arg), help(arg).trim_end_matches('.')), "        "));
    }
    out += "        progress: Called with each step of the work; True shows a line, False shows nothing and keeps quiet, and without it a line is shown in a\n            terminal or a notebook.\n\n";
    let returns =
        if has_json { "The report that the command prints with --json." } else { "The text that the command prints." };
    let _ = writeln!(
        out,
        "    Returns:\n        {returns}\n\n    Raises:\n        Error: The command failed; the message is the command line's.\n    \"\"\""
    );
    let subjects: Vec<String> = subjects.iter().map(|arg| name(arg)).collect();
    out += "    flags = {\n";
    for (arg, k) in flags.iter().zip(&keywords) {
        let _ = writeln!(out, "        \"--{}\": {},", arg.get_long().unwrap_or_default(), k.value);
    }
    if has_json {
        out += "        \"--json\": True,\n";
    }
    let _ = writeln!(
        out,
        "    }}\n    return command(\"{}\", [{}], flags, progress)",
        command.get_name(),
        subjects.join(", ")
    );
    out
}

/// `S2DITC_BLESS=1` writes the file.
#[test]
fn python_module_has_every_command() {
    let mut cli = s2ditc::cli::command();
    cli.build();
    let is_one = |command: &&Command| !command.is_hide_set() && !LEFT_OUT.contains(&command.get_name());
    let commands: Vec<&Command> = cli.get_subcommands().filter(is_one).collect();
    assert!(commands.len() >= 10, "{} commands", commands.len());
    let names: Vec<String> = commands.iter().map(|c| format!("\"{}\"", c.get_name())).collect();
    let mut made = HEAD.to_string() + &format!("__all__ = [{}]\n", names.join(", "));
    for command in commands {
        made += &function(command);
    }
    let place = repo().join(PLACE);
    if std::env::var_os("S2DITC_BLESS").is_some() {
        fs::write(&place, made).expect(PLACE);
        return;
    }
    let written = fs::read_to_string(&place).unwrap_or_default();
    assert!(
        made == written,
        "{PLACE} is not what --help says: S2DITC_BLESS=1 cargo test -p s2ditc --all-features --locked --test commands python_module"
    );
}
