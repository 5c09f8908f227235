//! The tensors of a checkpoint: the names and shapes that a configuration calls for.

use crate::s2dit::config::{BlockKind, S2ditConfig};

/// A tensor that a checkpoint must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name of the tensor.
    pub name: String,
    /// Shape of the tensor.
    pub shape: Vec<usize>,
    /// Role of the tensor in its layer.
    pub role: Role,
    /// Group of parameters that the tensor belongs to.
    pub group: ParameterGroup,
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
    /// The matrices of the kernel φ, `[A, d, d]`.
    KernelWeight,
    /// An additive bias, of any layer.
    Bias,
    /// A gain of a norm, around 1.
    NormGain,
    /// Shifts, scales and gates added to the time projection.
    ScaleShift,
    /// The logit of the mix of LCHA's two branches.
    FusionGate,
}

/// A group of parameters, such as the feed-forward networks, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ParameterGroup {
    /// Patch embedding.
    PatchEmbedding,
    /// Time and text embedders.
    Conditioning,
    /// Self-attention of LCHA blocks.
    LchaAttention,
    /// Self-attention of SSA blocks.
    SsaAttention,
    /// Self-attention of full-attention blocks.
    FullAttention,
    /// Cross-attention to the text.
    CrossAttention,
    /// Feed-forward layers.
    FeedForward,
    /// Scale-shift tables and affine norms of the blocks.
    Modulation,
    /// Down- and upsampling of the SSA stages.
    Resampling,
    /// The output head.
    Head,
}

impl ParameterGroup {
    /// Every group, in the order of the forward pass.
    pub const ALL: [ParameterGroup; 10] = [
        ParameterGroup::PatchEmbedding,
        ParameterGroup::Conditioning,
        ParameterGroup::LchaAttention,
        ParameterGroup::SsaAttention,
        ParameterGroup::FullAttention,
        ParameterGroup::CrossAttention,
        ParameterGroup::FeedForward,
        ParameterGroup::Modulation,
        ParameterGroup::Resampling,
        ParameterGroup::Head,
    ];

    /// A name for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ParameterGroup::PatchEmbedding => "patch embedding",
            ParameterGroup::Conditioning => "time and text embedders",
            ParameterGroup::LchaAttention => "LCHA attention",
            ParameterGroup::SsaAttention => "SSA attention",
            ParameterGroup::FullAttention => "full attention",
            ParameterGroup::CrossAttention => "cross-attention",
            ParameterGroup::FeedForward => "feed-forward",
            ParameterGroup::Modulation => "modulation and norms",
            ParameterGroup::Resampling => "stage resampling",
            ParameterGroup::Head => "output head",
        }
    }
}

/// Every tensor of a checkpoint with this configuration, in the order of the forward pass.
#[must_use]
pub fn expected_tensors(config: &S2ditConfig) -> Vec<TensorSpec> {
    let mut list = List { tensors: Vec::new(), group: ParameterGroup::PatchEmbedding };
    let width = config.hidden_size();
    let [patch_frames, patch_rows, patch_cols] = config.patch_size;

    let patch = [width, config.in_channels, patch_frames, patch_rows, patch_cols];
    list.conv("patch_embedding", &patch);

    list.group = ParameterGroup::Conditioning;
    let time = "condition_embedder.time_embedder";
    list.linear(&format!("{time}.linear_1"), width, config.freq_dim);
    list.linear(&format!("{time}.linear_2"), width, width);
    list.linear("condition_embedder.time_proj", 6 * width, width);
    let text = "condition_embedder.text_embedder";
    list.linear(&format!("{text}.linear_1"), width, config.text_dim);
    list.linear(&format!("{text}.linear_2"), width, width);

    for (index, kind) in config.layout.iter().enumerate() {
        list.block(config, &format!("blocks.{index}"), *kind);
    }

    list.group = ParameterGroup::Resampling;
    let stride = config.ssa_stride;
    for stage in 0..config.stages().len() {
        list.conv(&format!("stages.{stage}.down"), &[width, width, stride, stride]);
        list.linear(&format!("stages.{stage}.up"), stride * stride * width, width);
    }

    list.group = ParameterGroup::Head;
    list.push("scale_shift_table", &[1, 2, width], Role::ScaleShift);
    list.linear("proj_out", config.patch_values(), width);
    list.tensors
}

struct List {
    tensors: Vec<TensorSpec>,
    group: ParameterGroup,
}

impl List {
    fn push(&mut self, name: impl Into<String>, shape: &[usize], role: Role) {
        self.tensors.push(TensorSpec { name: name.into(), shape: shape.to_vec(), role, group: self.group });
    }

    fn linear(&mut self, layer: &str, out: usize, input: usize) {
        self.push(format!("{layer}.weight"), &[out, input], Role::LinearWeight);
        self.push(format!("{layer}.bias"), &[out], Role::Bias);
    }

