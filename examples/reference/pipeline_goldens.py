"""Makes the goldens of pipelines in `tests/goldens`: small seeded pipelines as diffusers saves them, and what diffusers' own pipelines make of a prompt.

    python3 -m venv venv && venv/bin/pip install torch==2.7.1 diffusers==0.42.1 transformers==5.24.0 accelerate ftfy==6.3.1 numpy
    venv/bin/python examples/reference/pipeline_goldens.py [CASE ...]            # makes them
    venv/bin/python examples/reference/pipeline_goldens.py [CASE ...] --report   # checks those that are there; writes nothing

A case is a folder with `pipeline/`, which `save_pretrained` wrote (JSON with its keys in order), and `golden.safetensors`:

    tokens, negative_tokens [1, L]          what the tokenizer makes of the prompts (int32), padding included
    text_mask, negative_text_mask [1, L]    1 where a token counts
    text, negative_text [1, L, D]           what the transformer takes of them
    noise [1, C, F, H, W]                   the latent that sampling starts from
    timesteps [steps]                       what the transformer is called with
    latents [steps, 1, C, F, H, W]          the latent after each step
    video [1, 3, T, rows, cols]             the pixels, in -1 to 1

Its metadata has the prompts, the size, the steps and the guidance. Networks compute in float64, and so does diffusers' code around them (`float64()` of
`wan_goldens.py`); its schedulers have their noise levels in float32, as released. Case i has seed 1500 + 10·i.

`tokenizers.json` has what transformers' own tokenizers make of PROMPTS, with the tokenizer of each case and with a small one of CLIP, which lies in `tokenizer_clip` as
old pipelines have it (`vocab.json`, `merges.txt`); and what Wan's pipeline makes of each prompt before that (`prompt_clean`, with ftfy).
"""

import argparse
import json
import math
import shutil
import unicodedata

