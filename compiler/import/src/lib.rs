//! Graphs that people bring: what `torch.export` and `torch.onnx.export` write, and the IR's own text form.
//!
//! An [`Importer`] is a folder here and a line in [`IMPORTERS`]. It reads a file into a graph of plain tensor ops in f32, with module paths
//! as provenance, and a weight store. What all of them share lies here: the [`Tracer`], which computes what is known before the model
//! runs (shapes, tables of positions, masks) instead of putting it into the graph; [`Unsupported`], which tells every op that cannot be
//! read at once; the roles of inputs and results, guessed or [given](Ask); and the milestones, which follow from the module paths.
//!
//! This crate knows no model and no target.

mod ask;
mod called;
mod flat;
mod joins;
mod milestones;
mod onnx;
mod pt2;
mod ranks;
mod roles;
mod text;
pub(crate) mod trace;
mod unsupported;

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use s2dit_backends::input::check_regular;
use s2dit_files::WeightStore;
use s2dit_files::problems::{Problems, shown};
use s2dit_ir::verify::verify;
use s2dit_ir::{Module, text as ir_text};

pub use ask::{Ask, Binding, GivenInput, GivenOutput};
pub use trace::{Traced, Tracer, Value};
pub use unsupported::{Rewrite, Unsupported};

/// A file format of graphs.
pub trait Importer: Debug + Sync {
    /// The format's name in artifacts and reports, such as `pt2`.
    fn name(&self) -> &'static str;

    /// Whether a file is of the format: by its name and its first bytes, 64 KiB at most.
    fn reads(&self, path: &Path, head: &[u8]) -> bool;

    /// Reads a file.
    ///
    /// # Errors
    /// A damaged file; every op that is not read, at once; a symbolic size that is not bound.
    fn read(&self, path: &Path, ask: &Ask) -> Result<Read, Problems>;
}

/// Every importer.
pub const IMPORTERS: &[&dyn Importer] = &[&pt2::Pt2, &onnx::Onnx, &text::Text];

/// A graph as its file has it.
#[derive(Debug)]
pub struct Read {
    /// One function `main` in plain tensor ops, every float f32. Its interface may be empty.
    pub module: Module,
    /// The tensors that the graph loads.
    pub weights: WeightStore,
    /// The format and its producer, such as `PT2 of torch 2.7.1`.
    pub format: String,
    /// Other files that belong to it.
    pub beside: Vec<PathBuf>,
}

/// An imported graph: a module whose interface is complete, and its weights.
#[derive(Debug)]
pub struct Imported {
    /// The graph, with a role for each input and result, and milestones.
    pub module: Module,
    /// The tensors that it loads.
    pub weights: WeightStore,
    /// Name of the importer.
    pub importer: &'static str,
    /// The format and its producer, such as `PT2 of torch 2.7.1`.
    pub format: String,
    /// The file, and others that belong to it.
    pub files: Vec<PathBuf>,
    /// Inputs and results whose roles were guessed.
    pub guessed: Vec<String>,
    /// blake3 of the graph without its weights: two graphs of one hash compute the same from the same weights.
    pub hash: blake3::Hash,
}

/// The importer of a file, if it is a graph.
#[must_use]
pub fn importer_of(path: &Path) -> Option<&'static dyn Importer> {
    if !path.is_file() || check_regular(path).is_err() {
        return None;
    }
    let head = head_of(path).ok()?;
    IMPORTERS.iter().copied().find(|importer| importer.reads(path, &head))
}

fn head_of(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(64 << 10).read_to_end(&mut head)?;
    Ok(head)
}

/// Reads a graph and completes its interface.
///
/// # Errors
/// See [`Importer::read`]; a role for an input or result that is not there, or that does not fit its shape.
pub fn import(importer: &'static dyn Importer, path: &Path, ask: &Ask) -> Result<Imported, Problems> {
    let place = path.display().to_string();
    ask.check()?;
    let Read { mut module, weights, format, beside } = importer.read(path, ask)?;
    for f in &mut module.functions {
        f.remove_dead();
        if let Some(v) = f.values().into_iter().find(|v| f.op(*v).is_composite()) {
            let found = format!("`{}`, which stands for other ops", f.op(v).name());
            return Err(Problems::one(
                place,
                found,
                "tensor ops alone, as `compile --emit ir --after canonicalize` prints them",
            ));
        }
        if let Some(v) = grown(f) {
            let found = format!("a constant {} that is made of much less", f.ty(v));
            return Err(Problems::one(
                format!("{place}: {}", shown(&f.node(v).scope)),
                found,
                "tensors that a file may hold in full: repeat in the model what is repeated",
            ));
        }
    }
    for f in &mut module.functions {
        let defect = |error: s2dit_ir::OpError| {
            Problems::one(&place, error.0, "axes that merge: this is a defect of the importer")
        };
        ranks::lower(f).map_err(defect)?;
        flat::undo(f).map_err(defect)?;
        joins::after_transposes(f).map_err(defect)?;
    }
    let guessed = roles::complete(&mut module, ask, &place)?;
    milestones::complete(&mut module);
    verify(&module).map_err(|error| {
        let text = error.to_string();
        Problems::one(
            &place,
            shown(text.lines().nth(1).unwrap_or(&text).trim()),
            "a sound graph: this is a defect of the importer",
        )
    })?;
    let hash = blake3::hash(ir_text::print(&module).as_bytes());
    let files = [path.to_owned()].into_iter().chain(beside).collect();
    Ok(Imported { module, weights, importer: importer.name(), format, files, guessed, hash })
}

/// Elements of a constant that may be made of less.
const MOST_GROWN: usize = 1 << 27;

/// A constant far larger than the stored tensors and literals that it is made of: a few bytes of a file must not fill a disk.
fn grown(f: &s2dit_ir::Function) -> Option<s2dit_ir::ValueId> {
    let constants = f.constants();
    let mut stored = std::collections::HashMap::new();
    for v in f.order().into_iter().filter(|v| constants.contains(v)) {
        let own = f.ty(v).elements();
        let operands = f.operands(v);
        let from = match operands.is_empty() {
            true if matches!(f.op(v), s2dit_ir::Op::Load(_)) => own,
            true => 1,
            false => operands.iter().map(|o| stored.get(o).copied().unwrap_or(0)).fold(0, usize::saturating_add),
        };
        if own > MOST_GROWN && own / 4 > from {
            return Some(v);
        }
        stored.insert(v, from);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_is_not_far_larger_than_what_it_is_made_of() {
        let found = |extent: usize| {
            let text = format!(
                "module {{ func @main(%x: f32[1, 8]) {{
                    %w = load {{tensor = \"w\"}} : f32[1, 8]
                    %r = broadcast_to(%w) {{shape = [{extent}, 8]}} : f32[{extent}, 8]
                    %y = add(%x, %r) : f32[{extent}, 8]
                    return y = %y
                }} }}"
            );
            grown(&ir_text::parse(&text).expect("IR").functions[0]).is_some()
        };
        assert!(found(1 << 26) && !found(1 << 20));
    }
}
