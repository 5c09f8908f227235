//! A graph of layers that is being built: weights by their names under a module path.

use s2dit_ir::ops::{OpError, ReduceKind, Unary};
use s2dit_ir::{Builder, DType, ValueId, WeightSource};

use super::dims::Dims;
use s2dit_files::problems::Problems;

/// A graph that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The size does not fit the model.
    #[error(transparent)]
    Size(#[from] Problems),
    /// The checkpoint lacks a tensor; validate it against the model's tensors first.
    #[error("tensor `{0}`: not in the checkpoint")]
    MissingTensor(String),
    /// An op's constraint does not hold: a defect of this compiler, or a checkpoint that was not validated.
    #[error("cannot build the graph: {0}")]
    Op(#[from] OpError),
}

/// A value, or why there is none.
pub(crate) type Built = Result<ValueId, BuildError>;

/// A function of layers that is being built.
pub(crate) struct Layers<'a, D = Dims> {
    /// Numbers that the layers share: those of a step of a transformer, or none.
    pub dims: D,
    /// Weights by name.
    pub weights: &'a dyn WeightSource,
    /// The function.
    pub b: Builder<'a>,
}

impl<D> Layers<'_, D> {
    /// Runs `body` with `name` appended to the provenance path.
    pub(crate) fn within<T>(
        &mut self,
        name: &str,
        body: impl FnOnce(&mut Self) -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        self.b.enter(name);
        let out = body(self);
        self.b.leave();
        out
    }

    /// The checkpoint tensor `name` of the current module, in f32.
    pub(crate) fn param(&mut self, name: &str) -> Built {
        let scope = self.b.scope();
        let full = if scope.is_empty() { name.to_string() } else { format!("{scope}.{name}") };
        let ty = self.weights.ty(&full).ok_or(BuildError::MissingTensor(full.clone()))?;
        let stored = self.b.load(&full, &ty)?;
        Ok(self.b.cast(stored, DType::F32)?)
    }

    /// The linear layer `name` of the current module.
    pub(crate) fn linear(&mut self, name: &str, x: ValueId) -> Built {
        self.linear_of(name, x, true)
    }

    /// The linear layer `name` of the current module, which may have no bias.
    pub(crate) fn linear_of(&mut self, name: &str, x: ValueId, has_bias: bool) -> Built {
        self.within(name, |m| {
            let weight = m.param("weight")?;
            let bias = if has_bias { Some(m.param("bias")?) } else { None };
            Ok(m.b.linear(x, weight, bias)?)
        })
    }

    /// `x / √(mean(x²) + eps)` over the last axis (Zhang & Sennrich, arXiv 1910.07467).
    pub(crate) fn root_mean_square_norm(&mut self, x: ValueId, eps: f64) -> Built {
        let axis = self.b.shape(x).len() - 1;
        let square = self.b.unary(Unary::Square, x)?;
        let mean = self.b.reduce(ReduceKind::Mean, square, &[axis], true)?;
        let mean = self.b.add_scalar(mean, eps)?;
        let inverse = self.b.unary(Unary::Rsqrt, mean)?;
        Ok(self.b.mul(x, inverse)?)
    }

    /// The output of block `index`, by the name that the interface has for it.
    pub(crate) fn end_block(&mut self, index: usize, x: ValueId) {
        self.b.f.set_name(x, &format!("block{index}"));
    }
}

impl Layers<'_> {
    /// `body` on each clip of a batch, one by one: for convolutions of frames, which lie on the batch axis of their own op. What it returns has the clip on
    /// the first axis, as `x` has.
    pub(crate) fn each_clip(&mut self, x: ValueId, mut body: impl FnMut(&mut Self, ValueId) -> Built) -> Built {
        let batch = self.b.shape(x)[0];
        if batch == 1 {
            return body(self, x);
        }
        let mut clips = Vec::with_capacity(batch);
        for clip in 0..batch {
            let one = self.b.slice(x, 0, clip, clip + 1)?;
            clips.push(body(self, one)?);
        }
        Ok(self.b.concat(&clips, 0)?)
    }

    /// LayerNorm over the last axis, without affine parameters.
    pub(crate) fn layer_norm(&mut self, x: ValueId) -> Built {
        let axis = self.b.shape(x).len() - 1;
        Ok(self.b.layer_norm(x, &[axis], self.dims.eps, None)?)
    }

    /// `LN(x)·(1 + scale) + shift`
    pub(crate) fn modulated_norm(&mut self, x: ValueId, shift: ValueId, scale: ValueId) -> Built {
        let norm = self.layer_norm(x)?;
        self.modulated(norm, shift, scale)
    }

    /// `x·(1 + scale) + shift`
    pub(crate) fn modulated(&mut self, x: ValueId, shift: ValueId, scale: ValueId) -> Built {
        let scale = self.b.add_scalar(scale, 1.0)?;
        let scaled = self.b.mul(x, scale)?;
        Ok(self.b.add(scaled, shift)?)
    }
}
