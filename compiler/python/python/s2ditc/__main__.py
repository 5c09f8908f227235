"""The command line: ``s2ditc``, or ``python -m s2ditc``."""

from __future__ import annotations

import signal
import sys

from . import _native
from ._process import again


def main() -> int:
    """Runs the command line of this process, and returns what it is to exit with."""
    # Python's handler would only make a note of Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _native.main(sys.argv[1:], again("s2ditc.__main__"))


if __name__ == "__main__":
    sys.exit(main())
