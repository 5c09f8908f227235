//! The operations on projections on their way to attention.

use s2dit_ir::ops::{OpError, RopePairs, Slice, Unary};
use s2dit_ir::{Builder, ValueId};

use super::super::norms::{doubled, doubled_and_negated, length, root_of};
use super::super::products::product;
use super::super::{HEADS, Norms, Rewriter, Stored, TOKENS};
use super::{Group, Member, Step};

impl Rewriter<'_> {
    /// Whether a group of projections is computed where `v` is.
    pub(in super::super) fn project(&mut self, v: ValueId) -> Result<(), OpError> {
        let Some(group) = self.projections.groups.remove(&v) else { return Ok(()) };
        let tokens = self.old.operands(v)[0];
        let x = self.in_form(tokens, &TOKENS)?;
        let mut parts = self.products(x, &group)?.into_iter();
        let mut members = &group.members[..];
        if group.together > 1
            && let Some(all) = parts.next()
        {
            let (batched, others) = members.split_at(group.together);
            let y = self.steps(all, batched)?;
            for (i, member) in batched.iter().enumerate() {
                let value = self.at(member.end, |b| part(b, y, batched.len(), i))?;
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
        if member.doubled {
            self.doubled.insert(member.end, value);
        } else {
            self.keep(member.end, Stored { value, order: HEADS.to_vec() });
        }
    }

    /// The projections as heads `[B·G, A, d, N]`, G of each clip: those that go together, then each of the others.
    fn products(&mut self, x: ValueId, group: &Group) -> Result<Vec<ValueId>, OpError> {
        let old = self.old;
        let shape = |m: &Member, count: usize| {
            let &[batch, heads, tokens, width] = old.shape(m.end) else { return vec![] };
            vec![batch * count, heads, width, tokens]
        };
        let shapes: Vec<_> = group.members.iter().map(|m| shape(m, 1)).collect();
        let mut parameters = Vec::new();
        for member in &group.members {
            let operands = self.old.operands(member.linear);
            parameters.push((self.plain(operands[1])?, operands.get(2).map(|&b| self.plain(b)).transpose()?));
        }
        let first = group.members[0].linear;
        let (together, batch) = (group.together, old.shape(first)[0]);
        if group.joined > 1 {
            let joined = group.joined;
            let shapes: Vec<_> = group.members.chunks(joined).map(|run| shape(&run[0], run.len())).collect();
            return self.at(first, |b| {
                let (mut first, mut rest) = (Vec::new(), Vec::new());
                for (run, (parameters, shape)) in parameters.chunks(joined).zip(&shapes).enumerate() {
                    let weights: Vec<_> = parameters.iter().map(|(w, _)| *w).collect();
                    let biases: Vec<_> = parameters.iter().filter_map(|(_, b)| *b).collect();
                    let weight = if let [one] = weights[..] { one } else { b.concat(&weights, 0)? };
                    let bias = match biases[..] {
                        [] => None,
                        [one] => Some(one),
                        _ => Some(b.concat(&biases, 0)?),
                    };
                    let y = product(b, x, weight, bias)?;
                    let y = b.reshape(y, shape)?;
                    let (from, count) = (run * joined, parameters.len());
                    let ours = together.saturating_sub(from).min(count);
                    if ours > 0 {
                        first.push(leading(b, y, count, ours)?);
                    }
                    for i in ours..count {
                        rest.push(part(b, y, count, i)?);
                    }
                }
                let first = beside(b, &first, batch)?;
                Ok([first].into_iter().chain(rest).collect())
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
            let all = self.at(first, |b| beside(b, &parts[..together], batch))?;
            parts.splice(..together, [all]);
        }
        Ok(parts)
    }

    /// The steps of projections `[B·G, A, d, N]` that go together.
    fn steps(&mut self, x: ValueId, members: &[Member]) -> Result<ValueId, OpError> {
        let width = self.g.shape(x)[2];
        let mut pending = Pending { gain: None, negated: false, length: None, rotated: None };
        let (mut y, mut scaled) = (x, false);
        for (i, step) in members[0].steps.iter().enumerate() {
            match step {
                Step::Norm { across, eps, .. } => {
                    // Beside compressed weights a matrix for each head and projection would be large: an op more is not.
                    let apart = self.options.apart && members[0].steps.len() > i + 1;
                    y = self.flush(members[0].end, y, &mut pending, width)?;
                    let axes: &[usize] = if *across { &[1, 2] } else { &[2] };
                    // A rotation multiplies its operand twice: the norm's second half is not thrown away.
                    let rotated = matches!(members[0].steps.get(i + 1), Some(Step::Rope { .. }));
                    match self.options.norms {
                        Norms::Doubled => {
                            pending.negated = members[0].doubled || (!apart && rotated);
                            y = self.at(members[0].end, |b| {
                                let norm = if pending.negated { doubled_and_negated } else { doubled };
                                norm(b, y, axes, *eps)
                            })?;
                        }
                        Norms::Length => {
                            pending.length = Some(self.at(members[0].end, |b| length(b, y, axes, *eps))?);
                        }
                    }
                    let gains: Vec<Vec<ValueId>> = members
                        .iter()
                        .filter_map(|m| {
                            if let Step::Norm { gain, .. } = m.steps[i] { Some((gain?, m.partner)) } else { None }
                        })
                        .map(|(gain, partner)| [gain].into_iter().chain(partner).collect())
                        .collect();
                    let batch = self.g.shape(y)[0] / members.len();
                    pending.gain = self.gains(members[0].end, &gains, width, batch)?;
                    if let Some(length) = pending.length {
                        // √n belongs to the gain if a rotation divides first, so that nothing grows on the way; else to what is divided with.
                        let root = self.at(members[0].end, |b| Ok(root_of(b, y, axes)))?;
                        match pending.gain {
                            Some(gain) if rotated && !apart => {
                                pending.gain = Some(self.at(members[0].end, |b| b.mul_scalar(gain, root))?);
                            }
                            _ => {
                                let part = self.at(members[0].end, |b| b.mul_scalar(length, 1.0 / root))?;
                                pending.length = Some(part);
                            }
                        }
                    }
                    if apart {
                        // A rotation divides with what its table holds.
                        let length = pending.length.take_if(|_| rotated);
                        y = self.flush(members[0].end, y, &mut pending, width)?;
                        pending.length = length;
                    }
                }
                Step::Rope { cos, sin, pairs } => {
                    if pending.rotated.is_some() {
                        y = self.flush(members[0].end, y, &mut pending, width)?;
                    }
                    let table = self.table(*cos, *sin, *pairs, width)?;
                    let negated = std::mem::take(&mut pending.negated);
                    let (length, norms) = (pending.length.take(), self.options.norms);
                    y = self.at(members[0].end, |b| {
                        let (mut y, mut table) = (y, table);
                        match length {
                            Some(length) if b.shape(length)[1] == 1 => table = b.div(table, length)?,
                            Some(length) => y = b.div(y, length)?,
                            None => {}
                        }
                        match norms {
                            _ if negated => b.mul(y, table),
                            Norms::Length => both_halves(b, y, table),
                            Norms::Doubled => {
                                let twice = b.concat(&[y, y], 2)?;
                                b.mul(twice, table)
                            }
                        }
                    })?;
                    pending.rotated = Some(Rotated { pairs: *pairs, negated });
                }
                Step::Feature { weight, bias } => {
                    if self.options.apart {
                        y = self.flush(members[0].end, y, &mut pending, width)?;
                    }
                    let weight = self.plain(*weight)?;
                    let bias = self.plain(*bias)?;
                    let matrix = self.matrix(members[0].end, &mut pending, width)?;
                    let length = pending.length.take();
                    y = self.at(members[0].end, |b| {
                        let matrix = match matrix {
                            Some(matrix) => b.matmul(weight, matrix)?,
                            None => weight,
                        };
                        let y = b.matmul(matrix, y)?;
                        let y = if let Some(length) = length { b.div(y, length)? } else { y };
                        let &[lead, heads, _, features] = b.shape(bias) else {
                            return Err(OpError::new("a bias of another rank"));
                        };
                        let bias = b.reshape(bias, &[lead, heads, features, 1])?;
                        let y = b.add(y, bias)?;
                        b.unary(Unary::Softplus, y)
                    })?;
                }
                Step::Relu => {
                    // Factors are positive: the positive part of what was scaled is scaled.
                    scaled = i + 1 == members[0].steps.len();
                    if scaled {
                        y = self.scale(members, y, &mut pending)?;
                    }
                    y = self.flush(members[0].end, y, &mut pending, width)?;
                    y = self.at(members[0].end, |b| b.unary(Unary::Relu, y))?;
                }
            }
        }
        if !scaled {
            y = self.scale(members, y, &mut pending)?;
        }
        self.flush(members[0].end, y, &mut pending, width)
    }

    /// Multiplies with the factors of projections that go together. A gain or a rotation that is pending takes them for nothing.
    fn scale(&mut self, members: &[Member], y: ValueId, pending: &mut Pending) -> Result<ValueId, OpError> {
        let mut factors: Vec<f64> = members.iter().map(|m| m.factor).collect();
        if factors.iter().all(|&f| f == 1.0) {
            return Ok(y);
        }
        if factors.len() > 1 {
            factors = factors.repeat(self.g.shape(y)[0] / factors.len());
        }
        let factor = self.literal(members[0].end, &[factors.len(), 1, 1, 1], factors)?;
        if pending.gain.is_none() && pending.rotated.is_none() {
            return self.at(members[0].end, |b| b.mul(y, factor));
        }
        pending.gain = Some(match pending.gain {
            Some(gain) => self.at(members[0].end, |b| b.mul(gain, factor))?,
            None => factor,
        });
        Ok(y)
    }

    /// Gains `[B·G, A, 1, d]`, or `[B·G, 1, 1, d]` if all heads have the same; those of one projection are once there for all clips.
    fn gains(
        &mut self,
        at: ValueId,
        gains: &[Vec<ValueId>],
        width: usize,
        batch: usize,
    ) -> Result<Option<ValueId>, OpError> {
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
            if parts.len() == 1 { Ok(Some(parts[0])) } else { b.concat(&parts.repeat(batch), 0).map(Some) }
        })
    }

    /// The pending operations as one matrix `[…, d, d]`, or `[…, d, 2d]` of a rotation.
    fn matrix(&mut self, at: ValueId, pending: &mut Pending, width: usize) -> Result<Option<ValueId>, OpError> {
        let (gain, rotated) = (pending.gain.take(), pending.rotated.take());
        let matrix = match (rotated, gain) {
            (None, None) => return Ok(None),
            (None, Some(_)) => self.literal(at, &[1, 1, width, width], identity(width))?,
            (Some(rotated), _) => {
                let mut matrix = exchange(width, rotated.pairs);
                if rotated.negated {
                    matrix.chunks_mut(width).skip(1).step_by(2).flatten().for_each(|sine| *sine = 0.0 - *sine);
                }
                self.literal(at, &[1, 1, width, 2 * width], matrix)?
            }
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
        let y = match pending.length.take() {
            Some(length) => self.at(at, |b| b.div(y, length))?,
            None => y,
        };
        match pending.gain.take() {
            Some(gain) => self.at(at, |b| {
                let &[count, heads, one, columns] = b.shape(gain) else {
                    return Err(OpError::new("a gain of another rank"));
                };
                let gain = b.reshape(gain, &[count, heads, columns, one])?;
                let gain = if pending.negated && columns > 1 { b.concat(&[gain, gain], 2)? } else { gain };
                b.mul(y, gain)
            }),
            None => Ok(y),
        }
    }

    /// The factors of a rotation of `[y y]`: cosines above sines, `[1, 1, 2d, N]` for heads of the `width` d. A table of all heads side by side gives
    /// each its own, `[1, A, 2d, N]`.
    pub(in super::super) fn table(
        &mut self,
        cos: ValueId,
        sin: ValueId,
        pairs: RopePairs,
        width: usize,
    ) -> Result<ValueId, OpError> {
        let key = (cos, vec![sin.index(), usize::from(pairs == RopePairs::Halves), width]);
        if let Some(&table) = self.made.get(&key) {
            return Ok(table);
        }
        let &[tokens, half] = self.dims(cos) else { return Err(OpError::new("a table of another rank")) };
        let heads = 2 * half / width;
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
                both.push(b.reshape(t, &[1, heads, width, tokens])?);
            }
            b.concat(&both, 2)
        })?;
        self.made.insert(key, table);
        Ok(table)
    }
}

