//! Reports of `s2ditc compile` on its passes: `--emit ir --after`, `--time-passes`, `--verify-each`.

use std::fmt::Write;

use anyhow::{Result, bail};
use s2dit_ir::{Module, text};
use s2dit_passes::PassRun;
use s2dit_runtime::Timesteps;

use super::{Context, print_rows};
use s2dit_emit::plan::Sources;
use s2dit_emit::watch::{PassEffect, Watcher};

/// The questions asked about the passes, and the answers so far.
pub(super) struct Passes<'a> {
    after: Option<&'a str>,
    wanted: bool,
    watcher: Watcher<'a>,
    seen: Vec<&'static str>,
    text: Option<String>,
}

impl<'a> Passes<'a> {
    /// `after` is the pass whose IR is wanted; with `verify_each` the graph is run after each pass with these constants.
    pub fn new(after: Option<&'a str>, time: bool, verify_each: Option<&'a Sources<'a>>, context: Context) -> Self {
        let weights = verify_each.map(|sources| sources as _);
        let watcher = Watcher::new(weights, context.threads);
        Passes { after, wanted: time || verify_each.is_some(), watcher, seen: Vec::new(), text: None }
    }

    /// The graph is run at the first timestep of this list, if there is one.
    pub fn at(self, listed: Option<Timesteps>) -> Self {
        Passes { watcher: self.watcher.at(listed), ..self }
    }

    pub fn see(&mut self, done: Option<&PassRun>, module: &Module) {
        self.watcher.see(done, module);
        self.seen.extend(done.map(|s| s.pass));
        let position = self.seen.len().to_string();
        if self.after.is_some_and(|after| done.is_some_and(|s| s.pass == after) || after == position) {
            self.text = Some(text::print(module));
        }
    }

    /// The IR that was asked for; `module` is the finished one.
    pub fn text(&mut self, module: &Module) -> Result<String> {
        match (self.after, self.text.take()) {
            (None, _) => Ok(text::print(module)),
            (Some(_), Some(text)) => Ok(text),
            (Some(after), None) => bail!(
                "--after: found {after:?}, expected a pass of this compile, by name or position (0 is before the first): {}",
                self.seen
                    .iter()
                    .enumerate()
                    .map(|(i, name)| format!("{} {name}", i + 1))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        }
    }

    /// The row of each pass; empty if nobody asked.
    pub fn finish(self) -> Result<Vec<PassEffect>> {
        let rows = self.watcher.finish()?;
        Ok(if self.wanted { rows } else { Vec::new() })
    }
}

/// Prints the passes on standard error: standard output may be the IR.
pub(super) fn eprint_rows(rows: &[PassEffect]) {
    if rows.is_empty() {
        return;
    }
    let mut table = format!("{:>3} {:24} {:>8} {:>8} {:>9}", "", "pass", "changes", "ops", "time");
    let compared = rows.iter().any(|row| row.moved.is_some());
    if compared {
        table += "   moved (rel. L2)  since the start   most";
    }
    for (i, row) in rows.iter().enumerate() {
        let _ = write!(
            table,
            "\n{:>3} {:24} {:>8} {:>8} {:>6.1} ms",
            i + 1,
            row.pass,
            row.changes,
            row.ops,
            1e3 * row.seconds
        );
        match &row.moved {
            Some(m) => {
                let worst = if m.relative_l2 > 0.0 { m.worst.as_str() } else { "" };
                let _ = write!(table, "   {:>15.1e} {:>16.1e}   {worst}", m.relative_l2, m.relative_l2_in_all);
            }
            None if compared => table += "   other results than before",
            None => {}
        }
    }
    print_rows(&table);
}
