"""Makes the goldens of video decoders in `tests/goldens`: the decoders of diffusers' `AutoencoderKLWan` and `AutoencoderKLLTXVideo` and of TAEHV in float64.

    git clone https://github.com/madebyollin/taehv
    python3 -m venv venv && venv/bin/pip install torch==2.7.1 diffusers==0.42.1 accelerate numpy tqdm
    venv/bin/python examples/reference/decoder_goldens.py --taehv taehv/taehv.py [CASE ...]            # makes them
    venv/bin/python examples/reference/decoder_goldens.py --taehv taehv/taehv.py [CASE ...] --report   # writes nothing

A case is a folder with `checkpoint/` and `golden.safetensors`: `latent [1, C, F, H, W]`, as a diffusion model makes it, and `video [1, 3, T, h, w]` in
-1 to 1; of a decoder that takes a timestep at 0, and `video_at_0.05`. The checkpoint of a class of diffusers is what `save_pretrained` writes, encoder and all, and nothing in it is edited by hand. TAEHV is published as
one file of weights and has no configuration: its checkpoint is that file and a `config.json` with the arguments of its class. Its class has the
widths 256, 128, 64 and 64: a small one is put together of its own layers in its own order, and runs its own `decode_video`. Case i has seed 1100 + i for its weights and 1200 + i
for its latent; the same versions of torch and diffusers give the same bytes. Commit 1f14a56 of TAEHV was used.

What diffusion models make has mean 0 and variance 1: as diffusers' pipelines do, the latent is multiplied with the standard deviations of the autoencoder's
latents, and their means are added, before `decode`. TAEHV takes it as it is, and makes pixels in 0 to 1, which are mapped to -1 to 1.

All of it computes in float64, and every operation is watched for a narrower result. Prints how far from a golden the same code is, as rows of: case,
latent, video, std of the video, share of pixels at the bounds; relative L2 in float32; PSNR in dB of the pictures in float16 (a range of 2). With `--report`, for the goldens that
are there: it fails if one is not what the code makes.
"""

import argparse
import importlib.util
import json

import diffusers
import torch
from diffusers import AutoencoderKLLTXVideo, AutoencoderKLWan
from safetensors.torch import load_file, save_file
from torch import nn

from make_goldens import GOLDENS, compare, write_tensors
from wan_goldens import NothingNarrower, float64

WAN = dict(
    base_dim=2, decoder_base_dim=4, z_dim=4, dim_mult=[1, 2, 4, 4], num_res_blocks=1, temperal_downsample=[False, True, True],
    latents_mean=[-0.7571, -0.7089, -0.9113, 0.1075], latents_std=[2.8184, 1.4541, 2.3275, 2.6558],
)
LTX = dict(
    in_channels=3, out_channels=3, latent_channels=6, block_out_channels=(2, 2, 4, 4), decoder_block_out_channels=(4, 8, 12, 12), layers_per_block=(1, 1, 1, 1, 1),
    decoder_layers_per_block=(1, 1, 1, 1, 2), spatio_temporal_scaling=(True, True, True, False), decoder_spatio_temporal_scaling=(True, True, True, False), patch_size=4,
)
TINY = dict(
    latent_channels=4, patch_size=1, decoder_time_upscale=[False, True, True], decoder_space_upscale=[True, True, True], widths=[16, 12, 8, 8],
)

