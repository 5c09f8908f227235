"""Stage 6: the stream. Causal, chunk by chunk, four steps a chunk.

    python train_ar.py                       # from the weights of kd: chunks on right pasts (teacher forcing)
    python train_ar.py --self-forcing        # then on pasts that the network made
    python train_ar.py --dmd                 # then, beside that, distribution matching for the chunk that begins a stream
    python train_ar.py --export              # writes the weights of the run as it stands

First, chunks are noised as in training clips, on states that the last step wrote from the right chunks before, noised as they are at that step.

A chunk but the first follows from those before it: in this world motion is uniform. So a stream whose first chunk is given has one right continuation, however long, and with
`--self-forcing` the network is led along it on its own chunks: at every chunk it runs its own sampler from noise, on states that its own last steps wrote, and every step's estimate is
compared with the right chunk. This is for a network that follows its past already: one that loses track of where things are learns a blur. Groups of streams live on from step to step,
each at its own age, one of them for the whole run, which is much longer than the window.

The chunk that begins a stream has no one right answer, and an estimate of the mean is a blur. It learns by distribution matching (DMD): the stream's network makes it in four steps; where
a score of real clips (the kd network) and a score of what is made (a copy that follows) differ, what is made is moved. `--dmd` does this in every step, beside the streams.
"""

import argparse
import copy

import torch

import models
import text as text_of
from latents import Latents
from training import Training, stage_arguments
from train_dit import caption_tokens, flow_loss, levels

from stream import Sums, Window, frame_tokens, schedule, SUMS  # of examples/reference, whose path models.py adds


def new_pasts(config, x):
    """The states of a batch of streams, block by block."""
    def past(kind):
        if kind in SUMS:
            return Sums(config.conv_kernel[0] - 1)
        tokens = frame_tokens(config, x, kind)
        return Window(config.window_frames * tokens, config.sink_frames * tokens)

    return [past(kind) for kind in config.layout]


def call(model, x, sigma, text, chunk, pasts, writing):
    """The estimate of the clean chunk, and the velocity."""
    for past in pasts:
        past.writing = writing
    sigma = torch.as_tensor(sigma, dtype=torch.float32).expand(len(x))
    v = model(x, 1000 * sigma.double(), text, start=chunk * x.shape[2], pasts=pasts)
    return x - sigma.view(-1, 1, 1, 1, 1) * v, v


def detach(pasts):
    for past in pasts:
        for name, value in vars(past).items():
            if isinstance(value, torch.Tensor):
                setattr(past, name, value.detach())


def renoised(x, sigma):
    return (1 - sigma) * x + sigma * torch.randn_like(x)


class Streams:
    """A group of streams of one age, with the right latents."""

    def __init__(self, data, rng, size, embedded):
        self.clips, scene = data.batch(rng, size)
        self.text, self.chunk, self.pasts = embedded[scene], 0, None

    def right(self, frames):
        """The right chunk. The world repeats every 8 latent frames, but for the first frame, which is a picture by itself."""
        k = torch.arange(self.chunk * frames, (self.chunk + 1) * frames)
        return self.clips[:, :, torch.where(k == 0, 0, 1 + (k - 1) % 8)]


def streams_loss(model, group, sigmas, rng, begins=True):
    """One chunk of a group: its own sampler, every step compared; the last one writes the states. Without `begins`, the steps of a first chunk but the last are left to DMD."""
    right = group.right(model.config.chunk_frames)
    group.pasts = group.pasts or new_pasts(model.config, right)
    last, loss = len(sigmas) - 1, 0.0
    middle = int(rng.integers(1, last))
    x = torch.randn_like(right)
    errors = []
    for i in [0, middle, last]:
        sigma = sigmas[i]
        if group.chunk == 0 and not begins and i < last:
            continue
        if group.chunk == 0 and i > 0:
            x = renoised(right, sigma)
        clean, _ = call(model, x, sigma, group.text, group.chunk, group.pasts, writing=i == last)
        error = (clean - right).pow(2).mean()
        loss = loss + error / max(sigma, 0.3) ** 2
        errors.append(float(error.detach()))
        if i < last:
            after = sigmas[middle] if i == 0 else sigmas[last]
            x = renoised(clean.detach(), after)
    detach(group.pasts)
    group.chunk += 1
    return loss / 3, errors[-1]


