//! Matching: every way in which a pattern fits a value, and the deepest place where it did not.

use std::collections::HashSet;

use s2dit_ir::ops::{Binary, Matmul, ReduceKind, Transpose, Unary};
use s2dit_ir::{Function, Op, ValueId};

use super::syntax::{Kind, Pat};
use super::views::{self, Half, beside, every2, half_of, interleave};
use super::{Capture, Match, Miss, Pattern, View};

/// Relative difference that two numbers may have and be the same: fp32 rounds further.
const SAME: f64 = 1e-6;

/// Matches patterns against one function.
pub struct Matcher<'f> {
    pub(super) f: &'f Function,
    consts: &'f HashSet<ValueId>,
    miss: Option<Miss>,
    near: usize,
}

type Matches = Vec<Match>;

impl<'f> Matcher<'f> {
    /// A matcher; `consts` are the weight expressions of the function, see [`Function::constants`].
    pub fn new(f: &'f Function, consts: &'f HashSet<ValueId>) -> Self {
        Matcher { f, consts, miss: None, near: 0 }
    }

    /// Tells of a failure only where at least so many ops fitted: to write down what was expected takes longer than to find that it is not
    /// there.
    #[must_use]
    pub fn near(self, near: usize) -> Self {
        Matcher { near, ..self }
    }

    /// Every way in which the pattern fits, best first; none, and where it stopped.
    ///
    /// # Errors
    /// The deepest place that did not match; none if it is not [near](Matcher::near).
    pub fn find(&mut self, pattern: &Pattern, root: ValueId) -> Result<Vec<Match>, Option<Miss>> {
        self.miss = None;
        let found = self.at(&pattern.root, root, &Match::default());
        if found.is_empty() { Err(self.miss.take()) } else { Ok(found) }
    }

    fn fail(&mut self, p: &Pat, v: ValueId, so_far: &Match, found: Option<String>) -> Matches {
        let matched = so_far.interior.len();
        if matched >= self.near && self.miss.as_ref().is_none_or(|m| m.matched < matched) {
            let found = found.unwrap_or_else(|| format!("`{}`", self.f.op(v).name()));
            self.miss = Some(Miss { matched, at: v, expected: p.to_string(), found });
        }
        Vec::new()
    }

    /// The ways in which `p` fits `v`, after `m`.
    fn at(&mut self, p: &Pat, v: ValueId, m: &Match) -> Matches {
        match p {
            Pat::Hole(name, kind) => self.hole(p, name, *kind, v, m),
            Pat::Number(n) => match number(self.f, v) {
                Some(x) if same(x, *n) => vec![m.clone()],
                Some(x) => self.fail(p, v, m, Some(format!("the number {x}"))),
                None => self.fail(p, v, m, None),
            },
            Pat::Sum(terms) => self.chain(p, Binary::Add, terms, v, m),
            Pat::Product(factors) => self.chain(p, Binary::Mul, factors, v, m),
            Pat::Difference(a, b) => match (self.f.op(v), &self.f.operands(v)[..]) {
                (Op::Binary(Binary::Sub), &[x, y]) => self.both(a, x, b, y, &inside(m, v)),
                _ => self.fail(p, v, m, None),
            },
            Pat::Ratio(a, b) => match (self.f.op(v), &self.f.operands(v)[..]) {
                (Op::Binary(Binary::Div), &[x, y]) => self.both(a, x, b, y, &inside(m, v)),
                _ => self.fail(p, v, m, None),
            },
            Pat::Power(base, n) => self.power(p, base, *n, v, m),
            Pat::Product2(a, b) => match (self.f.op(v).clone(), &self.f.operands(v)[..]) {
                (Op::Matmul(Matmul { transpose_x, transpose_y }), &[x, y]) => {
                    let left = self.factor(a, x, transpose_x, &inside(m, v));
                    left.iter().flat_map(|l| self.factor(b, y, transpose_y, l)).collect()
                }
                _ => self.fail(p, v, m, None),
            },
            Pat::Transposed(inner) => match self.swapped(v) {
                Some(x) => self.at(inner, x, &inside(m, v)),
                // Transposed in another way as well: what the name stands for is seen through a swap.
                None => match (&**inner, self.f.op(v)) {
                    (Pat::Hole(name, Kind::Value), Op::Transpose(_)) => {
                        self.bind(p, name, Capture { value: v, view: View::Swap }, m)
                    }
                    _ => self.fail(p, v, m, None),
                },
            },
            Pat::Layout(inner) => self.layout(inner, v, m),
            Pat::Call(name, axes, operands, more) => match views::View::of(name) {
                Some(view) => self.view(view, p, operands, v, m),
                None => self.call(p, name, axes.as_deref(), operands, *more, v, m),
            },
        }
    }

