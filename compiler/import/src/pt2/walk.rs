//! The walk through a program's calls: values by name, module paths, mutation.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};

use s2dit_ir::{DType, OpError, ValueId};
use serde_json::Value as Json;

use super::call::Call;
use super::mutation::{Mutation, Step};
use super::ops;
use super::schema::{self, Graph, Node, SymInt, union};
use super::symbols;
use crate::called::innermost;
use crate::{Traced, Tracer, Unsupported, Value};

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// A tensor.
    Tensor(Value),
    /// A size or another number.
    Number(f64),
    /// A comparison of numbers that the model computes, which only some choices can make something of.
    Test(Test),
    /// What an op that is not read would have made.
    Unknown,
}

/// A comparison.
#[derive(Clone, Debug)]
pub(super) struct Test {
    /// `eq`, `gt`, …
    pub name: String,
    pub x: Value,
    pub y: Value,
}

/// A walk.
pub(super) struct Walk<'a> {
    /// The graph that is written.
    pub t: Tracer,
    slots: HashMap<String, Slot>,
    mutation: Mutation,
    graph: &'a Graph,
    sizes: &'a BTreeMap<&'a str, usize>,
    /// Values of the graph that hold whole numbers though they are floats.
    pub whole: HashSet<ValueId>,
    /// Calls that are not read.
    pub unsupported: Unsupported,
}

/// An argument that an op which is not read would have made: told already.
const TOLD: &str = "\0told";

