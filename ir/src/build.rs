//! A builder that reads like the model it builds.

use crate::ops::{
    Binary, BroadcastTo, Cast, Concat, Conv, Gather, LayerNorm, Linear, Literal, Load, Matmul, Pad, Reduce, ReduceKind,
    Reshape, Slice, Softmax, Transpose, Unary, Upsample,
};
use crate::{DType, Function, Op, OpError, TensorType, ValueId};

/// Result of a builder call.
pub type Built = Result<ValueId, OpError>;

/// Appends ops to a function under a scope (provenance path).
///
/// Every method adds one op and returns its value; the errors are the op's own constraints.
#[allow(missing_docs, clippy::missing_errors_doc)]
pub struct Builder<'f> {
    /// The function that grows.
    pub f: &'f mut Function,
    scope: Vec<String>,
}

#[allow(missing_docs, clippy::missing_errors_doc)]
impl<'f> Builder<'f> {
    /// A builder at the root scope.
    pub fn new(f: &'f mut Function) -> Self {
        Builder { f, scope: Vec::new() }
    }

    /// Appends `name` to the scope.
    pub fn enter(&mut self, name: &str) {
        self.scope.push(name.to_string());
    }

    /// Takes back the last [`Builder::enter`].
    pub fn leave(&mut self) {
        self.scope.pop();
    }

    /// The current provenance path, dot-separated.
    pub fn scope(&self) -> String {
        self.scope.join(".")
    }

    pub fn op(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> Built {
        let op = op.into();
        let name = op.name();
        let scope = self.scope();
        self.f.add(op, operands, &scope).map_err(|e| OpError::new(format!("`{name}` in scope `{scope}`: {e}")))
    }

    pub fn load(&mut self, tensor: &str, ty: &TensorType) -> Built {
        let scope = self.scope();
        self.f.add_leaf(Load { tensor: tensor.into() }.into(), ty, &scope)
    }

    pub fn literal(&mut self, ty: &TensorType, values: Vec<f64>) -> Built {
        let scope = self.scope();
        self.f.add_leaf(Literal { values }.into(), ty, &scope)
    }

    /// A rank-0 constant of the same dtype as `like`.
    pub fn scalar_like(&mut self, like: ValueId, value: f64) -> Built {
        let ty = TensorType::new(self.f.dtype(like), []);
        self.literal(&ty, vec![value])
    }

    pub fn shape(&self, v: ValueId) -> &[usize] {
        self.f.shape(v)
    }

    pub fn unary(&mut self, kind: Unary, x: ValueId) -> Built {
        self.op(kind, &[x])
    }

    pub fn binary(&mut self, kind: Binary, x: ValueId, y: ValueId) -> Built {
        self.op(kind, &[x, y])
    }

    pub fn add(&mut self, x: ValueId, y: ValueId) -> Built {
        self.op(Binary::Add, &[x, y])
    }

    pub fn sub(&mut self, x: ValueId, y: ValueId) -> Built {
        self.op(Binary::Sub, &[x, y])
    }

    pub fn mul(&mut self, x: ValueId, y: ValueId) -> Built {
        self.op(Binary::Mul, &[x, y])
    }

    pub fn div(&mut self, x: ValueId, y: ValueId) -> Built {
        self.op(Binary::Div, &[x, y])
    }

    pub fn add_scalar(&mut self, x: ValueId, c: f64) -> Built {
        let c = self.scalar_like(x, c)?;
        self.add(x, c)
    }

    pub fn mul_scalar(&mut self, x: ValueId, c: f64) -> Built {
        let c = self.scalar_like(x, c)?;
        self.mul(x, c)
    }

    /// Casts unless the dtype is already right.
    pub fn cast(&mut self, x: ValueId, dtype: DType) -> Built {
        if self.f.dtype(x) == dtype { Ok(x) } else { self.op(Cast { dtype }, &[x]) }
    }

    pub fn matmul(&mut self, x: ValueId, y: ValueId) -> Built {
        self.op(Matmul { transpose_x: false, transpose_y: false }, &[x, y])
    }

    /// x·yᵀ
    pub fn matmul_t(&mut self, x: ValueId, y: ValueId) -> Built {
        self.op(Matmul { transpose_x: false, transpose_y: true }, &[x, y])
    }

    /// xᵀ·y
    pub fn t_matmul(&mut self, x: ValueId, y: ValueId) -> Built {
        self.op(Matmul { transpose_x: true, transpose_y: false }, &[x, y])
    }

    pub fn linear(&mut self, x: ValueId, w: ValueId, b: Option<ValueId>) -> Built {
        let operands: Vec<ValueId> = [x, w].into_iter().chain(b).collect();
        self.op(Linear {}, &operands)
    }

    pub fn conv(&mut self, conv: Conv, x: ValueId, w: ValueId, b: Option<ValueId>) -> Built {
        let operands: Vec<ValueId> = [x, w].into_iter().chain(b).collect();
        self.op(conv, &operands)
    }

    pub fn layer_norm(&mut self, x: ValueId, axes: &[usize], eps: f64, affine: Option<(ValueId, ValueId)>) -> Built {
        let operands: Vec<ValueId> = std::iter::once(x).chain(affine.into_iter().flat_map(|(g, b)| [g, b])).collect();
        self.op(LayerNorm { axes: axes.to_vec(), eps }, &operands)
    }

    pub fn softmax(&mut self, x: ValueId, axis: usize) -> Built {
        self.op(Softmax { axis }, &[x])
    }

    pub fn reduce(&mut self, kind: ReduceKind, x: ValueId, axes: &[usize], keep_dims: bool) -> Built {
        self.op(Reduce { kind, axes: axes.to_vec(), keep_dims }, &[x])
    }

    pub fn reshape(&mut self, x: ValueId, shape: &[usize]) -> Built {
        self.op(Reshape { shape: shape.to_vec() }, &[x])
    }

    pub fn transpose(&mut self, x: ValueId, perm: &[usize]) -> Built {
        self.op(Transpose { perm: perm.to_vec() }, &[x])
    }

    pub fn concat(&mut self, xs: &[ValueId], axis: usize) -> Built {
        self.op(Concat { axis }, xs)
    }

    /// The range `begin..end` of one axis.
    pub fn slice(&mut self, x: ValueId, axis: usize, begin: usize, end: usize) -> Built {
        let slice = Slice::axis(self.f.shape(x), axis, begin, end);
        self.op(slice, &[x])
    }

    pub fn pad(&mut self, x: ValueId, before: &[usize], after: &[usize], value: f64) -> Built {
        self.op(Pad { before: before.to_vec(), after: after.to_vec(), value }, &[x])
    }

    pub fn upsample(&mut self, x: ValueId, factor: usize) -> Built {
        self.op(Upsample { factor }, &[x])
    }

    pub fn gather(&mut self, x: ValueId, indices: ValueId, axis: usize) -> Built {
        self.op(Gather { axis }, &[x, indices])
    }

    pub fn broadcast_to(&mut self, x: ValueId, shape: &[usize]) -> Built {
        self.op(BroadcastTo { shape: shape.to_vec() }, &[x])
    }
}
