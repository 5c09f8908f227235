//! The interface of a model: what each input and result is for, and which values lie between its blocks.
//!
//! An interface travels with its [`crate::Module`], in the text form and in the metadata of every artifact. Whoever draws seeded inputs,
//! puts tables in the place of an embedding, cuts a model into parts, or compares it block by block, asks the interface for a role and
//! never a graph for a name:
//!
//! ```
//! let module = s2dit_ir::text::parse(
//!     r#"module {
//!   input "x" : latent
//!   input "t" : time {low = 0.0, high = 1000.0}
//!   output "y" : velocity
//!   milestone "h" @ "blocks.0"
//!   func @main(%x: f32[4], %t: f32[1]) {
//!     %h = add(%x, %t) : f32[4] @ "blocks.0.norm"
//!     %y = mul(%h, %x) : f32[4]
//!     return y = %y
//!   }
//! }"#,
//! )?;
//! assert_eq!(module.interface.time(), Some("t"));
//! assert_eq!(module.interface.block_of("blocks.0.norm"), Some(0));
//! # Ok::<(), s2dit_ir::text::ParseError>(())
//! ```

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The range of strengths of guidance where values are made up.
pub const GUIDANCE: Range<f32> = 1.0..8.0;

/// The inputs and results of a model by role, and the values between its blocks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Inputs, in the model's order.
    pub inputs: Vec<Input>,
    /// Results, in the model's order; the first is the one that a proof judges by.
    pub outputs: Vec<Output>,
    /// The values that end the blocks, in the order of the forward pass.
    pub milestones: Vec<Milestone>,
}

/// An input with its role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// Name of the parameter.
    pub name: String,
    /// What is passed in it.
    #[serde(flatten)]
    pub role: InputRole,
}

/// What is passed in an input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum InputRole {
    /// The noisy latent that a diffusion model denoises, `[1, C, F, H, W]`.
    Latent,
    /// The time of the diffusion process, in the model's own scale.
    Time {
        /// Smallest time that the model was trained for.
        low: f64,
        /// Largest time that the model was trained for.
        high: f64,
    },
    /// Text embeddings, `[1, L, width]`.
    Text,
    /// 1 where a text token counts and 0 where it is padding, `[1, L]`; at least one counts.
    TextMask,
    /// Token ids.
    Tokens {
        /// Number of ids: an id is from 0 to below it.
        vocabulary: usize,
    },
    /// Embeddings of an image, `[1, M, width]`.
    Image,
    /// One embedding of the whole text, `[1, width]`.
    Pooled,
    /// The strength of distilled guidance, `[1]`, on the scale of classifier-free guidance.
    Guidance,
    /// Something else, drawn from a distribution where values are made up.
    Other {
        /// Distribution of its elements.
        distribution: Distribution,
    },
}

/// The distribution of values that are made up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Normal, of mean 0 and variance 1.
    #[default]
    Normal,
    /// Uniform from 0 to 1.
    Uniform,
}

/// A result with its role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Name of the result.
    pub name: String,
    /// What it is.
    pub role: OutputRole,
}

/// What a result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputRole {
    /// The velocity of flow matching: of the latent's shape, or without the channels that are given beside the noise.
    Velocity,
    /// Pixels.
    Video,
    /// Embeddings of text tokens, `[1, L, width]`.
    Text,
    /// One embedding of the whole text, `[1, width]`.
    Pooled,
    /// Other embeddings.
    Embedding,
    /// Something else.
    Other,
}

/// A named value that ends a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Milestone {
    /// Name of the value.
    pub value: String,
    /// Module path of the block that it ends, such as `blocks.3`.
    pub scope: String,
}

/// Positions of blocks by their module paths.
#[derive(Clone, Debug)]
pub struct BlockIndex<'a>(HashMap<&'a str, usize>);

impl BlockIndex<'_> {
    /// See [`Interface::block_of`].
    #[must_use]
    pub fn of(&self, scope: &str) -> Option<usize> {
        let ends = scope.match_indices('.').map(|(dot, _)| dot).chain([scope.len()]);
        ends.filter_map(|end| self.0.get(&scope[..end]).copied()).min()
    }
}

impl Interface {
    /// The role of an input.
    #[must_use]
    pub fn role(&self, input: &str) -> Option<&InputRole> {
        self.inputs.iter().find(|i| i.name == input).map(|i| &i.role)
    }

    fn input(&self, is: impl Fn(&InputRole) -> bool) -> Option<&str> {
        self.inputs.iter().find(|i| is(&i.role)).map(|i| i.name.as_str())
    }

    /// Name of the latent.
    #[must_use]
    pub fn latent(&self) -> Option<&str> {
        self.input(|role| *role == InputRole::Latent)
    }

