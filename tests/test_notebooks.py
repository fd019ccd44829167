"""The notebooks hold no outputs, and run from top to bottom with few pictures and one epoch."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.support.documents import PROJECT

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
FEW = "SUBJECTS, PICTURES, EPOCHS, FOLDER, RECOGNIZER = 10, 4, 1, 'made', {recognizer!r}"


def cells(path: Path) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    assert len(cells(path)) > 3
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells(path))
    assert "parameters" in cells(path)[0].metadata["tags"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, edgeface: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert set(re.findall(r"[A-Z]{2,}", first.source)) <= set(re.findall(r"[A-Z]{2,}", FEW))
    first.source = FEW.format(recognizer=str(edgeface))
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", programs)  # of `earface`
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
