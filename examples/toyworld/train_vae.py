"""Stage 1: the autoencoder, diffusers' `AutoencoderKLWan` in a small configuration.

    python train_vae.py              # trains on parts of pictures, then on whole ones
    python train_vae.py --export     # writes weights/toyworld/vae from the run as it stands

Pictures are taken in patches of 2x2 pixels, so that the finest level works at 32x32; with two more levels a latent pixel stands for 8x8 pixels and 4 frames. The
convolutions see parts of 32x32 pixels in most steps, which cost a quarter; the last fifth of the steps is on whole pictures and longer clips.
"""

import argparse

import torch
from diffusers import AutoencoderKLWan

import world
from training import WEIGHTS, Training, bf16, stage_arguments

VAE = dict(
    base_dim=8, z_dim=8, dim_mult=[1, 2, 4], num_res_blocks=1, temperal_downsample=[True, True], patch_size=2, in_channels=12, out_channels=12,
    scale_factor_temporal=4, scale_factor_spatial=8,
)
FOLDER = WEIGHTS / "toyworld" / "vae"


def new(mean=None, std=None):
    zeros = mean or [0.0] * VAE["z_dim"]
    return AutoencoderKLWan(**VAE, latents_mean=zeros, latents_std=std or [1.0] * VAE["z_dim"])


def decoded(vae, latent):
    """As `decode`, before the clamp to -1..1, through which no gradient would pass."""
    vae.clear_cache()
    x = vae.post_quant_conv(latent)
    frames = []
    for i in range(latent.shape[2]):
        vae._conv_idx = [0]
        frames.append(vae.decoder(x[:, :, i : i + 1], feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=i == 0))
    vae.clear_cache()
    from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

    return unpatchify(torch.cat(frames, 2), patch_size=vae.config.patch_size)


def moments(vae, video):
    """The mean and the logarithm of the variance of the latent, unscaled."""
    mean, log_variance = vae._encode(video).chunk(2, dim=1)
    return mean, log_variance.clamp(-20, 10)


@torch.no_grad()
def measured(vae, scenes, rng, clips=48):
    """Mean and deviation of each latent channel, and the signal to noise ratio of the pixels on whole pictures."""
    latents, errors = [], []
    for begin in range(0, clips, 8):
        video = world.clips([scenes[i] for i in rng.integers(0, len(scenes), 8)], 17, rng)
        mean, _ = moments(vae, video)
        latents.append(mean)
        errors.append((decoded(vae, mean).clamp(-1, 1) - video).pow(2).mean())
    x = torch.cat(latents)
    return x.mean((0, 2, 3, 4)), x.std((0, 2, 3, 4)), float(10 * torch.log10(4 / torch.stack(errors).mean()))


def export(vae, scenes, rng):
    from safetensors.torch import save_file

    mean, std, psnr = measured(vae, scenes, rng)
    rounded = [[round(float(v), 4) for v in values] for values in (mean, std)]
    vae.register_to_config(latents_mean=rounded[0], latents_std=rounded[1])
    FOLDER.mkdir(parents=True, exist_ok=True)
    vae.save_config(FOLDER)
    save_file(bf16(vae), FOLDER / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    print(f"vae: {psnr:.1f} dB on whole clips of 17 frames; latents' mean {rounded[0]}, deviation {rounded[1]}", flush=True)


def main():
    import numpy as np

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stage_arguments(parser, steps=1000, batch=16, lr=3e-3)
    parser.add_argument("--export", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    vae, scenes = new(), world.split("train")
    training = Training("vae", {"vae": vae}, args, ema=0.99)
    finish = lambda: export(vae, scenes, np.random.default_rng(args.seed))
    if args.export:
        training.use_averages()
        return finish()

    def loss_of(step, rng):
        whole = step >= args.steps * 0.8
        batch, frames, side = (args.batch // 4, 17 if step % 2 else 9, 64) if whole else (args.batch, 9, 32)
        video = world.clips([scenes[i] for i in rng.integers(0, len(scenes), batch)], frames, rng, side)
        mean, log_variance = moments(vae, video)
        sample = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        made = decoded(vae, sample)
        kl = 0.5 * (mean.pow(2) + log_variance.exp() - 1 - log_variance).mean()
        error = (made - video).abs()
        squares = (made.detach() - video).pow(2).mean()
        return error.mean() + 2 * (made - video).pow(2).mean() + 1e-3 * kl, {"psnr": float(10 * torch.log10(4 / squares)), "kl": float(kl)}

    training.loop(loss_of, finish)


if __name__ == "__main__":
    main()