# name: (class, config, dtype of the weights, latent F x H x W, size of a shard)
CASES = {
    # As Wan 2.1.
    "wan_vae": ("wan", WAN, torch.bfloat16, (3, 3, 4), "10GB"),
    # As Wan 2.2 TI2V: shortcuts around the upsampling, patches of pixels.
    "wan_vae_residual": (
        "wan", WAN | dict(
            z_dim=6, is_residual=True, patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16,
            latents_mean=[-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174], latents_std=[0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990],
        ),
        torch.float16, (3, 2, 2), "10GB",
    ),
    # Three levels, widths that are no powers of two, time doubled first and last, in shards.
    "wan_vae_uneven": (
        "wan", WAN | dict(dim_mult=[1, 2, 3, 3], num_res_blocks=2, temperal_downsample=[True, False, True]), torch.float32, (2, 2, 3), "100KB",
    ),
    # As LTX-Video 0.9.0.
    "ltx_vae": ("ltx", LTX, torch.bfloat16, (2, 1, 2), "10GB"),
    # As 0.9.1 but for its timesteps: shortcuts around the upsampling, which makes fewer channels. Causal in time.
    "ltx_vae_residual": (
        "ltx", LTX | dict(
            decoder_block_out_channels=(8, 16, 32), block_out_channels=(2, 2, 4), layers_per_block=(1, 1, 1, 1), decoder_layers_per_block=(2, 1, 1, 1),
            down_block_types=("LTXVideoDownBlock3D",) * 3, downsample_type=("conv",) * 3,
            spatio_temporal_scaling=(True, True, False), decoder_spatio_temporal_scaling=(True, True, True), upsample_residual=(True, True, True), upsample_factor=(2, 2, 2),
            decoder_inject_noise=(False,) * 4, decoder_causal=True, scaling_factor=0.5,
        ),
        torch.float16, (2, 2, 1), "10GB",
    ),
    # As taew2_1.pth.
    "taehv_tiny": ("taehv", TINY, torch.float16, (3, 3, 4), "pth"),
    # As taew2_2.safetensors; time is doubled once.
    "taehv_patch": ("taehv", TINY | dict(latent_channels=6, patch_size=2, decoder_time_upscale=[False, False, True], widths=[12, 10, 8, 6]), torch.float32, (4, 2, 2), "safetensors"),
    # As LTX-Video 0.9.5 and later: timesteps.
    "ltx_vae_timestep": (
        "ltx", LTX | dict(
            decoder_block_out_channels=(8, 16, 32), block_out_channels=(2, 2, 4), layers_per_block=(1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1),
            down_block_types=("LTXVideoDownBlock3D",) * 3, downsample_type=("conv",) * 3,
            spatio_temporal_scaling=(True, True, False), decoder_spatio_temporal_scaling=(True, True, True), upsample_residual=(True, True, True), upsample_factor=(2, 2, 2),
            decoder_inject_noise=(False,) * 4, timestep_conditioning=True,
        ),
        torch.float16, (2, 1, 1), "10GB",
    ),
}
# The timesteps of a decoder that takes one, which is no field of its configuration: what LTX-Video's pipeline has if nobody says another, and what model cards advise.
DECODE_TIMESTEPS = {"video": 0.0, "video_at_0.05": 0.05}
CLASSES = {"wan": AutoencoderKLWan, "ltx": AutoencoderKLLTXVideo}


def random_weights(state, seed):
    """Seeded weights under which no part is idle. A decoder's gains are called gamma or, of a norm, weight."""
    g = torch.Generator().manual_seed(seed)
    for name, p in sorted(state.items()):
        n = torch.randn(p.shape, generator=g, dtype=torch.float64)
        if name.endswith("latents_std"):
            n = (0.3 * n).exp()
        elif name.endswith("gamma") or ("norm" in name and name.endswith("weight")):
            n = 1 + 0.1 * n
        elif name.endswith("bias"):
            n *= 0.1
        elif name.endswith("scale_shift_table"):
            n *= 0.2
        elif "time_embedder" in name and name.endswith("weight"):
            n *= 0.5 * (1 / p[0].numel()) ** 0.5
        elif name.endswith("timestep_scale_multiplier"):
            n = p.double()
        elif not name.endswith("latents_mean"):
            n *= (2 / p[0].numel()) ** 0.5
        p.copy_(n)


def tiny(module, config):
    """TAEHV's class, its decoder put together of its own layers at other widths."""
    w, channels = config["widths"], config["latent_channels"]
    model = module.TAEHV.__new__(module.TAEHV)
    nn.Module.__init__(model)
    layers = [module.Clamp(), module.conv(channels, w[0]), nn.ReLU(inplace=True)]
    for i in range(3):
        layers += [module.MemBlock(w[i], w[i]) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2 if config["decoder_space_upscale"][i] else 1), module.TGrow(w[i], 2 if config["decoder_time_upscale"][i] else 1)]
        layers += [module.conv(w[i], w[i + 1], bias=False)]
    layers += [nn.ReLU(inplace=True), module.conv(w[3], 3 * config["patch_size"] ** 2)]
    model.decoder = nn.Sequential(*layers)
    model.patch_size, model.latent_channels, model.image_channels = config["patch_size"], channels, 3
    model.is_cogvideox = model.is_h3 = False
    model.t_upscale = 2 ** sum(config["decoder_time_upscale"])
    model.frames_to_trim = model.t_upscale - 1
    return model


def spread_pixels(module, model, latent):
    """Scales the last convolution by a power of two, so that few pixels lie outside of 0 to 1: layers without norms make values of any size."""
    last = model.decoder[-1]
    frames = latent[0].transpose(0, 1)[None]
    pixels = module.apply_model_with_memblocks(model.decoder, frames, True, False)
    last.weight *= 2.0 ** torch.log2(0.25 / pixels.std()).round()
    last.bias += 0.5


def load(kind, folder, dtype, module):
    if kind == "taehv":
        model = tiny(module, json.loads((folder / "config.json").read_text()))
        file = next(folder.glob("taehv.*"))
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
        model.load_state_dict(state, strict=True)
        return model.to(dtype).eval()
    return CLASSES[kind].from_pretrained(folder, torch_dtype=dtype).eval()


