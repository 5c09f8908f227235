"""S2DiT as a stream: a video chunk by chunk, in constant memory, and the proof that it is the same network.

    python stream.py --check

A chunk sees itself whole and the clean chunks before it, through the states of each block's `attn1`:

- softmax attention ("ssa", "full", "kv_compressed"): keys, behind norm and RoPE, and values of the last `window_frames` frames, and of the stream's first
  `sink_frames` frames as far as they are not among those: `Window`;
- "lcha", "linear", "local": the sums S and z of linear attention over all frames so far, and the last kt-1 frames of the convolution's
  input, whichever of them the block has: `Sums`.

`denoise` reads the states. With `state_write` "commit" the network runs once more on the finished chunk, at t = 0, and writes them; with
"last_step" the last denoising step writes them, from the noisy chunk at its t. RoPE counts frames from the stream's first. `--check`
compares a stream whose every pass writes with the whole clip at the same t under masks, which knows no states: `Masked`.
"""

import argparse
import itertools
import math

import torch
import torch.nn.functional as F

from s2dit import Config, from_random, linear_sums, low_grid, read_sums, softmax_attention


SUMS = ("lcha", "linear", "local")


class Window:
    """The past of softmax attention: keys and values [B, A, up to `tokens`, d], oldest first, and those of the stream's first `sink` tokens."""

    def __init__(self, tokens, sink):
        self.tokens, self.sink = tokens, sink
        self.k = self.v = self.sink_k = self.sink_v = None
        self.past = 0  # tokens written so far
        self.writing = False

    def softmax_attention(self, q, k, v):
        seen = [k, v]
        if self.past > 0:
            apart = max(0, min(self.sink, self.past - self.tokens))  # sinks that have left the window
            seen = [
                torch.cat([first[:, :, :apart], window, own], dim=2)
                for first, window, own in ((self.sink_k, self.k, k), (self.sink_v, self.v, v))
            ]
        if self.writing:
            self.k, self.sink_k = self.moved(self.k, self.sink_k, k)
            self.v, self.sink_v = self.moved(self.v, self.sink_v, v)
            self.past += k.shape[2]
        return softmax_attention(q, *seen)

    def moved(self, window, first, own):
        """The window and the sinks after the tokens of `own`."""
        window = own if window is None else torch.cat([window, own], dim=2)
        first = own if first is None else torch.cat([first, own], dim=2) if first.shape[2] < self.sink else first
        return window[:, :, max(0, window.shape[2] - self.tokens) :].clone(), first[:, :, : self.sink].clone()


class Sums:
    """The past of LCHA: S [B, A, d, d], z [B, A, 1, d] and the frames before the chunk [B, D, kt-1, h, w], zeros at the start.

    z sums the keys of the normaliser: with `rope_in_kernel` "post", those without RoPE; S has those with it.
    """

    def __init__(self, frames):
        self.frames = frames
        self.S = self.z = self.tail = None
        self.writing = False

    def linear_attention(self, q, k, q_rot, k_rot, v):
        S, z = linear_sums(k, k_rot, v)
        if self.S is not None:
            S, z = self.S + S, self.z + z
        if self.writing:
            self.S, self.z = S, z
        return read_sums(q, q_rot, S, z)

    def frames_before(self, x):
        """x [B, D, F, h, w] -> [B, D, kt-1 + F, h, w]"""
        tail = self.tail
        if tail is None:
            tail = x.new_zeros(*x.shape[:2], self.frames, *x.shape[3:])
        x = torch.cat([tail, x], dim=2)
        if self.writing:
            self.tail = x[:, :, x.shape[2] - self.frames :].clone()
        return x


