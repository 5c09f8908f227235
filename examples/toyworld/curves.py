"""Draws curves.svg from the logs: the loss of each stage over its minutes.

    python curves.py           # from logs/, which is in the repository
    python curves.py --copy    # copies the logs of the runs in data/ there first
"""

import argparse
import json
import shutil

from training import DATA, HERE

STAGES = {
    "decoder": "psnr", "pretrained": "loss", "pretrained-2": "loss", "teacher": "loss", "kd": "loss", "ar": "loss", "ar-2": "loss", "decoder-3": "psnr", "decoder-4": "psnr", "pretrained-3": "loss", "ar-3": "streams", "ar-4": "streams", "decoder-5": "psnr", "decoder-6": "psnr", "ar-5": "streams", "ar-dmd": "dmd", "ar-self-too-early": "streams",
}
WIDTH, HEIGHT, LEFT, TOP = 250, 150, 46, 26


def panel(name, key, rows, x0, y0):
    xs, ys = [r["seconds"] / 60 for r in rows], [r[key] for r in rows]
    low, high = min(ys), max(ys)
    high = high if high > low else low + 1
    place = lambda x, y: f"{x0 + LEFT + x / max(xs) * (WIDTH - LEFT - 12):.1f},{y0 + TOP + (high - y) / (high - low) * (HEIGHT - TOP - 28):.1f}"
    text = lambda x, y, words, anchor="start": f'<text x="{x}" y="{y}" text-anchor="{anchor}">{words}</text>'
    return [
        text(x0 + LEFT, y0 + 16, f"{name}: {key}, {rows[-1]['step']} steps"),
        text(x0 + LEFT - 4, y0 + TOP + 8, f"{high:.2f}", "end"), text(x0 + LEFT - 4, y0 + HEIGHT - 28, f"{low:.2f}", "end"),
        text(x0 + WIDTH - 12, y0 + HEIGHT - 12, f"{max(xs):.0f} min", "end"),
        f'<polyline fill="none" stroke="#06c" stroke-width="1.5" points="{" ".join(place(x, y) for x, y in zip(xs, ys))}"/>',
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copy", action="store_true")
    logs = HERE / "logs"
    if parser.parse_args().copy:
        logs.mkdir(exist_ok=True)
        for name in STAGES:
            if (DATA / "runs" / name / "log.jsonl").exists():
                shutil.copy(DATA / "runs" / name / "log.jsonl", logs / f"{name}.jsonl")
    found = {name: [json.loads(line) for line in (logs / f"{name}.jsonl").read_text().splitlines()] for name in STAGES if (logs / f"{name}.jsonl").exists()}
    parts = []
    for i, (name, rows) in enumerate(found.items()):
        parts += panel(name, STAGES[name], rows, i % 3 * WIDTH, i // 3 * HEIGHT)
    height = HEIGHT * -(-len(found) // 3)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {3 * WIDTH} {height}" font-family="sans-serif" font-size="11">'
    (HERE / "curves.svg").write_text("\n".join([head, f'<rect width="{3 * WIDTH}" height="{height}" fill="white"/>', *parts, "</svg>"]) + "\n")


if __name__ == "__main__":
    main()
