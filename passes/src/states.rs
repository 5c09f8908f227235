//! The place of states: a choice of the target, not of the network. Both forms compute the same numbers.
//!
//! - [`to_io`]: states are inputs `NAME` and outputs `NAME_out` of each function;
//! - handles: states stay what they are, each one of its own, as Core AI has them;
//! - [`pack`]: all states are slices, at constant rows, of one fp16 state `[rows, width]`, read once and written whole.

use std::collections::HashMap;

use s2dit_ir::ops::{Concat, OpError, Pad, Reshape, Slice, State};
use s2dit_ir::{DType, Function, Module, Node, Op, StateDecl, TensorType, ValueId};

use crate::Property;
pub use crate::kernel::Packed;
use crate::pass::{Context, Pass, PassKind, Run};

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "states",
    doc: "states are inputs and outputs of each function, slices of one Core ML state, or each a handle of Core AI",
    options: "io, native or handles; native needs fp16",
    needs: &[Property::OwnStates],
    destroys: &[Property::OwnStates],
    run: Run::Options(|written| match written {
        ["io"] => Ok(pass(Place::Io)),
        ["native"] => Ok(pass(Place::Native)),
        ["handles"] => Ok(pass(Place::Handles)),
        _ => Err(format!("found `{}`, expected io, native or handles", written.join(","))),
    }),
    ..PassKind::PLAIN
};

/// The place of the states between calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Inputs and outputs: the host carries them.
    Io,
    /// One Core ML state.
    Native,
    /// A handle of Core AI each.
    Handles,
}

/// The pass for a place; it reports the states that there were.
pub fn pass(place: Place) -> Pass {
    let run = move |module: &mut Module, context: &mut Context| {
        let declared = module.states.clone();
        let count = declared.len();
        if let Some(kernel) = &mut context.kernel {
            kernel.module.states = declared;
        }
        match place {
            Place::Io => to_io(module)?,
            Place::Native => context.packing = pack(module)?,
            Place::Handles => {}
        }
        Ok(count)
    };
    match place {
        Place::Io => Pass::new(&PASS, "io".into(), run),
        Place::Handles => Pass::new(&PASS, "handles".into(), run),
        Place::Native => Pass::new(&PASS, "native".into(), run).needing(&[Property::Fp16]),
    }
}

/// Makes states inputs and outputs. A function that does not read a state does not get it; one that updates it returns it.
///
/// # Errors
/// None in practice: types are kept.
pub fn to_io(module: &mut Module) -> Result<(), OpError> {
    for f in &mut module.functions {
        let mut inputs: HashMap<String, ValueId> = HashMap::new();
        // In the order of declaration, so that all functions take their states alike.
        for state in &module.states {
            for v in reads(f, &state.name) {
                let input =
                    *inputs.entry(state.name.clone()).or_insert_with(|| f.add_param(&state.name, state.ty.clone()));
                f.replace_uses(v, input);
            }
        }
        for (name, v) in std::mem::take(&mut f.updates) {
            f.results.push((format!("{name}_out"), v));
        }
        f.remove_dead();
    }
    module.states.clear();
    Ok(())
}

/// Name of the packed state.
pub const CACHE: &str = "cache";

/// No extent of a tensor may be larger on the Neural Engine.
const LARGEST_EXTENT: usize = 16_384;
/// fp16 elements of 64 bytes: the last axis is a multiple of it.
const LINE: usize = 32;

/// Packs all states into one, of which every function that touches it reads and writes constant rows. States must be fp16.
///
/// # Errors
/// A state that is not fp16; states too large for one buffer.
pub fn pack(module: &mut Module) -> Result<Vec<Packed>, OpError> {
    if module.states.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(s) = module.states.iter().find(|s| s.ty.dtype != DType::F16) {
        return Err(OpError::new(format!("state `{}` is {}; Core ML's states are fp16 only", s.name, s.ty)));
    }
    let rows_at = |width: usize| module.states.iter().map(|s| s.ty.elements().div_ceil(width)).sum::<usize>();
    // Narrow rows waste least; wide ones keep the number of rows within bounds.
    let widths = std::iter::successors(Some(LINE), |w| Some(w * 2)).take_while(|w| *w <= LARGEST_EXTENT);
    let Some(width) = widths.clone().find(|w| rows_at(*w) <= LARGEST_EXTENT) else {
        return Err(OpError::new(format!(
            "the states need {} rows of {LARGEST_EXTENT}: too large for one state",
            rows_at(LARGEST_EXTENT)
        )));
    };
    let mut layout = Vec::new();
    let mut row = 0;
    for s in &module.states {
        let rows = s.ty.elements().div_ceil(width);
        layout.push(Packed { name: s.name.clone(), shape: s.ty.shape.clone(), row, rows });
        row += rows;
    }
    let cache = TensorType::new(DType::F16, [row, width]);
    for f in &mut module.functions {
        pack_function(f, &layout, &cache)?;
    }
    module.states = vec![StateDecl { name: CACHE.into(), ty: cache }];
    Ok(layout)
}

fn pack_function(f: &mut Function, layout: &[Packed], cache: &TensorType) -> Result<(), OpError> {
    let touched = layout.iter().any(|p| !reads(f, &p.name).is_empty()) || !f.updates.is_empty();
    if !touched {
        return Ok(());
    }
    let node = Node { op: State { state: CACHE.into() }.into(), ty: cache.clone(), scope: "".into(), name: None };
    let whole = f.push(node, &[]);
    let width = cache.shape[1];
    for p in layout {
        let old = reads(f, &p.name);
        if old.is_empty() {
            continue;
        }
        let scope = f.node(old[0]).scope.clone();
        let rows = f.add(Slice::axis(&cache.shape, 0, p.row, p.row + p.rows).into(), &[whole], &scope)?;
        let elements: usize = p.shape.iter().product();
        let flat = f.add(Reshape { shape: vec![p.rows * width] }.into(), &[rows], &scope)?;
        let flat = if elements == p.rows * width {
            flat
        } else {
            f.add(Slice::axis(&[p.rows * width], 0, 0, elements).into(), &[flat], &scope)?
        };
        let value = f.add(Reshape { shape: p.shape.clone() }.into(), &[flat], &scope)?;
        for v in old {
            f.replace_uses(v, value);
        }
    }
    if !f.updates.is_empty() {
        let updates: HashMap<String, ValueId> = std::mem::take(&mut f.updates).into_iter().collect();
        let mut parts = Vec::new();
        for p in layout {
            let part = match updates.get(&p.name) {
                Some(&v) => {
                    let elements: usize = p.shape.iter().product();
                    let scope = f.node(v).scope.clone();
                    let flat = f.add(Reshape { shape: vec![elements] }.into(), &[v], &scope)?;
                    let missing = p.rows * width - elements;
                    let flat = if missing == 0 {
                        flat
                    } else {
                        f.add(Pad { before: vec![0], after: vec![missing], value: 0.0 }.into(), &[flat], &scope)?
                    };
                    f.add(Reshape { shape: vec![p.rows, width] }.into(), &[flat], &scope)?
                }
                None => f.add(Slice::axis(&cache.shape, 0, p.row, p.row + p.rows).into(), &[whole], "")?,
            };
            parts.push(part);
        }
        let all = f.add(Concat { axis: 0 }.into(), &parts, "")?;
        f.updates.push((CACHE.into(), all));
    }
    f.remove_dead();
    Ok(())
}

/// The values that read a state.
fn reads(f: &Function, state: &str) -> Vec<ValueId> {
    f.order().into_iter().filter(|&v| matches!(f.op(v), Op::State(s) if s.state == state)).collect()
}
