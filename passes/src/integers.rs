//! Small integers in wide ones, for an engine that computes in few types.
//!
//! ONNX Runtime adds, compares and chooses int32 and int64; 8- and 16-bit integers and unsigned ones it mostly only moves. So a graph with
//! values of such types becomes one with int32 values (int64 for u32) that are the same numbers: what an op computes is brought back into the
//! type's range.
//!
//! ```text
//! %y = add(%x, %x) : i8[4]       →       %1 = add(%x, %x) : i32[4]
//!                                        %2 = cast(%1) {dtype = "i8"} : i8[4]
//!                                        %y = cast(%2) {dtype = "i32"} : i32[4]
//! ```
//! Constants keep their types and are cast where they are used; inputs and results are declared wide.

use std::collections::{HashMap, HashSet};

use s2dit_ir::ops::{Cast, OpError};
use s2dit_ir::{DType, Function, Node, Op, ValueId};

/// The type that stands for a small integer's; `None` for a type that stays.
fn wide(dtype: DType) -> Option<DType> {
    match dtype {
        DType::I8 | DType::I16 | DType::U8 | DType::U16 => Some(DType::I32),
        DType::U32 => Some(DType::I64),
        _ => None,
    }
}

/// The function with its small integers in wide ones.
///
/// # Errors
/// An op that does not take the wide type.
pub fn widened(f: &Function) -> Result<Function, OpError> {
    let mut w = Widening {
        f,
        g: Function::new(f.name.clone()),
        constant: f.constants(),
        new: HashMap::new(),
        narrow: HashMap::new(),
        cast: HashMap::new(),
    };
    for v in f.order() {
        let made = w.value(v)?;
        w.new.insert(v, made);
    }
    let mut ends = |ends: &[(String, ValueId)]| -> Result<Vec<(String, ValueId)>, OpError> {
        ends.iter().map(|(name, v)| Ok((name.clone(), w.operand(*v)?))).collect()
    };
    let (results, updates) = (ends(&f.results)?, ends(&f.updates)?);
    w.g.results = results;
    w.g.updates = updates;
    Ok(w.g)
}

struct Widening<'a> {
    f: &'a Function,
    g: Function,
    constant: HashSet<ValueId>,
    /// The new value of each.
    new: HashMap<ValueId, ValueId>,
    /// Values that are there in their own type, too.
    narrow: HashMap<ValueId, ValueId>,
    /// Wide copies of small constants.
    cast: HashMap<ValueId, ValueId>,
}

impl Widening<'_> {
    fn value(&mut self, v: ValueId) -> Result<ValueId, OpError> {
        let node = self.f.node(v);
        if self.constant.contains(&v) {
            let operands: Vec<ValueId> = self.f.operands(v).iter().map(|o| self.new[o]).collect();
            return Ok(self.g.push(node.clone(), &operands));
        }
        let Some(target) = wide(node.ty.dtype) else {
            let operands = match &node.op {
                // It takes the small integers themselves.
                Op::Dequantize(_) => self.f.operands(v).into_iter().map(|o| self.own(o)).collect::<Result<_, _>>()?,
                _ => self.operands(v)?,
            };
            if let Op::Input(_) = node.op {
                return Ok(self.g.add_param(node.name.as_deref().unwrap_or_default(), node.ty.clone()));
            }
            return Ok(self.g.push(node.clone(), &operands));
        };
        let ty = node.ty.with_dtype(target);
        let operands = self.operands(v)?;
        match &node.op {
            Op::Input(_) => Ok(self.g.add_param(node.name.as_deref().unwrap_or_default(), ty)),
            Op::Cast(_) | Op::Quantize(_) => {
                let exact = Node { name: None, ..node.clone() };
                let small = self.g.push(exact, &operands);
                self.narrow.insert(v, small);
                self.named(small, target, node)
            }
            op if moves(op) => Ok(self.g.push(Node { ty, ..node.clone() }, &operands)),
            _ => {
                let exact = self.g.push(Node { ty, name: None, ..node.clone() }, &operands);
                let small = self.g.add(Cast { dtype: node.ty.dtype }.into(), &[exact], &node.scope)?;
                self.narrow.insert(v, small);
                self.named(small, target, node)
            }
        }
    }

    /// A small integer in its wide type, under the name of the value that it is.
    fn named(&mut self, small: ValueId, target: DType, node: &Node) -> Result<ValueId, OpError> {
        let y = self.g.add(Cast { dtype: target }.into(), &[small], &node.scope)?;
        if let Some(name) = &node.name {
            self.g.set_name(y, name);
        }
        Ok(y)
    }

    fn operands(&mut self, v: ValueId) -> Result<Vec<ValueId>, OpError> {
        self.f.operands(v).into_iter().map(|o| self.operand(o)).collect()
    }

    /// The new value in the type that is computed with.
    fn operand(&mut self, v: ValueId) -> Result<ValueId, OpError> {
        let new = self.new[&v];
        let Some(target) = wide(self.f.dtype(v)).filter(|_| self.constant.contains(&v)) else { return Ok(new) };
        if let Some(&cast) = self.cast.get(&v) {
            return Ok(cast);
        }
        let cast = self.g.add(Cast { dtype: target }.into(), &[new], &self.f.node(v).scope)?;
        self.cast.insert(v, cast);
        Ok(cast)
    }

    /// The value in its own type.
    fn own(&mut self, v: ValueId) -> Result<ValueId, OpError> {
        if self.constant.contains(&v) || wide(self.f.dtype(v)).is_none() {
            return Ok(self.new[&v]);
        }
        if let Some(&small) = self.narrow.get(&v) {
            return Ok(small);
        }
        let small = self.g.add(Cast { dtype: self.f.dtype(v) }.into(), &[self.new[&v]], &self.f.node(v).scope)?;
        self.narrow.insert(v, small);
        Ok(small)
    }
}

/// Whether an op's result consists of numbers that its operands hold.
fn moves(op: &Op) -> bool {
    matches!(
        op,
        Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Concat(_)
            | Op::Slice(_)
            | Op::Pad(_)
            | Op::Gather(_)
            | Op::GatherAlongAxis(_)
            | Op::GatherNd(_)
            | Op::BroadcastTo(_)
            | Op::Select(_)
            | Op::DepthToSpace(_)
    )
}
