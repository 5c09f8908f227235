//! Queries, keys and values.
//!
//! The projections of one attention take the same tokens: they are one product. Queries and keys then go through the same
//! steps (norm, rotation, feature map) with their own gains: they go together, as a batch of two.
//!
//! ```text
//! q = feature_map(rope(heads(rms_norm(linear(u, Wq)))))      qkv = conv(u, [Wq Wk Wv])       : [1, 3·D, 1, N] → [3, A, d, N]
//! k = feature_map(rope(heads(rms_norm(linear(u, Wk)))))  →   y   = norm of qkv[0..2]         : [2, A, d, N]
//! v = heads(linear(u, Wv))                                   φ   = softplus(M·([y y] ⊙ [cos sin]) + b)
//! ```
//! The rotation is a product with tables and a fixed exchange of rows. A gain γ commutes with the tables, and the exchange, the
//! gain and the feature map's matrix are one constant matrix M = W·[1 P]·diag(γ γ): no channel is sliced or swapped at
//! runtime, whichever way the pairs lie.

use std::collections::{HashMap, HashSet, VecDeque};

use s2dit_ir::ops::{Binary, OpError, RopePairs, Unary};
use s2dit_ir::{Function, Op, ValueId};

use super::elementwise::normalised;
use super::form::same_order;
use super::products::product;
use super::{HEADS, LARGEST_EXTENT, Options, Rewriter, Stored, TOKENS, views};

/// What happens to a projection on its way to attention.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Over all heads, or within each; its gain.
    Norm {
        across: bool,
        eps: f64,
        gain: Option<ValueId>,
    },
    Rope {
        cos: ValueId,
        sin: ValueId,
        pairs: RopePairs,
    },
    Feature {
        weight: ValueId,
        bias: ValueId,
    },
}

impl Step {
    /// The same but for gains, which may differ within a batch.
    fn goes_with(&self, other: &Step) -> bool {
        match (self, other) {
            (Step::Norm { across: a, eps: x, gain: g }, Step::Norm { across: b, eps: y, gain: h }) => {
                a == b && x == y && g.is_some() == h.is_some()
            }
            _ => self == other,
        }
    }
}

/// One projection.
#[derive(Clone, Debug)]
struct Member {
    linear: ValueId,
    steps: Vec<Step>,
    /// The value that is stored as heads.
    end: ValueId,
    /// Multiplied at the end, so that sums over tokens stay small, or instead of the scores.
    factor: f64,
    /// The query's gain, which the key takes along: a product of both is all that attention sees.
    partner: Option<ValueId>,
}

/// Projections of the same tokens for the same attention.
#[derive(Clone, Debug)]
struct Group {
    /// First those that go together.
    members: Vec<Member>,
    /// How many do.
    together: usize,
    /// One product for all.
    joined: bool,
    /// The attention, if it is softmax attention whose factor the query takes.
    scaled: Option<ValueId>,
}

/// All groups of a function, by the projection that is computed first.
#[derive(Debug, Default)]
pub(super) struct Projections {
    groups: HashMap<ValueId, Group>,
}