import diffusers
import torch
import transformers
from diffusers import (
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from safetensors.torch import load_file
from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer, UMT5Config, UMT5EncoderModel

from decoder_goldens import LTX as LTX_VAE
from decoder_goldens import WAN as WAN_VAE
from decoder_goldens import random_weights as vae_weights
from make_goldens import GOLDENS, write_tensors
from wan_goldens import TINY as WAN
from wan_goldens import float64
from wan_goldens import random_weights as transformer_weights

CORPUS = [
    "a cat walks through the snow and looks at the camera",
    "two dogs play with a red ball on the beach at sunset, slow motion",
    "the camera pans over a quiet city at night, neon lights in the rain",
    "an old woman bakes bread in a small kitchen, warm light from the window",
    "A paper boat floats down the river. It turns, and turns again!",
    "worst quality, inconsistent motion, blurry, jittery, distorted",
    "café, naïve, Ünïcödé; 1234567890 (5%) #1 & more: what's that?",
    "一只猫在雪地里行走 子犬が走る собака бежит",
]
PROMPTS = [
    "",
    " ",
    "a cat",
    "A CAT walks through the SNOW.",
    "  two dogs\tplay \n with   a ball  ",
    "it's the dog's ball, isn't it? they're, we've, I'll, I'd, I'm",
    "“curled quotes”, ‘single’ and an oﬃce… — 5½ ＦＵＬＬ　ｗｉｄｔｈ",
    "caf&eacute; &amp; bar &amp;lt;b&amp;gt; &#128049; &nbsp;x",
    "e\u0301 combines, and ZWJ: 👩‍👩‍👧‍👦 🐈‍⬛ 🇩🇪",
    "一只猫在雪地里行走，镜头缓慢推进。",
    "собака бежит по пляжу 犬が走る שלום مرحبا",
    "</s> <pad> <unk> <extra_id_0> <|endoftext|> <|startoftext|>",
    "1234567890 3.14 #1 50% a_b c-d e/f {g} [h] \\i",
    "zero\u200bwidth \u00a0nbsp \u3000wide \x07bell \x1b[31mred\x1b[0m",
    "a cat walks through the snow and looks at the camera, " * 60,
    "x" * 700,
]
PROMPT = "A cat walks through the snow; two dogs play with a red ball &amp; look at the camera."
NEGATIVE = "worst quality, blurry"


def unigram():
    """T5's tokenizer with a vocabulary of CORPUS: every letter, and the parts of words that save most, by how often they occur."""
    counts = {}
    for line in CORPUS:
        for word in ["\u2581" + word for word in unicodedata.normalize("NFKC", line).split()]:
            for i in range(len(word)):
                for j in range(i + 1, min(i + 7, len(word)) + 1):
                    counts[word[i:j]] = counts.get(word[i:j], 0) + 1
    total = sum(counts.values())
    by_gain = sorted((part for part in counts if len(part) > 1), key=lambda part: (-counts[part] * len(part), part))
    pieces = sorted(part for part in counts if len(part) == 1) + by_gain[:120]
    vocab = [(token, 0.0) for token in ["<pad>", "</s>", "<unk>"]] + [(part, round(math.log(counts[part] / total), 4)) for part in pieces]
    tokenizer = T5Tokenizer(vocab=vocab, extra_ids=4, model_max_length=512)
    assert len(tokenizer) <= 288, len(tokenizer)
    return tokenizer


def clip():
    """CLIP's tokenizer with merges that are made here: the most frequent pairs, first come first."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = alphabet + [letter + "</w>" for letter in alphabet]
    splitter = CLIPTokenizer()._tokenizer
    words = {}
    for line in CORPUS:
        for word, _ in splitter.pre_tokenizer.pre_tokenize_str(splitter.normalizer.normalize_str(line)):
            parts = (*word[:-1], word[-1] + "</w>")
            words[parts] = words.get(parts, 0) + 1
    merges = []
    while len(merges) < 120:
        pairs = {}
        for parts, count in words.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] = pairs.get(pair, 0) + count
        best = max(sorted(pairs), key=pairs.get)
        merges.append(best)
        merged = {}
        for parts, count in words.items():
            out, i = [], 0
            while i < len(parts):
                pair = parts[i : i + 2] == best
                out.append("".join(best) if pair else parts[i])
                i += 2 if pair else 1
            merged[tuple(out)] = merged.get(tuple(out), 0) + count
        words = merged
    vocab += ["".join(pair) for pair in merges] + ["<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(vocab)}, [" ".join(pair) for pair in merges]


def text_weights(model, seed):
    """Seeded weights of an encoder, of such a size that no layer dies out."""
    g = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.state_dict().items()):
        if name == "encoder.embed_tokens.weight":
            continue
        n = torch.randn(p.shape, generator=g, dtype=torch.float64)
        if "norm" in name:
            n = 1 + 0.1 * n
        elif "shared" not in name and "bias.weight" not in name:
            n /= p.shape[1] ** 0.5
        if name.endswith((".q.weight", ".k.weight")):
            n /= model.config.d_kv**0.25
        p.copy_(n)


def wan(seed, *, pair=False):
    tokenizer = unigram()
    text_encoder = UMT5EncoderModel(UMT5Config(vocab_size=288, d_model=24, d_kv=8, d_ff=40, num_layers=2, num_heads=3, feed_forward_proj="gated-gelu"))
    config = WAN | dict(text_dim=24, num_layers=2, ffn_dim=64)
    transformers = [WanTransformer3DModel(**config) for _ in range(1 + pair)]
    vae = AutoencoderKLWan(**WAN_VAE)
    text_weights(text_encoder, seed)
    for i, transformer in enumerate(transformers):
        transformer_weights(transformer, seed + 1 + i)
    vae_weights(vae.state_dict(), seed + 3)
    # As Wan 2.1 T2V has it for 480 pixels; the pair with other fields, so that they matter.
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, **(dict(disable_corrector=[2], flow_shift=4.0) if pair else dict(flow_shift=3.0))
    )
    return WanPipeline(
        tokenizer=tokenizer, text_encoder=text_encoder, transformer=transformers[0], vae=vae, scheduler=scheduler,
        transformer_2=transformers[1] if pair else None, boundary_ratio=0.875 if pair else None,
    )


def ltx(seed):
    tokenizer = unigram()
    text_encoder = T5EncoderModel(T5Config(vocab_size=288, d_model=24, d_kv=8, d_ff=40, num_layers=2, num_heads=3, feed_forward_proj="gated-gelu"))
    transformer = LTXVideoTransformer3DModel(
        in_channels=6, out_channels=6, num_attention_heads=2, attention_head_dim=24, cross_attention_dim=48, num_layers=2, caption_channels=24,
    )
    vae = AutoencoderKLLTXVideo(**LTX_VAE)
    text_weights(text_encoder, seed)
    transformer_weights(transformer, seed + 1)
    vae_weights(vae.state_dict(), seed + 3)
    # As LTX-Video 0.9.0.
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000, shift=1.0, use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, max_image_seq_len=4096, shift_terminal=0.1,
    )
    return LTXPipeline(tokenizer=tokenizer, text_encoder=text_encoder, transformer=transformer, vae=vae, scheduler=scheduler)


# name: (pipeline, its class, dtype of the weights, arguments of the call)
CASES = {
    "pipeline_wan": (wan, WanPipeline, torch.bfloat16, dict(width=48, height=32, num_frames=9, num_inference_steps=4, guidance_scale=5.0)),
    "pipeline_wan22": (
        lambda seed: wan(seed, pair=True), WanPipeline, torch.bfloat16,
        dict(width=32, height=32, num_frames=5, num_inference_steps=6, guidance_scale=4.0, guidance_scale_2=3.0),
    ),
    "pipeline_ltx": (ltx, LTXPipeline, torch.bfloat16, dict(width=96, height=64, num_frames=9, num_inference_steps=3, guidance_scale=3.0)),
}


def tidy(folder):
    """JSON with its keys in order, and without what depends on the machine."""
    for file in folder.rglob("*.json"):
        value = json.loads(file.read_text())
        if file.name != "tokenizer.json" and isinstance(value, dict):
            value.pop("_name_or_path", None)
            file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def sample(name, folder, case, noise):
    """What diffusers' pipeline makes of the stored pipeline."""
    _, kind, _, call = case
    with float64():
        pipe = kind.from_pretrained(folder, torch_dtype=torch.float64)
    pipe.set_progress_bar_config(disable=True)
    is_wan = kind is WanPipeline
    longest = 512 if is_wan else 128
    made = {}
    for key, prompt in [("", PROMPT), ("negative_", NEGATIVE)]:
        encoded = pipe.tokenizer(prompt_clean(prompt) if is_wan else prompt, padding="max_length", max_length=longest, truncation=True, return_tensors="pt")
        made |= {f"{key}tokens": encoded.input_ids.int(), f"{key}text_mask": encoded.attention_mask}
    latents, timesteps, seen = [], [], []

    def unpacked(latent):
        if is_wan:
            return latent
        return pipe._unpack_latents(latent, *noise.shape[2:], 1, 1)

    def after(_pipe, _step, timestep, values):
        latents.append(unpacked(values["latents"]).double())
        timesteps.append(float(timestep))
        return {}

    def watch(_module, _args, kwargs):
        seen.append(kwargs["encoder_hidden_states"].double())

    for transformer in [pipe.transformer, getattr(pipe, "transformer_2", None)]:
        if transformer is not None:
            transformer.register_forward_pre_hook(watch, with_kwargs=True)
    given = noise if is_wan else pipe._pack_latents(noise, 1, 1)
    with float64():
        pixels = pipe(
            prompt=PROMPT, negative_prompt=NEGATIVE, latents=given.double(), output_type="pt", callback_on_step_end=after, max_sequence_length=longest, **call
        ).frames
    if is_wan:
        made |= {"text": seen[0], "negative_text": seen[1]}
    else:
        made |= {"negative_text": seen[0][:1], "text": seen[0][1:]}
    made |= {"timesteps": torch.tensor(timesteps), "latents": torch.stack(latents), "video": pixels.double().transpose(1, 2) * 2 - 1}
    video = made["video"]
    bounds = (video.abs() >= 1).double().mean()
    print(f"{name}: latent {tuple(noise.shape)} std {latents[-1].std():.2f}, video {tuple(video.shape)} std {video.std():.2f}, {bounds:.1%} at the bounds, timesteps {timesteps}")
    assert all(x.isfinite().all() for x in made.values())
    return {key: value if value.dtype == torch.int32 else value.float().contiguous() for key, value in made.items()}


def make(name, case, seed):
    build, kind, dtype, call = case
    folder = GOLDENS / name
    if folder.exists():
        shutil.rmtree(folder)
    pipe = build(seed)
    pipe.to(dtype).save_pretrained(folder / "pipeline")
    tidy(folder / "pipeline")
    is_wan = kind is WanPipeline
    temporal, spatial = (4, 8) if is_wan else (8, 32)
    channels = pipe.transformer.config.in_channels
    shape = (1, channels, (call["num_frames"] - 1) // temporal + 1, call["height"] // spatial, call["width"] // spatial)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 5))
    tensors = {"noise": noise} | sample(name, folder / "pipeline", case, noise)
    metadata = {
        "generator": "examples/reference/pipeline_goldens.py", "prompt": PROMPT, "negative": NEGATIVE, **{key: str(value) for key, value in call.items()},
        "seed": str(seed), "torch": torch.__version__.split("+")[0], "diffusers": diffusers.__version__, "transformers": transformers.__version__,
    }
    write_tensors(folder / "golden.safetensors", dict(sorted(tensors.items())), metadata)


def check(name, case):
    golden = load_file(GOLDENS / name / "golden.safetensors")
    again = sample(name, GOLDENS / name / "pipeline", case, golden["noise"])
    for key, value in again.items():
        error = (golden[key].double() - value.double()).norm() / value.double().norm()
        if not error < 1e-6:
            raise SystemExit(f"{name}: golden.safetensors: {key}: relative L2 error {error:.1e}, expected below 1e-6")


def token_cases():
    """What transformers makes of the prompts."""
    t5 = T5Tokenizer.from_pretrained(GOLDENS / "pipeline_wan" / "pipeline" / "tokenizer")
    byte = CLIPTokenizer.from_pretrained(GOLDENS / "tokenizer_clip")
    cases = []
    for prompt in PROMPTS:
        case = {"prompt": prompt, "cleaned": prompt_clean(prompt)}
        for key, tokenizer, text, longest in [("t5", t5, prompt, 48), ("wan", t5, case["cleaned"], 512), ("clip", byte, prompt, 77)]:
            encoded = tokenizer(text, padding="max_length", max_length=longest, truncation=True)
            counting = sum(encoded.attention_mask)
            case[key] = {"length": longest, "counting": counting, "ids": encoded.input_ids[:counting], "whole": len(tokenizer(text).input_ids)}
        cases.append(case)
    return {"transformers": transformers.__version__, "t5_padding": t5.pad_token_id, "clip_padding": byte.pad_token_id, "cases": cases}


def make_tokens():
    folder = GOLDENS / "tokenizer_clip"
    folder.mkdir(exist_ok=True)
    vocab, merges = clip()
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False, separators=(",", ":")) + "\n")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (GOLDENS / "tokenizers.json").write_text(json.dumps(token_cases(), indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"any of {', '.join(CASES)}, tokenizers (default: all)")
    parser.add_argument("--report", action="store_true", help="reports on the goldens that are there, and writes nothing")
    args = parser.parse_args()
    if unknown := set(args.cases) - CASES.keys() - {"tokenizers"}:
        parser.error(f"no case {', '.join(sorted(unknown))}: expected any of {', '.join(CASES)}, tokenizers")
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    names = args.cases or [*CASES, "tokenizers"]
    with torch.no_grad():
        for i, (name, case) in enumerate(CASES.items()):
            if name in names:
                check(name, case) if args.report else make(name, case, 1500 + 10 * i)
        if "tokenizers" in names:
            if not args.report:
                make_tokens()
            elif json.loads((GOLDENS / "tokenizers.json").read_text()) != token_cases():
                raise SystemExit("tokenizers.json: other tokens than those of transformers")
    for name in names:
        for file in sorted((GOLDENS / name).rglob("*")):
            if file.is_file():
                print(f"{file.stat().st_size:9} {file.relative_to(GOLDENS)}")


if __name__ == "__main__":
    main()
