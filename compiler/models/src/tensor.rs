//! Tensors that a checkpoint must have: names, shapes, and how random ones are drawn.

/// A tensor that a checkpoint must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name of the tensor.
    pub name: String,
    /// Shape of the tensor.
    pub shape: Vec<usize>,
    /// Role of the tensor in its layer, from which seeded weights are drawn.
    pub role: Role,
    /// Group of parameters that the tensor is counted in, such as `feed-forward`.
    pub group: &'static str,
}

impl TensorSpec {
    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The role of a tensor in its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Weight of a linear layer, `[out, in]`.
    LinearWeight,
    /// Weight of a convolution, `[out, in / groups, kernel…]`.
    ConvWeight,
    /// A matrix for each head, `[heads, out, in]`.
    HeadWeight,
    /// An additive bias, of any layer.
    Bias,
    /// A gain of a norm, around 1.
    NormGain,
    /// Shifts, scales and gates that are added to an embedding of the time, `[1, count, width]` or `[count, width]`.
    ScaleShift,
    /// Embeddings of tokens, `[vocabulary, width]`.
    Embedding,
    /// Positions that are added to embeddings, `[1, tokens, width]`.
    Positions,
    /// Logits of gates.
    GateLogit,
}

/// A list of tensors that is being made, in the order of the forward pass.
pub struct Specs {
    tensors: Vec<TensorSpec>,
    group: &'static str,
}

impl Specs {
    /// An empty list; the tensors that come first are counted in `group`.
    #[must_use]
    pub fn new(group: &'static str) -> Specs {
        Specs { tensors: Vec::new(), group }
    }

    /// Counts the tensors that follow in another group.
    pub fn group(&mut self, group: &'static str) {
        self.group = group;
    }

    /// Adds a tensor.
    pub fn push(&mut self, name: impl Into<String>, shape: &[usize], role: Role) {
        self.tensors.push(TensorSpec { name: name.into(), shape: shape.to_vec(), role, group: self.group });
    }

    /// Adds weight and bias of a linear layer.
    pub fn linear(&mut self, layer: &str, out: usize, input: usize) {
        self.push(format!("{layer}.weight"), &[out, input], Role::LinearWeight);
        self.push(format!("{layer}.bias"), &[out], Role::Bias);
    }

    /// Adds weight and bias of a convolution.
    pub fn conv(&mut self, layer: &str, shape: &[usize]) {
        self.push(format!("{layer}.weight"), shape, Role::ConvWeight);
        self.push(format!("{layer}.bias"), &shape[..1], Role::Bias);
    }

    /// The list.
    #[must_use]
    pub fn finish(self) -> Vec<TensorSpec> {
        self.tensors
    }
}