impl Projections {
    pub(super) fn of(f: &Function, constant: &HashSet<ValueId>, options: &Options) -> Self {
        let mut by_attention: Vec<((ValueId, ValueId), Vec<Member>)> = Vec::new();
        let mut scales = HashMap::new();
        for linear in f.order() {
            let Some(mut member) = member(f, constant, linear) else { continue };
            // A result is for an attention elsewhere.
            let elsewhere = || f.results.iter().any(|(_, r)| *r == member.end).then_some((member.end, false));
            let Some((attention, sums_keys)) = attention(f, constant, member.end).or_else(elsewhere) else { continue };
            let tokens = f.shape(member.end)[2];
            match f.op(attention) {
                Op::LinearAttention(_) if !member.steps.is_empty() => member.factor = half_of(tokens),
                _ if sums_keys && !member.steps.is_empty() => member.factor = half_of(tokens),
                Op::Sdpa(sdpa) if f.operands(attention)[0] == member.end && !member.steps.is_empty() => {
                    member.factor = sdpa.scale;
                    scales.insert((f.operands(linear)[0], attention), attention);
                }
                _ => {}
            }
            let key = (f.operands(linear)[0], attention);
            match by_attention.iter_mut().find(|(k, _)| *k == key) {
                Some((_, members)) => members.push(member),
                None => by_attention.push((key, vec![member])),
            }
        }
        move_gains(f, &mut by_attention);
        let like = |m: &Member| (f.shape(m.end), f.shape(f.operands(m.linear)[1]), f.operands(m.linear).len());
        // The same tokens for several attentions, such as a prompt's for all blocks, as far as the engine's channels go.
        let mut wide: Vec<((ValueId, ValueId), Vec<Member>)> = Vec::new();
        for (key, members) in by_attention {
            let channels = |ms: &[Member]| ms.iter().map(|m| f.shape(m.linear)[2]).sum::<usize>();
            let fits = |(k, ms): &&mut ((ValueId, ValueId), Vec<Member>)| {
                let all_like = ms.iter().chain(&members).all(|m| like(m) == like(&members[0]));
                options.across_blocks && k.0 == key.0 && all_like && channels(ms) + channels(&members) <= LARGEST_EXTENT
            };
            match wide.iter_mut().find(fits) {
                Some((_, all)) if !scales.contains_key(&key) => all.extend(members),
                _ => wide.push((key, members)),
            }
        }
        let mut groups = HashMap::new();
        for (key, members) in wide {
            let first = members[0].linear;
            let alike = |a: &Member, b: &Member| {
                let same_steps =
                    a.steps.len() == b.steps.len() && a.steps.iter().zip(&b.steps).all(|(a, b)| a.goes_with(b));
                !a.steps.is_empty() && same_steps && f.shape(a.end) == f.shape(b.end)
            };
            let leader = members.iter().max_by_key(|a| members.iter().filter(|b| alike(a, b)).count()).cloned();
            let (mut ordered, rest): (Vec<Member>, Vec<Member>) =
                members.into_iter().partition(|m| leader.as_ref().is_some_and(|leader| alike(leader, m)));
            let together = ordered.len().max(1);
            ordered.extend(rest);
            let joined = !options.apart && ordered.len() > 1 && ordered.iter().all(|m| like(m) == like(&ordered[0]));
            groups.insert(first, Group { members: ordered, together, joined, scaled: scales.get(&key).copied() });
        }
        Projections { groups }
    }

    pub(super) fn starts_at(&self, v: ValueId) -> bool {
        self.groups.contains_key(&v)
    }
}

/// Softmax attention sees only products of query and key: if neither is rotated, the key takes the query's gain and factor.
fn move_gains(f: &Function, groups: &mut [((ValueId, ValueId), Vec<Member>)]) {
    let sole = |m: &Member| f.users(m.end).len() == 1 && f.results.iter().all(|(_, r)| *r != m.end);
    let mut moved: Vec<(ValueId, ValueId, f64)> = Vec::new();
    let all: Vec<Member> = groups.iter().flat_map(|(_, members)| members.clone()).collect();
    for ((_, attention), members) in groups.iter_mut() {
        let Op::Sdpa(_) = f.op(*attention) else { continue };
        let operands = f.operands(*attention);
        for member in members.iter_mut().filter(|m| m.end == operands[0] && sole(m)) {
            let key = all.iter().find(|m| m.end == operands[1] && sole(m));
            let normed = |m: &Member| matches!(m.steps[..], [Step::Norm { gain: Some(_), .. }]);
            let [Step::Norm { gain, .. }] = &mut member.steps[..] else { continue };
            if let (Some(key), Some(own)) = (key.filter(|k| normed(k)), *gain) {
                moved.push((key.end, own, member.factor));
                *gain = None;
                member.factor = 1.0;
            }
        }
    }
    for member in groups.iter_mut().flat_map(|(_, members)| members) {
        if let Some((_, gain, factor)) = moved.iter().find(|(end, ..)| *end == member.end) {
            member.partner = Some(*gain);
            member.factor *= factor;
        }
    }
}

