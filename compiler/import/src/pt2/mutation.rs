//! Mutation, taken out: an op that writes into a tensor makes a new one, which its name and the names of its views stand for from then on.
//!
//! A program that was not decomposed writes into slices of an empty tensor, as diffusers' rotary embedding does.

use std::collections::{HashMap, HashSet};

use s2dit_ir::ops::Slice;
use s2dit_ir::{OpError, ValueId};

use crate::{Traced, Tracer, Value};

/// A step from a tensor to a view of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// The elements `begin, begin + stride, …` of an axis.
    Slice { axis: usize, begin: usize, end: usize, stride: usize },
    /// The same elements under another shape.
    Shape(Vec<usize>),
    /// The axes in another order.
    Order(Vec<usize>),
}

/// A name that is a view of a tensor.
#[derive(Clone, Debug)]
struct View {
    root: String,
    steps: Vec<Step>,
}

/// Which names are views of which tensors, and the tensors that were written to.
#[derive(Debug, Default)]
pub(super) struct Mutation {
    views: HashMap<String, View>,
    changed: HashMap<String, Value>,
    /// Tensors of which there are views that cannot be followed.
    opaque: HashSet<String>,
    /// Tensors that may be copies or views, as their strides have it.
    doubtful: HashSet<String>,
    /// The parts of tensors that interleaved writes made: every so many elements of an axis are of one part.
    interleaved: HashMap<ValueId, (usize, Vec<Value>)>,
}

impl Mutation {
    fn view(&self, name: &str) -> View {
        self.views.get(name).cloned().unwrap_or_else(|| View { root: name.to_owned(), steps: Vec::new() })
    }

    /// The value of a name, if what it is a view of was written to.
    pub(super) fn current(&mut self, name: &str, t: &mut Tracer) -> Result<Option<Value>, OpError> {
        let view = self.view(name);
        let Some(root) = self.changed.get(&view.root).cloned() else { return Ok(None) };
        let mut value = root;
        for step in &view.steps {
            value = self.apply(step, &value, t)?;
        }
        Ok(Some(value))
    }

    /// Notes that `output` is a view of `of`.
    pub(super) fn follow(&mut self, output: &str, of: &str, steps: impl IntoIterator<Item = Step>) {
        let mut view = self.view(of);
        view.steps.extend(steps);
        self.views.insert(output.to_owned(), view);
    }

    /// Notes that there is a view of `of` that is not followed.
    pub(super) fn lose(&mut self, of: &str) {
        let root = self.view(of).root;
        self.opaque.insert(root);
    }

    /// Notes that `output` is a copy of `of`, or a view, as strides have it.
    pub(super) fn doubt(&mut self, output: &str, of: &str) {
        self.lose(of);
        self.doubtful.insert(output.to_owned());
    }

