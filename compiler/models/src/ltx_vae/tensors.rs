//! The tensors of the decoder of LTX-Video's autoencoders, by the names of diffusers.

use super::config::{LtxVaeConfig, SINUSOIDS};
use super::levels::{Level, VALUES};
use crate::tensor::{Role, Specs, TensorSpec};

/// Every tensor that the decoder of a checkpoint with this configuration has, in the order of the forward pass.
pub(super) fn tensors(config: &LtxVaeConfig, levels: &[Level]) -> Vec<TensorSpec> {
    let mut list = Specs::new("latent");
    let latent = config.latent_channels;
    list.push("latents_std", &[latent], Role::NormGain);
    list.push("latents_mean", &[latent], Role::Bias);
    conv(&mut list, "decoder.conv_in", config.widest(), latent, 3);
    let is_conditioned = config.decode_timestep.is_some();
    if is_conditioned {
        list.push("decoder.timestep_scale_multiplier", &[], Role::NormGain);
    }
    list.group("middle block");
    if is_conditioned {
        time_embedder(&mut list, "decoder.mid_block", 4 * config.widest());
    }
    for k in 0..config.decoder_layers_per_block.last().copied().unwrap_or_default() {
        residual(
            &mut list,
            &format!("decoder.mid_block.resnets.{k}"),
            config.widest(),
            config.widest(),
            is_conditioned,
        );
    }
    list.group("levels");
    for (i, level) in levels.iter().enumerate() {
        let block = format!("decoder.up_blocks.{i}");
        if let Some([input, output]) = level.changes {
            residual(&mut list, &format!("{block}.conv_in"), input, output, false);
        }
        if is_conditioned {
            // Of the channels that the level begins with, but for its factor.
            time_embedder(&mut list, &block, 4 * level.width);
        }
        if let Some(up) = level.up {
            conv(&mut list, &format!("{block}.upsamplers.0.conv"), up.input * VALUES / up.factor, up.input, 3);
        }
        for k in 0..level.blocks {
            residual(&mut list, &format!("{block}.resnets.{k}"), level.width, level.width, is_conditioned);
        }
    }
    list.group("output head");
    let last = levels.last().map_or(config.widest(), |level| level.width);
    if is_conditioned {
        time_embedder(&mut list, "decoder", 2 * last);
        list.push("decoder.scale_shift_table", &[2, last], Role::ScaleShift);
    }
    conv(&mut list, "decoder.conv_out", config.out_channels(), last, 3);
    list.finish()
}

/// A convolution over time.
fn conv(list: &mut Specs, layer: &str, output: usize, input: usize, kernel: usize) {
    list.conv(&format!("{layer}.conv"), &[output, input, kernel, kernel, kernel]);
}

/// The embedding of the timestep of the module `block`.
fn time_embedder(list: &mut Specs, block: &str, width: usize) {
    let layer = |name: &str| format!("{block}.time_embedder.timestep_embedder.{name}");
    list.linear(&layer("linear_1"), width, SINUSOIDS);
    list.linear(&layer("linear_2"), width, width);
}

/// A residual block, with shifts and scales if the decoder takes a timestep.
fn residual(list: &mut Specs, block: &str, input: usize, output: usize, is_conditioned: bool) {
    if is_conditioned {
        list.push(format!("{block}.scale_shift_table"), &[4, input], Role::ScaleShift);
    }
    conv(list, &format!("{block}.conv1"), output, input, 3);
    conv(list, &format!("{block}.conv2"), output, output, 3);
    if input != output {
        list.push(format!("{block}.norm3.weight"), &[input], Role::NormGain);
        list.push(format!("{block}.norm3.bias"), &[input], Role::Bias);
        conv(list, &format!("{block}.conv_shortcut"), output, input, 1);
    }
}
