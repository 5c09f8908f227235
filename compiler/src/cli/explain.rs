//! `s2ditc explain`

use std::process::ExitCode;

use anyhow::Result;
use s2dit_files::problems::quoted;
use serde_json::{Value, json};

use super::usage::refuse;
use super::{print_json, print_line};
use crate::errors::{self, Class};

/// Say what an error means, why it happens and what to do
#[derive(clap::Args)]
#[command(after_help = "Examples:
  s2ditc explain
  s2ditc explain E0303
  s2ditc explain 'error: cannot write `x.onnx`: the folder `out` does not exist'

The last line of an error names its id. docs/errors.md has every id with all its messages.")]
pub(super) struct Args {
    /// An id, such as E0303, or an error as it was printed, all lines of it; without it, all ids
    #[arg(value_name = "ID|ERROR")]
    what: Vec<String>,
    /// Print as JSON, with the messages of the class
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    // An error without quotes comes as its words.
    match &*args.what.join(" ") {
        "" if args.json => print_json(&json!({"errors": errors::classes().iter().map(as_json).collect::<Vec<_>>()}))?,
        "" => print_line(&list())?,
        what => {
            let Some(class) = named(what).or_else(|| errors::of(what)) else {
                refuse!(
                    "explain: found {}, expected an id such as E0303, or an error as it was printed; `s2ditc explain` lists the ids",
                    quoted(what)
                );
            };
            if args.json { print_json(&as_json(class))? } else { print_line(&text(class))? }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The class that a text names by itself: an id, or an error with the line that names its id.
fn named(text: &str) -> Option<&'static Class> {
    const NAMED_BY: &str = "s2ditc explain ";
    let id = text.rsplit_once(NAMED_BY).map_or(text, |(_, id)| id);
    errors::find(id.trim())
}

fn as_json(class: &'static Class) -> Value {
    let Class { id, area, title, cause, cure, .. } = class;
    json!({
        "id": id, "area": area, "title": title, "cause": cause, "cure": cure,
        "messages": errors::messages(class).chain(class.also.iter().map(String::as_str)).collect::<Vec<_>>(),
    })
}

fn text(class: &Class) -> String {
    let Class { id, title, cause, cure, .. } = class;
    format!("{id}: {title}\n\nCause: {cause}\n\nCure: {cure}")
}

fn list() -> String {
    let mut out = String::new();
    let mut area = "";
    for class in errors::classes() {
        if class.area != area {
            area = &class.area;
            out += &format!("{}{area}:\n", if out.is_empty() { "" } else { "\n" });
        }
        out += &format!("  {}  {}\n", class.id, class.title);
    }
    out.trim_end().to_owned()
}