impl<'a> Walk<'a> {
    pub fn new(graph: &'a Graph, sizes: &'a BTreeMap<&'a str, usize>) -> Walk<'a> {
        Walk {
            t: Tracer::new(),
            slots: HashMap::new(),
            mutation: Mutation::default(),
            graph,
            sizes,
            whole: HashSet::new(),
            unsupported: Unsupported::default(),
        }
    }

    /// Gives a name its value.
    pub fn set(&mut self, name: &str, slot: Slot) {
        self.slots.insert(name.to_owned(), slot);
    }

    /// The tensor of a name, as it is now.
    ///
    /// # Errors
    /// No such tensor.
    pub fn tensor(&mut self, name: &str) -> Result<Value, OpError> {
        if let Some(value) = self.mutation.current(name, &mut self.t)? {
            return Ok(value);
        }
        match self.slots.get(name) {
            Some(Slot::Tensor(value)) => Ok(value.clone()),
            Some(Slot::Number(x)) => Ok(self.t.scalar(DType::I64, *x)),
            Some(Slot::Test(test)) => {
                let test = test.clone();
                self.compared(&test.name, &test.x, &test.y)
            }
            Some(Slot::Unknown) => Err(OpError::new(TOLD)),
            None => Err(OpError::new(format!("there is no value `{}` before it", s2dit_files::problems::shown(name)))),
        }
    }

    /// The value of a symbolic argument: `{"as_name": …}` or `{"as_int": …}`.
    pub fn symbolic(&self, json: &Json) -> Option<f64> {
        match union(json)? {
            ("as_int" | "as_float" | "as_bool", json) => schema::number(json),
            ("as_name", Json::String(name)) => match self.slots.get(name) {
                Some(Slot::Number(x)) => Some(*x),
                _ => self.graph.sym_int_values.get(name).and_then(|size| self.size(size).ok()).map(|n| n as f64),
            },
            ("as_expr", json) => {
                let text = json.get("expr_str")?.as_str()?;
                symbols::value(text, self.sizes).ok().map(|n| n as f64)
            }
            _ => None,
        }
    }

    /// The value of a size.
    ///
    /// # Errors
    /// A symbol that is not bound.
    pub fn size(&self, size: &SymInt) -> Result<i64, symbols::Unknown> {
        match size {
            SymInt::AsInt(n) => Ok(*n),
            SymInt::AsExpr(expr) => symbols::value(&expr.expr_str, self.sizes),
        }
    }

    /// The element type that the file gives a tensor.
    pub fn dtype_of(&self, name: &str) -> Option<DType> {
        self.graph.tensor_values.get(name).and_then(|meta| schema::dtype(meta.dtype))
    }

    /// The comparison that a name stands for.
    pub fn test(&self, name: &str) -> Option<Test> {
        match self.slots.get(name) {
            Some(Slot::Test(test)) => Some(test.clone()),
            _ => None,
        }
    }

    /// `root` with `inner` in the place of a view of it.
    ///
    /// # Errors
    /// A view whose elements do not lie evenly.
    pub fn scatter(&mut self, root: &Value, step: &Step, inner: &Value) -> Traced {
        self.mutation.scatter(root, step, inner, &mut self.t)
    }

    /// Names among these that were written to.
    pub fn written<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<String> {
        let mut written: Vec<String> = self.mutation.written(names).into_iter().map(str::to_owned).collect();
        written.sort();
        written
    }

    /// Reads one call.
    pub fn node(&mut self, node: &Node) {
        let op = node.target.strip_prefix("torch.ops.").unwrap_or(&node.target);
        let path = module_path(node);
        let outputs = output_names(node);
        let dtype = outputs.first().and_then(|name| self.dtype_of(name.as_deref()?));
        // What writes to its first operand is read as what makes a new tensor.
        let plain = written_by(op);
        let call = Call { node, op: plain.as_deref().unwrap_or(op), outputs, dtype, asked: RefCell::default() };
        self.t.at(&path);
        let read = match ops::find(call.op) {
            Some(read) => {
                let slots = read(self, &call).and_then(|slots| call.check_asked().map(|()| slots));
                self.checked(slots, &call).and_then(|slots| self.noted(&call, slots, plain.is_some()))
            }
            None => Err(OpError::new("")),
        };
        match read {
            Ok(slots) => {
                for (name, slot) in call.outputs.iter().zip(slots) {
                    if let Some(name) = name {
                        self.slots.insert(name.clone(), slot);
                    }
                }
            }
            Err(error) => {
                if error.0 != TOLD {
                    self.unsupported.add(op, &path, &error.0);
                }
                for name in call.outputs.iter().flatten() {
                    self.slots.insert(name.clone(), Slot::Unknown);
                }
            }
        }
    }

    /// Notes which results are views of what, and writes to the first operand of an op that does.
    fn noted(&mut self, call: &Call<'_>, slots: Vec<Slot>, writes: bool) -> Result<Vec<Slot>, OpError> {
        let Some(first) = call.node.inputs.first().and_then(|input| call.name(&input.name)) else { return Ok(slots) };
        if writes {
            let Some(Slot::Tensor(value)) = slots.first() else { return Ok(slots) };
            let (slots_now, value) = (&self.slots, value.clone());
            let before = |root: &str| match slots_now.get(root) {
                Some(Slot::Tensor(value)) => Ok(value.clone()),
                _ => Err(OpError::new("a write to nothing")),
            };
            self.mutation.write(first, before, value, &mut self.t)?;
            if let [Some(output)] = &call.outputs[..] {
                self.mutation.follow(output, first, None);
            }
            return Ok(slots);
        }
        let name = call.op.split('.').nth(1).unwrap_or_default();
        let is_float = |w: &Walk<'_>, name: &str| w.dtype_of(name);
        match name {
            "slice" | "permute" | "transpose" | "t" | "swapaxes" | "view" | "unsqueeze" | "squeeze" | "alias"
            | "detach" | "detach_" | "flatten" | "unflatten" | "lift_fresh" | "select" => {
                let ([Some(output)], [Slot::Tensor(value)]) = (&call.outputs[..], &slots[..]) else { return Ok(slots) };
                let of = self.tensor(first)?;
                let (from, made) = (self.t.shape(&of), self.t.shape(value));
                let step = ops::step(self, call, &from, &made);
                match step {
                    Some(steps) => {
                        let (output, first) = (output.clone(), first.to_owned());
                        self.mutation.follow(&output, &first, steps);
                    }
                    None => self.mutation.lose(first),
                }
            }
            // What the elements of several results are views of.
            "split" | "split_with_sizes" | "chunk" | "unbind" | "expand" | "expand_as" | "narrow" | "movedim" => {
                self.mutation.lose(first);
            }
            "reshape" | "contiguous" | "to" | "type_as" | "view_as" | "reshape_as" => {
                let [Some(output)] = &call.outputs[..] else { return Ok(slots) };
                // Another type is a copy.
                if is_float(self, output) == is_float(self, first) {
                    let (output, first) = (output.clone(), first.to_owned());
                    self.mutation.doubt(&output, &first);
                }
            }
            _ => {}
        }
        Ok(slots)
    }

    /// Compares shapes with those that the file says: a program that was changed by hand, or read wrongly, is not compiled.
    fn checked(&self, slots: Result<Vec<Slot>, OpError>, call: &Call<'_>) -> Result<Vec<Slot>, OpError> {
        let slots = slots?;
        for (name, slot) in call.outputs.iter().zip(&slots) {
            let (Some(name), Slot::Tensor(value)) = (name, slot) else { continue };
            let Some(meta) = self.graph.tensor_values.get(name) else { continue };
            let said: Option<Vec<i64>> = meta.sizes.iter().map(|size| self.size(size).ok()).collect();
            let made: Vec<i64> = self.t.shape(value).iter().map(|side| *side as i64).collect();
            if let Some(said) = said.filter(|said| *said != made) {
                return Err(OpError::new(format!("its result is {made:?}, and the file says {said:?}")));
            }
        }
        Ok(slots)
    }
}

/// The op that makes a new tensor where this one writes to its first operand: `aten.add_.Tensor` → `aten.add.Tensor`.
fn written_by(op: &str) -> Option<String> {
    let (name, overload) = op.strip_prefix("aten.")?.split_once('.')?;
    let plain =
        name.strip_suffix('_').filter(|plain| !plain.is_empty() && !plain.ends_with('_') && !plain.starts_with('_'))?;
    match plain {
        // What changes the view alone.
        "detach" | "squeeze" | "unsqueeze" | "t" | "transpose" | "requires_grad" => None,
        plain => Some(format!("aten.{plain}.{overload}")),
    }
}

/// The names of a call's results: of a list of tensors all of them.
fn output_names(node: &Node) -> Vec<Option<String>> {
    let mut names = Vec::new();
    for output in &node.outputs {
        match union(output) {
            Some(("as_tensors", Json::Array(list))) => {
                names.extend(list.iter().map(|json| schema::name_of(json).map(str::to_owned)));
            }
            Some(("as_tensor", json)) => names.push(schema::name_of(json).map(str::to_owned)),
            Some(("as_sym_int" | "as_sym_bool" | "as_sym_float", json)) => {
                names.push(json.get("as_name").and_then(Json::as_str).map(str::to_owned));
            }
            _ => names.push(None),
        }
    }
    names
}

/// The path of the module that a call lies in: `blocks.3.attn1.to_q`.
///
/// `nn_module_stack` has an entry `key,path,class` for each module from the outside in. A path is written as `L['self'].blocks.3`,
/// `blocks.3` or `getattr(L['self'].blocks, '3')` by different versions of torch.
fn module_path(node: &Node) -> String {
    let Some(stack) = node.metadata.get("nn_module_stack").and_then(Json::as_str) else { return String::new() };
    let entries = split_outside_parentheses(stack, ';').into_iter();
    innermost(
        entries.map(|entry| plain_path(split_outside_parentheses(entry, ',').get(1).copied().unwrap_or_default())),
    )
}

/// Parts of a text between separators that lie in no parentheses.
fn split_outside_parentheses(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            c if c == separator && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn plain_path(path: &str) -> String {
    let mut path = path.trim().to_owned();
    // getattr(INNER, 'NAME') → INNER.NAME, from the inside out.
    for _ in 0..64 {
        let Some(start) = path.rfind("getattr(") else { break };
        let Some(end) = path[start..].find(')').map(|end| start + end) else { break };
        let inner = path[start + "getattr(".len()..end].to_owned();
        let Some((object, name)) = inner.rsplit_once(',') else { break };
        let name = name.trim().trim_matches(['\'', '"']);
        path.replace_range(start..=end, &format!("{}.{name}", object.trim()));
    }
    // ._modules['3'] and ['3'] → .3
    path = path.replace("._modules[", "[").replace(['\'', '"', ']'], "").replace('[', ".");
    let parts: Vec<&str> = path.split('.').filter(|part| !part.is_empty()).collect();
    let skipped = match parts.as_slice() {
        ["L", "self" | "s", ..] => 2,
        ["L", _, ..] => 2,
        _ => 0,
    };
    parts[skipped..].join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_paths_are_those_of_the_state_dict() {
        let path = |stack: &str| {
            let metadata = HashMap::from([("nn_module_stack".to_owned(), Json::from(stack))]);
            module_path(&Node { target: String::new(), inputs: Vec::new(), outputs: Vec::new(), metadata })
        };
        assert_eq!(path("L__self__,,m.M;L__s___l,L['s'].l,torch.nn.Linear"), "l");
        assert_eq!(path("L__self__,,m.M;L__self___blocks_0,L['self'].blocks.0,m.B"), "blocks.0");
        assert_eq!(
            path("L__self__,,m.M;x,L['self'].blocks.3,m.B;y,L['self'].blocks.3.attn,m.A;z,L['self'].rope,m.R"),
            "blocks.3.attn.rope"
        );
        assert_eq!(path("L__self__,,m.M;x,getattr(L['self'].blocks, '0').attn1,m.A"), "blocks.0.attn1");
        assert_eq!(
            path("L__self__,,m.M;x,L['self'].vae._modules['decoder'].up_blocks[1].norm,m.A"),
            "vae.decoder.up_blocks.1.norm"
        );
        assert_eq!(path(",,m.M;blocks.0,blocks.0,m.B"), "blocks.0");
        assert_eq!(path("L__self__,,m.M"), "");
        assert_eq!(path(""), "");
        for odd in ["getattr(", "getattr(getattr(,,)", ";;;", "a,b)c,d;(", "L", "L['self']"] {
            path(odd);
        }
    }
}
