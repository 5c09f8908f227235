"""The notebook of the examples runs from its first cell to its last."""

import json

from conftest import REPO


def test_quickstart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((REPO / "examples" / "notebooks" / "quickstart.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 6 and all(not cell["outputs"] for cell in cells)
    names = {}
    for i, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"cell {i}", "exec"), names)
