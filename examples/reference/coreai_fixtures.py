"""Apple's library reads programs of the dialect `aicode` and writes them anew: the fixtures of `backends/src/coreai/fixtures`.

    S2DITC_BLESS=1 cargo test --workspace --all-features --locked --lib coreai::     # writes ours
    python3 -m venv v && v/bin/pip install coreai-core==1.0.0b3
    v/bin/python examples/reference/coreai_fixtures.py backends/src/coreai/fixtures  # the library's in their place

With --check nothing is written, and the exit code says whether every file is what the library makes of it.
"""

import sys
import tempfile
from pathlib import Path

from coreai.authoring import AIProgram


def rewritten(path: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) / "main.mlirb"
        AIProgram._load_bytecode(path)._save_bytecode(to)
        return to.read_bytes()


def main() -> int:
    arguments = [a for a in sys.argv[1:] if a != "--check"]
    check, differ = "--check" in sys.argv, 0
    files = [f for a in map(Path, arguments) for f in (sorted(a.glob("*.mlirb")) if a.is_dir() else [a])]
    for file in files:
        ours, library = file.read_bytes(), rewritten(file)
        # The producer of ours may be another: it stands between the version and the first zero.
        same = ours[ours.index(0):] == library[library.index(0):]
        print(f"{file}: {len(ours)} bytes, the library's {'are equal' if same else f'are {len(library)} others'}")
        differ += not same
        if not check:
            file.write_bytes(library)
    return 1 if check and differ else 0


if __name__ == "__main__":
    sys.exit(main())
