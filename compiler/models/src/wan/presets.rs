//! The published models, and small ones for tests.

use super::{Image, WanConfig};

/// Names of the presets.
pub(super) const NAMES: [&str; 9] = [
    "wan-tiny",
    "wan-tiny-i2v",
    "wan2.1-1.3b",
    "wan2.1-14b",
    "wan2.1-i2v-14b",
    "wan2.1-flf2v-14b",
    "wan2.2-ti2v-5b",
    "wan2.2-t2v-a14b",
    "wan2.2-i2v-a14b",
];

/// Channels of a condition beside 16 of noise: a mask of 4 and a latent of 16.
const WITH_CONDITION: usize = 36;

/// The configuration of a preset. Steps and shift are those of Wan's own `generate.py`.
pub(super) fn config(name: &str) -> Option<WanConfig> {
    let small = || WanConfig { num_attention_heads: 12, ffn_dim: 8960, num_layers: 30, ..WanConfig::default() };
    let tiny = || WanConfig {
        num_attention_heads: 2,
        attention_head_dim: 24,
        in_channels: 4,
        out_channels: 4,
        text_dim: 32,
        freq_dim: 32,
        ffn_dim: 128,
        num_layers: 3,
        text_len: 8,
        ..WanConfig::default()
    };
    let large = WanConfig::default;
    let experts = |shift: f64| WanConfig { sample_steps: 40, flow_shift: shift, ..WanConfig::default() };
    let clip = |positions| Some(Image { dim: 1280, positions });
    Some(match name {
        "wan-tiny" => tiny(),
        "wan-tiny-i2v" => WanConfig { in_channels: 9, image: Some(Image { dim: 20, positions: None }), ..tiny() },
        "wan2.1-1.3b" => small(),
        "wan2.1-14b" => large(),
        "wan2.1-i2v-14b" => WanConfig { in_channels: WITH_CONDITION, image: clip(None), ..large() },
        "wan2.1-flf2v-14b" => WanConfig { in_channels: WITH_CONDITION, image: clip(Some(2 * 257)), ..large() },
        "wan2.2-ti2v-5b" => WanConfig {
            num_attention_heads: 24,
            in_channels: 48,
            out_channels: 48,
            ffn_dim: 14336,
            num_layers: 30,
            ..WanConfig::default()
        },
        "wan2.2-t2v-a14b" => experts(12.0),
        "wan2.2-i2v-a14b" => WanConfig { in_channels: WITH_CONDITION, ..experts(5.0) },
        _ => return None,
    })
}