    fn conv(&mut self, layer: &str, shape: &[usize]) {
        self.push(format!("{layer}.weight"), shape, Role::ConvWeight);
        self.push(format!("{layer}.bias"), &shape[..1], Role::Bias);
    }

    /// The tensors that every attention has.
    fn attention(&mut self, config: &S2ditConfig, attention: &str) {
        let width = config.hidden_size();
        for layer in ["to_q", "to_k", "to_v", "to_out.0"] {
            self.linear(&format!("{attention}.{layer}"), width, width);
        }
        for norm in ["norm_q", "norm_k"] {
            let gain = [config.qk_norm_width()];
            self.push(format!("{attention}.{norm}.weight"), &gain, Role::NormGain);
        }
    }

    fn block(&mut self, config: &S2ditConfig, block: &str, kind: BlockKind) {
        let width = config.hidden_size();
        self.group = ParameterGroup::Modulation;
        self.push(format!("{block}.scale_shift_table"), &[1, 6, width], Role::ScaleShift);

        self.group = match kind {
            BlockKind::Lcha => ParameterGroup::LchaAttention,
            BlockKind::Ssa => ParameterGroup::SsaAttention,
            BlockKind::Full => ParameterGroup::FullAttention,
        };
        let attention = format!("{block}.attn1");
        self.attention(config, &attention);
        if kind == BlockKind::Lcha {
            let (heads, head) = (config.num_attention_heads, config.attention_head_dim);
            let [frames, rows, cols] = config.conv_kernel;
            self.push(format!("{attention}.kernel.weight"), &[heads, head, head], Role::KernelWeight);
            self.push(format!("{attention}.kernel.bias"), &[heads, head], Role::Bias);
            self.conv(&format!("{attention}.local_conv"), &[width, 1, frames, rows, cols]);
            self.linear(&format!("{attention}.local_mix"), width, width);
            self.push(format!("{attention}.fusion_gate"), &[width], Role::FusionGate);
        }

        self.group = ParameterGroup::Modulation;
        self.push(format!("{block}.norm2.weight"), &[width], Role::NormGain);
        self.push(format!("{block}.norm2.bias"), &[width], Role::Bias);

        self.group = ParameterGroup::CrossAttention;
        self.attention(config, &format!("{block}.attn2"));

        self.group = ParameterGroup::FeedForward;
        self.linear(&format!("{block}.ffn.net.0.proj"), config.ffn_dim, width);
        self.linear(&format!("{block}.ffn.net.2"), width, config.ffn_dim);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::s2dit::config::{Preset, QkNorm};

    fn shape(tensors: &[TensorSpec], name: &str) -> Option<Vec<usize>> {
        tensors.iter().find(|tensor| tensor.name == name).map(|tensor| tensor.shape.clone())
    }

    #[test]
    fn shapes_are_those_of_the_specification() {
        let config = S2ditConfig { qk_norm: QkNorm::PerHead, ..Preset::Tiny.config() };
        let tensors = expected_tensors(&config);
        let is = |name: &str, dims: &[usize]| {
            assert_eq!(shape(&tensors, name).as_deref(), Some(dims), "{name}");
        };
        is("patch_embedding.weight", &[48, 4, 1, 2, 2]);
        is("condition_embedder.time_embedder.linear_1.weight", &[48, 32]);
        is("condition_embedder.time_proj.bias", &[288]);
        is("blocks.0.attn1.kernel.weight", &[2, 24, 24]);
        is("blocks.0.attn1.kernel.bias", &[2, 24]);
        is("blocks.0.attn1.local_conv.weight", &[48, 1, 3, 3, 3]);
        is("blocks.1.attn1.norm_q.weight", &[24]);
        is("blocks.3.ffn.net.0.proj.weight", &[128, 48]);
        is("blocks.3.ffn.net.2.weight", &[48, 128]);
        is("stages.0.down.weight", &[48, 48, 2, 2]);
        is("stages.0.up.weight", &[192, 48]);
        is("stages.0.up.bias", &[192]);
        is("scale_shift_table", &[1, 2, 48]);
        is("proj_out.weight", &[16, 48]);
        assert_eq!(shape(&tensors, "blocks.1.attn1.fusion_gate"), None);
        assert_eq!(shape(&tensors, "stages.1.up.bias"), None);
    }

    #[test]
    fn names_are_unique_and_the_large_preset_has_its_size() {
        let tensors = expected_tensors(&Preset::B1_8.config());
        let names: HashSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names.len(), tensors.len());
        let parameters: usize = tensors.iter().map(TensorSpec::elements).sum();
        assert_eq!(parameters / 1_000_000, 1_800, "{parameters}");
    }
}
