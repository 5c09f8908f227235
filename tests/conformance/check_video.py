"""Judges videos with FFmpeg (in PyAV) and Pillow: frames, rate, size, and how far the pictures are from the numbers they were made of.

    check_video.py NUMBERS.safetensors VIDEO...      # prints a line of JSON for each video
"""

import json
import pathlib
import struct
import sys

import av
import numpy
from PIL import Image


def numbers(path):
    """The tensor `video [1, 3, T, H, W]` as pictures [T, H, W, 3] of 8 bits."""
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    entry = json.loads(data[8 : 8 + length])["video"]
    begin, end = entry["data_offsets"]
    video = numpy.frombuffer(data[8 + length + begin : 8 + length + end], numpy.float32).reshape(entry["shape"])
    return numpy.rint(numpy.clip(video[0] / 2 + 0.5, 0, 1) * 255).astype(numpy.uint8).transpose(1, 2, 3, 0)


def of_pillow(path):
    """Pictures, and milliseconds of each."""
    pictures, times = [], []
    with Image.open(path) as image:
        for index in range(image.n_frames):
            image.seek(index)
            pictures.append(numpy.asarray(image.convert("RGB")))
            times.append(image.info["duration"])
        assert image.info.get("loop") == 0, image.info
    return numpy.stack(pictures), 1000 * len(times) / sum(times), {"software": str(image.info.get("xmp") or image.info.get("comment"))}


def of_ffmpeg(path):
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        # The colours as the file names them.
        frames = [frame.reformat(format="rgb24", src_colorspace="ITU709", dst_colorspace="ITU709") for frame in container.decode(stream)]
        pictures = numpy.stack([frame.to_ndarray() for frame in frames])
        facts = dict(
            codec=stream.codec_context.name, profile=stream.codec_context.profile, pixels=stream.codec_context.pix_fmt,
            colours=[int(stream.codec_context.colorspace), int(stream.codec_context.color_range)], keys=sum(bool(f.key_frame) for f in frames),
            seconds=float(stream.duration * stream.time_base), steady=len({b.pts - a.pts for a, b in zip(frames, frames[1:])}) <= 1,
        )
        return pictures, float(stream.average_rate), facts


def of_folder(path):
    names = sorted(path.iterdir())
    assert [name.name for name in names] == [f"{i:05}.png" for i in range(len(names))]
    pictures = []
    for name in names:
        with Image.open(name) as image:
            assert image.mode == "RGB" and image.info["Software"] == "s2ditc", image.info
            pictures.append(numpy.asarray(image))
    return numpy.stack(pictures), None, {}


def main():
    wanted = numbers(sys.argv[1])
    for name in sys.argv[2:]:
        path = pathlib.Path(name)
        read = of_folder if path.is_dir() else of_ffmpeg if path.suffix == ".mp4" else of_pillow
        pictures, rate, facts = read(path)
        report = dict(name=path.name, frames=len(pictures), rows=pictures.shape[1], cols=pictures.shape[2], fps=rate, **facts)
        if pictures.shape == wanted.shape:
            error = numpy.mean((pictures.astype(float) - wanted.astype(float)) ** 2)
            report["psnr"] = None if error == 0 else float(10 * numpy.log10(255**2 / error))
        print(json.dumps(report))


main()
