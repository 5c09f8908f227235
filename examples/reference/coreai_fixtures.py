"""Apple's library reads programs of the dialect `aicode` and writes them anew: the fixtures of `backends/src/coreai/fixtures`.

    S2DITC_BLESS=1 cargo test --workspace --all-features --locked --lib coreai::     # writes ours
    python3 -m venv v && v/bin/pip install coreai-core==1.0.0b3
    v/bin/python examples/reference/coreai_fixtures.py backends/src/coreai/fixtures  # the library's in their place

With --check nothing is written, and the exit code says whether every section of every file is what the library makes of it.
"""

import sys
import tempfile
from pathlib import Path

from coreai.authoring import AIProgram

# The flag of a section that begins at a multiple.
ALIGNED = 0x80


def rewritten(path: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) / "main.mlirb"
        AIProgram._load_bytecode(path)._save_bytecode(to)
        return to.read_bytes()


def number(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where the next thing begins."""
    first = data[at]
    if first == 0:
        return int.from_bytes(data[at + 1 : at + 9], "little"), at + 9
    more = (first & -first).bit_length() - 1
    return int.from_bytes(data[at : at + more + 1], "little") >> (more + 1), at + more + 1


def sections(data: bytes) -> list[tuple[int, bytes]]:
    """Sections with their numbers. The producer's name before them, whose length moves the aligned ones, is left out."""
    _, at = number(data, 4)
    at = data.index(0, at) + 1
    found = []
    while at < len(data):
        kind = data[at]
        size, at = number(data, at + 1)
        if kind & ALIGNED:
            alignment, at = number(data, at)
            at += -at % alignment
        # Whether a section says its alignment depends on where it happens to begin, and so on the producer's name.
        found.append((kind & ~ALIGNED, data[at : at + size]))
        at += size
    return found


def main() -> int:
    arguments = [a for a in sys.argv[1:] if a != "--check"]
    check, differ = "--check" in sys.argv, 0
    files = [f for a in map(Path, arguments) for f in (sorted(a.glob("*.mlirb")) if a.is_dir() else [a])]
    for file in files:
        ours, library = file.read_bytes(), rewritten(file)
        theirs = sections(library)
        others = [kind for (kind, bytes_), their in zip(sections(ours), theirs) if (kind, bytes_) != their]
        same = not others and len(sections(ours)) == len(theirs)
        print(f"{file}: {len(ours)} bytes, {'the same' if same else f'other sections {others}'} by the library")
        differ += not same
        if not check:
            file.write_bytes(library)
    return 1 if check and differ else 0


if __name__ == "__main__":
    sys.exit(main())
