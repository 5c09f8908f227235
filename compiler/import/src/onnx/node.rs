//! A node as a reader of its op sees it: attributes with those of the calling function put in, inputs as values.

use std::collections::HashMap;

use s2dit_backends::onnx::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};
use s2dit_files::problems::Problems;
use s2dit_ir::OpError;

use crate::Value;

/// Why an op is not read.
#[derive(Debug)]
pub(super) enum Stop {
    /// An op, or a form of it, that is not read here: told with all others.
    NotRead(String),
    /// A node that contradicts the format.
    Broken(String),
    /// A tensor that cannot be read.
    Tensor(Problems),
}

/// What the IR refuses is not read.
impl From<OpError> for Stop {
    fn from(error: OpError) -> Stop {
        Stop::NotRead(error.0)
    }
}

/// The values that a node gives.
pub(super) type Made = Result<Vec<Value>, Stop>;

macro_rules! not_read {
    ($($message:tt)+) => { return Err($crate::onnx::node::Stop::NotRead(format!($($message)+))) };
}
pub(super) use not_read;

macro_rules! broken {
    ($($message:tt)+) => { return Err($crate::onnx::node::Stop::Broken(format!($($message)+))) };
}
pub(super) use broken;

/// Attributes of a function's call, by name.
pub(super) type Given<'m> = HashMap<&'m str, &'m AttributeProto>;

/// A node to be read.
pub(super) struct Node<'m> {
    /// The node in the file.
    pub proto: &'m NodeProto,
    /// Version of the operator set that the op is of.
    pub version: i64,
    /// Inputs in order; `None` for one that is left out.
    pub inputs: Vec<Option<Value>>,
    attributes: HashMap<&'m str, &'m AttributeProto>,
}

impl<'m> Node<'m> {
    /// A node of a function whose call has the attributes `given`, or of a graph, where there are none.
    pub(super) fn new(proto: &'m NodeProto, version: i64, inputs: Vec<Option<Value>>, given: &Given<'m>) -> Node<'m> {
        let own = |a: &'m AttributeProto| match a.ref_attr_name.as_str() {
            "" => Some((a.name.as_str(), a)),
            // An attribute that the call leaves out has its default here.
            reference => given.get(reference).map(|value| (a.name.as_str(), *value)),
        };
        Node { proto, version, inputs, attributes: proto.attribute.iter().filter_map(own).collect() }
    }

    /// The op.
    pub(super) fn op(&self) -> &'m str {
        &self.proto.op_type
    }

    /// The number of outputs that the node names.
    pub(super) fn outputs(&self) -> usize {
        self.proto.output.len()
    }

    /// Whether anybody may read an output.
    pub(super) fn wants(&self, output: usize) -> bool {
        self.proto.output.get(output).is_some_and(|name| !name.is_empty())
    }

    /// All attributes, for a function that is called.
    pub(super) fn given(&self) -> Given<'m> {
        self.attributes.clone()
    }

    /// An input that must be there.
    pub(super) fn input(&self, index: usize) -> Result<&Value, Stop> {
        match self.inputs.get(index) {
            Some(Some(value)) => Ok(value),
            _ => broken!("input {index} is missing"),
        }
    }

    /// An input that may be left out.
    pub(super) fn optional(&self, index: usize) -> Option<&Value> {
        self.inputs.get(index)?.as_ref()
    }

    /// Whether an attribute is given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }

    fn typed(&self, name: &str, code: i32, what: &str) -> Result<Option<&'m AttributeProto>, Stop> {
        match self.attributes.get(name) {
            None => Ok(None),
            // Old writers leave the type out.
            Some(a) if a.r#type == code || a.r#type == 0 => Ok(Some(a)),
            Some(a) => broken!("attribute `{name}` is of type {}, expected {what}", a.r#type),
        }
    }

    pub(super) fn int(&self, name: &str, default: i64) -> Result<i64, Stop> {
        Ok(self.typed(name, 2, "an integer")?.map_or(default, |a| a.i))
    }

    pub(super) fn float(&self, name: &str, default: f64) -> Result<f64, Stop> {
        Ok(self.typed(name, 1, "a float")?.map_or(default, |a| f64::from(a.f)))
    }

    /// What keeps a division by a spread from failing.
    pub(super) fn epsilon(&self, default: f64) -> Result<f64, Stop> {
        let x = self.float("epsilon", default)?;
        if !x.is_finite() || x < 0.0 {
            broken!("attribute `epsilon` is {x}, expected a finite number, 0 or more");
        }
        Ok(x)
    }

    pub(super) fn ints(&self, name: &str) -> Result<Option<Vec<i64>>, Stop> {
        Ok(self.typed(name, 7, "integers")?.map(|a| a.ints.clone()))
    }

    pub(super) fn floats(&self, name: &str) -> Result<Option<Vec<f64>>, Stop> {
        Ok(self.typed(name, 6, "floats")?.map(|a| a.floats.iter().map(|x| f64::from(*x)).collect()))
    }

    pub(super) fn text(&self, name: &str, default: &'m str) -> Result<&'m str, Stop> {
        match self.typed(name, 3, "a string")? {
            None => Ok(default),
            Some(a) => std::str::from_utf8(&a.s).map_err(|_| Stop::Broken(format!("attribute `{name}` is no text"))),
        }
    }

    pub(super) fn tensor(&self, name: &str) -> Result<Option<&'m TensorProto>, Stop> {
        Ok(self.typed(name, 4, "a tensor")?.and_then(|a| a.t.as_ref()))
    }

    pub(super) fn graph(&self, name: &str) -> Result<Option<&'m GraphProto>, Stop> {
        Ok(self.typed(name, 5, "a graph")?.and_then(|a| a.g.as_ref()))
    }
}

/// An axis that may count from the end.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, Stop> {
    let wrapped = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    match usize::try_from(wrapped) {
        Ok(axis) if axis < rank => Ok(axis),
        _ => broken!("axis {axis} of rank {rank}"),
    }
}

/// Distinct axes, ascending.
pub(super) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, Stop> {
    let mut axes = list.iter().map(|a| axis(*a, rank)).collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    if axes.windows(2).any(|w| w[0] == w[1]) {
        broken!("an axis twice in {list:?}");
    }
    Ok(axes)
}

/// A size: not negative.
pub(super) fn size(n: i64, what: &str) -> Result<usize, Stop> {
    usize::try_from(n).map_err(|_| Stop::Broken(format!("{what} {n}, expected 0 or more")))
}