def teacher_loss(model, group, sigmas, rng):
    """One chunk of a group as training clips are noised, at levels of all kinds, and at the last step's, which writes the states."""
    right = group.right(model.config.chunk_frames)
    group.pasts = group.pasts or new_pasts(model.config, right)
    loss, error = 0.0, 0.0
    for sigma in (models.shifted(levels(rng, len(right)), model.config.flow_shift).view(-1, 1, 1, 1, 1), torch.tensor(sigmas[-1])):
        noise = torch.randn_like(right)
        writing = sigma.dim() == 0
        clean, v = call(model, (1 - sigma) * right + sigma * noise, sigma.flatten() if not writing else sigma, group.text, group.chunk, group.pasts, writing)
        loss, error = loss + (v - (noise - right)).pow(2).mean(), float((clean.detach() - right).pow(2).mean())
    detach(group.pasts)
    group.chunk += 1
    return loss / 2, error


def begin(model, text, sigmas, shape, exit_at):
    """The first chunk as the sampler makes it, up to step `exit_at`, which alone has a gradient."""
    x = torch.randn(shape)
    for i, sigma in enumerate(sigmas[: exit_at + 1]):
        pasts = new_pasts(model.config, x)
        with torch.set_grad_enabled(i == exit_at):
            clean, _ = call(model, x, sigma, text, 0, pasts, writing=False)
        if i < exit_at:
            x = renoised(clean, sigmas[i + 1])
    return clean


def dmd_loss(made, text, real, fake, rng):
    """Moves `made` by the difference of two estimates of what is clean in it, noised: of real clips, and of what the stream makes."""
    with torch.no_grad():
        sigma = models.shifted(torch.from_numpy(rng.uniform(0.05, 0.95, len(made))).float()).view(-1, 1, 1, 1, 1)
        x = (1 - sigma) * made + sigma * torch.randn_like(made)
        t = 1000 * sigma.flatten().double()
        good, own = x - sigma * real(x, t, text), x - sigma * fake(x, t, text)
        size = (made - good).abs().mean((1, 2, 3, 4), keepdim=True).clamp(min=0.02)
        target = made - (own - good) / size
    return 0.5 * (made - target).pow(2).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stage_arguments(parser, steps=400, batch=32, lr=1e-3)
    parser.add_argument("--begin-from", default="kd", choices=["pretrained", "kd", "ar"], help="whose shipped weights")
    parser.add_argument("--groups", type=int, default=6)
    parser.add_argument("--self-forcing", action="store_true")
    parser.add_argument("--dmd", action="store_true")
    parser.add_argument("--export", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data, encoder = Latents(), text_of.load_encoder()
    with torch.no_grad():
        embedded = text_of.encode(encoder, caption_tokens(data.all))
    model = models.load("ar" if args.dmd or args.self_forcing else args.begin_from)
    model.config = models.STREAM
    sigmas = [sigma for _, sigma in schedule(models.STREAM)]
    args.run = args.run or ("ar-dmd" if args.dmd else "ar-self" if args.self_forcing else "ar")
    modules = {"model": model}
    if args.dmd:
        real, fake = models.load("kd").requires_grad_(False), models.load("kd")
        follower = torch.optim.AdamW(fake.parameters(), lr=5e-4, betas=(0.0, 0.98), weight_decay=0.0)
    training = Training(args.run, modules, args, ema=0.99)
    if args.export:
        training.use_averages()
        return models.save(model, "ar")
    groups = {}

    def loss_of(step, rng):
        # The first group lives long and has every third step; the others live for a dozen chunks.
        turn = 0 if step % 3 == 0 else 1 + step // 3 * 2 % (args.groups - 1) + step % 3 - 1
        group = groups.get(turn)
        if group is None or (turn > 0 and rng.random() < 1 / 8):
            group = groups[turn] = Streams(data, rng, args.batch, embedded)
        if args.self_forcing or args.dmd:
            loss, error = streams_loss(model, group, sigmas, rng, begins=not args.dmd)
        else:
            loss, error = teacher_loss(model, group, sigmas, rng)
        figures = {"streams": float(loss.detach()), "last": error, "age": group.chunk}
        if args.dmd:
            scene = torch.from_numpy(rng.integers(0, len(data.all), args.batch))
            shape = (args.batch, *data.latents.shape[1:2], models.STREAM.chunk_frames, *data.latents.shape[3:])
            made = begin(model, embedded[scene], sigmas, shape, int(rng.integers(0, len(sigmas))))
            follow = flow_loss(fake, made.detach(), embedded[scene], levels(rng, args.batch))
            follower.zero_grad(set_to_none=True)
            follow.backward()
            torch.nn.utils.clip_grad_norm_(fake.parameters(), 1.0)
            follower.step()
            moved = dmd_loss(made, embedded[scene], real, fake, rng)
            loss = loss + moved
            figures |= {"dmd": float(moved.detach()), "follower": float(follow.detach())}
        return loss, figures

    training.loop(loss_of, lambda: models.save(model, "ar"))


if __name__ == "__main__":
    main()
