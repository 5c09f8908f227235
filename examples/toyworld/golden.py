"""What PyTorch makes with the models of the toy world, in float64: the goldens that `s2ditc demo`, tests and examples/ci compare with.

    python golden.py          # writes weights/golden.safetensors and weights/golden_clip.safetensors
    python golden.py --check  # the files fit the weights; writes nothing

Of the streaming model `stream.noise [chunks, steps, 1, C, F, H, W]`, `text [1, 16, 64]` of transformers' CLIPTextModel, and `stream.latents [chunks, 1, C, F, H, W]` of
`examples/reference/stream.py`. Of the pretrained one `latent [1, C, F, H, W]`, a clip of the world with the noise of half of the steps, `timestep [1]`, `text`, and `velocity`. The same seed and version of torch give the same bytes.
"""

import argparse

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import text
import world
from latents import Basis
from models import FOLDERS, s2dit, shifted
from training import WEIGHTS

CAPTION = "three small cyan squares moving up on a black background"
CHUNKS = 4
SEED = 7
FILE, CLIP = WEIGHTS / "golden.safetensors", WEIGHTS / "golden_clip.safetensors"
# The largest relative L2 error of a file beside what is made now.
TOLERANCE = 1e-6


@torch.no_grad()
def run(noise):
    """The embedding of the caption, and the chunks, in float64."""
    from stream import stream  # beside s2dit, which `models` puts on the path

    embedding = text.encode(text.load_encoder().double(), text.tokens([CAPTION])).float()
    return embedding, stream(s2dit.load(FOLDERS["ar"], torch.float64), embedding.double(), noise.double())


def streaming():
    config = s2dit.Config.load(FOLDERS["ar"])
    chunk = (1, config.in_channels, config.chunk_frames, 8, 8)
    noise = torch.randn(CHUNKS, len(config.sample_steps), *chunk, generator=torch.Generator().manual_seed(SEED))
    embedding, latents = run(noise)
    return {"stream.noise": noise, "text": embedding, "stream.latents": latents}


@torch.no_grad()
def clip():
    """A step of the pretrained model, half-way, on inputs in float32."""
    config = s2dit.Config.load(FOLDERS["pretrained"])
    sigma = shifted(1 - (config.sample_steps // 2) / config.sample_steps, config.flow_shift)
    clean = Basis.load().encode(world.draw(world.parse(CAPTION), 9, np.random.default_rng(SEED))[None])
    latent = (1 - sigma) * clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(SEED))
    timestep = torch.tensor([1000 * sigma], dtype=torch.float32)
    embedding = text.encode(text.load_encoder().double(), text.tokens([CAPTION])).float()
    model = s2dit.load(FOLDERS["pretrained"], torch.float64)
    velocity = model(latent.double(), timestep.double(), embedding.double())
    return {"latent": latent, "timestep": timestep, "text": embedding, "velocity": velocity}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare the files with the weights, and write nothing")
    check = parser.parse_args().check
    for file, make in ((FILE, streaming), (CLIP, clip)):
        made = make()
        assert all(tensor.isfinite().all() for tensor in made.values()), file
        if check:
            golden = load_file(file)
            assert golden.keys() == made.keys(), f"{file}: {sorted(golden)}"
            for name, expected in made.items():
                error = (golden[name].double() - expected.double()).norm() / expected.double().norm()
                if not error < TOLERANCE:
                    raise SystemExit(f"{file}: {name}: relative L2 error {error:.1e}, expected below {TOLERANCE}: the weights changed, run golden.py again")
            print(f"{file.name} fits the weights: relative L2 below {TOLERANCE}")
            continue
        # One entry: the order of several is not always the same.
        metadata = {"made": f"examples/toyworld/golden.py, seed {SEED}, float64, torch {torch.__version__.split('+')[0]}: {CAPTION}"}
        save_file({name: tensor.float().contiguous() for name, tensor in made.items()}, file, metadata=metadata)
        file.chmod(0o644)
        print(f"{file}: " + ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in made.items()))


if __name__ == "__main__":
    main()
