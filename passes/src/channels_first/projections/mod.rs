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

mod steps;

use std::collections::{HashMap, HashSet, VecDeque};

use s2dit_ir::ops::{Binary, Rope, RopePairs, Unary};
use s2dit_ir::{Function, Op, Use, ValueId};

pub(super) use self::steps::exchange;

use super::form::same_order;
use super::{HEADS, LARGEST_EXTENT, Norms, Options, TOKENS, views};

/// An operation on a projection on its way to attention.
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
    /// The positive part, which is SANA's feature map.
    Relu,
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

/// A projection of a group.
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
    /// Attention takes the values and their negatives, as the norm makes them: `[k −k]·[q −q] = 2·k·q`.
    doubled: bool,
    /// Place of the product in the function's order.
    place: usize,
    /// Operand of the attention that it leads to: queries come before keys, and keys before values, in whatever order a function computes them.
    /// So functions of a kernel join the same weights in the same order, and share what is stored.
    operand: usize,
}

/// Projections of the same tokens for the same attention.
#[derive(Clone, Debug)]
struct Group {
    /// First those that go together.
    members: Vec<Member>,
    /// Number of projections that do.
    together: usize,
    /// So many are one product, as far as the engine's channels go.
    joined: usize,
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
        for (place, linear) in f.order().into_iter().enumerate() {
            let Some(mut member) = member(f, constant, linear) else { continue };
            // What leaves the function is for an attention elsewhere.
            let elsewhere = || f.leaves(member.end).then_some((member.end, 0));
            let Some((attention, operand)) = attention(f, constant, member.end).or_else(elsewhere) else { continue };
            (member.place, member.operand) = (place, operand);
            let tokens = f.shape(member.end)[2];
            match f.op(attention) {
                _ if member.steps.is_empty() => {}
                _ if is_summed(f, constant, member.end) => member.factor = half_of(tokens),
                Op::Sdpa(sdpa) if f.only_use(member.end) == Some((attention, 0)) => {
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
        by_attention.iter_mut().for_each(|(_, members)| members.sort_by_key(|member| member.operand));
        move_gains(f, &mut by_attention, options.norms);
        let like = |m: &Member| (f.shape(m.end), f.shape(f.operands(m.linear)[1]), f.operands(m.linear).len());
        // The same tokens for several attentions, such as a prompt's for all blocks.
        let mut wide: Vec<((ValueId, ValueId), Vec<Member>)> = Vec::new();
        for (key, members) in by_attention {
            let fits = |(k, ms): &&mut ((ValueId, ValueId), Vec<Member>)| {
                let all_like = ms.iter().chain(&members).all(|m| like(m) == like(&members[0]));
                options.across_blocks && k.0 == key.0 && all_like
            };
            match wide.iter_mut().find(fits) {
                Some((_, all)) if !scales.contains_key(&key) => all.extend(members),
                _ => wide.push((key, members)),
            }
        }
        let mut groups = HashMap::new();
        for (key, members) in wide {
            let Some(first) = members.iter().min_by_key(|m| m.place).map(|m| m.linear) else { continue };
            let alike = |a: &Member, b: &Member| {
                let same_steps =
                    a.steps.len() == b.steps.len() && a.steps.iter().zip(&b.steps).all(|(a, b)| a.goes_with(b));
                !a.steps.is_empty() && same_steps && f.shape(a.end) == f.shape(b.end) && a.doubled == b.doubled
            };
            let leader = members.iter().max_by_key(|a| members.iter().filter(|b| alike(a, b)).count()).cloned();
            let (mut ordered, rest): (Vec<Member>, Vec<Member>) =
                members.into_iter().partition(|m| leader.as_ref().is_some_and(|leader| alike(leader, m)));
            let together = together(f, &ordered, options);
            ordered.extend(rest);
            let alike = ordered.iter().all(|m| like(m) == like(&ordered[0]));
            let most = LARGEST_EXTENT / f.shape(ordered[0].linear)[2].max(1);
            let joined = if !options.apart && alike { most.min(ordered.len()) } else { 1 };
            groups.insert(first, Group { members: ordered, together, joined, scaled: scales.get(&key).copied() });
        }
        Projections { groups }
    }

    pub(super) fn starts_at(&self, v: ValueId) -> bool {
        self.groups.contains_key(&v)
    }
}

/// How many of projections that go through the same steps go together.
///
/// Those that divide by a length and are rotated go one by one: a table that holds the division is a head wide, and is spread over heads and both halves
/// at once only if there is one table. The others do as long as what a step reads and writes stays in the working set.
fn together(f: &Function, alike: &[Member], options: &Options) -> usize {
    let Some(first) = alike.first() else { return 1 };
    let normed = first.steps.iter().any(|step| matches!(step, Step::Norm { .. }));
    let rotated = first.steps.iter().any(|step| matches!(step, Step::Rope { .. }));
    if options.norms == Norms::Length && normed && rotated {
        return 1;
    }
    // The values in fp16, read and written; in the form of a norm that doubles them, twice.
    let passes = if normed && options.norms == Norms::Doubled { 4 } else { 2 };
    let bytes = alike.len() * f.ty(first.end).elements() * 2 * passes;
    if options.working_set.is_some_and(|most| bytes > most) { 1 } else { alike.len() }
}

/// Softmax attention sees only products of query and key: if neither is rotated, the key takes the query's gain and factor, and
/// both keep the negatives that their norms make (if they make them), rather than slice them away.
fn move_gains(f: &Function, groups: &mut [((ValueId, ValueId), Vec<Member>)], norms: Norms) {
    let sole = |m: &Member| f.only_use(m.end).is_some();
    let mut moved: Vec<Moved> = Vec::new();
    let all: Vec<Member> = groups.iter().flat_map(|(_, members)| members.clone()).collect();
    for ((_, attention), members) in groups.iter_mut() {
        let Op::Sdpa(_) = f.op(*attention) else { continue };
        let operands = f.operands(*attention);
        for member in members.iter_mut().filter(|m| m.end == operands[0] && sole(m)) {
            let key = all.iter().find(|m| m.end == operands[1] && sole(m));
            let normed = |m: &Member| matches!(m.steps[..], [Step::Norm { gain: Some(_), .. }]);
            let [Step::Norm { gain, .. }] = &mut member.steps[..] else { continue };
            if let (Some(key), Some(own)) = (key.filter(|k| normed(k)), *gain) {
                let alike = f.ty(key.end).rank() == 4 && f.shape(key.end)[..2] == f.shape(member.end)[..2];
                let doubled = alike && norms == Norms::Doubled;
                moved.push(Moved { key: key.end, gain: own, factor: member.factor, doubled });
                *gain = None;
                member.factor = 1.0;
                member.doubled = doubled;
            }
        }
    }
    for member in groups.iter_mut().flat_map(|(_, members)| members) {
        if let Some(moved) = moved.iter().find(|m| m.key == member.end) {
            member.partner = Some(moved.gain);
            member.factor *= if moved.doubled { moved.factor / 2.0 } else { moved.factor };
            member.doubled = moved.doubled;
        }
    }
}

/// Factors that a key takes over from its query.
struct Moved {
    key: ValueId,
    gain: ValueId,
    factor: f64,
    doubled: bool,
}

/// A power of two near 1/√tokens: what both factors of a sum over tokens are multiplied with. It is exact, and the ratio of
/// linear attention does not change.
pub(super) fn half_of(tokens: usize) -> f64 {
    let bits = usize::BITS - tokens.saturating_sub(1).leading_zeros();
    0.5f64.powi(bits.div_ceil(2) as i32)
}

/// The chain of steps that starts at a product with weights and ends as heads.
fn member(f: &Function, constant: &HashSet<ValueId>, linear: ValueId) -> Option<Member> {
    let (Op::Linear(_), [_, _, _]) = (f.op(linear), f.shape(linear)) else { return None };
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
        if f.ty(end).rank() == 4 && same_order(f.shape(end), &order, &HEADS) {
            found = Some((end, steps.len()));
        }
        let Some((user, 0)) = f.only_use(end) else { break };
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
                if (of_heads(f, end, &order, r.axis) || of_all_heads(f, end, &order, r))
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
            Op::Unary(Unary::Relu) => steps.push(Step::Relu),
            _ => break,
        }
        end = user;
    }
    let (end, count) = found?;
    steps.truncate(count);
    let rotated = steps.iter().any(|step| matches!(step, Step::Rope { .. }));
    if rotated && !f.shape(end)[3].is_multiple_of(2) {
        return None;
    }
    Some(Member { linear, steps, end, factor: 1.0, partner: None, doubled: false, place: 0, operand: 0 })
}