/// Projection `index` of the `count` that each clip has in `[B·count, A, d, N]`.
fn part(b: &mut Builder, y: ValueId, count: usize, index: usize) -> Result<ValueId, OpError> {
    let end = b.shape(y).to_vec();
    if count == 1 {
        return Ok(y);
    }
    if end[0] == count {
        return b.slice(y, 0, index, index + 1);
    }
    b.op(Slice { begin: vec![index, 0, 0, 0], end, stride: vec![count, 1, 1, 1] }, &[y])
}

/// The first `ours` projections of the `count` that each clip has in `[B·count, A, d, N]`.
fn leading(b: &mut Builder, y: ValueId, count: usize, ours: usize) -> Result<ValueId, OpError> {
    let shape = b.shape(y).to_vec();
    if ours == count {
        return Ok(y);
    }
    if shape[0] == count {
        return b.slice(y, 0, 0, ours);
    }
    let (batch, heads) = (shape[0] / count, shape[1]);
    let of_clips = b.reshape(y, &[batch, count * heads, shape[2], shape[3]])?;
    let of_clips = b.slice(of_clips, 1, 0, ours * heads)?;
    b.reshape(of_clips, &[batch * ours, heads, shape[2], shape[3]])
}

/// Projections `[B·Gᵢ, A, d, N]` of `batch` clips, one after the other for each clip: `[B·ΣGᵢ, A, d, N]`.
fn beside(b: &mut Builder, parts: &[ValueId], batch: usize) -> Result<ValueId, OpError> {
    match *parts {
        [one] => Ok(one),
        _ if batch == 1 => b.concat(parts, 0),
        _ => {
            let mut of_clips = Vec::with_capacity(parts.len());
            let mut all = Vec::new();
            for &part in parts {
                all = b.shape(part).to_vec();
                of_clips.push(b.reshape(part, &[batch, all[0] / batch * all[1], all[2], all[3]])?);
            }
            let y = b.concat(&of_clips, 1)?;
            all[0] = b.shape(y)[1] / all[1] * batch;
            b.reshape(y, &all)
        }
    }
}