/// A power of two near 1/√tokens: what both factors of a sum over tokens are multiplied with. It is exact, and the ratio of
/// linear attention does not change.
pub(super) fn half_of(tokens: usize) -> f64 {
    let bits = usize::BITS - tokens.saturating_sub(1).leading_zeros();
    0.5f64.powi(bits.div_ceil(2) as i32)
}

/// The chain of steps that starts at a product with weights and ends as heads.
fn member(f: &Function, constant: &HashSet<ValueId>, linear: ValueId) -> Option<Member> {
    let (Op::Linear(_), [1, _, _]) = (f.op(linear), f.shape(linear)) else { return None };
    let operands = f.operands(linear);
    if constant.contains(&operands[0]) || !operands[1..].iter().all(|o| constant.contains(o)) {
        return None;
    }
    let table = |v: ValueId| {
        f.ty(v).rank() == 2 && (constant.contains(&v) || matches!(f.op(v), Op::Input(_)) || views::of_caller(f, v))
    };
    let (mut end, mut order, mut steps) = (linear, TOKENS.to_vec(), Vec::new());
    let mut found = None;
    loop {
        if f.ty(end).rank() == 4 && f.shape(end)[0] == 1 && same_order(f.shape(end), &order, &HEADS) {
            found = Some((end, steps.len()));
        }
        let users = f.users(end);
        let [(user, 0)] = users[..] else { break };
        if f.results.iter().chain(&f.updates).any(|(_, r)| *r == end) {
            break;
        }
        let parameters = f.operands(user);
        match f.op(user) {
            Op::Reshape(_) | Op::Transpose(_) => match views::relabel(f, user, &order) {
                Some(next) => order = next,
                None => break,
            },
            Op::RmsNorm(n) => {
                // Channels of all heads, or of one.
                let across = match (f.ty(user).rank(), n.axis) {
                    (3, 2) => true,
                    (4, 3) => false,
                    _ => break,
                };
                let gain = parameters.get(1).copied();
                if gain.is_some_and(|g| !constant.contains(&g)) {
                    break;
                }
                steps.push(Step::Norm { across, eps: n.eps, gain });
            }
            Op::Rope(r)
                if r.axis == 3
                    && same_order(f.shape(end), &order, &HEADS)
                    && table(parameters[1])
                    && table(parameters[2]) =>
            {
                steps.push(Step::Rope { cos: parameters[1], sin: parameters[2], pairs: r.pairs });
            }
            Op::FeatureMap(_)
                if same_order(f.shape(end), &order, &HEADS) && parameters[1..].iter().all(|p| constant.contains(p)) =>
            {
                let (weight, bias) = (parameters[1], parameters[2]);
                if f.ty(weight).rank() != 4 || f.shape(weight)[2] != f.shape(weight)[3] || f.ty(bias).rank() != 4 {
                    break;
                }
                steps.push(Step::Feature { weight, bias });
            }
            _ => break,
        }
        end = user;
    }
    let (end, count) = found?;
    steps.truncate(count);
    Some(Member { linear, steps, end, factor: 1.0, partner: None })
}

/// The attention that a value is for, and whether the value is summed over tokens on its way there.
fn attention(f: &Function, constant: &HashSet<ValueId>, end: ValueId) -> Option<(ValueId, bool)> {
    let (mut seen, mut ahead) = (HashSet::from([end]), VecDeque::from([end]));
    let mut sums = false;
    let mut found = None;
    while let Some(v) = ahead.pop_front() {
        for (user, at) in f.users(v) {
            match f.op(user) {
                Op::Sdpa(_) | Op::LinearAttention(_) | Op::LinearAttentionStep(_) => {
                    found.get_or_insert(user);
                    continue;
                }
                Op::RunningMean(_) => sums |= at == 0,
                Op::Rope(_) | Op::FeatureMap(_) | Op::Reshape(_) | Op::Transpose(_) | Op::Concat(_) => {}
                // A mask.
                Op::Binary(Binary::Mul) if constant.contains(&f.operands(user)[1 - at]) => {}
                _ => continue,
            }
            if seen.insert(user) {
                ahead.push_back(user);
            }
        }
    }
    found.map(|attention| (attention, sums))
}

