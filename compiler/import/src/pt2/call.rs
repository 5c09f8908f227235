//! A call of an op in an exported program: its arguments by name. What a file leaves out has the default of the op's schema, which the op's
//! reader states.

use std::cell::RefCell;
use std::collections::HashSet;

use s2dit_ir::{DType, OpError};
use serde_json::Value as Json;

use super::schema::{self, Node, number, union};
use super::walk::{Slot, Walk};
use crate::Value;

/// A call with the values that its arguments name.
pub(super) struct Call<'a> {
    /// The call as the file has it.
    pub node: &'a Node,
    /// The op, such as `aten.add.Tensor`.
    pub op: &'a str,
    /// The names of its results; what is no tensor has none.
    pub outputs: Vec<Option<String>>,
    /// The element type that the file gives its first result.
    pub dtype: Option<DType>,
    /// Names of the arguments that the op's reader asked for.
    pub asked: RefCell<HashSet<String>>,
}

/// A value of an argument, or what is wrong with it.
pub(super) type Arg<T> = Result<T, OpError>;

impl Call<'_> {
    fn raw(&self, name: &str) -> Option<(&str, &Json)> {
        self.asked.borrow_mut().insert(name.to_owned());
        let input = self.node.inputs.iter().find(|input| input.name == name)?;
        match union(&input.arg) {
            // No argument at all: what asks for it says what it expected.
            None => Some(("what is no argument", &input.arg)),
            Some(("as_none", _)) => None,
            Some(known) => Some(known),
        }
    }

    fn bad(&self, name: &str, expected: &str) -> OpError {
        let found = self.raw(name).map_or("nothing".to_owned(), |(kind, _)| kind.to_owned());
        OpError::new(format!("argument `{name}`: found {found}, expected {expected}"))
    }

    /// Checks that the op's reader asked for every tensor that the file gives it. (Numbers that change nothing, such as the momentum of statistics, are many.)
    ///
    /// # Errors
    /// A tensor that the op does not take, or not in this use of it; an argument given twice.
    pub fn check_asked(&self) -> Result<(), OpError> {
        let asked = self.asked.borrow();
        // Checks of the program by itself.
        if self.op.starts_with("aten._assert") {
            return Ok(());
        }
        for (i, input) in self.node.inputs.iter().enumerate() {
            let name = &input.name;
            let shown = || s2dit_files::problems::shown(name);
            if self.node.inputs[..i].iter().any(|other| other.name == *name) && !name.is_empty() {
                return Err(OpError::new(format!("argument `{}` is there twice", shown())));
            }
            let is_tensor = union(&input.arg)
                .is_none_or(|(kind, _)| matches!(kind, "as_tensor" | "as_tensors" | "as_optional_tensors"));
            // Of the first operand some ops take the type alone, which the file says.
            if is_tensor && !name.is_empty() && name != "self" && !asked.contains(name) {
                return Err(OpError::new(format!(
                    "argument `{}`: the op does not take it, or not in this use",
                    shown()
                )));
            }
        }
        Ok(())
    }

    /// Whether an argument is there and not `None`.
    pub fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// A tensor.
    pub fn tensor(&self, w: &mut Walk<'_>, name: &str) -> Arg<Value> {
        self.tensor_or_none(w, name)?.ok_or_else(|| self.bad(name, "a tensor"))
    }

    /// A tensor, or `None`.
    pub fn tensor_or_none(&self, w: &mut Walk<'_>, name: &str) -> Arg<Option<Value>> {
        match self.raw(name) {
            None => Ok(None),
            Some(("as_tensor", json)) => w.tensor(schema::name_of(json).unwrap_or_default()).map(Some),
            Some(_) => Err(self.bad(name, "a tensor")),
        }
    }

    /// The name of a tensor.
    pub fn name(&self, name: &str) -> Option<&str> {
        self.raw(name).and_then(|(kind, json)| (kind == "as_tensor").then(|| schema::name_of(json))?)
    }

    /// A tensor, or a number as a tensor without axes.
    pub fn tensor_or_number(&self, w: &mut Walk<'_>, name: &str) -> Arg<Value> {
        match self.raw(name) {
            Some(("as_tensor", _)) => self.tensor(w, name),
            Some((kind, json)) => {
                let x = self.number_in(w, kind, json).ok_or_else(|| self.bad(name, "a tensor or a number"))?;
                let is_float = matches!(kind, "as_float" | "as_sym_float");
                Ok(w.t.scalar(if is_float { DType::F32 } else { DType::I64 }, x))
            }
            None => Err(self.bad(name, "a tensor or a number")),
        }
    }

    /// Tensors, of which some may be `None`.
    pub fn tensors_or_none(&self, w: &mut Walk<'_>, name: &str) -> Arg<Vec<Option<Value>>> {
        let Some(("as_tensors" | "as_optional_tensors", Json::Array(list))) = self.raw(name) else {
            return Err(self.bad(name, "tensors"));
        };
        list.iter()
            .map(|json| match union(json) {
                Some(("as_none", _)) => Ok(None),
                _ => match schema::name_of(json) {
                    Some(tensor) => w.tensor(tensor).map(Some),
                    None => Err(self.bad(name, "tensors")),
                },
            })
            .collect()
    }

    /// Tensors.
    pub fn tensors(&self, w: &mut Walk<'_>, name: &str) -> Arg<Vec<Value>> {
        let list = self.tensors_or_none(w, name)?;
        list.into_iter().map(|value| value.ok_or_else(|| self.bad(name, "tensors, none of them `None`"))).collect()
    }

    fn number_in(&self, w: &Walk<'_>, kind: &str, json: &Json) -> Option<f64> {
        match kind {
            "as_int" | "as_float" | "as_bool" => number(json),
            "as_sym_int" | "as_sym_float" | "as_sym_bool" => w.symbolic(json),
            _ => None,
        }
    }

    /// A number.
    pub fn number(&self, w: &Walk<'_>, name: &str, default: Option<f64>) -> Arg<f64> {
        match self.raw(name) {
            None => default.ok_or_else(|| self.bad(name, "a number")),
            Some((kind, json)) => self.number_in(w, kind, json).ok_or_else(|| self.bad(name, "a number")),
        }
    }

    /// What keeps a division by a spread from failing: a number that is not negative.
    pub fn epsilon(&self, w: &Walk<'_>, name: &str, default: Option<f64>) -> Arg<f64> {
        let x = self.number(w, name, default)?;
        if x.is_finite() && x >= 0.0 {
            return Ok(x);
        }
        Err(OpError::new(format!("argument `{name}`: found {x}, expected a finite number, 0 or more")))
    }

    /// A whole number.
    pub fn int(&self, w: &Walk<'_>, name: &str, default: Option<i64>) -> Arg<i64> {
        // i64::MAX, which means the end, is beyond what f64 holds exactly.
        if let Some(("as_int", Json::Number(n))) = self.raw(name)
            && let Some(n) = n.as_i64()
        {
            return Ok(n);
        }
        let x = self.number(w, name, default.map(|n| n as f64))?;
        if x.fract() == 0.0 { Ok(x as i64) } else { Err(self.bad(name, "a whole number")) }
    }

    /// A truth value.
    pub fn flag(&self, w: &Walk<'_>, name: &str, default: bool) -> Arg<bool> {
        Ok(self.number(w, name, Some(f64::from(u8::from(default))))? != 0.0)
    }

    /// Whole numbers; `None` if the argument is left out. A single one counts as a list.
    pub fn ints(&self, w: &Walk<'_>, name: &str) -> Arg<Option<Vec<i64>>> {
        let bad = || self.bad(name, "whole numbers");
        match self.raw(name) {
            None => Ok(None),
            Some(("as_ints", Json::Array(list))) => {
                Ok(Some(list.iter().map(Json::as_i64).collect::<Option<_>>().ok_or_else(bad)?))
            }
            Some(("as_sym_ints", Json::Array(list))) => {
                let value = |json: &Json| w.symbolic(json).filter(|x| x.fract() == 0.0).map(|x| x as i64);
                Ok(Some(list.iter().map(value).collect::<Option<_>>().ok_or_else(bad)?))
            }
            Some(("as_int" | "as_sym_int", _)) => Ok(Some(vec![self.int(w, name, None)?])),
            // An empty list has no type.
            Some((_, Json::Array(list))) if list.is_empty() => Ok(Some(Vec::new())),
            Some(_) => Err(bad()),
        }
    }

    /// Numbers; `None` if the argument is left out.
    pub fn numbers(&self, w: &Walk<'_>, name: &str) -> Arg<Option<Vec<f64>>> {
        match self.raw(name) {
            Some(("as_floats", Json::Array(list))) => {
                let list = list.iter().map(number).collect::<Option<_>>();
                Ok(Some(list.ok_or_else(|| self.bad(name, "numbers"))?))
            }
            _ => Ok(self.ints(w, name)?.map(|list| list.into_iter().map(|n| n as f64).collect())),
        }
    }

    /// Text.
    pub fn text(&self, name: &str, default: &'static str) -> Arg<String> {
        match self.raw(name) {
            None => Ok(default.to_owned()),
            Some(("as_string", Json::String(text))) => Ok(text.clone()),
            Some(_) => Err(self.bad(name, "a text")),
        }
    }

    /// Whether an argument is there as a text, where the op takes numbers too.
    pub fn is_text(&self, name: &str) -> bool {
        self.raw(name).is_some_and(|(kind, _)| kind == "as_string")
    }

    /// An element type.
    pub fn dtype(&self, name: &str) -> Arg<Option<DType>> {
        match self.raw(name) {
            None => Ok(None),
            Some(("as_scalar_type" | "as_int", Json::Number(n))) => n
                .as_i64()
                .and_then(schema::dtype)
                .map(Some)
                .ok_or_else(|| self.bad(name, "an element type that is read")),
            Some(_) => Err(self.bad(name, "an element type")),
        }
    }

    /// The element type that is asked for, or that of the result, or f32.
    pub fn made_dtype(&self) -> Arg<DType> {
        Ok(self.dtype("dtype")?.or(self.dtype).unwrap_or(DType::F32))
    }

    /// The axis in an argument, counted from the front.
    pub fn axis(&self, w: &Walk<'_>, name: &str, default: i64, rank: usize) -> Arg<usize> {
        axis_of(self.int(w, name, Some(default))?, rank)
    }

    /// Axes in an argument, counted from the front, sorted; all of them if it is left out or empty.
    pub fn axes(&self, w: &Walk<'_>, name: &str, rank: usize) -> Arg<Vec<usize>> {
        let list = self.ints(w, name)?.unwrap_or_default();
        if list.is_empty() {
            return Ok((0..rank).collect());
        }
        let mut axes = list.into_iter().map(|axis| axis_of(axis, rank)).collect::<Arg<Vec<_>>>()?;
        axes.sort_unstable();
        Ok(axes)
    }

    /// The values of integers of a call on sizes, such as `_operator.mul(s0, 2)`, in order.
    pub fn all_numbers(&self, w: &Walk<'_>) -> Arg<Vec<f64>> {
        let value = |input: &schema::NamedArgument| {
            let (kind, json) = union(&input.arg)?;
            self.number_in(w, kind, json)
        };
        let list: Option<Vec<f64>> = self.node.inputs.iter().map(value).collect();
        list.ok_or_else(|| OpError::new("its arguments must be sizes that are bound"))
    }

    /// A result that is one tensor.
    pub fn one(&self, value: Value) -> Vec<Slot> {
        vec![Slot::Tensor(value)]
    }
}

/// An axis counted from the front.
pub(super) fn axis_of(axis: i64, rank: usize) -> Arg<usize> {
    let counted = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(counted)
        .ok()
        .filter(|axis| *axis < rank.max(1))
        .ok_or_else(|| OpError::new(format!("axis {axis} is out of range for rank {rank}")))
}