/// Operations that are not computed yet, because the next step may take them along.
struct Pending {
    gain: Option<ValueId>,
    /// The value is twice as wide: below it lie its negatives.
    negated: bool,
    /// What the value is divided with, `[B·G, 1, 1, N]`, or one for each head.
    length: Option<ValueId>,
    rotated: Option<Rotated>,
}

/// Twice a value, multiplied with cosines and with sines.
#[derive(Clone, Copy)]
struct Rotated {
    pairs: RopePairs,
    /// The sines' half is negative.
    negated: bool,
}

/// `[y ⊙ cos, y ⊙ sin]` of heads `(1, A, d, N)` by a table `(1, 1, 2d, N)`: heads of one clip are spread over both halves as they are multiplied.
fn both_halves(b: &mut Builder, y: ValueId, table: ValueId) -> Result<ValueId, OpError> {
    let (&[clips, heads, width, tokens], &[tables, of_heads, ..]) = (b.shape(y), b.shape(table)) else {
        return Err(OpError::new("heads of another rank"));
    };
    if (clips, tables, of_heads) != (1, 1, 1) {
        let twice = b.concat(&[y, y], 2)?;
        return b.mul(twice, table);
    }
    let y = b.reshape(y, &[heads, 1, width, tokens])?;
    let table = b.reshape(table, &[1, 2, width, tokens])?;
    let both = b.mul(y, table)?;
    b.reshape(both, &[1, heads, 2 * width, tokens])
}

