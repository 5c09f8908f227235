"""What PyTorch makes with the streaming model of the toy world, in float64: the golden that `s2ditc demo` compares with.

    python golden.py          # writes weights/golden.safetensors
    python golden.py --check  # the file fits the weights; writes nothing

`stream.noise [chunks, steps, 1, C, F, H, W]`, `text [1, 16, 64]` of transformers' CLIPTextModel, and `stream.latents [chunks, 1, C, F, H, W]` of
`examples/reference/stream.py`. The same seed and version of torch give the same bytes.
"""

import argparse

import torch
from safetensors.torch import load_file, save_file

import text
from models import FOLDERS, s2dit
from training import WEIGHTS

CAPTION = "three small cyan squares moving up on a black background"
CHUNKS = 4
SEED = 7
FILE = WEIGHTS / "golden.safetensors"


@torch.no_grad()
def run(noise):
    """The embedding of the caption, and the chunks, in float64."""
    from stream import stream  # beside s2dit, which `models` puts on the path

    embedding = text.encode(text.load_encoder().double(), text.tokens([CAPTION])).float()
    return embedding, stream(s2dit.load(FOLDERS["ar"], torch.float64), embedding.double(), noise.double())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare the file with the weights, and write nothing")
    check = parser.parse_args().check
    config = s2dit.Config.load(FOLDERS["ar"])
    chunk = (1, config.in_channels, config.chunk_frames, 8, 8)
    noise = torch.randn(CHUNKS, len(config.sample_steps), *chunk, generator=torch.Generator().manual_seed(SEED))
    embedding, latents = run(noise)
    assert latents.isfinite().all()
    if check:
        golden = load_file(FILE)
        assert torch.equal(golden["stream.noise"], noise), "the noise is of another seed"
        for name, expected in (("text", embedding.double()), ("stream.latents", latents)):
            error = (golden[name].double() - expected).norm() / expected.norm()
            if not error < 1e-6:
                raise SystemExit(f"{FILE}: {name}: relative L2 error {error:.1e}, expected below 1e-6: the weights changed, run golden.py again")
        return
    metadata = {"generator": "examples/toyworld/golden.py", "seed": str(SEED), "caption": CAPTION, "dtype": "float64", "torch": torch.__version__.split("+")[0]}
    save_file({"stream.noise": noise, "text": embedding, "stream.latents": latents.float().contiguous()}, FILE, metadata=metadata)
    print(f"{FILE}: {CHUNKS} chunks, standard deviation {latents.std():.2f}")


if __name__ == "__main__":
    main()