/// Whether a rotation of `v`, whose axes lie in `order`, is over the width of each head.
fn of_heads(f: &Function, v: ValueId, order: &[usize], axis: usize) -> bool {
    axis == 3 && same_order(f.shape(v), order, &HEADS)
}

/// Whether a rotation of `v` is over the whole width, before heads are split: neighbours are in one head then, as long as its width is even.
fn of_all_heads(f: &Function, v: ValueId, order: &[usize], rope: &Rope) -> bool {
    let tokens = f.ty(v).rank() == TOKENS.len() && same_order(f.shape(v), order, &TOKENS);
    tokens && rope.axis == 2 && rope.pairs == RopePairs::Interleaved
}

/// Whether all that reads a value undoes a factor of it: linear attention and means over keys, behind rotations and masks.
fn is_summed(f: &Function, constant: &HashSet<ValueId>, v: ValueId) -> bool {
    let uses = f.uses(v);
    let undoes = |read: &Use| {
        let Use::Operand { user, position } = *read else { return false };
        match f.op(user) {
            Op::LinearAttention(_) => true,
            Op::RunningMean(_) => position == 0,
            Op::Rope(r) => position == 0 && r.axis == 3 && is_summed(f, constant, user),
            Op::Binary(Binary::Mul) => {
                let by_constant = position == 0 && constant.contains(&f.operands(user)[1]);
                by_constant && f.ty(user).rank() == 4 && is_summed(f, constant, user)
            }
            _ => false,
        }
    };
    !uses.is_empty() && uses.iter().all(undoes)
}

/// The attention that a value is for, and the operand that it becomes there.
fn attention(f: &Function, constant: &HashSet<ValueId>, end: ValueId) -> Option<(ValueId, usize)> {
    let (mut seen, mut ahead) = (HashSet::from([end]), VecDeque::from([(end, None)]));
    while let Some((v, of_mean)) = ahead.pop_front() {
        for (user, at) in f.users(v) {
            let mut of_mean = of_mean;
            match f.op(user) {
                Op::Sdpa(_) | Op::LinearAttention(_) | Op::LinearAttentionStep(_) => {
                    return Some((user, of_mean.unwrap_or(at)));
                }
                // Keys and values of a stream's sums, behind the queries.
                Op::RunningMean(_) => of_mean = Some(1 + at),
                Op::Rope(_) | Op::FeatureMap(_) | Op::Reshape(_) | Op::Transpose(_) | Op::Concat(_) => {}
                // A mask.
                Op::Binary(Binary::Mul) if constant.contains(&f.operands(user)[1 - at]) => {}
                _ => continue,
            }
            if seen.insert(user) {
                ahead.push_back((user, of_mean));
            }
        }
    }
    None
}
