//! Two products with weights and what is between them: the hidden layer of a feed-forward network.

use s2dit_ir::ops::{Conv, Unary};
use s2dit_ir::{Function, Op, ValueId};

/// `second·f(first·x + b) + c` of 1×1 convolutions, whose hidden channels nothing else reads.
#[derive(Clone, Debug)]
pub(crate) struct HiddenLayer {
    /// What goes in.
    pub input: ValueId,
    /// Weight and bias of the first product.
    pub first: (ValueId, Option<ValueId>),
    /// Functions of single elements between the products, in order.
    pub between: Vec<ValueId>,
    /// Weight and bias of the second product.
    pub second: (ValueId, Option<ValueId>),
    /// The first product.
    pub inner: ValueId,
    /// The second product, which comes out.
    pub outer: ValueId,
}

/// Whether the op is a 1×1 convolution of all channels with constant weights.
pub(crate) fn is_pointwise(f: &Function, v: ValueId) -> bool {
    let Op::Conv(Conv { strides, pad_before, pad_after, groups: 1, .. }) = f.op(v) else { return false };
    let operands = f.operands(v);
    let plain = strides.iter().all(|&n| n == 1) && pad_before.iter().chain(pad_after).all(|&n| n == 0);
    let weight = f.shape(operands[1]);
    let point = weight.len() == 4 && weight[2..] == [1, 1];
    let constant = operands[1..].iter().all(|&o| f.is_const(o));
    plain && point && constant && !f.is_const(v)
}

impl HiddenLayer {
    /// The hidden layer that ends with the product `v`.
    pub fn ending_at(f: &Function, v: ValueId) -> Option<HiddenLayer> {
        if !is_pointwise(f, v) {
            return None;
        }
        let weights = |v: ValueId| {
            let operands = f.operands(v);
            (operands[1], operands.get(2).copied())
        };
        let (mut at, mut between) = (f.operands(v)[0], Vec::new());
        while let Op::Unary(_) = f.op(at) {
            f.only_use(at)?;
            between.push(at);
            at = f.operands(at)[0];
        }
        between.reverse();
        f.only_use(at)?;
        let found = is_pointwise(f, at) && !between.is_empty();
        found.then(|| HiddenLayer {
            input: f.operands(at)[0],
            first: weights(at),
            between,
            second: weights(v),
            inner: at,
            outer: v,
        })
    }

    /// Hidden channels.
    pub fn channels(&self, f: &Function) -> usize {
        f.shape(self.inner)[1]
    }

    /// Tokens or pixels, of all clips.
    pub fn tokens(&self, f: &Function) -> usize {
        f.ty(self.inner).elements() / self.channels(f).max(1)
    }

    /// The functions of single elements.
    pub fn functions(&self, f: &Function) -> Vec<Unary> {
        let kind = |&v: &ValueId| if let Op::Unary(kind) = f.op(v) { Some(*kind) } else { None };
        self.between.iter().filter_map(kind).collect()
    }
}
