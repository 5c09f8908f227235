//! The ops of ATen that are read, a file for each group: each is a line of its group's table.

mod activation;
mod attention;
mod compare;
mod conv;
mod elementwise;
mod index;
mod make;
mod norm;
mod pieces;
mod product;
mod reduce;
mod resize;
mod same;
mod shape;
mod sizes;

use s2dit_ir::OpError;

use super::call::Call;
use super::walk::{Slot, Walk};
use crate::Rewrite;

/// Reads a call; the slots are its results, in order.
pub(super) type Reader = fn(&mut Walk<'_>, &Call<'_>) -> Result<Vec<Slot>, OpError>;

/// Names of ops with their reader. A name that ends in `.*` stands for every overload.
type Group = &'static [(&'static str, Reader)];

const GROUPS: &[Group] = &[
    activation::OPS,
    attention::OPS,
    compare::OPS,
    conv::OPS,
    elementwise::OPS,
    index::OPS,
    make::OPS,
    norm::OPS,
    pieces::OPS,
    product::OPS,
    reduce::OPS,
    resize::OPS,
    same::OPS,
    shape::OPS,
    sizes::OPS,
];

pub(super) use shape::step;

/// The reader of an op.
pub(super) fn find(op: &str) -> Option<Reader> {
    let all = || GROUPS.iter().copied().flatten();
    let overloads = |name: &str| {
        name.strip_suffix(".*").is_some_and(|base| {
            op.split_once('.').is_some_and(|(package, rest)| {
                package == "aten" && rest.split('.').next() == base.strip_prefix("aten.")
            })
        })
    };
    let exact = all().find(|(name, _)| *name == op);
    exact.or_else(|| all().find(|(name, _)| overloads(name))).map(|(_, read)| *read)
}

/// What to write in place of ops that are not read.
pub(super) const REWRITES: &[Rewrite] = &[
    Rewrite { op: "aten.index_put", instead: "torch.where or torch.cat in place of an assignment at computed indices" },
    Rewrite { op: "aten.nonzero", instead: "a mask: shapes that depend on values cannot be compiled" },
    Rewrite { op: "aten.masked_select", instead: "a mask: shapes that depend on values cannot be compiled" },
    Rewrite {
        op: "aten.item",
        instead: "a tensor of one element: numbers of Python are fixed when the model is exported",
    },
    Rewrite {
        op: "aten._local_scalar_dense",
        instead: "a tensor of one element: numbers of Python are fixed when the model is exported",
    },
    Rewrite {
        op: "aten.conv_transpose",
        instead: "nn.Upsample and a convolution, or a convolution and nn.PixelShuffle",
    },
    Rewrite {
        op: "aten.grid_sampler",
        instead: "index_select with indices that are known, or a resize by a whole factor",
    },
    Rewrite {
        op: "aten.upsample_bilinear",
        instead: "nearest resizing by a whole factor, or a convolution with fixed weights",
    },
    Rewrite { op: "aten.fft_", instead: "a product with a table of cosines and sines" },
    Rewrite { op: "aten._fft_", instead: "a product with a table of cosines and sines" },
    Rewrite { op: "aten.sort", instead: "an order that is known when the model is exported" },
    Rewrite { op: "aten.topk", instead: "torch.max, or a mask" },
    Rewrite { op: "aten.complex", instead: "pairs of real numbers: x[..., 0::2] and x[..., 1::2]" },
    Rewrite { op: "aten.view_as_complex", instead: "pairs of real numbers: x[..., 0::2] and x[..., 1::2]" },
    Rewrite { op: "aten.view_as_real", instead: "pairs of real numbers: x[..., 0::2] and x[..., 1::2]" },
    Rewrite { op: "aten.polar", instead: "cos and sin" },
    Rewrite { op: "aten.rand", instead: "an input of the graph: noise is drawn by the caller" },
    Rewrite { op: "aten.bernoulli", instead: "model.eval() before the export" },
    Rewrite { op: "aten.native_dropout", instead: "model.eval() before the export" },
    Rewrite { op: "higher_order", instead: "tensor ops: control flow cannot be compiled" },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The page that errors name lists every op that is read, and no other.
    #[test]
    fn the_page_lists_every_op() {
        let page = include_str!("../../../../../docs/import.md");
        let (_, table) = page.split_once("| kind | ops of `aten` |").expect("a table of ops");
        let (table, _) = table.split_once("\n\n").expect("the end of a table");
        let listed: std::collections::BTreeSet<&str> = table.split('`').skip(1).step_by(2).collect();
        let names = GROUPS.iter().copied().flatten().filter_map(|(name, _)| name.strip_prefix("aten."));
        let read: std::collections::BTreeSet<&str> = names.filter_map(|name| name.split('.').next()).collect();
        assert_eq!(listed, read);
    }
}
