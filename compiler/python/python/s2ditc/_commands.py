"""The commands of s2ditc as functions.

Written from `--help` by `S2DITC_BLESS=1 cargo test -p s2ditc --all-features --locked --test commands python_module`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Optional, Union

from ._command import Path, Watch, command, many, sides

__all__ = ["init", "inspect", "compile", "quantize", "verify", "run", "stream", "decode", "generate", "ranges", "lint", "estimate", "search", "passes", "explain", "demo"]


def init(
    *,
    output: Path,
    preset: Optional[str] = None,
    set: Union[str, Sequence[str], None] = None,
    seed: Optional[int] = None,
    dtype: Optional[str] = None,
    max_shard_size: Optional[Union[int, str]] = None,
    threads: Optional[int] = None,
    force: bool = False,
    no_sync: bool = False,
    progress: Watch = None,
) -> Any:
    """Make a checkpoint with seeded random weights.

    Args:
        preset: Configuration to start from, such as tiny, small, 1.8b, mobile, wan2.1-1.3b, self-forcing-1.3b, ltx-video-2b, open-sora-2-11b,
            clip-vit-l; a wrong name lists all [default: tiny].
        set: Change a field of the configuration; repeatable.
        seed: Seed of the weights [default: 0].
        dtype: Element type: bf16, fp16 or fp32 [default: bf16].
        max_shard_size: Split the weights into files of at most this size, such as 500MB.
        output: Folder to make.
        threads: Threads to use (default: all cores); what is compiled does not depend on it, and what a model computes differs by rounding at most.
        force: Replace outputs that s2ditc did not make, too; a folder with other things in it is never replaced.
        no_sync: Do not wait until outputs are on the disk: faster, and lost if the machine stops now.
        progress: Called with each step of the work; True shows a line, False shows nothing and keeps quiet, and without it a line is shown in a
            terminal or a notebook.

    Returns:
        The report that the command prints with --json.

    Raises:
        Error: The command failed; the message is the command line's.
    """
    flags = {
        "--preset": preset,
        "--set": many(set),
        "--seed": seed,
        "--dtype": dtype,
        "--max-shard-size": max_shard_size,
        "--output": output,
        "--threads": threads,
        "--force": force,
        "--no-sync": no_sync,
        "--json": True,
    }
    return command("init", [], flags, progress)


def inspect(
    path: Path,
    *,
    config: Optional[Path] = None,
    state_dict: Optional[str] = None,
    lora: Union[Path, Sequence[Path], None] = None,
    input: Union[str, Sequence[str], None] = None,
    result: Union[str, Sequence[str], None] = None,
    bind: Union[str, Sequence[str], None] = None,
    offline: bool = False,
    latent: Optional[Union[str, Sequence[int]]] = None,
    tokens: Optional[int] = None,
    threads: Optional[int] = None,
    force: bool = False,
    no_sync: bool = False,
    progress: Watch = None,
) -> Any:
    """Show what a checkpoint, a graph, an ONNX file, an mlpackage or a kernel folder is.

    Args:
        path: Checkpoint (a folder, a file of weights, or OWNER/NAME on the Hugging Face hub), graph that PyTorch exported, .onnx file, .mlpackage or
            kernel folder.
        config: Configuration in place of the one that lies with the weights [default: config.json beside them].
        state_dict: Which dictionary of tensors to take of a PyTorch checkpoint with several, such as generator_ema [default: the only one with names
            of the model].
        lora: Merge a LoRA file, or PEFT's folder with one, into the weights, SCALE times [default: 1]; repeatable.
        input: Role of a graph's input: latent=x, time=t[:LOW:HIGH], text=y, text_mask=m, tokens=ids[:VOCABULARY], image=i, pooled=p, guidance=g or
            other=z; repeatable [default: guessed from names and shapes, which inspect shows].
        result: Role of a graph's result: velocity=v, video=v, text=t, pooled=p, embedding=e or other=y; repeatable.
        bind: Value of a graph's symbolic size, such as s0=77; repeatable.
        offline: Fetch nothing: of the Hugging Face hub take only what its cache has.
        latent: Latent frames, rows and columns for a checkpoint's costs [default: 3x36x64, or the nearest that fits].
        tokens: Text tokens for the costs of a text encoder's checkpoint [default: those that pipelines pad to].
        threads: Threads to use (default: all cores); what is compiled does not depend on it, and what a model computes differs by rounding at most.
        force: Replace outputs that s2ditc did not make, too; a folder with other things in it is never replaced.
        no_sync: Do not wait until outputs are on the disk: faster, and lost if the machine stops now.
        progress: Called with each step of the work; True shows a line, False shows nothing and keeps quiet, and without it a line is shown in a
            terminal or a notebook.

    Returns:
        The report that the command prints with --json.

    Raises:
        Error: The command failed; the message is the command line's.
    """
    flags = {
        "--config": config,
        "--state-dict": state_dict,
        "--lora": many(lora),
        "--input": many(input),
        "--result": many(result),
        "--bind": many(bind),
        "--offline": offline,
        "--latent": sides(latent),
        "--tokens": tokens,
        "--threads": threads,
        "--force": force,
        "--no-sync": no_sync,
        "--json": True,
    }
    return command("inspect", [path], flags, progress)


def compile(
    checkpoint: Path,
    *,
    component: Optional[str] = None,
    config: Optional[Path] = None,
    state_dict: Optional[str] = None,
    lora: Union[Path, Sequence[Path], None] = None,
    input: Union[str, Sequence[str], None] = None,
    result: Union[str, Sequence[str], None] = None,
    bind: Union[str, Sequence[str], None] = None,
    offline: bool = False,
    target: Optional[str] = None,
    latent: Optional[Union[str, Sequence[int]]] = None,
    chunk: Optional[int] = None,
    window: Optional[int] = None,
    sinks: Optional[int] = None,
    state_write: Optional[str] = None,
    sample_steps: Union[float, Sequence[float], None] = None,
    flow_shift: Optional[float] = None,
    tokens: Optional[int] = None,
    size: Optional[str] = None,
    frames: Optional[int] = None,
    components: Union[str, Sequence[str], None] = None,
    dry_run: bool = False,
    batch: Optional[int] = None,
    mode: Optional[Literal["clip", "stream"]] = None,
    states: Optional[str] = None,
    functions: Optional[str] = None,
    timesteps: Optional[str] = None,
    precision: Optional[str] = None,
    quantize: Optional[Path] = None,
    recipe: Optional[str] = None,
    calibrate: Optional[Path] = None,
    partition: Optional[str] = None,
    compute: Optional[str] = None,
    attention: Optional[str] = None,
    device: Optional[str] = None,
    opset: Optional[int] = None,
    emit: Optional[Literal["ir"]] = None,
    after: Optional[str] = None,
    time_passes: bool = False,
    verify_each: bool = False,
    explain: Optional[Literal["fuse"]] = None,
    output: Optional[Path] = None,
    threads: Optional[int] = None,
    force: bool = False,
    no_sync: bool = False,
    progress: Watch = None,
) -> Any:
    """Compile a checkpoint, or a graph that PyTorch exported, to an ONNX file, a Core ML package or a Core AI asset.

    Args:
        checkpoint: Checkpoint: a folder with config.json and safetensors, a pipeline folder with model_index.json, a file of weights, OWNER/NAME on
            the Hugging Face hub; or a graph (see docs/import.md).
        component: A model of a pipeline folder by its name, such as transformer_2 or text_encoder [default: all of its transformers].
        config: Configuration in place of the one that lies with the weights [default: config.json beside them].
        state_dict: Which dictionary of tensors to take of a PyTorch checkpoint with several, such as generator_ema [default: the only one with names
            of the model].
        lora: Merge a LoRA file, or PEFT's folder with one, into the weights, SCALE times [default: 1]; repeatable.
        input: Role of a graph's input: latent=x, time=t[:LOW:HIGH], text=y, text_mask=m, tokens=ids[:VOCABULARY], image=i, pooled=p, guidance=g or
            other=z; repeatable [default: guessed from names and shapes, which inspect shows].
        result: Role of a graph's result: velocity=v, video=v, text=t, pooled=p, embedding=e or other=y; repeatable.
        bind: Value of a graph's symbolic size, such as s0=77; repeatable.
        offline: Fetch nothing: of the Hugging Face hub take only what its cache has.
        target: What to make: onnx, coreml, or coreai (experimental: Core AI assets, of which no device has loaded one yet) [default: what the ending
            of OUT says; coreml for a folder].
        latent: Latent frames, rows and columns of the clip; rows and columns of a stream. A graph has the size that it was exported for.
        chunk: Latent frames of a call, of a decoder's stream [default: 1]; of a graph's stream those that its latent has.
        window: Latent frames before a chunk that softmax attention sees, of a graph's stream.
        sinks: Latent frames at the start of the stream that softmax attention always sees, of a graph's stream [default: 0].
        state_write: What writes the states of a graph's stream: commit (a pass over the finished chunk) or last_step (the last denoising step)
            [default: commit].
        sample_steps: Timesteps of a graph's stream before the shift [default: 1000,750,500,250].
        flow_shift: Shift of the noise levels of a graph's stream [default: 5].
        tokens: Text tokens of a text encoder, padding included.
        size: Columns and rows of pixels of a pipeline folder that is compiled whole, such as 512x288.
        frames: Frames of the clip, with --size [default: the pipeline's own, such as 81].
        components: Parts of the pipeline to compile, with --size: text_encoder, transformer or decoder, with commas between [default: all].
        dry_run: Say what would be made, with --size or --recipe, and write nothing.
        batch: Clips that a step takes at once: with 2 a call serves a prompt and its negative, for guidance [default: 1].
        mode: A whole clip in one step, or a stream of chunks [default: clip].
        states: Where a stream keeps its states: io (inputs and outputs) or native (states of Core ML, handles of Core AI) [default: io].
        functions: A stream's functions: shared (one package) or separate (one each) [default: shared for coreml; onnx is always separate].
        timesteps: Timesteps that the step can be asked for: any, or from-config (the sampler's, as tables in place of the time embedding) [default:
            any; from-config for a coreml stream].
        precision: fp32, fp16, or for coreai fp16-weights, which computes in fp32 [default: fp16 for coreml and for --compute ane, fp32 for onnx and
            coreai].
        quantize: Store large weights in few bits: int8, int4-block32, palette4-group16, palette6, …; fp16 leaves them; or as a plan says
            (plan.toml, from s2ditc quantize).
        recipe: Choices that are known to go together: paper (4-bit palettes in blocks, 8-bit ones around them, int8 activations, as arXiv 2601.12719
            runs on its phone; makes OUT.plan.toml too) or safe (8-bit palettes, fp16 activations, attention per head: what is known to stay on the
            Neural Engine) [Core ML].
        calibrate: Samples that --recipe paper measures activations on: a safetensors file, as quantize takes it, or seeded [default: seeded].
        partition: Spread the step over packages or assets that each fit a phone: auto (below 1 GB of weights each; for coreai below 2 GB), a number,
            or a size such as 900MB [Core ML, Core AI]. OUT is a folder: the parts and partition.json; of a stream, the kernel.
        compute: What packages are shaped for: ane (the Neural Engine: channels first, all fp16), gpu or any (as PyTorch has it); a decoder has one
            shape for all, and the package says the choice [Core ML; default: ane. Core AI has gpu, the default, and ane].
        attention: Heads of softmax attention on the Neural Engine: batched (fewest ops) or per-head (smallest values) [default: batched].
        device: Choose the form of the graph for this device, by its limits and by estimated time: iphone16promax, iphone15pro, iphone17pro, m1,
            m4pro, m5, or a file NAME.toml [Core ML].
        opset: Newest ONNX operator set to use: 21 (older runtimes, tract) or 23 [default: 23].
        emit: Stop at the IR and print it (or write it to OUT).
        after: The IR after this pass, by name (the last of the name) or position, instead of after all.
        time_passes: Say what each pass did and how long it took.
        verify_each: Run the graph in ONNX Runtime after each pass, and say how far its results moved.
        explain: Stop and say what a pass recognises, and what nearly and why not: fuse.
        output: File or package to make.
        threads: Threads to use (default: all cores); what is compiled does not depend on it, and what a model computes differs by rounding at most.
        force: Replace outputs that s2ditc did not make, too; a folder with other things in it is never replaced.
        no_sync: Do not wait until outputs are on the disk: faster, and lost if the machine stops now.
        progress: Called with each step of the work; True shows a line, False shows nothing and keeps quiet, and without it a line is shown in a
            terminal or a notebook.

    Returns:
        The report that the command prints with --json.

    Raises:
        Error: The command failed; the message is the command line's.
    """
    flags = {
        "--component": component,
        "--config": config,
        "--state-dict": state_dict,
        "--lora": many(lora),
        "--input": many(input),
        "--result": many(result),
        "--bind": many(bind),
        "--offline": offline,
        "--target": target,
        "--latent": sides(latent),
        "--chunk": chunk,
        "--window": window,
        "--sinks": sinks,
        "--state-write": state_write,
        "--sample-steps": many(sample_steps),
        "--flow-shift": flow_shift,
        "--tokens": tokens,
        "--size": size,
        "--frames": frames,
        "--components": many(components),
        "--dry-run": dry_run,
        "--batch": batch,
        "--mode": mode,
        "--states": states,
        "--functions": functions,
        "--timesteps": timesteps,
        "--precision": precision,
        "--quantize": quantize,
        "--recipe": recipe,
        "--calibrate": calibrate,
        "--partition": partition,
        "--compute": compute,
        "--attention": attention,
        "--device": device,
        "--opset": opset,
        "--emit": emit,
        "--after": after,
        "--time-passes": time_passes,
        "--verify-each": verify_each,
        "--explain": explain,
        "--output": output,
        "--threads": threads,
        "--force": force,
        "--no-sync": no_sync,
        "--json": True,
    }
    return command("compile", [checkpoint], flags, progress)


def quantize(
    checkpoint: Path,
    *,
    output: Path,
    config: Optional[Path] = None,
    state_dict: Optional[str] = None,
    lora: Union[Path, Sequence[Path], None] = None,
    input: Union[str, Sequence[str], None] = None,
    result: Union[str, Sequence[str], None] = None,
    bind: Union[str, Sequence[str], None] = None,
    offline: bool = False,
    scheme: Optional[str] = None,
    target_size: Optional[Union[int, str]] = None,
    min_snr: Optional[float] = None,
    calibrate: Optional[Path] = None,
    latent: Optional[Union[str, Sequence[int]]] = None,
    tokens: Optional[int] = None,
    report: Optional[Path] = None,
    threads: Optional[int] = None,
    force: bool = False,
    no_sync: bool = False,
    progress: Watch = None,
) -> Any:
    """Plan how each large weight is stored, for compile --quantize.

    Args:
        checkpoint: Checkpoint: a folder with config.json and safetensors, a file of weights, or OWNER/NAME on the Hugging Face hub.
        config: Configuration in place of the one that lies with the weights [default: config.json beside them].
        state_dict: Which dictionary of tensors to take of a PyTorch checkpoint with several, such as generator_ema [default: the only one with names
            of the model].
        lora: Merge a LoRA file, or PEFT's folder with one, into the weights, SCALE times [default: 1]; repeatable.
        input: Role of a graph's input: latent=x, time=t[:LOW:HIGH], text=y, text_mask=m, tokens=ids[:VOCABULARY], image=i, pooled=p, guidance=g or
            other=z; repeatable [default: guessed from names and shapes, which inspect shows].
        result: Role of a graph's result: velocity=v, video=v, text=t, pooled=p, embedding=e or other=y; repeatable.
        bind: Value of a graph's symbolic size, such as s0=77; repeatable.
        offline: Fetch nothing: of the Hugging Face hub take only what its cache has.
        scheme: One scheme for every weight that it fits: int8, palette4-group16, …; w8a8: int8 activations too.
        target_size: The least error in at most this size of all weights of the fp16 package, such as 900MB or 1.2GB.
        min_snr: The fewest bytes with at least this signal-to-noise ratio, shown by a run.
        calibrate: Collect statistics on these samples (a safetensors file, or seeded), and choose codes by them.
        latent: Latent to measure at: frames, rows and columns [default: that of the samples, or 3x16x24, or the checkpoint's chunk].
        tokens: Text tokens to measure at, of a text encoder [default: those that pipelines pad to].
        output: The plan to make.
        report: Also write a page about the plan: sizes, errors of blocks, error against bits, the worst weights.
        threads: Threads to use (default: all cores); what is compiled does not depend on it, and what a model computes differs by rounding at most.
        force: Replace outputs that s2ditc did not make, too; a folder with other things in it is never replaced.
        no_sync: Do not wait until outputs are on the disk: faster, and lost if the machine stops now.
        progress: Called with each step of the work; True shows a line, False shows nothing and keeps quiet, and without it a line is shown in a
            terminal or a notebook.

    Returns:
        The report that the command prints with --json.

    Raises:
        Error: The command failed; the message is the command line's.
    """
    flags = {
        "--config": config,
        "--state-dict": state_dict,
        "--lora": many(lora),
        "--input": many(input),
        "--result": many(result),
        "--bind": many(bind),
        "--offline": offline,
        "--scheme": scheme,
        "--target-size": target_size,
        "--min-snr": min_snr,
        "--calibrate": calibrate,
        "--latent": sides(latent),
        "--tokens": tokens,
        "--output": output,
        "--report": report,
        "--threads": threads,
        "--force": force,
        "--no-sync": no_sync,
        "--json": True,
    }
    return command("quantize", [checkpoint], flags, progress)


def verify(
    artifact: Path,
    *,
    golden: Optional[Path] = None,
    checkpoint: Optional[Path] = None,
    config: Optional[Path] = None,
    state_dict: Optional[str] = None,
    lora: Union[Path, Sequence[Path], None] = None,
    input: Union[str, Sequence[str], None] = None,
    result: Union[str, Sequence[str], None] = None,
    bind: Union[str, Sequence[str], None] = None,
    offline: bool = False,
    quantize: Optional[Path] = None,
    seed: Optional[int] = None,
    min_snr: Optional[float] = None,
    fp16: bool = False,
    engine: Optional[str] = None,
    blocks: bool = False,
    chunks: Optional[int] = None,
    plot: Optional[Path] = None,
    card: bool = False,
    threads: Optional[int] = None,
    force: bool = False,
    no_sync: bool = False,
    progress: Watch = None,
) -> Any:
    """Run a finished artifact and compare it with a reference; exit 1 below the bar.

    Args:
        artifact: An .onnx file, an .mlpackage, an .aimodel, a kernel folder or the folder of a pipeline.
        golden: Inputs and outputs that your own model computed.
        checkpoint: Compare with the plain fp32 graph of this checkpoint, or of this file that PyTorch exported, on seeded inputs or those of
            --golden.
        config: Configuration in place of the one that lies with the weights [default: config.json beside them].
        state_dict: Which dictionary of tensors to take of a PyTorch checkpoint with several, such as generator_ema [default: the only one with names
            of the model].
        lora: Merge a LoRA file, or PEFT's folder with one, into the weights, SCALE times [default: 1]; repeatable.
        input: Role of a graph's input: latent=x, time=t[:LOW:HIGH], text=y, text_mask=m, tokens=ids[:VOCABULARY], image=i, pooled=p, guidance=g or
            other=z; repeatable [default: guessed from names and shapes, which inspect shows].
        result: Role of a graph's result: velocity=v, video=v, text=t, pooled=p, embedding=e or other=y; repeatable.
        bind: Value of a graph's symbolic size, such as s0=77; repeatable.
        offline: Fetch nothing: of the Hugging Face hub take only what its cache has.
        quantize: Compress the weights of the checkpoint's graph as those of the artifact are; without --golden, judge only storage and arithmetic.
        seed: Seed of the inputs for --checkpoint [default: 0].
        min_snr: Lowest signal-to-noise ratio that passes [default: 100 for fp32 artifacts, 50 for fp16, 45 for fp16 streams; for quantized ones 3
            less than their plan measured].
        fp16: Round the result of every fp16 op to fp16, as the Neural Engine stores it (packages only).
        engine: What runs the graph: ort, tract (ONNX files only), or coreai (Apple's runtime, for .aimodel only; fetched on first need) [default:
            ort].
        blocks: Compare block by block too, and name the first block below the bar; the verdict stays that of the results.
        chunks: Chunks of a stream to compare [default: all of the golden, or 16].
        plot: Draw SNR against chunk of a stream.
        card: Write the figures into the model card of a pipeline.
        threads: Threads to use (default: all cores); what is compiled does not depend on it, and what a model computes differs by rounding at most.
        force: Replace outputs that s2ditc did not make, too; a folder with other things in it is never replaced.
        no_sync: Do not wait until outputs are on the disk: faster, and lost if the machine stops now.
        progress: Called with each step of the work; True shows a line, False shows nothing and keeps quiet, and without it a line is shown in a
            terminal or a notebook.

    Returns:
        The report that the command prints with --json.

    Raises:
        Error: The command failed; the message is the command line's.
    """
    flags = {
        "--golden": golden,
        "--checkpoint": checkpoint,
        "--config": config,
        "--state-dict": state_dict,
        "--lora": many(lora),
        "--input": many(input),
        "--result": many(result),
        "--bind": many(bind),
        "--offline": offline,
        "--quantize": quantize,
        "--seed": seed,
        "--min-snr": min_snr,
        "--fp16": fp16,
        "--engine": engine,
        "--blocks": blocks,
        "--chunks": chunks,
        "--plot": plot,
        "--card": card,
        "--threads": threads,
        "--force": force,
        "--no-sync": no_sync,
        "--json": True,
    }
    return command("verify", [artifact], flags, progress)


def run(
    model: Optional[Path] = None,
    *,
    inputs: Optional[Path] = None,
    output: Optional[Path] = None,
    function: Optional[str] = None,
    states: Optional[Path] = None,
    fp16: bool = False,
    engine: Optional[str] = None,
    time: Optional[int] = None,
    threads: Optional[int] = None,
    force: bool = False,
    no_sync: bool = False,
    progress: Watch = None,
) -> Any:
    """Run a Core ML package, a Core AI asset or an ONNX file, of any tool, on this machine.

    Args:
        model: An .mlpackage, an .aimodel or an .onnx file.
        inputs: Arrays by the names of the inputs: .safetensors or .npz.
        output: Where the outputs go, by their names: .safetensors or .npz.
        function: The function of a package with several.
        states: The states before the call, zeros if there is no such file, and after it.
        fp16: Round every fp16 result to fp16, as the Neural Engine stores it; without it the arithmetic is fp32.
        engine: What runs the graph: ort, or coreai (Apple's runtime, for .aimodel only; fetched on first need) [default: ort].
        time: Run again so many times, and report the median.
        threads: Threads to use (default: all cores); what is compiled does not depend on it, and what a model computes differs by rounding at most.
        force: Replace outputs that s2ditc did not make, too; a folder with other things in it is never replaced.
        no_sync: Do not wait until outputs are on the disk: faster, and lost if the machine stops now.
        progress: Called with each step of the work; True shows a line, False shows nothing and keeps quiet, and without it a line is shown in a
            terminal or a notebook.

    Returns:
        The report that the command prints with --json.

    Raises:
        Error: The command failed; the message is the command line's.
    """
    flags = {
        "--inputs": inputs,
        "--output": output,
        "--function": function,
        "--states": states,
        "--fp16": fp16,
        "--engine": engine,
        "--time": time,
        "--threads": threads,
        "--force": force,
        "--no-sync": no_sync,
        "--json": True,
    }
    return command("run", [model], flags, progress)


def stream(
    artifact: Path,
    *,
    prompt: Optional[Path] = None,
    prompt_seed: Optional[int] = None,
    prompt_at: Union[str, Sequence[str], None] = None,
    chunks: Optional[int] = None,
    seed: Optional[int] = None,
    noise: Optional[Path] = None,
    output: Optional[Path] = None,
    preview: Optional[Path] = None,
    state_in: Optional[Path] = None,
    state_out: Optional[Path] = None,
    save_every: Optional[int] = None,
    steps: Optional[int] = None,
    guidance: Optional[Union[float, str]] = None,
    negative: Optional[Path] = None,
    image: Optional[Path] = None,
    condition: Optional[Path] = None,
    fp16: bool = False,
    threads: Optional[int] = None,
    force: bool = False,
    no_sync: bool = False,
    progress: Watch = None,
) -> Any:
    """Make video with a finished artifact: chunk by chunk with a kernel, or a whole clip.

    Args:
        artifact: A kernel folder, or the folder of a pipeline that streams; or a clip step of a bidirectional checkpoint, or of two experts.
        prompt: Prompt: a safetensors file with the tensor text, and text_mask or pooled for a model that takes it.
        prompt_seed: A seeded random prompt, for trials without a text encoder; with it an image or a condition that a clip needs is random too.
        prompt_at: From this chunk on another prompt; may be repeated.
        chunks: Chunks to make [default: 1, or all of --noise].
        seed: Seed of the noise [default: that of --state-in, or 0].
        noise: Recorded noise instead: a safetensors file with stream.noise [chunks,steps,1,C,F,H,W], or noise [1,C,F,H,W] of a clip.
        output: Latents to write, as safetensors; the checkpoint's VAE decoder makes a video of them.
        preview: Moving picture to write, .gif, .webp or .mp4: video, if the artifact is the transformer of a compiled pipeline that has a decoder;
            else the latents' three main directions as colours, which of random weights is static.
        state_in: Go on where a saved stream stood.
        state_out: Save the stream at the end; may be the file of --state-in.
        save_every: Save to --state-out after every N chunks too.
        steps: Euler steps of a clip [default: the checkpoint's].
        guidance: Guidance of a clip: v = v_neg + G·(v_pos − v_neg), of two transformers G,G2; or the strength that a network with distilled
            guidance takes [default: 5].
        negative: Negative prompt of a clip; without it there is no guidance but what was distilled into the network.
        image: Embeddings of an image, for a clip step that takes one: a safetensors file with the tensor image [1,M,width].
        condition: What is given of a clip's latent: a safetensors file with the tensor condition [1,C,F,H,W], channels beside the noise; or
            [1,C,1,H,W], the first frame, for a step that takes a timestep for each token.
        fp16: Round the result of every fp16 op to fp16, as the Neural Engine stores it (packages only).
        threads: Threads to use (default: all cores); what is compiled does not depend on it, and what a model computes differs by rounding at most.
        force: Replace outputs that s2ditc did not make, too; a folder with other things in it is never replaced.
        no_sync: Do not wait until outputs are on the disk: faster, and lost if the machine stops now.
        progress: Called with each step of the work; True shows a line, False shows nothing and keeps quiet, and without it a line is shown in a
            terminal or a notebook.

    Returns:
        The report that the command prints with --json.

    Raises:
        Error: The command failed; the message is the command line's.
    """
    flags = {
        "--prompt": prompt,
        "--prompt-seed": prompt_seed,
        "--prompt-at": many(prompt_at),
        "--chunks": chunks,
        "--seed": seed,
        "--noise": noise,
        "--output": output,
        "--preview": preview,
        "--state-in": state_in,
        "--state-out": state_out,
        "--save-every": save_every,
        "--steps": steps,
        "--guidance": guidance,
        "--negative": negative,
        "--image": image,
        "--condition": condition,
        "--fp16": fp16,
        "--threads": threads,
        "--force": force,
        "--no-sync": no_sync,
        "--json": True,
    }
    return command("stream", [artifact], flags, progress)


def decode(
    artifact: Path,
    *,
    latents: Path,
    output: Path,
    fps: Optional[float] = None,
    fp16: bool = False,
    threads: Optional[int] = None,
    force: bool = False,
    no_sync: bool = False,
    progress: Watch = None,
) -> Any:
    """Make a video of latents with a decoder: a whole clip, or chunk by chunk.

    Args:
        artifact: The folder of a decoder that streams; or an .onnx file or .mlpackage that decodes a whole clip.
        latents: Latents: a safetensors file.
        output: Video to write: .mp4, .webp, .gif, a folder of PNGs (a name without an ending), or .safetensors for its numbers.
        fps: Frames a second [default: 16].
        fp16: Round the result of every fp16 op to fp16, as the Neural Engine stores it (packages only).
        threads: Threads to use (default: all cores); what is compiled does not depend on it, and what a model computes differs by rounding at most.
        force: Replace outputs that s2ditc did not make, too; a folder with other things in it is never replaced.
        no_sync: Do not wait until outputs are on the disk: faster, and lost if the machine stops now.
        progress: Called with each step of the work; True shows a line, False shows nothing and keeps quiet, and without it a line is shown in a
            terminal or a notebook.

    Returns:
        The report that the command prints with --json.

    Raises:
        Error: The command failed; the message is the command line's.
    """
    flags = {
        "--latents": latents,
        "--output": output,
        "--fps": fps,
        "--fp16": fp16,
        "--threads": threads,
        "--force": force,
        "--no-sync": no_sync,
        "--json": True,
    }
    return command("decode", [artifact], flags, progress)


def generate(
    pipeline: Path,
    *,
    prompt: str,
    output: Path,
    negative: Optional[str] = None,
    prompt_at: Union[str, Sequence[str], None] = None,
    seed: Optional[int] = None,
    noise: Optional[Path] = None,
    chunks: Optional[int] = None,
    steps: Optional[int] = None,
    guidance: Optional[Union[float, str]] = None,
    fps: Optional[float] = None,
    fp16: bool = False,
    threads: Optional[int] = None,
    force: bool = False,
    no_sync: bool = False,
    progress: Watch = None,
) -> Any:
    """Make a video from a prompt with the folder of a compiled pipeline.

    Args:
        pipeline: The folder of a compiled pipeline.
        prompt: What the video shows.
        negative: What it does not show, for a clip with guidance [default: the pipeline's].
        prompt_at: From this chunk of a stream on another prompt; may be repeated.
        seed: Seed of the noise [default: 0].
        noise: Recorded noise instead: a safetensors file with noise [1,C,F,H,W], or stream.noise [chunks,steps,1,C,F,H,W] of a stream.
        chunks: Chunks of a stream [default: five seconds, or all of --noise].
        steps: Steps of a clip [default: the pipeline's].
        guidance: Guidance of a clip: v = v_neg + G·(v_pos − v_neg), of two transformers G,G2; 1 or less is none [default: the pipeline's].
        fps: Frames a second [default: the pipeline's].
        output: Video to write: .mp4, .webp, .gif, a folder of PNGs (a name without an ending), or .safetensors for its numbers.
        fp16: Round the result of every fp16 op to fp16, as the Neural Engine stores it (packages only).
        threads: Threads to use (default: all cores); what is compiled does not depend on it, and what a model computes differs by rounding at most.
        force: Replace outputs that s2ditc did not make, too; a folder with other things in it is never replaced.
        no_sync: Do not wait until outputs are on the disk: faster, and lost if the machine stops now.
        progress: Called with each step of the work; True shows a line, False shows nothing and keeps quiet, and without it a line is shown in a
            terminal or a notebook.

    Returns:
        The report that the command prints with --json.

    Raises:
        Error: The command failed; the message is the command line's.
    """
    flags = {
        "--prompt": prompt,
        "--negative": negative,
        "--prompt-at": many(prompt_at),
        "--seed": seed,
        "--noise": noise,
        "--chunks": chunks,
        "--steps": steps,
        "--guidance": guidance,
        "--fps": fps,
        "--output": output,
        "--fp16": fp16,
        "--threads": threads,
        "--force": force,
        "--no-sync": no_sync,
        "--json": True,
    }
    return command("generate", [pipeline], flags, progress)


def ranges(
    artifact: Path,
    *,
    golden: Optional[Path] = None,
    samples: Optional[int] = None,
    device: Optional[str] = None,
    seed: Optional[int] = None,
    top: Optional[int] = None,
    threads: Optional[int] = None,
    force: bool = False,
    no_sync: bool = False,
    progress: Watch = None,
) -> Any:
    """Say how close each fp16 value of a package comes to the largest fp16 number.

    Args:
        artifact: An .mlpackage, a folder of partitioned packages or a kernel folder.
        golden: Recorded inputs, as for verify, instead of seeded ones.
        samples: Clips to run, with timesteps from 1000 to 0; chunks of a stream [default: 8, or all of the golden].
        device: Device whose largest products count: iphone16promax, iphone15pro, iphone17pro, m1, m4pro, m5, or a file NAME.toml [default:
            iphone16promax].
        seed: Seed of the inputs [default: 0].
        top: Values to list [default: 20].
        threads: Threads to use (default: all cores); what is compiled does not depend on it, and what a model computes differs by rounding at most.
        force: Replace outputs that s2ditc did not make, too; a folder with other things in it is never replaced.
        no_sync: Do not wait until outputs are on the disk: faster, and lost if the machine stops now.
        progress: Called with each step of the work; True shows a line, False shows nothing and keeps quiet, and without it a line is shown in a
            terminal or a notebook.

    Returns:
        The report that the command prints with --json.

    Raises:
        Error: The command failed; the message is the command line's.
    """
    flags = {
        "--golden": golden,
        "--samples": samples,
        "--device": device,
        "--seed": seed,
        "--top": top,
        "--threads": threads,
        "--force": force,
        "--no-sync": no_sync,
        "--json": True,
    }
    return command("ranges", [artifact], flags, progress)


def lint(
    path: Optional[Path] = None,
    *,
    rules: bool = False,
    all: bool = False,
    deny_fallback: Union[bool, Literal["may-leave", "leaves"]] = False,
    min_confidence: Optional[str] = None,
    device: Optional[str] = None,
    rules_file: Optional[Path] = None,
    device_report: Union[Path, Sequence[Path], None] = None,
    threads: Optional[int] = None,
    force: bool = False,
    no_sync: bool = False,
    progress: Watch = None,
) -> Any:
    """Check a Core ML package or a Core AI asset, of this or another tool, against what is known of the Neural Engine.

    Args:
        path: An .mlpackage, an .aimodel, or the folder of a kernel.
        rules: List the rules and stop.
        all: Show every finding, and every block.
        deny_fallback: Exit 1 if anything may leave the Neural Engine; with =leaves, only if a rule says that it does.
        min_confidence: Apply only rules that are at least so well known: low, medium or high [default: low].
        device: Rules as they are on this device: iphone16promax, iphone15pro, iphone17pro, m1, m4pro, m5, or a file NAME.toml; a rules file changes
            these.
        rules_file: JSON that promotes, retires or re-parameterises rules.
        device_report: What a device says of the package (repeat for a kernel's packages).
        threads: Threads to use (default: all cores); what is compiled does not depend on it, and what a model computes differs by rounding at most.
        force: Replace outputs that s2ditc did not make, too; a folder with other things in it is never replaced.
        no_sync: Do not wait until outputs are on the disk: faster, and lost if the machine stops now.
        progress: Called with each step of the work; True shows a line, False shows nothing and keeps quiet, and without it a line is shown in a
            terminal or a notebook.

    Returns:
        The report that the command prints with --json.

    Raises:
        Error: The command failed; the message is the command line's.
    """
    flags = {
        "--rules": rules,
        "--all": all,
        "--deny-fallback": deny_fallback,
        "--min-confidence": min_confidence,
        "--device": device,
        "--rules-file": rules_file,
        "--device-report": many(device_report),
        "--threads": threads,
        "--force": force,
        "--no-sync": no_sync,
        "--json": True,
    }
    return command("lint", [path], flags, progress)


def estimate(
    path: Optional[Path] = None,
    *,
    config: Optional[Path] = None,
    preset: Optional[str] = None,
    device: Optional[str] = None,
    latent: Optional[Union[str, Sequence[int]]] = None,
    mode: Optional[str] = None,
    quantize: Optional[str] = None,
    attention: Optional[str] = None,
    tuned: bool = False,
    other_ms: Optional[float] = None,
    fit: Union[Path, Sequence[Path], None] = None,
    output: Optional[Path] = None,
    report: Optional[Path] = None,
    all: bool = False,
    threads: Optional[int] = None,
    force: bool = False,
    no_sync: bool = False,
    progress: Watch = None,
) -> Any:
    """Estimate time, memory and size on a device, from shapes alone.

    Args:
        path: Checkpoint, graph that PyTorch exported, .mlpackage, or folder of a compiled pipeline, of a kernel, of a decoder or of a partitioned
            step.
        config: A configuration alone: no weights are needed.
        preset: A preset alone, such as 1.8b or mobile.
        device: Device: iphone16promax, iphone15pro, iphone17pro, m1, m4pro, m5, or a file NAME.toml [default: iphone16promax].
        latent: Latent frames, rows and columns of what is not compiled yet; a stream's frames are its chunk's [default: 3x36x64, or the nearest that
            fits].
        mode: clip or stream, of what is not compiled yet [default: stream if the model streams].
        quantize: Weights of what is not compiled yet: fp16, w8a8, w4a8 (4-bit palettes with int8 activations), int8, palette4-group16, … [default:
            fp16].
        attention: Heads of softmax attention of what is not compiled yet: batched or per-head [default: batched].
        tuned: As compile --device makes it for this device, of what is not compiled yet.
        other_ms: Milliseconds a chunk outside of the transformer: text encoder and decoder [default: 0].
        fit: Fit the device to the times of this device report of the same package; repeatable.
        output: Device file to make with --fit.
        report: Page to make, with a timeline of a chunk.
        all: Show every block, and the ops that take longest.
        threads: Threads to use (default: all cores); what is compiled does not depend on it, and what a model computes differs by rounding at most.
        force: Replace outputs that s2ditc did not make, too; a folder with other things in it is never replaced.
        no_sync: Do not wait until outputs are on the disk: faster, and lost if the machine stops now.
        progress: Called with each step of the work; True shows a line, False shows nothing and keeps quiet, and without it a line is shown in a
            terminal or a notebook.

    Returns:
        The report that the command prints with --json.

    Raises:
        Error: The command failed; the message is the command line's.
    """
    flags = {
        "--config": config,
        "--preset": preset,
        "--device": device,
        "--latent": sides(latent),
        "--mode": mode,
        "--quantize": quantize,
        "--attention": attention,
        "--tuned": tuned,
        "--other-ms": other_ms,
        "--fit": many(fit),
        "--output": output,
        "--report": report,
        "--all": all,
        "--threads": threads,
        "--force": force,
        "--no-sync": no_sync,
        "--json": True,
    }
    return command("estimate", [path], flags, progress)


def search(
    *,
    budget_latency: float,
    budget_memory: float,
    config: Optional[Path] = None,
    preset: Optional[str] = None,
    kinds: Union[str, Sequence[str], None] = None,
    blocks: Optional[int] = None,
    group: Optional[int] = None,
    device: Optional[str] = None,
    blocks_table: Optional[Path] = None,
    scores: Optional[Path] = None,
    latent: Optional[Union[str, Sequence[int]]] = None,
    quantize: Optional[str] = None,
    output: Optional[Path] = None,
    report: Optional[Path] = None,
    threads: Optional[int] = None,
    force: bool = False,
    no_sync: bool = False,
    progress: Watch = None,
) -> Any:
    """Search a layout of blocks under budgets of latency and memory.

    Args:
        budget_latency: Milliseconds of a denoising step.
        budget_memory: Megabytes of memory with everything loaded.
        config: Configuration whose layout is searched.
        preset: Preset whose layout is searched [default: mobile].
        kinds: Kinds of blocks to choose from, with commas between them [default: lcha,ssa, or those of the table].
        blocks: Number of blocks [default: as many as the configuration has].
        group: Blocks that are chosen together [default: 1].
        device: Device that blocks are estimated for; see estimate [default: iphone16promax].
        blocks_table: Costs of blocks that somebody measured, in place of estimates.
        scores: Quality of each kind in each group, such as a supernet learned.
        latent: Latent that blocks are estimated at [default: 3x36x64, or the nearest that fits].
        quantize: Weights that blocks are estimated with: fp16, w8a8, w4a8, … [default: fp16].
        output: Configuration to make.
        report: Page to make.
        threads: Threads to use (default: all cores); what is compiled does not depend on it, and what a model computes differs by rounding at most.
        force: Replace outputs that s2ditc did not make, too; a folder with other things in it is never replaced.
        no_sync: Do not wait until outputs are on the disk: faster, and lost if the machine stops now.
        progress: Called with each step of the work; True shows a line, False shows nothing and keeps quiet, and without it a line is shown in a
            terminal or a notebook.

    Returns:
        The report that the command prints with --json.

    Raises:
        Error: The command failed; the message is the command line's.
    """
    flags = {
        "--budget-latency": budget_latency,
        "--budget-memory": budget_memory,
        "--config": config,
        "--preset": preset,
        "--kinds": many(kinds),
        "--blocks": blocks,
        "--group": group,
        "--device": device,
        "--blocks-table": blocks_table,
        "--scores": scores,
        "--latent": sides(latent),
        "--quantize": quantize,
        "--output": output,
        "--report": report,
        "--threads": threads,
        "--force": force,
        "--no-sync": no_sync,
        "--json": True,
    }
    return command("search", [], flags, progress)


def passes(
    name: Optional[str] = None,
    *,
    threads: Optional[int] = None,
    force: bool = False,
    no_sync: bool = False,
    progress: Watch = None,
) -> Any:
    """List the passes that rewrite a graph, and the orders in which they run.

    Args:
        name: A pass or a pass pipeline; without it, all of them.
        threads: Threads to use (default: all cores); what is compiled does not depend on it, and what a model computes differs by rounding at most.
        force: Replace outputs that s2ditc did not make, too; a folder with other things in it is never replaced.
        no_sync: Do not wait until outputs are on the disk: faster, and lost if the machine stops now.
        progress: Called with each step of the work; True shows a line, False shows nothing and keeps quiet, and without it a line is shown in a
            terminal or a notebook.

    Returns:
        The report that the command prints with --json.

    Raises:
        Error: The command failed; the message is the command line's.
    """
    flags = {
        "--threads": threads,
        "--force": force,
        "--no-sync": no_sync,
        "--json": True,
    }
    return command("passes", [name], flags, progress)


def explain(
    what: Optional[str] = None,
    *,
    threads: Optional[int] = None,
    force: bool = False,
    no_sync: bool = False,
    progress: Watch = None,
) -> Any:
    """Say what an error means, why it happens and what to do.

    Args:
        what: An id, such as E0303, or an error as it was printed, all lines of it; without it, all ids.
        threads: Threads to use (default: all cores); what is compiled does not depend on it, and what a model computes differs by rounding at most.
        force: Replace outputs that s2ditc did not make, too; a folder with other things in it is never replaced.
        no_sync: Do not wait until outputs are on the disk: faster, and lost if the machine stops now.
        progress: Called with each step of the work; True shows a line, False shows nothing and keeps quiet, and without it a line is shown in a
            terminal or a notebook.

    Returns:
        The report that the command prints with --json.

    Raises:
        Error: The command failed; the message is the command line's.
    """
    flags = {
        "--threads": threads,
        "--force": force,
        "--no-sync": no_sync,
        "--json": True,
    }
    return command("explain", [what], flags, progress)


def demo(
    *,
    output: Optional[Path] = None,
    prompt: Optional[str] = None,
    seed: Optional[int] = None,
    threads: Optional[int] = None,
    force: bool = False,
    no_sync: bool = False,
    progress: Watch = None,
) -> Any:
    """Compile a small trained S2DiT to both targets, prove both against PyTorch, and make a video with the package.

    Args:
        output: Folder for the model, the artifacts and the video [default: s2ditc-demo].
        prompt: What the video shows, in the words of the toy world [default: three small cyan squares moving up on a black background].
        seed: Seed of the noise [default: 0].
        threads: Threads to use (default: all cores); what is compiled does not depend on it, and what a model computes differs by rounding at most.
        force: Replace outputs that s2ditc did not make, too; a folder with other things in it is never replaced.
        no_sync: Do not wait until outputs are on the disk: faster, and lost if the machine stops now.
        progress: Called with each step of the work; True shows a line, False shows nothing and keeps quiet, and without it a line is shown in a
            terminal or a notebook.

    Returns:
        The report that the command prints with --json.

    Raises:
        Error: The command failed; the message is the command line's.
    """
    flags = {
        "--output": output,
        "--prompt": prompt,
        "--seed": seed,
        "--threads": threads,
        "--force": force,
        "--no-sync": no_sync,
        "--json": True,
    }
    return command("demo", [], flags, progress)
