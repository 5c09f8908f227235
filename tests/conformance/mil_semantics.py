"""The outside judge of the MIL reader: programs that coremltools writes, results that numpy (or PyTorch) computes.

    mil_semantics.py make FOLDER      FOLDER/CASE/model.mlpackage, case.json (inputs), expected.npz
    mil_semantics.py compare FOLDER   FOLDER/CASE/out.json and out.N.f64, written meanwhile, against expected.npz

`backends/tests/mil_semantics.rs` calls both. Cases made from PyTorch are left out where torch is not installed.
"""

import json
import logging
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np

import mil_cases


def make(folder):
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    shutil.rmtree(folder, ignore_errors=True)
    count = 0
    for case in mil_cases.all_cases():
        place = folder / case.name
        place.mkdir(parents=True)
        try:
            case.save(place / "model.mlpackage")
        except Exception as error:
            raise SystemExit(f"case {case.name}: coremltools cannot build it: {error}") from error
        inputs = {k: {"shape": list(v.shape), "data": v.ravel().tolist()} for k, v in case.feeds().items()}
        about = {"inputs": inputs, "function": case.function}
        (place / "case.json").write_text(json.dumps(about))
        np.savez(place / "expected.npz", bar=case.bar, **case.expected())
        count += 1
    print(f"{count} cases")


def error_of(found, wanted):
    """Greatest error relative to the greatest magnitude; infinite where shapes or non-finite elements differ."""
    if found.shape != wanted.shape:
        return np.inf, f"shape {found.shape}, expected {wanted.shape}"
    finite = np.isfinite(wanted)
    if not np.array_equal(finite, np.isfinite(found)) or not np.array_equal(found[~finite], wanted[~finite], equal_nan=True):
        return np.inf, "other non-finite elements"
    if not finite.any():
        return 0.0, ""
    scale = max(np.abs(wanted[finite]).max(), 1e-6)
    return float(np.abs(found[finite] - wanted[finite]).max() / scale), ""


def compare(folder):
    failed, worst, count = [], 0.0, 0
    for place in sorted(p for p in folder.iterdir() if p.is_dir()):
        count += 1
        with np.load(place / "expected.npz") as saved:
            expected = dict(saved)
        bar = float(expected.pop("bar"))
        if (place / "error.txt").exists():
            failed.append(f"{place.name}: {(place / 'error.txt').read_text().strip()}")
            continue
        outputs = json.loads((place / "out.json").read_text())
        found = {
            o["name"]: np.fromfile(place / f"out.{i}.f64", "<f8").reshape(o["shape"]) for i, o in enumerate(outputs)
        }
        if sorted(found) != sorted(expected):
            failed.append(f"{place.name}: results {sorted(found)}, expected {sorted(expected)}")
            continue
        for name, wanted in expected.items():
            error, why = error_of(found[name], wanted.astype(np.float64))
            worst = max(worst, error / bar)
            if not error <= bar:
                failed.append(f"{place.name}: `{name}` {why or f'is off by {error:.2e}, allowed {bar:.0e}'}")
    print(f"{count} cases, {len(failed)} failures, greatest error {worst:.2g} of what is allowed")
    print("\n".join(failed))
    return not failed and count > 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("make", "compare"):
        raise SystemExit(__doc__)
    target = Path(sys.argv[2])
    if sys.argv[1] == "make":
        make(target)
    elif not compare(target):
        raise SystemExit(1)