impl Rewriter<'_> {
    /// Whether a group of projections is computed where `v` is.
    pub(super) fn project(&mut self, v: ValueId) -> Result<(), OpError> {
        let Some(group) = self.projections.groups.remove(&v) else { return Ok(()) };
        let tokens = self.old.operands(v)[0];
        let x = self.in_form(tokens, &TOKENS)?;
        let mut parts = self.products(x, &group)?.into_iter();
        let mut members = &group.members[..];
        if group.together > 1
            && let Some(batch) = parts.next()
        {
            let (batched, others) = members.split_at(group.together);
            let y = self.steps(batch, batched)?;
            for (i, member) in batched.iter().enumerate() {
                let value = self.at(member.end, |b| b.slice(y, 0, i, i + 1))?;
                self.finish(member, value, &group);
            }
            members = others;
        }
        for (member, part) in members.iter().zip(parts) {
            let value = self.steps(part, std::slice::from_ref(member))?;
            self.finish(member, value, &group);
        }
        Ok(())
    }

    fn finish(&mut self, member: &Member, value: ValueId, group: &Group) {
        match group.scaled {
            Some(sdpa) if self.old.operands(sdpa)[0] == member.end => {
                self.scaled_queries.insert(sdpa);
            }
            _ => {
                self.scaled.insert(member.end, member.factor);
            }
        }
        self.keep(member.end, Stored { value, order: HEADS.to_vec() });
    }

    /// The projections as heads `[G, A, d, N]`: those that go together, then each of the others.
    fn products(&mut self, x: ValueId, group: &Group) -> Result<Vec<ValueId>, OpError> {
        let old = self.old;
        let shape = |m: &Member, count: usize| {
            let &[_, heads, tokens, width] = old.shape(m.end) else { return vec![] };
            vec![count, heads, width, tokens]
        };
        let shapes: Vec<_> = group.members.iter().map(|m| shape(m, 1)).collect();
        let mut parameters = Vec::new();
        for member in &group.members {
            let operands = self.old.operands(member.linear);
            parameters.push((self.plain(operands[1])?, operands.get(2).map(|&b| self.plain(b)).transpose()?));
        }
        let first = group.members[0].linear;
        let together = group.together;
        if group.joined {
            let count = group.members.len();
            let whole = shape(&group.members[0], count);
            return self.at(first, |b| {
                let weights: Vec<_> = parameters.iter().map(|(w, _)| *w).collect();
                let biases: Vec<_> = parameters.iter().filter_map(|(_, b)| *b).collect();
                let weight = b.concat(&weights, 0)?;
                let bias = if biases.is_empty() { None } else { Some(b.concat(&biases, 0)?) };
                let y = product(b, x, weight, bias)?;
                let y = b.reshape(y, &whole)?;
                let starts = std::iter::once(0).chain(together..count);
                starts.map(|i| b.slice(y, 0, i, if i == 0 { together } else { i + 1 })).collect()
            });
        }
        let mut parts = Vec::new();
        for ((member, shape), (weight, bias)) in group.members.iter().zip(&shapes).zip(parameters) {
            parts.push(self.at(member.linear, |b| {
                let y = product(b, x, weight, bias)?;
                b.reshape(y, shape)
            })?);
        }
        if together > 1 {
            let batch = self.at(first, |b| b.concat(&parts[..together], 0))?;
            parts.splice(..together, [batch]);
        }
        Ok(parts)
    }

    /// The steps of projections `[G, A, d, N]` that go together.
    fn steps(&mut self, x: ValueId, members: &[Member]) -> Result<ValueId, OpError> {
        let width = self.g.shape(x)[2];
        let mut pending = Pending { gain: None, rotated: None };
        let mut y = x;
        for (i, step) in members[0].steps.iter().enumerate() {
            match step {
                Step::Norm { across, eps, .. } => {
                    y = self.flush(members[0].end, y, &mut pending, width)?;
                    let axes: &[usize] = if *across { &[1, 2] } else { &[2] };
                    y = self.at(members[0].end, |b| normalised(b, y, axes, *eps))?;
                    let gains: Vec<Vec<ValueId>> = members
                        .iter()
                        .filter_map(|m| {
                            if let Step::Norm { gain, .. } = m.steps[i] { Some((gain?, m.partner)) } else { None }
                        })
                        .map(|(gain, partner)| [gain].into_iter().chain(partner).collect())
                        .collect();
                    pending.gain = self.gains(members[0].end, &gains, width)?;
                    // Beside compressed weights a matrix for each head and projection would be large: an op more is not.
                    if self.options.apart && members[0].steps.len() > i + 1 {
                        y = self.flush(members[0].end, y, &mut pending, width)?;
                    }
                }
                Step::Rope { cos, sin, pairs } => {
                    if pending.rotated.is_some() {
                        y = self.flush(members[0].end, y, &mut pending, width)?;
                    }
                    let table = self.table(*cos, *sin, *pairs)?;
                    y = self.at(members[0].end, |b| {
                        let twice = b.concat(&[y, y], 2)?;
                        b.mul(twice, table)
                    })?;
                    pending.rotated = Some(*pairs);
                }
                Step::Feature { weight, bias } => {
                    if self.options.apart {
                        y = self.flush(members[0].end, y, &mut pending, width)?;
                    }
                    let weight = self.plain(*weight)?;
                    let bias = self.plain(*bias)?;
                    let matrix = self.matrix(members[0].end, &mut pending, width)?;
                    y = self.at(members[0].end, |b| {
                        let matrix = match matrix {
                            Some(matrix) => b.matmul(weight, matrix)?,
                            None => weight,
                        };
                        let y = b.matmul(matrix, y)?;
                        let &[lead, heads, _, features] = b.shape(bias) else {
                            return Err(OpError::new("a bias of another rank"));
                        };
                        let bias = b.reshape(bias, &[lead, heads, features, 1])?;
                        let y = b.add(y, bias)?;
                        b.unary(Unary::Softplus, y)
                    })?;
                }
            }
        }
        let factors: Vec<f64> = members.iter().map(|m| m.factor).collect();
        if factors.iter().any(|&f| f != 1.0) {
            let factor = self.literal(members[0].end, &[factors.len(), 1, 1, 1], factors)?;
            // A gain or a rotation takes the factor for nothing.
            if pending.gain.is_some() || pending.rotated.is_some() {
                pending.gain = Some(match pending.gain {
                    Some(gain) => self.at(members[0].end, |b| b.mul(gain, factor))?,
                    None => factor,
                });
            } else {
                return self.at(members[0].end, |b| b.mul(y, factor));
            }
        }
        self.flush(members[0].end, y, &mut pending, width)
    }

    /// Gains `[G, A, 1, d]`, or `[G, 1, 1, d]` if all heads have the same.
    fn gains(&mut self, at: ValueId, gains: &[Vec<ValueId>], width: usize) -> Result<Option<ValueId>, OpError> {
        if gains.is_empty() {
            return Ok(None);
        }
        let mut factors = Vec::with_capacity(gains.len());
        for gains in gains {
            factors.push(gains.iter().map(|&g| self.plain(g)).collect::<Result<Vec<_>, _>>()?);
        }
        self.at(at, |b| {
            let mut parts = Vec::new();
            for gains in factors {
                let mut product = None;
                for gain in gains {
                    let heads = b.shape(gain).iter().product::<usize>() / width;
                    let gain = b.reshape(gain, &[1, heads, 1, width])?;
                    product = Some(match product {
                        Some(so_far) => b.mul(so_far, gain)?,
                        None => gain,
                    });
                }
                parts.extend(product);
            }
            if parts.len() == 1 { Ok(Some(parts[0])) } else { b.concat(&parts, 0).map(Some) }
        })
    }

    /// What is pending as a matrix `[…, d, d]`, or `[…, d, 2d]` of a rotation.
    fn matrix(&mut self, at: ValueId, pending: &mut Pending, width: usize) -> Result<Option<ValueId>, OpError> {
        let (gain, rotated) = (pending.gain.take(), pending.rotated.take());
        let matrix = match (rotated, gain) {
            (None, None) => return Ok(None),
            (None, Some(_)) => self.literal(at, &[1, 1, width, width], identity(width))?,
            (Some(pairs), _) => self.literal(at, &[1, 1, width, 2 * width], exchange(width, pairs))?,
        };
        let Some(gain) = gain else { return Ok(Some(matrix)) };
        self.at(at, |b| {
            let full = rotated.is_some() && b.shape(gain)[3] == width;
            let gain = if full { b.concat(&[gain, gain], 3)? } else { gain };
            b.mul(matrix, gain).map(Some)
        })
    }

    /// Computes what is pending.
    fn flush(&mut self, at: ValueId, y: ValueId, pending: &mut Pending, width: usize) -> Result<ValueId, OpError> {
        if pending.rotated.is_some() {
            let matrix = self.matrix(at, pending, width)?;
            return match matrix {
                Some(matrix) => self.at(at, |b| b.matmul(matrix, y)),
                None => Ok(y),
            };
        }
        match pending.gain.take() {
            Some(gain) => self.at(at, |b| {
                let &[count, heads, one, columns] = b.shape(gain) else {
                    return Err(OpError::new("a gain of another rank"));
                };
                let gain = b.reshape(gain, &[count, heads, columns, one])?;
                b.mul(y, gain)
            }),
            None => Ok(y),
        }
    }

    /// The factors of a rotation of `[y y]`: cosines above sines, `[1, 1, 2d, N]`.
    pub(super) fn table(&mut self, cos: ValueId, sin: ValueId, pairs: RopePairs) -> Result<ValueId, OpError> {
        let key = (cos, vec![sin.index(), usize::from(pairs == RopePairs::Halves)]);
        if let Some(&table) = self.made.get(&key) {
            return Ok(table);
        }
        let &[tokens, half] = self.dims(cos) else { return Err(OpError::new("a table of another rank")) };
        let (c, s) = (self.plain(cos)?, self.plain(sin)?);
        let table = self.at(cos, |b| {
            let mut both = Vec::new();
            for part in [c, s] {
                let t = b.transpose(part, &[1, 0])?;
                let (shape, axis) = match pairs {
                    RopePairs::Interleaved => ([half, 1, tokens], 1),
                    RopePairs::Halves => ([1, half, tokens], 0),
                };
                let t = b.reshape(t, &shape)?;
                let t = b.concat(&[t, t], axis)?;
                both.push(b.reshape(t, &[1, 1, 2 * half, tokens])?);
            }
            b.concat(&both, 2)
        })?;
        self.made.insert(key, table);
        Ok(table)
    }
}

/// What was not computed yet, because the next step may take it along.
struct Pending {
    gain: Option<ValueId>,
    rotated: Option<RopePairs>,
}

fn identity(width: usize) -> Vec<f64> {
    (0..width * width).map(|i| f64::from(u8::from(i / width == i % width))).collect()
}

/// `[1 P]`: what was multiplied with cosines stays, what was multiplied with sines goes to the other of its pair (RoFormer, arXiv
/// 2104.09864): `a·cos − b·sin` and `b·cos + a·sin`.
pub(super) fn exchange(width: usize, pairs: RopePairs) -> Vec<f64> {
    let mut matrix = vec![0.0; 2 * width * width];
    for i in 0..width / 2 {
        let (a, b) = match pairs {
            RopePairs::Interleaved => (2 * i, 2 * i + 1),
            RopePairs::Halves => (i, i + width / 2),
        };
        for row in [a, b] {
            matrix[row * 2 * width + row] = 1.0;
        }
        matrix[a * 2 * width + width + b] = -1.0;
        matrix[b * 2 * width + width + a] = 1.0;
    }
    matrix
}
