//! A test in a file: a header of `# key: value` lines, IR before, a line of `---`, and what comes of it.

use std::path::{Path, PathBuf};

use s2dit_ir::text::{parse, print};
use s2dit_ir::verify::verify;
use s2dit_ir::{Function, Module};
use s2dit_passes::partition::partition;
use s2dit_passes::pipeline::Outcome;
use s2dit_passes::{Pass, PassPipeline, fuse, regions};

use super::numbers::Noise;

/// A test. Keys of the header: `passes` or `model` (passes; after `model` the graph is a frontend's); `error` (a part of the message that is
/// expected); `weights` (`NAME=NUMBER`, constant tensors; others look random); `moved` (how far numbers may move, and why); `cut` (the first blocks
/// of parts); `changes` (how many each pass reports); `show` (the one function that stands after the line of `---`); `report` (`regions` or `near-misses`, which then stand where the IR after stands).
pub struct Case {
    pub path: PathBuf,
    header: Vec<(String, String)>,
    before: String,
    pub after: String,
}

/// What the passes of a test made.
pub struct Made {
    pub module: Module,
    pub outcome: Outcome,
}

impl Case {
    /// Every test of a folder under `tests/text`, in order.
    pub fn all(folder: &str) -> Vec<Case> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
        let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "s2")).collect();
        files.sort();
        assert!(!files.is_empty());
        files.into_iter().map(Case::read).collect()
    }

    fn read(path: PathBuf) -> Case {
        let text = std::fs::read_to_string(&path).unwrap();
        let (mut header, mut rest) = (Vec::new(), text.as_str());
        while let Some(line) = rest.strip_prefix("# ") {
            let (line, after) = line.split_once('\n').unwrap();
            let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{}: {line}", path.display()));
            let known =
                ["passes", "model", "error", "weights", "moved", "cut", "changes", "show", "report"].contains(&key);
            assert!(known, "{}: {key}", path.display());
            header.push((key.to_string(), value.to_string()));
            rest = after;
        }
        let (before, after) = rest.split_once("\n---\n").unwrap_or((rest, ""));
        let (before, after) = (before.to_string(), after.to_string());
        Case { path, header, before, after }
    }

    pub fn name(&self) -> &str {
        self.path.file_stem().unwrap().to_str().unwrap()
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.header.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// How far the passes may move numbers, relative to the largest.
    pub fn moved(&self) -> f64 {
        // Numbers inside formulas are those of fp32.
        const KEPT: f64 = 1e-6;
        self.get("moved").map_or(KEPT, |moved| moved.split(',').next().unwrap().parse().unwrap())
    }

    pub fn module(&self) -> Module {
        let module = parse(&self.before).unwrap_or_else(|e| panic!("{}: {e}", self.path.display()));
        verify(&module).unwrap_or_else(|e| panic!("{}: before: {e}\n{}", self.path.display(), e.text));
        module
    }

    pub fn weights<'m>(&self, module: &'m Module) -> Noise<'m> {
        let pair = |text: &str| text.split_once('=').map(|(name, value)| (name.to_string(), value.parse().unwrap()));
        let constants = self.get("weights").into_iter().flat_map(str::split_whitespace).map(|t| pair(t).unwrap());
        Noise { module, constants: constants.collect() }
    }

    /// The passes that the header names.
    fn pipeline(&self) -> Result<PassPipeline, String> {
        let passes = |text: &str| {
            text.split_whitespace()
                .map(|pass| Pass::read(pass).map_err(|e| e.to_string()))
                .collect::<Result<Vec<_>, _>>()
        };
        match (self.get("passes"), self.get("model")) {
            (Some(text), None) => PassPipeline::of_graph(passes(text)?).map_err(|e| e.to_string()),
            (None, Some(text)) => PassPipeline::of_model(passes(text)?).map_err(|e| e.to_string()),
            _ => panic!("{}: expected either `passes` or `model`", self.path.display()),
        }
    }

    /// Runs the passes.
    pub fn run(&self) -> Result<Made, String> {
        let (before, mut module) = (self.module(), self.module());
        let weights = self.weights(&before);
        let outcome = self.pipeline()?.run_with(&mut module, &weights, |_, _| {}).map_err(|e| e.to_string())?;
        if let Some(cut) = self.cut() {
            let parts = |f| partition(f, &module.interface, &cut).map_err(|e| e.to_string());
            let cut = module.functions.iter().map(parts).collect::<Result<Vec<_>, _>>()?;
            module.functions = cut.into_iter().flatten().map(|(_, part)| part).collect();
        }
        Ok(Made { module, outcome })
    }

    pub fn cut(&self) -> Option<Vec<usize>> {
        Some(self.get("cut")?.split_whitespace().map(|start| start.parse().unwrap()).collect())
    }

    /// What stands after the line of `---`.
    pub fn text(&self, mut made: Made) -> String {
        match self.get("report") {
            None => {
                let shown = |f: &Function| self.get("show").is_none_or(|name| f.name == name);
                made.module.functions.retain(shown);
                print(&made.module)
            }
            Some("regions") => regions_of(&made.module),
            Some("near-misses") => {
                let misses = |f| fuse::explain(f).unwrap().into_iter().map(|m| miss(m.rule, &m.scope, &m.reason));
                made.module.functions.iter_mut().flat_map(misses).collect()
            }
            Some(other) => panic!("{}: {other}", self.path.display()),
        }
    }

    /// Writes the file with another text after.
    pub fn bless(&self, after: &str) {
        let header: String = self.header.iter().map(|(key, value)| format!("# {key}: {value}\n")).collect();
        std::fs::write(&self.path, format!("{header}{}\n---\n{after}", self.before.trim_end())).unwrap();
    }

    /// Lines of header and functions; those that say what a module's inputs are for are the same everywhere.
    pub fn lines(&self) -> usize {
        let told =
            |line: &&str| !["input ", "output ", "milestone "].iter().any(|word| line.trim_start().starts_with(word));
        let count = |text: &str| text.trim_end().lines().filter(told).count();
        self.header.len() + count(&self.before) + 1 + count(&self.after)
    }
}

fn miss(rule: &str, scope: &str, reason: &str) -> String {
    format!("nearly {rule} at `{scope}`: {reason}\n")
}

fn regions_of(module: &Module) -> String {
    let mut out = String::new();
    for f in &module.functions {
        let name = |v| f.node(v).name.as_deref().map_or(f.op(v).name().to_string(), |name| format!("%{name}"));
        let found = regions::recognise(f).unwrap();
        for (i, stage) in found.stages.iter().enumerate() {
            let up = stage.up.map_or("nowhere".into(), name);
            out += &format!("stage {i}: from {} to {up}, {} tokens\n", name(stage.entered), stage.tokens);
        }
        for r in &found.regions {
            let kind = match r.kind {
                regions::Kind::Ssa(stage) => format!("ssa of stage {stage}"),
                kind => kind.to_string(),
            };
            out += &format!(
                "{kind} at `{}`: {} to {}, {} values\n",
                r.scope,
                name(r.input),
                name(r.root),
                r.interior.len()
            );
        }
        out.extend(found.misses.iter().map(|m| miss(m.rule, &m.scope, &m.reason)));
        out.extend(regions::leftovers(f).into_iter().map(|v| format!("alone: {}\n", name(v))));
    }
    out
}
