//! Softmax attention whose scores leave the engine's working set takes its queries in tiles.
//!
//! ```text
//! %s = matmul(%kᵀ, %q)  : f32[1, A, M, N]     %q0 = %q[…, 0..n], %q1 = %q[…, n..2n], …
//! %w = softmax(%s)                         →  %yᵢ = matmul(%v, softmax(matmul(%kᵀ, %qᵢ)))     : f32[1, A, d, n]
//! %y = matmul(%v, %w)   : f32[1, A, d, N]     %y  = concat(%y0, %y1, …)
//! ```
//! Scores are the largest values of a step: 16 heads of 1728 queries to 512 words are 28 MB. What an op reads and writes beyond the working set goes through memory. Attention of
//! [16, 1500, 1500] on an M5 takes 20.3 ms as a whole and 7 ms in tiles of 300 to 512 queries (ANEForge, arXiv 2606.17090), and Apple's own Stable Diffusion takes 512 queries at a
//! time. A query's weights do not depend on the other queries, so that no number changes. Keys stand before queries in the scores, as `channels-first` has them.

use s2dit_ir::ops::{Binary, Matmul, OpError, Softmax};
use s2dit_ir::{Builder, DType, Function, Module, Op, ValueId};

use crate::Property;
use crate::pass::{Pass, PassKind, Run};

/// Choices of the pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// Bytes of fp16 values that an op reads and writes without leaving the engine.
    pub working_set: usize,
    /// The most queries of a tile.
    pub queries: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { working_set: 24_000_000, queries: 512 }
    }
}

/// Tiles are a multiple of so many queries: rows of the last axis are padded to 64 bytes.
const ROW: usize = 32;

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "tile-queries",
    doc: "no scores of softmax attention that leave the working set: queries go in tiles",
    options: "working-set=BYTES, queries=N",
    needs: &[Property::TensorOps, Property::ChannelsFirst],
    run: Run::Options(|written| {
        let mut options = Options::default();
        for option in written {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match (name, value.parse()) {
                ("working-set", Ok(bytes)) => options.working_set = bytes,
                ("queries", Ok(queries)) if queries > 0 => options.queries = queries,
                _ => return Err(format!("found `{option}`, expected {}", PASS.options)),
            }
        }
        Ok(pass(options))
    }),
    ..PassKind::PLAIN
};

/// The pass with its options.
#[must_use]
pub fn pass(options: Options) -> Pass {
    let written = format!("working-set={},queries={}", options.working_set, options.queries);
    Pass::new(&PASS, written, move |module, _| Ok(run(module, options)?))
}

/// Runs on every function; returns the number of attentions in tiles.
///
/// # Errors
/// None in practice: the tiles side by side have the old result's type.
pub fn run(module: &mut Module, options: Options) -> Result<usize, OpError> {
    let mut changes = 0;
    for f in &mut module.functions {
        for v in f.order() {
            let Some(attention) = attention(f, v) else { continue };
            let Some(tile) = attention.tile(f, options) else { continue };
            let y = attention.in_tiles(f, tile)?;
            f.replace_uses(attention.result, y);
            changes += 1;
        }
        f.remove_dead();
    }
    Ok(changes)
}

/// `v·softmax(kᵀ·q + mask)` of heads with tokens on the last axis.
struct Attention {
    query: ValueId,
    key: ValueId,
    value: ValueId,
    mask: Option<ValueId>,
    scores: ValueId,
    /// The softmax.
    weights: ValueId,
    result: ValueId,
}

const KEYS_BY_QUERIES: Matmul = Matmul { transpose_x: true, transpose_y: false };
const VALUES_BY_WEIGHTS: Matmul = Matmul { transpose_x: false, transpose_y: false };

/// The attention whose softmax `v` is, if nothing else reads what is between.
fn attention(f: &Function, v: ValueId) -> Option<Attention> {
    let Op::Softmax(Softmax { axis }) = *f.op(v) else { return None };
    let rank = f.ty(v).rank();
    if rank < 3 || axis + 2 != rank {
        return None;
    }
    let mut scores = f.operands(v)[0];
    f.only_use(scores)?;
    let mut mask = None;
    if let Op::Binary(Binary::Add) = f.op(scores) {
        let operands = f.operands(scores);
        let product = operands.iter().position(|&o| matches!(f.op(o), Op::Matmul(_)))?;
        mask = Some(operands[1 - product]);
        scores = operands[product];
        f.only_use(scores)?;
    }
    let (Op::Matmul(by_keys), Some((result, 1))) = (f.op(scores), f.only_use(v)) else { return None };
    let Op::Matmul(by_values) = f.op(result) else { return None };
    let ([key, query], [value, _]) = (&f.operands(scores)[..], &f.operands(result)[..]) else { return None };
    let alike = [*key, *query, *value].iter().all(|&o| f.ty(o).rank() == rank) && f.shape(scores) == f.shape(v);
    (alike && *by_keys == KEYS_BY_QUERIES && *by_values == VALUES_BY_WEIGHTS).then_some(Attention {
        query: *query,
        key: *key,
        value: *value,
        mask,
        scores,
        weights: v,
        result,
    })
}

impl Attention {
    fn queries(&self, f: &Function) -> usize {
        f.shape(self.scores).last().copied().unwrap_or_default()
    }

    /// The queries of a tile, if all together leave the working set.
    fn tile(&self, f: &Function, options: Options) -> Option<usize> {
        let all = self.queries(f);
        if all == 0 || self.bytes(f, all) <= options.working_set {
            return None;
        }
        let tiles = 2..=all.div_ceil(ROW);
        let fits = |tile: &usize| *tile <= options.queries.max(ROW) && self.bytes(f, *tile) <= options.working_set;
        let tile = tiles.map(|count| all.div_ceil(count).next_multiple_of(ROW)).find(fits).unwrap_or(ROW);
        (tile < all).then_some(tile)
    }

    /// The most bytes that an op reads and writes with so many queries.
    fn bytes(&self, f: &Function, queries: usize) -> usize {
        let of = |v: ValueId| DType::F16.size() * f.ty(v).elements();
        let part = |v: ValueId| of(v) / self.queries(f) * queries;
        let (scores, query, result) = (part(self.scores), part(self.query), part(self.result));
        (of(self.key) + query + scores).max(2 * scores).max(of(self.value) + scores + result)
    }

    fn in_tiles(&self, f: &mut Function, tile: usize) -> Result<ValueId, OpError> {
        let all = self.queries(f);
        let (of_scores, of_weights, of_result) =
            [self.scores, self.weights, self.result].map(|v| f.node(v).scope.clone()).into();
        let axis = f.ty(self.weights).rank() - 2;
        let mut b = Builder::new(f);
        let mut tiles = Vec::new();
        for first in (0..all).step_by(tile) {
            let end = all.min(first + tile);
            b.enter(&of_scores);
            let query = b.slice(self.query, axis + 1, first, end)?;
            let mut scores = b.op(KEYS_BY_QUERIES, &[self.key, query])?;
            if let Some(mask) = self.mask {
                let along = b.shape(mask).len().checked_sub(1).filter(|&last| b.shape(mask)[last] == all && all > 1);
                let mask = along.map_or(Ok(mask), |last| b.slice(mask, last, first, end))?;
                scores = b.add(scores, mask)?;
            }
            b.leave();
            b.enter(&of_weights);
            let weights = b.softmax(scores, axis)?;
            b.leave();
            b.enter(&of_result);
            tiles.push(b.op(VALUES_BY_WEIGHTS, &[self.value, weights])?);
            b.leave();
        }
        b.enter(&of_result);
        b.concat(&tiles, axis + 1)
    }
}