fn identity(width: usize) -> Vec<f64> {
    (0..width * width).map(|i| f64::from(u8::from(i / width == i % width))).collect()
}

/// `[1 P]`: what was multiplied with cosines stays, what was multiplied with sines goes to the other of its pair (RoFormer, arXiv
/// 2104.09864): `a·cos − b·sin` and `b·cos + a·sin`.
pub(in super::super) fn exchange(width: usize, pairs: RopePairs) -> Vec<f64> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The rotation of RoFormer, pair by pair, of what was multiplied with cosines and with sines.
    #[test]
    fn an_exchange_rotates_pairs() {
        let pairs_of =
            [(RopePairs::Interleaved, [(0, 1), (2, 3), (4, 5)]), (RopePairs::Halves, [(0, 3), (1, 4), (2, 5)])];
        let x = [0.5, -1.5, 2.0, 3.5, -0.25, 1.0];
        for (kind, pairs) in pairs_of {
            let (mut cosines, mut sines, mut expected) = ([0.0; 6], [0.0; 6], [0.0; 6]);
            for ((a, b), angle) in pairs.into_iter().zip([0.3f64, 1.1, 2.5]) {
                let (sin, cos) = angle.sin_cos();
                (expected[a], expected[b]) = (x[a] * cos - x[b] * sin, x[b] * cos + x[a] * sin);
                for i in [a, b] {
                    (cosines[i], sines[i]) = (x[i] * cos, x[i] * sin);
                }
            }
            let matrix = exchange(6, kind);
            let both: Vec<f64> = cosines.into_iter().chain(sines).collect();
            assert_eq!(matrix.len(), 6 * both.len());
            for (row, expected) in matrix.chunks(both.len()).zip(expected) {
                let found: f64 = row.iter().zip(&both).map(|(m, y)| m * y).sum();
                assert!((found - expected).abs() < 1e-12, "{kind:?}: {found}, expected {expected}");
            }
        }
    }
}
