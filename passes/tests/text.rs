//! Runs every `tests/text/*.s2`: the first line names the passes, then IR before, a line of `---`, IR after.
//!
//! `S2DITC_BLESS=1` writes the IR after anew. The IR before and after is also run in float64 on values that look random: passes keep
//! results and state updates of every function.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use s2dit_ir::close::{Tolerance, compare};
use s2dit_ir::interp::{self, Bindings};
use s2dit_ir::text::{parse, print};
use s2dit_ir::verify::verify;
use s2dit_ir::{Function, Module, Op, Tensor, TensorType, WeightError, WeightSource};
use s2dit_passes::Pipeline;

#[test]
fn passes_give_the_text_expected() {
    let bless = std::env::var_os("S2DITC_BLESS").is_some();
    for file in files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let (header, body) = text.split_once('\n').unwrap();
        let passes = header.strip_prefix("# passes: ").unwrap_or_else(|| panic!("{}: no header", file.display()));
        let names: Vec<&str> = passes.split_whitespace().collect();
        let (before, after) = body.split_once("\n---\n").unwrap_or((body, ""));
        let mut module = parse(before).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        verify(&module).unwrap_or_else(|e| panic!("{}: before: {e}\n{}", file.display(), e.text));
        Pipeline::new(&names)
            .unwrap()
            .run(&mut module, |_, _| {})
            .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let got = print(&module);
        if bless {
            std::fs::write(&file, format!("{header}\n{}\n---\n{got}", before.trim_end())).unwrap();
        } else {
            assert_eq!(got.trim(), after.trim(), "{}", file.display());
        }
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/text");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// How far a pass may move results and state updates, by the start of the file's name; the others keep them.
const MOVED: [(&str, f64); 4] = [("precision", 1e-2), ("widen", 1e-2), ("timesteps", 1e-3), ("phase", 1e-4)];
/// Numbers inside formulas are those of fp32.
const KEPT: f64 = 1e-6;

#[test]
fn passes_keep_results_and_updates_of_every_function() {
    let (mut compared, mut moved) = (0, Vec::new());
    for file in files() {
        let name = file.file_stem().unwrap().to_str().unwrap();
        // What storage in few bits costs is measured where plans are made.
        if name.starts_with("quantize") {
            continue;
        }
        let bar = MOVED.iter().find(|(start, _)| name.starts_with(start)).map_or(KEPT, |(_, bar)| *bar);
        let text = std::fs::read_to_string(&file).unwrap();
        let (before, after) = text.split_once('\n').unwrap().1.split_once("\n---\n").unwrap();
        let (before, after) = (parse(before).unwrap(), parse(after).unwrap());
        assert_eq!(before.functions.len(), after.functions.len(), "{name}");
        for (f, g) in before.functions.iter().zip(&after.functions) {
            let effects = |of: &Function| {
                let made = interp::effects(of, &Noise(&before), &bindings(f, &before)).unwrap();
                [made.results, made.updates].concat()
            };
            let after = compare(&effects(g), &effects(f), Tolerance::relative(bar, 1.0));
            moved.extend(after.err().map(|mismatch| format!("{name} @{}: {mismatch}", f.name)));
            compared += f.results.len() + f.updates.len();
        }
    }
    assert!(compared > 40, "{compared}");
    assert!(moved.is_empty(), "{moved:#?}");
}

/// Weights that look random.
struct Noise<'m>(&'m Module);

impl WeightSource for Noise<'_> {
    fn ty(&self, name: &str) -> Option<TensorType> {
        let loaded = |f: &Function| {
            let loads = |v: &_| matches!(f.op(*v), Op::Load(l) if l.tensor == name);
            f.order().into_iter().find(loads).map(|v| f.ty(v).clone())
        };
        self.0.functions.iter().find_map(loaded)
    }
    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        let ty = self.ty(name).ok_or(WeightError::Missing { name: name.into() })?;
        Ok(noise(&ty, name).to_le_bytes().into())
    }
}

/// The same values for the same name.
fn noise(ty: &TensorType, name: &str) -> Tensor {
    let seed = name.bytes().map(usize::from).sum::<usize>();
    let values = (0..ty.elements()).map(|i| ((i * 7919 + seed * 104_729) as f64 * 0.618).sin()).collect();
    Tensor::from_values(ty, values).unwrap()
}

/// A timestep that the pass `timesteps(1000,750,500,250)` lists.
const TIMESTEP: f64 = 750.0;

fn bindings(f: &Function, module: &Module) -> Bindings {
    let mut bindings = Bindings::default();
    for &p in f.params() {
        let name = f.node(p).name.as_deref().unwrap();
        let value = if name == "timestep" { Tensor::splat(f.ty(p), TIMESTEP) } else { noise(f.ty(p), name) };
        bindings.params.insert(name.into(), value);
    }
    for s in &module.states {
        bindings.states.insert(s.name.clone(), noise(&s.ty, &s.name));
    }
    bindings
}