    /// A view that is no op of its own.
    fn view(&mut self, view: views::View, p: &Pat, parts: &[Pat], v: ValueId, m: &Match) -> Matches {
        match (view, parts) {
            (views::View::Every2(first), [of]) => match every2(self.f, v, first) {
                Some(Half { of: x, through, shape }) => {
                    let mut m = inside(m, v);
                    m.interior.extend(through);
                    match of {
                        // The pairs were taken from another shape of the same elements.
                        Pat::Hole(name, Kind::Value) if self.f.shape(x) != shape => {
                            self.bind(p, name, Capture { value: x, view: View::Reshape(shape) }, &m)
                        }
                        of => self.at(of, x, &m),
                    }
                }
                None => self.fail(p, v, m, None),
            },
            (views::View::Interleave, [a, b]) => match interleave(self.f, v) {
                Some((x, y, through)) => {
                    let mut m = inside(m, v);
                    m.interior.extend(through);
                    let left = self.at(a, x, &m);
                    left.iter().flat_map(|l| self.at(b, y, l)).collect()
                }
                None => self.fail(p, v, m, None),
            },
            (views::View::HalfOf(half), [of]) => match half_of(self.f, v, half) {
                Some(x) => self.at(of, x, &inside(m, v)),
                None => self.fail(p, v, m, None),
            },
            (views::View::Beside, [a, b]) => match beside(self.f, v) {
                Some([x, y]) => self.both(a, x, b, y, &inside(m, v)),
                None => self.fail(p, v, m, None),
            },
            _ => self.fail(p, v, m, None),
        }
    }

    fn hole(&mut self, p: &Pat, name: &str, kind: Kind, v: ValueId, m: &Match) -> Matches {
        match kind {
            Kind::Number => match (number(self.f, v), m.numbers.get(name)) {
                (Some(x), Some(&bound)) if !same(x, bound) => self.fail(p, v, m, Some(format!("{x} and {bound}"))),
                (Some(x), _) => {
                    let mut m = m.clone();
                    m.numbers.insert(name.into(), x);
                    vec![m]
                }
                (None, _) => self.fail(p, v, m, None),
            },
            Kind::Const if !self.consts.contains(&v) => {
                let found = format!("`{}`, which is computed from inputs", self.f.op(v).name());
                self.fail(p, v, m, Some(found))
            }
            _ => self.bind(p, name, Capture { value: v, view: View::Direct }, m),
        }
    }

    /// Lets a name stand for a value, unless it stands for another.
    fn bind(&mut self, p: &Pat, name: &str, capture: Capture, m: &Match) -> Matches {
        match m.values.get(name) {
            Some(bound) if *bound != capture => {
                let found = format!("another value than `{name}` stood for before");
                self.fail(p, capture.value, m, Some(found))
            }
            Some(_) => vec![m.clone()],
            None => {
                let mut m = m.clone();
                m.values.insert(name.into(), capture);
                vec![m]
            }
        }
    }

    fn both(&mut self, a: &Pat, x: ValueId, b: &Pat, y: ValueId, m: &Match) -> Matches {
        let left = self.at(a, x, m);
        left.iter().flat_map(|l| self.at(b, y, l)).collect()
    }