    /// Names of graph inputs that were written to, among these.
    pub(super) fn written<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
        names.filter(|name| self.changed.contains_key(*name)).collect()
    }

    /// Writes to the tensor of a name, whose value before is `before` for a tensor that was never written to.
    ///
    /// # Errors
    /// A tensor of which it is not known what else it is; a write that does not fit.
    pub(super) fn write(
        &mut self,
        name: &str,
        before: impl FnOnce(&str) -> Traced,
        value: Value,
        t: &mut Tracer,
    ) -> Result<(), OpError> {
        let view = self.view(name);
        if self.opaque.contains(&view.root) || self.doubtful.contains(&view.root) {
            return Err(OpError::new(
                "it writes to a tensor of which there may be other views: call run_decompositions() before saving",
            ));
        }
        let root = match self.changed.get(&view.root) {
            Some(value) => value.clone(),
            None => before(&view.root)?,
        };
        let root = self.put(&root, &view.steps, value, t)?;
        self.changed.insert(view.root, root);
        Ok(())
    }

    fn put(&mut self, root: &Value, steps: &[Step], value: Value, t: &mut Tracer) -> Traced {
        let Some((step, rest)) = steps.split_first() else {
            let shape = t.shape(root);
            return t.broadcast(&value, &shape);
        };
        let inner = self.apply(step, root, t)?;
        let inner = self.put(&inner, rest, value, t)?;
        self.scatter(root, step, &inner, t)
    }

    fn apply(&self, step: &Step, value: &Value, t: &mut Tracer) -> Traced {
        match step {
            Step::Shape(shape) => t.reshape(value, shape),
            Step::Order(perm) => t.transpose(value, perm),
            Step::Slice { axis, begin, end, stride } => {
                if let Value::Graph(v) = value
                    && let Some((along, parts)) = self.interleaved.get(v)
                    && along == axis
                    && parts.len() == *stride
                    && begin < stride
                    && *end > t.shape(value)[*axis] - *stride + *begin
                {
                    return Ok(parts[*begin].clone());
                }
                sliced(value, *axis, *begin, *end, *stride, t)
            }
        }
    }

    /// `root` with `inner` in the place of the view that `step` leads to.
    ///
    /// # Errors
    /// A view whose elements do not lie evenly.
    pub(super) fn scatter(&mut self, root: &Value, step: &Step, inner: &Value, t: &mut Tracer) -> Traced {
        let shape = t.shape(root);
        match step {
            Step::Shape(_) => t.reshape(inner, &shape),
            Step::Order(perm) => {
                let mut inverse = vec![0; perm.len()];
                for (i, p) in perm.iter().enumerate() {
                    inverse[*p] = i;
                }
                t.transpose(inner, &inverse)
            }
            &Step::Slice { axis, begin, end, stride: 1 } => {
                let mut parts = Vec::new();
                if begin > 0 {
                    parts.push(sliced(root, axis, 0, begin, 1, t)?);
                }
                parts.push(inner.clone());
                if end < shape[axis] {
                    parts.push(sliced(root, axis, end, shape[axis], 1, t)?);
                }
                joined(&parts, axis, t)
            }
            &Step::Slice { axis, begin, end, stride } => {
                let extent = shape[axis];
                if !extent.is_multiple_of(stride) || begin >= stride || end + stride <= extent + begin {
                    return Err(OpError::new("it writes to every so many elements of a part of an axis"));
                }
                let parts = (0..stride)
                    .map(|first| match first == begin {
                        true => Ok(inner.clone()),
                        false => self.apply(&Step::Slice { axis, begin: first, end: extent, stride }, root, t),
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                let mut column = shape.clone();
                column[axis] = extent / stride;
                column.insert(axis + 1, 1);
                let columns = parts.iter().map(|part| t.reshape(part, &column)).collect::<Result<Vec<_>, _>>()?;
                let pairs = joined(&columns, axis + 1, t)?;
                let whole = t.reshape(&pairs, &shape)?;
                if let Value::Graph(v) = whole {
                    self.interleaved.insert(v, (axis, parts));
                }
                Ok(whole)
            }
        }
    }
}

/// The elements `begin, begin + stride, … < end` of an axis.
///
/// # Errors
/// No such elements.
pub(super) fn sliced(value: &Value, axis: usize, begin: usize, end: usize, stride: usize, t: &mut Tracer) -> Traced {
    let shape = t.shape(value);
    if (begin, end, stride) == (0, shape[axis], 1) {
        return Ok(value.clone());
    }
    if begin >= end {
        return Err(OpError::new(format!("its result {begin}..{end} of axis {axis} is empty")));
    }
    let mut slice = Slice::axis(&shape, axis, begin, end);
    slice.stride[axis] = stride;
    t.op(slice, &[value])
}

/// Values one after the other.
///
/// # Errors
/// Shapes that do not fit.
pub(super) fn joined(parts: &[Value], axis: usize, t: &mut Tracer) -> Traced {
    match parts {
        [only] => Ok(only.clone()),
        _ => t.op(s2dit_ir::ops::Concat { axis }, &parts.iter().collect::<Vec<_>>()),
    }
}