def frame_tokens(config, x, kind):
    """Tokens of a frame of x [B, C, F, H, W] in a block of this kind."""
    _, ph, pw = config.patch_size
    grid = (1, x.shape[3] // ph, x.shape[4] // pw)
    if kind == "kv_compressed":
        return math.prod(grid) // config.kv_stride**2
    return math.prod(low_grid(config, grid) if kind == "ssa" else grid)


class Stream:
    """One video in the making: text [1, L, text_dim], chunks [1, C, chunk_frames, H, W]."""

    def __init__(self, model, text):
        config = model.config
        if config.chunk_frames is None:
            raise ValueError("chunk_frames is null: a bidirectional checkpoint makes whole clips, not streams")
        if config.in_channels != config.out_channels:
            raise ValueError(f"{config.in_channels} channels in and {config.out_channels} out: a stream feeds on its own latents")
        self.model, self.text = model, text.to(model.proj_out.weight)
        self.chunks = 0  # that are past
        self.pasts = None

    def make_pasts(self, x):
        config = self.model.config

        def window(kind):
            tokens = frame_tokens(config, x, kind)
            return Window(config.window_frames * tokens, config.sink_frames * tokens)

        return [Sums(config.conv_kernel[0] - 1) if kind in SUMS else window(kind) for kind in config.layout]

    @torch.no_grad()
    def step(self, x, t, writing, **options):
        """The network at timestep t, a number, on the next chunk."""
        frames = self.model.config.chunk_frames
        if x.shape[2] != frames:
            raise ValueError(f"a chunk of {x.shape[2]} frames: expected {frames}")
        self.pasts = self.pasts or self.make_pasts(x)
        for past in self.pasts:
            past.writing = writing
        t = torch.tensor([t], dtype=torch.float64)
        start = self.chunks * frames
        self.chunks += writing
        return self.model(x.to(self.text), t, self.text, start=start, pasts=self.pasts, **options)

    def denoise(self, x, t):
        """The velocity of a noisy chunk."""
        return self.step(x, t, writing=False)

    def commit(self, x):
        """A clean chunk becomes past."""
        self.step(x, 0.0, writing=True)

    def make_chunk(self, noise):
        """noise [steps, 1, C, F, H, W] -> the chunk [1, C, F, H, W], which is then past. The first noise starts it, the others re-noise."""
        steps = schedule(self.model.config)
        commits = self.model.config.state_write == "commit"
        if len(noise) != len(steps):
            raise ValueError(f"{len(noise)} noises for {len(steps)} steps")
        x = noise[0]
        for i, (t, sigma) in enumerate(steps):
            if i > 0:
                x = (1 - sigma) * x + sigma * noise[i]
            writing = not commits and i == len(steps) - 1
            x = x - sigma * self.step(x, t, writing).to(x)
        if commits:
            self.commit(x)
        return x

    def states(self):
        """Name -> tensor."""
        return {
            f"blocks.{i}.attn1.{name}": value
            for i, past in enumerate(self.pasts or [])
            for name, value in vars(past).items()
            if isinstance(value, torch.Tensor)
        }


def schedule(config):
    """[(t, sigma)] of the AR sampler. t is rounded to float32, as the network's timestep input is; sigma is not."""
    steps = []
    for step in config.sample_steps:
        sigma, s = step / 1000, config.flow_shift
        sigma = s * sigma / (1 + (s - 1) * sigma)
        steps.append((torch.tensor(1000 * sigma, dtype=torch.float32).item(), sigma))
    return steps


def stream(model, text, noise):
    """noise [chunks, steps, 1, C, F, H, W] -> latents [chunks, 1, C, F, H, W]. The sampler computes in the noise's dtype."""
    s = Stream(model, text)
    return torch.stack([s.make_chunk(n) for n in noise])


class Masked:
    """All chunks of a clip at once: token by token, who sees whom. Slow and without states: linear attention is quadratic here.

    The convolution needs no mask: it is causal frame by frame.
    """

    def __init__(self, frames, tokens, chunk, window, sink, frames_before):
        self.frames_before_first = frames_before
        frame = torch.arange(frames).repeat_interleave(tokens)
        begin = (frame // chunk * chunk)[:, None]  # the first frame of the query's chunk
        self.seen = frame < begin + chunk
        self.in_window = self.seen & ((frame >= begin - window) | (frame < sink))

    def softmax_attention(self, q, k, v):
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        return scores.masked_fill(~self.in_window, -torch.inf).softmax(-1) @ v

    def linear_attention(self, q, k, q_rot, k_rot, v):
        numerator = (q_rot @ k_rot.transpose(-1, -2) * self.seen) @ v
        return numerator / ((q @ k.transpose(-1, -2) * self.seen).sum(-1, keepdim=True) + 1e-6)

    def frames_before(self, x):
        return F.pad(x, (0, 0, 0, 0, self.frames_before_first, 0))


@torch.no_grad()
def masked_clip(model, x, t, text, window, sink):
    """The whole clip [1, C, F, H, W] at one t under chunk-causal masks: (velocity, [x after each block])."""
    config = model.config
    pasts = [
        Masked(x.shape[2], frame_tokens(config, x, kind), config.chunk_frames, window, sink, config.conv_kernel[0] - 1)
        for kind in config.layout
    ]
    return model(x, torch.tensor([t], dtype=torch.float64), text, return_blocks=True, pasts=pasts)


def error(x, reference):
    assert x.isfinite().all() and reference.isfinite().all()
    return ((x - reference).norm() / reference.norm()).item()


def check_commits(config, t, chunks, size, seed):
    """A stream that writes its states at t against the masked clip, velocity and blocks, and against clips under wrong masks."""
    model = from_random(config, seed).double()
    g = torch.Generator().manual_seed(seed)
    frames, window, sink = config.chunk_frames, config.window_frames, config.sink_frames
    x = torch.randn(1, config.in_channels, chunks * frames, *size, generator=g, dtype=torch.float64)
    text = torch.randn(1, config.text_len, config.text_dim, generator=g, dtype=torch.float64)

    s, velocities, blocks = Stream(model, text), [], []
    for chunk in x.split(frames, dim=2):
        before = {name: value.clone() for name, value in s.states().items()}
        read = s.denoise(chunk, t)
        after = s.states()
        assert before.keys() == after.keys() and all(before[name].equal(after[name]) for name in after), "denoise wrote a state"
        velocity, outputs = s.step(chunk, t, writing=True, return_blocks=True)
        assert read.equal(velocity), "denoise and commit read the same states differently"
        velocities.append(velocity)
        blocks.append(outputs)
    streamed = [torch.cat(velocities, dim=2)] + [torch.cat(parts, dim=1) for parts in zip(*blocks)]

    velocity, outputs = masked_clip(model, x, t, text, window, sink)
    worst = max(error(a, b) for a, b in zip(streamed, [velocity] + outputs))
    assert worst < 1e-12, f"{worst:.1e}"

    # What the last chunk would be with one thing wrong: how plainly this check, and the goldens, would see it.
    last = velocities[-1]
    seen = {"no past": error(model(x[:, :, -frames:], torch.tensor([t]), text, start=x.shape[2] - frames), last)}
    if set(config.layout) - set(SUMS):
        masks = [(w, sink) for w in (window - 1, window + 1) if w >= 0] + [(window, s) for s in (sink - 1, sink + 1) if s >= 0]
        for wrong in masks:
            seen["window {}, sink {}".format(*wrong)] = error(masked_clip(model, x, t, text, *wrong)[0][:, :, -frames:], last)
    for wrong in ("S", "z", "tail", "k", "v"):
        pasts = [past for past in s.pasts if getattr(past, wrong, None) is not None and getattr(past, wrong).numel()]
        if pasts:
            seen[f"stale {wrong}"] = stale(model, text, x, t, wrong, last)
    seen["RoPE from 0"] = error(restarted_rope(model, text, x, t), last)
    assert min(seen.values()) > 1e-5, seen
    return worst, seen


def stale(model, text, x, t, wrong, last):
    """The error of the last chunk when the commit before it did not write the states of this name."""
    s = Stream(model, text)
    chunks = x.split(model.config.chunk_frames, dim=2)
    for i, chunk in enumerate(chunks[:-1]):
        kept = [getattr(past, wrong, None) for past in s.pasts or []]
        s.step(chunk, t, writing=True)
        if i == len(chunks) - 2:
            for past, value in zip(s.pasts, kept):
                if value is not None:
                    setattr(past, wrong, value)
    return error(s.denoise(chunks[-1], t), last)


def restarted_rope(model, text, x, t):
    """The last chunk when its RoPE counts from 0."""
    s = Stream(model, text)
    chunks = x.split(model.config.chunk_frames, dim=2)
    for chunk in chunks[:-1]:
        s.step(chunk, t, writing=True)
    s.chunks = 0
    return s.denoise(chunks[-1], t)


def check():
    torch.set_grad_enabled(False)
    small = dict(
        in_channels=2, out_channels=2, patch_size=[1, 1, 1], num_attention_heads=2, attention_head_dim=8, ffn_dim=24, text_dim=6,
        text_len=3, freq_dim=8,
    )
    layouts = (["lcha"], ["ssa"], ["full"], ["lcha", "ssa", "ssa", "full", "lcha", "ssa"], ["linear", "local", "kv_compressed"])
    # Chunk, window, sink, kernel in time, size: the sinks are longer than a chunk, one alone, or the only past; grids that the stride cuts.
    shapes = (
        (1, 3, 0, 3, (2, 6)), (2, 4, 3, 5, (3, 5)), (3, 7, 1, 3, (2, 6)), (3, 2, 0, 1, (5, 3)), (1, 2, 2, 3, (3, 4)), (2, 0, 3, 3, (2, 3)),
    )
    print("a stream whose every pass writes against the masked clip: float64, relative L2, the worst of velocity and blocks")
    for layout, rope, (chunk, window, sink, kt, size) in itertools.product(layouts, ("pre", "post"), shapes):
        if rope == "post" and "lcha" not in layout:
            continue
        config = Config(
            **small, layout=layout, rope_in_kernel=rope, chunk_frames=chunk, window_frames=window, sink_frames=sink,
            conv_kernel=[kt, 3, 3], qk_norm="rms_norm_per_head" if chunk == 2 else "rms_norm_across_heads",
        )
        chunks = 3 + -(-(window + sink) // chunk)
        worst, seen = check_commits(config, 0.0 if chunk == 3 else 625.0, chunks, size, seed=chunk + window)
        name, least = min(seen.items(), key=lambda item: item[1])
        print(
            f"{'+'.join(layout):27} {rope:4} chunk {chunk} window {window} sink {sink} kernel {kt} chunks {chunks}: {worst:.0e}"
            f" (mistakes show: {name} {least:.0e} or more)"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", required=True, help="compares streams with masked clips")
    parser.parse_args()
    check()
