//! Masks of softmax attention: large by design, so that their size says nothing of the model.
//!
//! ```text
//! %m = mul(sub(1, %valid), -40000)        a mask: no product with the data in it
//! %s = add(%scores, %m)                   masked scores: what is below -5000 is masked
//! %p = softmax(%s)
//! ```

use std::collections::HashSet;

use s2dit_ir::ops::{Binary, OpError, Unary};
use s2dit_ir::{Builder, Function, Op, ValueId};

/// Scores below this are masked: masks are -1e4 to -6e4, and the scores themselves are far smaller.
const MASKED: f64 = -5e3;

/// What masks and masked scores are among the values of a function.
#[derive(Default)]
pub(super) struct Masks {
    /// Values that only make masks.
    pub made_of: HashSet<ValueId>,
    /// Sums of scores and masks.
    pub scores: HashSet<ValueId>,
}

impl Masks {
    pub(super) fn of(f: &Function) -> Masks {
        let mut masks = Masks::default();
        for v in f.order() {
            if let Op::Softmax(_) = f.op(v) {
                masks.look(f, f.operands(v)[0]);
            }
        }
        masks
    }

    /// Looks for sums with a mask behind the operand of a softmax.
    fn look(&mut self, f: &Function, v: ValueId) {
        match f.op(v) {
            Op::Reshape(_) | Op::Transpose(_) | Op::Slice(_) | Op::Concat(_) | Op::Pad(_) | Op::Cast(_) => {
                for operand in f.operands(v) {
                    self.look(f, operand);
                }
            }
            Op::Binary(Binary::Add) if self.scores.insert(v) => {
                let (masks, scores): (Vec<ValueId>, Vec<ValueId>) =
                    f.operands(v).into_iter().partition(|operand| product_free(f, *operand).is_some());
                if masks.is_empty() {
                    self.scores.remove(&v);
                }
                self.made_of.extend(masks.iter().filter_map(|mask| product_free(f, *mask)).flatten());
                for operand in scores {
                    self.look(f, operand);
                }
            }
            _ => {}
        }
    }
}

/// Every value that `v` is computed from, and `v`; `None` if a product of tensors is among them.
fn product_free(f: &Function, v: ValueId) -> Option<HashSet<ValueId>> {
    let (mut ahead, mut seen) = (vec![v], HashSet::new());
    while let Some(at) = ahead.pop() {
        if matches!(f.op(at), Op::Matmul(_) | Op::Linear(_) | Op::Conv(_)) {
            return None;
        }
        if seen.insert(at) {
            ahead.extend(f.operands(at));
        }
    }
    Some(seen)
}

/// Masked scores with 0 in the place of what is masked.
pub(super) fn unmasked(b: &mut Builder<'_>, wide: ValueId) -> Result<ValueId, OpError> {
    let above = b.add_scalar(wide, -MASKED)?;
    let above = b.unary(Unary::Relu, above)?;
    let one = b.scalar_like(above, 1.0)?;
    let kept = b.binary(Binary::Minimum, above, one)?;
    b.mul(wide, kept)
}