def decode(kind, model, latent, timestep=0.0):
    """A latent as diffusion models make it to a video in -1 to 1; `timestep` is for a decoder that takes one."""
    if kind == "taehv":
        return model.decode_video(latent.transpose(1, 2), show_progress_bar=False).transpose(1, 2) * 2 - 1
    per_channel = lambda values: torch.as_tensor(values, dtype=latent.dtype).view(1, -1, 1, 1, 1)
    if kind == "wan":
        mean, std, scale = model.config.latents_mean, model.config.latents_std, 1
    else:
        mean, std, scale = model.latents_mean, model.latents_std, model.config.scaling_factor
    timesteps = [torch.tensor([timestep], dtype=latent.dtype)] if kind == "ltx" and model.config.timestep_conditioning else []
    video = model.decode(latent * per_channel(std) / scale + per_channel(mean), *timesteps).sample
    return video.clamp(-1, 1)


def exact_videos(kind, folder, latent, module):
    """The video, or, of a decoder that takes a timestep, one for each of several."""
    model = load(kind, folder, torch.float64, module)
    is_conditioned = kind == "ltx" and model.config.timestep_conditioning
    timesteps = DECODE_TIMESTEPS if is_conditioned else {"video": 0.0}
    with float64(), NothingNarrower():
        return {name: decode(kind, model, latent.double(), timestep) for name, timestep in timesteps.items()}


def psnr(x, reference):
    return -20 * torch.log10((x.double() - reference).pow(2).mean().sqrt() / 2)


def report(name, kind, folder, latent, exact, module):
    narrow = lambda dtype: decode(kind, load(kind, folder, dtype, module), latent.to(dtype)).double()
    single = (narrow(torch.float32) - exact).norm() / exact.norm()
    half = psnr(narrow(torch.float16), exact)
    sides = lambda x: "x".join(map(str, x.shape[2:]))
    bound = (exact.abs() == 1).double().mean()
    print(f"| {name} | {sides(latent)} | {sides(exact)} | {exact.std():.2f} | {bound:.1%} | {single:.1e} | {half:.1f} |")


def make(name, kind, config, dtype, size, shard, seed, module):
    folder = GOLDENS / name
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(parents=True, exist_ok=True)
    for old in checkpoint.iterdir():
        old.unlink()
    model = tiny(module, config) if kind == "taehv" else CLASSES[kind](**config)
    random_weights(model.state_dict(), seed)
    channels = config.get("z_dim", config.get("latent_channels"))
    latent = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(seed + 100))
    if kind == "taehv":
        spread_pixels(module, model, latent)
    model.to(dtype)
    if kind == "taehv":
        (checkpoint / "config.json").write_text(json.dumps({"_class_name": "TAEHV"} | config, indent=2) + "\n")
        state = {k: v.contiguous() for k, v in model.state_dict().items()}
        torch.save(state, checkpoint / "taehv.pth") if shard == "pth" else save_file(state, checkpoint / "taehv.safetensors")
    else:
        model.save_pretrained(checkpoint, max_shard_size=shard)

    exact = exact_videos(kind, checkpoint, latent, module)
    assert all(video.isfinite().all() for video in exact.values()), name
    metadata = {
        "generator": "examples/reference/decoder_goldens.py", "seed": str(seed + 100), "dtype": "float64", "torch": torch.__version__.split("+")[0],
        "diffusers": diffusers.__version__,
    }
    write_tensors(folder / "golden.safetensors", {"latent": latent} | {key: video.float().contiguous() for key, video in exact.items()}, metadata)
    report(name, kind, checkpoint, latent, exact["video"], module)


def check(name, kind, module):
    """Reports on a golden as it is on disk."""
    checkpoint = GOLDENS / name / "checkpoint"
    golden = load_file(GOLDENS / name / "golden.safetensors")
    exact = exact_videos(kind, checkpoint, golden["latent"], module)
    compare(name, golden, exact, {"latent"})
    report(name, kind, checkpoint, golden["latent"], exact["video"], module)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"any of {', '.join(CASES)} (default: all)")
    parser.add_argument("--taehv", help="TAEHV's taehv.py")
    parser.add_argument("--report", action="store_true", help="reports on the goldens that are there, and writes nothing")
    args = parser.parse_args()
    if unknown := set(args.cases) - CASES.keys():
        parser.error(f"no case {', '.join(sorted(unknown))}: expected any of {', '.join(CASES)}")
    names = args.cases or list(CASES)
    module = None
    if any(CASES[name][0] == "taehv" for name in names):
        if not args.taehv:
            parser.error("the cases of TAEHV need --taehv taehv/taehv.py")
        spec = importlib.util.spec_from_file_location("taehv", args.taehv)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    with torch.no_grad():
        for i, (name, (kind, *case)) in enumerate(CASES.items()):
            if name in names:
                check(name, kind, module) if args.report else make(name, kind, *case, seed=1100 + i, module=module)
    for name in names:
        sizes = {str(f.relative_to(GOLDENS)): f.stat().st_size for f in sorted((GOLDENS / name).rglob("*")) if f.is_file()}
        for file, size in sizes.items():
            print(f"{size:9} {file}")
        print(f"{sum(sizes.values()):9} {name}")


if __name__ == "__main__":
    main()
