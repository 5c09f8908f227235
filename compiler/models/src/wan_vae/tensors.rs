//! The tensors of the decoder of Wan's autoencoders, by the names of diffusers.

use super::config::WanVaeConfig;
use crate::tensor::{Role, Specs, TensorSpec};

/// Groups of parameters.
const LATENT: &str = "latent";
const MIDDLE: &str = "middle block";
const LEVELS: &str = "levels";
const HEAD: &str = "output head";

/// Every tensor that the decoder of a checkpoint with this configuration has, in the order of the forward pass.
pub(super) fn tensors(config: &WanVaeConfig) -> Vec<TensorSpec> {
    let mut list = Specs::new(LATENT);
    let (latent, widest) = (config.z_dim, config.widest());
    list.conv("post_quant_conv", &[latent, latent, 1, 1, 1]);
    list.conv("decoder.conv_in", &[widest, latent, 3, 3, 3]);
    list.group(MIDDLE);
    residual(&mut list, "decoder.mid_block.resnets.0", widest, widest);
    gain(&mut list, "decoder.mid_block.attentions.0.norm", &[widest, 1, 1]);
    list.conv("decoder.mid_block.attentions.0.to_qkv", &[3 * widest, widest, 1, 1]);
    list.conv("decoder.mid_block.attentions.0.proj", &[widest, widest, 1, 1]);
    residual(&mut list, "decoder.mid_block.resnets.1", widest, widest);
    list.group(LEVELS);
    let mut last = widest;
    for (i, level) in config.levels().iter().enumerate() {
        let block = format!("decoder.up_blocks.{i}");
        let mut input = level.input;
        for k in 0..=config.num_res_blocks {
            residual(&mut list, &format!("{block}.resnets.{k}"), input, level.width);
            input = level.width;
        }
        last = level.width;
        let Some(up) = level.up else { continue };
        let upsampler = if config.is_residual { "upsampler" } else { "upsamplers.0" };
        if up.time {
            list.conv(&format!("{block}.{upsampler}.time_conv"), &[2 * level.width, level.width, 3, 1, 1]);
        }
        list.conv(&format!("{block}.{upsampler}.resample.1"), &[up.output, level.width, 3, 3]);
    }
    list.group(HEAD);
    gain(&mut list, "decoder.norm_out", &[last, 1, 1, 1]);
    list.conv("decoder.conv_out", &[config.out_channels(), last, 3, 3, 3]);
    list.finish()
}

fn gain(list: &mut Specs, norm: &str, shape: &[usize]) {
    list.push(format!("{norm}.gamma"), shape, Role::NormGain);
}

/// A residual block.
fn residual(list: &mut Specs, block: &str, input: usize, output: usize) {
    if input != output {
        list.conv(&format!("{block}.conv_shortcut"), &[output, input, 1, 1, 1]);
    }
    gain(list, &format!("{block}.norm1"), &[input, 1, 1, 1]);
    list.conv(&format!("{block}.conv1"), &[output, input, 3, 3, 3]);
    gain(list, &format!("{block}.norm2"), &[output, 1, 1, 1]);
    list.conv(&format!("{block}.conv2"), &[output, output, 3, 3, 3]);
}