    /// A sum or a product in any order and grouping.
    fn chain(&mut self, p: &Pat, op: Binary, parts: &[Pat], v: ValueId, m: &Match) -> Matches {
        if let [only] = parts {
            return self.at(only, v, m);
        }
        let operands = self.f.operands(v);
        let (&Op::Binary(found), &[x, y]) = (self.f.op(v), &operands[..]) else { return self.fail(p, v, m, None) };
        if found == op {
            let m = inside(m, v);
            let mut all = Vec::new();
            for subset in 1..(1usize << parts.len()) - 1 {
                let (left, right): (Vec<_>, Vec<_>) = (0..parts.len()).partition(|i| subset & (1 << i) != 0);
                let pick = |list: &[usize]| -> Vec<Pat> { list.iter().map(|&i| parts[i].clone()).collect() };
                let group = |list: Vec<Pat>| if op == Binary::Add { Pat::Sum(list) } else { Pat::Product(list) };
                let (left, right) = (group(pick(&left)), group(pick(&right)));
                all.extend(self.both(&left, x, &right, y, &m));
            }
            return all;
        }
        // x − 2 is x + (−2), x / 2 is x · ½, x / √y is x · rsqrt(y).
        let inverse = match (op, found) {
            (Binary::Add, Binary::Sub) => number(self.f, y).map(|n| -n),
            (Binary::Mul, Binary::Div) => number(self.f, y).map(|n| 1.0 / n),
            _ => None,
        };
        let (outer, m) = (m, inside(m, v));
        let mut all = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            let taken = match (part, inverse) {
                (Pat::Number(n), Some(x)) if same(*n, x) => vec![m.clone()],
                (Pat::Hole(name, Kind::Number), Some(x)) if m.numbers.get(name).is_none_or(|&b| same(b, x)) => {
                    let mut m = m.clone();
                    m.numbers.insert(name.clone(), x);
                    vec![m]
                }
                (Pat::Call(name, ..), _) if name == "rsqrt" && found == Binary::Div => {
                    let Pat::Call(_, _, inner, _) = part else { continue };
                    let root = Pat::Call("sqrt".into(), None, inner.clone(), false);
                    self.at(&root, y, &m)
                }
                _ => continue,
            };
            let mut rest = parts.to_vec();
            rest.remove(i);
            let rest = if op == Binary::Add { Pat::Sum(rest) } else { Pat::Product(rest) };
            all.extend(taken.iter().flat_map(|t| self.at(&rest, x, t)).collect::<Vec<_>>());
        }
        if all.is_empty() { self.fail(p, v, outer, None) } else { all }
    }

    fn power(&mut self, p: &Pat, base: &Pat, n: u32, v: ValueId, m: &Match) -> Matches {
        let operands = self.f.operands(v);
        match (self.f.op(v), &operands[..]) {
            (Op::Unary(Unary::Square), &[x]) if n == 2 => self.at(base, x, &inside(m, v)),
            (Op::Binary(Binary::Pow), &[x, y]) if number(self.f, y).is_some_and(|e| same(e, n.into())) => {
                self.at(base, x, &inside(m, v))
            }
            (Op::Binary(Binary::Mul), &[x, y]) if n == 2 => self.both(base, x, base, y, &inside(m, v)),
            (Op::Binary(Binary::Mul), _) => {
                self.at(&Pat::Product(vec![base.clone(), Pat::Power(base.clone().into(), n - 1)]), v, m)
            }
            _ => self.fail(p, v, m, None),
        }
    }

    /// An operand of a matrix product, which takes it transposed if `transposed`.
    fn factor(&mut self, p: &Pat, v: ValueId, transposed: bool, m: &Match) -> Matches {
        let (inner, wanted) = match p {
            Pat::Transposed(inner) => (&**inner, true),
            p => (p, false),
        };
        if wanted == transposed {
            return self.at(inner, v, m);
        }
        if let Some(x) = self.swapped(v) {
            return self.at(inner, x, &inside(m, v));
        }
        match inner {
            Pat::Hole(name, Kind::Value) => self.bind(p, name, Capture { value: v, view: View::Swap }, m),
            _ => self.fail(p, v, m, Some("the other transposition".into())),
        }
    }

    /// x, if `v` is x with the last two axes swapped.
    fn swapped(&self, v: ValueId) -> Option<ValueId> {
        let Op::Transpose(Transpose { perm }) = self.f.op(v) else { return None };
        let n = perm.len();
        let swap = n >= 2 && perm[n - 2] == n - 1 && perm[n - 1] == n - 2 && (0..n - 2).all(|i| perm[i] == i);
        swap.then(|| self.f.operands(v)[0])
    }

    fn layout(&mut self, inner: &Pat, v: ValueId, m: &Match) -> Matches {
        let mut chain = vec![v];
        while let Op::Reshape(_) | Op::Transpose(_) = self.f.op(chain[chain.len() - 1]) {
            chain.extend(self.f.operands(chain[chain.len() - 1]));
        }
        if let Pat::Hole(name, Kind::Value) = inner {
            // A name that is free stands for the value under all layout changes.
            let last = chain.len() - 1;
            let at = m.values.get(name).and_then(|c| chain.iter().position(|v| *v == c.value)).unwrap_or(last);
            let mut m = m.clone();
            m.interior.extend(&chain[..at]);
            return self.at(inner, chain[at], &m);
        }
        // Only the end of the chain is no layout change.
        let last = chain.len() - 1;
        let mut m = m.clone();
        m.interior.extend(&chain[..last]);
        self.at(inner, chain[last], &m)
    }

    #[allow(clippy::too_many_arguments)]
    fn call(
        &mut self,
        p: &Pat,
        name: &str,
        axes: Option<&str>,
        parts: &[Pat],
        more: bool,
        v: ValueId,
        m: &Match,
    ) -> Matches {
        let (f, mut m, mut v) = (self.f, m.clone(), v);
        // A reduction that was reshaped to keep its axes.
        if let (Op::Reshape(r), "mean" | "sum" | "max") = (f.op(v), name) {
            let inner = f.operands(v)[0];
            if let Op::Reduce(reduce) = f.op(inner) {
                let mut kept = f.shape(f.operands(inner)[0]).to_vec();
                reduce.axes.iter().for_each(|&a| kept[a] = 1);
                if kept == r.shape {
                    m = inside(&m, v);
                    v = inner;
                }
            }
        }
        let op = f.op(v);
        let operands = f.operands(v);
        let is = match (name, op) {
            ("mean", Op::Reduce(r)) => r.kind == ReduceKind::Mean,
            ("sum", Op::Reduce(r)) => r.kind == ReduceKind::Sum,
            ("max", Op::Reduce(r)) => r.kind == ReduceKind::Max,
            // The same function by other means.
            ("rsqrt", Op::Binary(Binary::Div)) if number(f, operands[0]).is_some_and(|n| same(n, 1.0)) => {
                return self.at(&Pat::Call("sqrt".into(), None, parts.to_vec(), false), operands[1], &inside(&m, v));
            }
            ("rsqrt" | "sqrt", Op::Binary(Binary::Pow)) => {
                let exponent = if name == "sqrt" { 0.5 } else { -0.5 };
                if number(f, operands[1]).is_some_and(|n| same(n, exponent)) {
                    return self.at(&parts[0], operands[0], &inside(&m, v));
                }
                false
            }
            _ => op.name() == name,
        };
        if !is {
            return self.fail(p, v, &m, None);
        }
        if operands.len() < parts.len() || (operands.len() > parts.len() && !more) {
            return self.fail(p, v, &m, Some(format!("`{name}` of {} operands", operands.len())));
        }
        if let Some(axes) = axes {
            let found = axes_of(op);
            match m.axes.get(axes) {
                Some(bound) if *bound != found => {
                    return self.fail(p, v, &m, Some(format!("axes {found:?}, elsewhere {bound:?}")));
                }
                _ => m.axes.insert(axes.into(), found),
            };
        }
        let mut matches = vec![inside(&m, v)];
        for (part, &operand) in parts.iter().zip(&operands) {
            matches = matches.iter().flat_map(|m| self.at(part, operand, m)).collect();
        }
        matches
    }
}

fn axes_of(op: &Op) -> Vec<usize> {
    match op {
        Op::Reduce(r) => r.axes.clone(),
        Op::LayerNorm(n) => n.axes.clone(),
        Op::Softmax(s) => vec![s.axis],
        Op::Concat(c) => vec![c.axis],
        _ => Vec::new(),
    }
}

fn inside(m: &Match, v: ValueId) -> Match {
    let mut m = m.clone();
    m.interior.push(v);
    m
}

fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= SAME * a.abs().max(b.abs())
}

/// The number that every element of a literal is.
fn number(f: &Function, v: ValueId) -> Option<f64> {
    match f.op(v) {
        Op::Literal(l) => {
            let first = *l.values.first()?;
            l.values.iter().all(|&x| x == first).then_some(first)
        }
        Op::Cast(_) | Op::Reshape(_) | Op::BroadcastTo(_) => number(f, *f.operands(v).first()?),
        _ => None,
    }
}
