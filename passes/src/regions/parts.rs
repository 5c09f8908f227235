//! What a block of linear attention is in place of LCHA, part by part: for whoever wrote one that is nearly recognised.

use std::collections::{HashSet, VecDeque};

use s2dit_ir::ops::{Binary, Conv};
use s2dit_ir::{Function, Op, ValueId};

use super::stage::under_layout;

/// Ops that are followed from one part to the next, in place of what should be there.
const FAR: usize = 12;

/// The parts of LCHA that the block around this linear attention has in another form, each with what is there and where; empty if all are as expected.
pub(super) fn differences(f: &Function, consts: &HashSet<ValueId>, attention: ValueId) -> Vec<String> {
    let mut parts = Parts { f, consts, found: Vec::new() };
    let operands = f.operands(attention);
    let mut inputs = Vec::new();
    match f.op(attention) {
        Op::LinearAttentionStep(_) => {
            inputs.push(parts.features("queries", operands[0]));
            if let [k, v, ..] = f.operands(operands[1])[..]
                && matches!(f.op(operands[1]), Op::RunningMean(_))
            {
                inputs.extend([parts.features("keys", k), parts.projection("values", v)]);
            }
        }
        _ => {
            inputs.extend([parts.features("queries", operands[0]), parts.features("keys", operands[1])]);
            inputs.push(parts.projection("values", operands[2]));
        }
    }
    let inputs: Vec<ValueId> = inputs.into_iter().flatten().collect();
    if let [first, rest @ ..] = &inputs[..]
        && let Some(other) = rest.iter().find(|u| *u != first)
    {
        let there = parts.at(*other);
        parts.found.push(format!("tokens: expected one value for queries, keys and values, found another, {there}"));
    }
    parts.behind(attention, inputs.first().copied());
    together(parts.found)
}

/// What is said of queries and of keys alike, once.
fn together(parts: Vec<String>) -> Vec<String> {
    let both = |part: &String| part.replace("of the queries", "of the keys");
    let said: HashSet<String> = parts.iter().filter(|part| part.contains("of the queries")).map(both).collect();
    let of_keys: HashSet<String> = parts.iter().filter(|part| said.contains(*part)).cloned().collect();
    let rest = parts.into_iter().filter(|part| !of_keys.contains(part));
    rest.map(
        |part| {
            if of_keys.contains(&both(&part)) { part.replace("of the queries", "of queries and keys") } else { part }
        },
    )
    .collect()
}

/// What stands in the place of linear attention below a gate, as far as its normaliser tells.
pub(super) fn normaliser(f: &Function, gate: ValueId) -> Option<String> {
    let attention = |v: ValueId| {
        let Op::Linear(_) = f.op(v) else { return None };
        let top = under_layout(f, f.operands(v)[0]);
        let numerator = |v: ValueId| {
            matches!(f.op(v), Op::Matmul(_))
                && f.operands(v).into_iter().any(|o| matches!(f.op(under_layout(f, o)), Op::Matmul(_)))
        };
        let there = Parts { f, consts: &HashSet::new(), found: Vec::new() };
        match f.op(top) {
            Op::Matmul(_) if numerator(top) => Some(format!(
                "normaliser: expected `(q @ k.T @ v) / (q @ sum(k).T + eps)`, found no ratio, {}",
                there.at(top)
            )),
            Op::Binary(Binary::Div) if numerator(under_layout(f, f.operands(top)[0])) => {
                let below = under_layout(f, f.operands(top)[1]);
                Some(format!("normaliser: expected `q @ sum(k).T + eps`, found {}", there.at(below)))
            }
            _ => None,
        }
    };
    f.operands(gate).into_iter().find_map(|branch| attention(under_layout(f, branch)))
}

struct Parts<'f> {
    f: &'f Function,
    consts: &'f HashSet<ValueId>,
    found: Vec<String>,
}

