"""The program `s2ditc`, which the scripts that compare compiled models run."""

import shutil
import subprocess
import sys


def add_argument(parser):
    parser.add_argument("--s2ditc", default="s2ditc", help="the program (default: the one on the path)")


def check(s2ditc):
    """Ends the script where there is no such program, before any work."""
    if shutil.which(s2ditc) is None:
        sys.exit(f"{s2ditc}: no such program: build it with `cargo build --release`, and name it with --s2ditc ../../target/release/s2ditc")


def run(s2ditc, *args, codes=(0,)):
    """What a command prints; ends the script if it exits with another code."""
    done = subprocess.run([s2ditc, *map(str, args)], capture_output=True, text=True)
    if done.returncode not in codes:
        sys.exit(f"s2ditc {' '.join(map(str, args))}: {done.stderr}")
    return done.stdout
