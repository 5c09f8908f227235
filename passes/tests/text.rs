//! Runs every `tests/text/*.s2`: the first line names the passes, then IR before, a line of `---`, IR after.
//!
//! `S2DITC_BLESS=1` writes the IR after anew. Passes that keep numbers are also run in float64 on values that look random.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

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

/// Relative difference of results that is no difference: numbers inside formulas are those of fp32.
const SAME: f64 = 1e-6;

#[test]
fn passes_that_keep_numbers_keep_them() {
    let named = |file: &Path| file.file_name().unwrap().to_str().unwrap().to_string();
    let keep = ["channels_first", "pad_tokens", "fuse_", "decompose", "fold_gate", "split_conv", "canonicalize", "cse"];
    let files = files().into_iter().filter(|f| keep.iter().any(|start| named(f).starts_with(start)));
    let mut compared = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let (before, after) = text.split_once('\n').unwrap().1.split_once("\n---\n").unwrap();
        let values = |text: &str| {
            let module = parse(text).unwrap();
            interp::run(&module.functions[0], &Noise(&module), &bindings(&module.functions[0], &module)).unwrap()
        };
        for (a, b) in values(before).iter().zip(values(after)) {
            let scale = a.data.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
            let worst = a.data.iter().zip(&b.data).fold(0.0, |m: f64, (x, y)| m.max((x - y).abs()));
            assert!(worst <= SAME * scale, "{}: {worst:e} of {scale:e}", file.display());
            compared += 1;
        }
    }
    assert!(compared > 10);
}

/// Weights that look random.
struct Noise<'m>(&'m Module);

impl WeightSource for Noise<'_> {
    fn ty(&self, name: &str) -> Option<TensorType> {
        let f = &self.0.functions[0];
        let loads = |v: &_| matches!(f.op(*v), Op::Load(l) if l.tensor == name);
        f.order().into_iter().find(loads).map(|v| f.ty(v).clone())
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

fn bindings(f: &Function, module: &Module) -> Bindings {
    let mut bindings = Bindings::default();
    for &p in f.params() {
        let name = f.node(p).name.as_deref().unwrap();
        bindings.params.insert(name.into(), noise(f.ty(p), name));
    }
    for s in &module.states {
        bindings.states.insert(s.name.clone(), noise(&s.ty, &s.name));
    }
    bindings
}