impl Parts<'_> {
    /// "`relu` at `blocks.0`"
    fn at(&self, v: ValueId) -> String {
        let node = self.f.node(v);
        let name = self.f.op(v).name();
        if node.scope.is_empty() { format!("`{name}`") } else { format!("`{name}` at `{}`", node.scope) }
    }

    fn differs(&mut self, part: &str, expected: &str, v: ValueId) {
        self.found.push(format!("{part}: expected {expected}, found {}", self.at(v)));
    }

    /// Queries or keys: a rotation before or after the kernel, the kernel, a norm, a layer. Gives the tokens below.
    fn features(&mut self, whose: &str, v: ValueId) -> Option<ValueId> {
        let mut at = under_layout(self.f, v);
        let mut rotated = self.take(&mut at, |op| matches!(op, Op::Rope(_)));
        if !self.take(&mut at, |op| matches!(op, Op::FeatureMap(_))) {
            self.differs(&format!("feature map of the {whose}"), "`feature_map`, which is softplus(x @ w.T + b)", at);
            at = self.towards(at, |op| matches!(op, Op::Rope(_) | Op::RmsNorm(_) | Op::Linear(_)))?;
        }
        rotated |= self.take(&mut at, |op| matches!(op, Op::Rope(_)));
        if !rotated {
            self.found
                .push(format!("rotation of the {whose}: expected `rope` before or after the feature map, found none"));
        }
        if !self.take(&mut at, |op| matches!(op, Op::RmsNorm(_))) {
            let part = match self.f.op(at) {
                Op::BroadcastTo(_) | Op::Concat(_) | Op::Slice(_) | Op::Gather(_) => {
                    format!("heads of the {whose}: expected as many as there are of the others, from `rms_norm`")
                }
                _ => format!("norm of the {whose}: expected `rms_norm`"),
            };
            let there = self.at(at);
            self.found.push(format!("{part}, found {there}"));
            at = self.towards(at, |op| matches!(op, Op::RmsNorm(_) | Op::Linear(_)))?;
            self.take(&mut at, |op| matches!(op, Op::RmsNorm(_)));
        }
        self.projection(whose, at)
    }

    /// The tokens below a layer.
    fn projection(&mut self, whose: &str, v: ValueId) -> Option<ValueId> {
        let mut at = under_layout(self.f, v);
        if self.take(&mut at, |op| matches!(op, Op::Linear(_))) {
            return Some(at);
        }
        self.differs(&format!("projection of the {whose}"), "`linear`", at);
        at = self.towards(at, |op| matches!(op, Op::Linear(_)))?;
        Some(under_layout(self.f, self.f.operands(at)[0]))
    }

    /// Goes below an op of this kind, if there is one.
    fn take(&self, at: &mut ValueId, is: impl Fn(&Op) -> bool) -> bool {
        let taken = is(self.f.op(*at));
        if taken {
            *at = under_layout(self.f, self.f.operands(*at)[0]);
        }
        taken
    }

    /// The nearest value of this kind that is computed below.
    fn towards(&self, from: ValueId, is: impl Fn(&Op) -> bool) -> Option<ValueId> {
        let mut next = VecDeque::from([(from, 0)]);
        while let Some((at, far)) = next.pop_front() {
            if far > 0 && is(self.f.op(at)) {
                return Some(at);
            }
            let below = self.f.operands(at).into_iter().filter(|o| far < FAR && !self.consts.contains(o));
            next.extend(below.map(|o| (o, far + 1)));
        }
        None
    }

    /// The only value that is computed of `v`, behind all layout changes.
    fn user(&self, v: ValueId) -> Option<ValueId> {
        let mut at = v;
        loop {
            let [(user, _)] = self.f.users(at)[..] else { return None };
            match self.f.op(user) {
                Op::Reshape(_) | Op::Transpose(_) => at = user,
                _ => return Some(user),
            }
        }
    }

    /// The layer behind attention, the gate, and the branch that is mixed in.
    fn behind(&mut self, attention: ValueId, tokens: Option<ValueId>) {
        let Some(out) = self.user(attention) else {
            self.found.push("projection of the result: expected one `linear`, found several uses".into());
            return;
        };
        if !matches!(self.f.op(out), Op::Linear(_)) {
            return self.differs("projection of the result", "`linear`", out);
        }
        let Some(mixed) = self.user(out) else {
            self.found.push("gate: expected one use of attention's result, found several".into());
            return;
        };
        let (branch, sum) = match self.f.op(mixed) {
            Op::FusionGate(_) | Op::Binary(Binary::Add) => (out, Some(mixed)),
            Op::Binary(Binary::Mul) => {
                let factor = self.f.operands(mixed).into_iter().find(|o| under_layout(self.f, *o) != out);
                if let Some(factor) = factor.filter(|factor| !self.consts.contains(factor)) {
                    self.differs("gate", "a number for each channel", factor);
                }
                (
                    mixed,
                    self.user(mixed).filter(|v| matches!(self.f.op(*v), Op::FusionGate(_) | Op::Binary(Binary::Add))),
                )
            }
            _ => (out, None),
        };
        let Some(sum) = sum else {
            return self.differs("gate", "`a * attention + (1 - a) * local`", mixed);
        };
        let terms = match self.f.op(sum) {
            Op::FusionGate(_) => self.f.operands(sum)[1..].to_vec(),
            _ => self.terms(sum),
        };
        let others: Vec<ValueId> =
            terms.into_iter().map(|o| under_layout(self.f, o)).filter(|o| *o != branch).collect();
        match others.iter().find(|v| self.is_local(**v)).or(others.first()) {
            Some(&other) if self.is_local(other) => self.local(other, tokens),
            Some(&other) => self.differs("local branch", "a convolution of the same tokens, mixed in", other),
            None => self.found.push("local branch: expected a convolution beside attention, found none".into()),
        }
    }

    /// Whether a term is a layer of a convolution, or a convolution, maybe times something.
    fn is_local(&self, v: ValueId) -> bool {
        let mut at = self.factor(v);
        self.take(&mut at, |op| matches!(op, Op::Linear(_)));
        matches!(self.f.op(at), Op::Conv(_))
    }

    /// The layer or convolution of a product, or the value itself.
    fn factor(&self, v: ValueId) -> ValueId {
        let Op::Binary(Binary::Mul) = self.f.op(v) else { return v };
        let mut factors = self.f.operands(v).into_iter().map(|o| under_layout(self.f, o));
        factors.find(|&o| matches!(self.f.op(o), Op::Linear(_) | Op::Conv(_))).unwrap_or(v)
    }

    /// The terms of the whole sum that a sum is part of.
    fn terms(&self, sum: ValueId) -> Vec<ValueId> {
        let add = |v: ValueId| matches!(self.f.op(v), Op::Binary(Binary::Add));
        let mut top = sum;
        while let [(user, _)] = self.f.users(top)[..]
            && add(user)
        {
            top = user;
        }
        let (mut terms, mut next) = (Vec::new(), vec![top]);
        while let Some(v) = next.pop() {
            if add(v) && terms.len() < FAR { next.extend(self.f.operands(v)) } else { terms.push(v) }
        }
        terms
    }

    /// The local branch: a layer of a causal depthwise convolution of the same tokens.
    fn local(&mut self, v: ValueId, tokens: Option<ValueId>) {
        let mut at = self.factor(v);
        if !self.take(&mut at, |op| matches!(op, Op::Linear(_))) {
            self.differs("mixing layer of the local branch", "`linear`", at);
        }
        let (Op::Conv(conv), channels) = (self.f.op(at), self.f.shape(at).get(1).copied().unwrap_or(0)) else {
            return self.differs("convolution of the local branch", "`conv` under the mixing layer", at);
        };
        let kernel = &self.f.shape(self.f.operands(at)[1])[2..];
        let said = |what: &str, wanted: &str| {
            format!("convolution of the local branch: expected {wanted}, found {what} at `{}`", self.f.node(at).scope)
        };
        let mut wrong = Vec::new();
        if conv.groups != channels {
            wrong.push(said(&format!("{} groups of {channels} channels", conv.groups), "a depthwise one"));
        }
        if kernel.len() != 3 {
            wrong.push(said(&format!("a kernel of {} axes", kernel.len()), "one of frames, rows and columns"));
        } else if !keeps_its_size(conv, kernel) {
            wrong.push(said(
                &format!("a kernel {kernel:?} with steps {:?}", conv.strides),
                "one that keeps frames, rows and columns",
            ));
        } else if conv.pad_after[0] > 0 {
            wrong.push(said("zeros behind the last frame", "a causal one"));
        }
        let below = under_layout(self.f, self.f.operands(at)[0]);
        if let Some(tokens) = tokens
            && below != tokens
            && !matches!(self.f.op(below), Op::Concat(_))
        {
            wrong.push(format!("tokens of the local branch: expected those of attention, found {}", self.at(below)));
        }
        self.found.extend(wrong);
    }
}

/// Whether a convolution has a step of 1 and zeros for all of its kernel, but for frames that may come from before.
fn keeps_its_size(conv: &Conv, kernel: &[usize]) -> bool {
    let zeros = |i: usize| conv.pad_before[i] + conv.pad_after[i];
    let spans = |i: usize| conv.dilations[i] * (kernel[i] - 1);
    conv.strides.iter().all(|&s| s == 1) && (1..3).all(|i| zeros(i) == spans(i)) && [0, spans(0)].contains(&zeros(0))
}
