//! What an importer cannot read, all of it at once: each op with its uses, where they are, and a way around it if one is known.

use std::collections::BTreeMap;

use s2dit_files::problems::{Problem, Problems, shown};

/// A way around an op that is not read: a line of a table that each importer has.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite {
    /// Name of the op, or its beginning.
    pub op: &'static str,
    /// What to write in the model in its place.
    pub instead: &'static str,
}

/// Module paths that are listed of each op.
const MOST_PATHS: usize = 3;

/// Ops that are not read, collected while a graph is walked.
#[derive(Debug, Default)]
pub struct Unsupported {
    ops: BTreeMap<String, Uses>,
}

#[derive(Debug, Default)]
struct Uses {
    count: usize,
    paths: Vec<String>,
    /// What is wrong with the use that was met first; empty if the op is not known at all.
    why: String,
}

impl Unsupported {
    /// Adds a use of an op in a module; `why` says what is wrong with it if the op is known, and is empty otherwise.
    pub fn add(&mut self, op: &str, path: &str, why: &str) {
        let uses = self.ops.entry(op.to_owned()).or_default();
        if uses.count == 0 {
            why.clone_into(&mut uses.why);
        }
        uses.count += 1;
        if uses.paths.len() <= MOST_PATHS && !uses.paths.iter().any(|known| known == path) {
            uses.paths.push(path.to_owned());
        }
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// `Ok` if everything was read.
    ///
    /// # Errors
    /// A problem for each op, in order of names; `place` is the file, `otherwise` what to do about ops without a rewrite.
    pub fn into_result(self, place: &str, rewrites: &[Rewrite], otherwise: &str) -> Result<(), Problems> {
        let mut problems = Problems::new();
        for (op, uses) in &self.ops {
            let paths = uses.paths.iter().take(MOST_PATHS);
            let paths: Vec<String> =
                paths.map(|p| if p.is_empty() { "the top".into() } else { format!("`{}`", shown(p)) }).collect();
            let more = if uses.paths.len() > MOST_PATHS { ", …" } else { "" };
            let why = if uses.why.is_empty() { String::new() } else { format!("; {}", uses.why) };
            let times = if uses.count == 1 { "1 use".to_owned() } else { format!("{} uses", uses.count) };
            let instead = rewrites.iter().find(|rewrite| op.starts_with(rewrite.op)).map(|rewrite| rewrite.instead);
            let expected = instead.unwrap_or(otherwise).to_owned();
            problems.0.push(Problem {
                place: format!("{place}: op {}", shown(op)),
                found: format!("{times} in {}{more}{why}", paths.join(", ")),
                expected,
            });
        }
        problems.into_result()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_op_is_told_once_with_its_uses() {
        let mut unsupported = Unsupported::default();
        for block in 0..5 {
            unsupported.add("aten.fft_fft.default", &format!("blocks.{block}"), "");
        }
        unsupported.add("aten.add.Tensor", "", "alpha is no number");
        let rewrites = [Rewrite { op: "aten.fft_", instead: "a product with a table" }];
        let text = unsupported.into_result("m.pt2", &rewrites, "ops of docs/import.md").unwrap_err().to_string();
        assert_eq!(
            text,
            "2 problems:\n  - m.pt2: op aten.add.Tensor: found 1 use in the top; alpha is no number, expected ops of docs/import.md\n  \
             - m.pt2: op aten.fft_fft.default: found 5 uses in `blocks.0`, `blocks.1`, `blocks.2`, …, expected a product with a table"
        );
    }
}