    /// Name of the time.
    #[must_use]
    pub fn time(&self) -> Option<&str> {
        self.input(|role| matches!(role, InputRole::Time { .. }))
    }

    /// Name of the text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.input(|role| *role == InputRole::Text)
    }

    /// Name of the token ids.
    #[must_use]
    pub fn tokens(&self) -> Option<&str> {
        self.input(|role| matches!(role, InputRole::Tokens { .. }))
    }

    /// Name of the embeddings of an image.
    #[must_use]
    pub fn image(&self) -> Option<&str> {
        self.input(|role| *role == InputRole::Image)
    }

    /// Name of the mask that says which text tokens count.
    #[must_use]
    pub fn text_mask(&self) -> Option<&str> {
        self.input(|role| *role == InputRole::TextMask)
    }

    /// Name of the embedding of the whole text.
    #[must_use]
    pub fn pooled(&self) -> Option<&str> {
        self.input(|role| *role == InputRole::Pooled)
    }

    /// Name of the strength of distilled guidance.
    #[must_use]
    pub fn guidance(&self) -> Option<&str> {
        self.input(|role| *role == InputRole::Guidance)
    }

    /// Name of the result that a proof judges by.
    #[must_use]
    pub fn output(&self) -> Option<&str> {
        self.outputs.first().map(|o| o.name.as_str())
    }

    /// Position of the block that the value `name` ends.
    #[must_use]
    pub fn milestone(&self, name: &str) -> Option<usize> {
        self.milestones.iter().position(|m| m.value == name)
    }

    /// Position of the block that an op of this module path belongs to: `blocks.3.attn1.to_q` is in the block of scope `blocks.3`.
    #[must_use]
    pub fn block_of(&self, scope: &str) -> Option<usize> {
        self.blocks().of(scope)
    }

    /// The blocks by their module paths, for whoever asks [`Interface::block_of`] for every op of a graph.
    #[must_use]
    pub fn blocks(&self) -> BlockIndex<'_> {
        BlockIndex(self.milestones.iter().enumerate().map(|(i, m)| (m.scope.as_str(), i)).rev().collect())
    }

    /// Whether the interface says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Interface::default()
    }

    /// The first name that is given twice among the inputs, among the results, or among the milestones.
    pub(crate) fn twice(&self) -> Option<&str> {
        fn repeated<'a>(names: &[&'a str]) -> Option<&'a str> {
            (1..names.len()).find(|&i| names[..i].contains(&names[i])).map(|i| names[i])
        }
        let inputs: Vec<&str> = self.inputs.iter().map(|i| i.name.as_str()).collect();
        let outputs: Vec<&str> = self.outputs.iter().map(|o| o.name.as_str()).collect();
        let values: Vec<&str> = self.milestones.iter().map(|m| m.value.as_str()).collect();
        let scopes: Vec<&str> = self.milestones.iter().map(|m| m.scope.as_str()).collect();
        [inputs, outputs, values, scopes].iter().find_map(|names| repeated(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_found_by_its_whole_path() {
        let milestone = |n: usize| Milestone { value: format!("block{n}"), scope: format!("blocks.{n}") };
        let interface = Interface { milestones: (0..12).map(milestone).collect(), ..Interface::default() };
        assert_eq!(interface.block_of("blocks.1.attn1.to_q"), Some(1));
        assert_eq!(interface.block_of("blocks.11"), Some(11));
        assert_eq!(interface.block_of("blocks.12"), None);
        assert_eq!(interface.block_of(""), None);
        assert_eq!(interface.milestone("block11"), Some(11));
        assert_eq!(interface.milestone("block12"), None);
    }

    #[test]
    fn json_gives_the_interface_back() {
        let interface = Interface {
            inputs: vec![
                Input { name: "x".into(), role: InputRole::Latent },
                Input { name: "t".into(), role: InputRole::Time { low: 0.0, high: 1000.0 } },
                Input { name: "ids".into(), role: InputRole::Tokens { vocabulary: 49408 } },
                Input { name: "z".into(), role: InputRole::Other { distribution: Distribution::Uniform } },
            ],
            outputs: vec![Output { name: "y".into(), role: OutputRole::Velocity }],
            milestones: vec![Milestone { value: "h".into(), scope: "layers.0".into() }],
        };
        let json = serde_json::to_string(&interface).unwrap();
        assert!(json.contains(r#"{"name":"t","role":"time","low":0.0,"high":1000.0}"#), "{json}");
        assert_eq!(serde_json::from_str::<Interface>(&json).unwrap(), interface);
        assert!(serde_json::from_str::<Interface>(&json.replace("\"latent\"", "\"pixels\"")).is_err());
    }
}
