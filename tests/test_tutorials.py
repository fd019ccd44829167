"""The tutorials, from the first line to the last, on synthetic pictures and with tiny networks."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

import earface
from tests.support.documents import PROJECT, TUTORIALS
from tests.support.typed import BOTH, CODES, Step, beginning, fill_folder, run_command, steps, train_little

# Pages that go on from one another, in one folder.
JOURNEYS = {
    "ears": ("own_ears.md", "features_for_scikit_learn.md", "own_encoder.md"),
    "faces": ("own_faces.md",),
    "labels": ("few_labels.md",),
}
PREPARED = ("cluster_and_gpus.md", "without_network.md")  # take sets that are prepared already
PAUSED = "earface ears train --max-time"  # ends with exit code 75
CONV = ("--encoder", "conv", "--image-size", "64")
# several processes would start pytest again
ALONE = (*CONV, "--devices", "1", "--num-nodes", "1", "--strategy", "auto")
# Of single lines: last of all.
SINGLE = {
    "earface dsr train --vlr-size 16 --variant small": BOTH,
    "earface ears train --devices 4": ALONE,
    "earface ears train --accelerator cpu --devices 2": ALONE,
    PAUSED: (*CONV, "--max-time", "00:00:00:01", "--epochs", "500"),
}
NOT_RUN = {  # beginnings of lines that are not of this project, or not of this machine
    "source ": "the environment of whoever types it",
    "echo ": "the shell's",
}


def run(step: Step, names: dict[str, Any]) -> bool:
    """Whether there was something to run. names: what the Python blocks before it have made."""
    if step.language == "python":
        file = re.match(r"# (\w+\.py)\n", step.text)
        if file:
            Path(file[1]).write_text(step.text, encoding="utf-8")
        exec(compile(step.text, step.page, "exec"), names)
        return True
    if beginning(step.text, NOT_RUN, None):
        return False
    assert step.program, step.text
    codes = (75,) if step.text.startswith(PAUSED) else CODES.get(step.program[0], (0,))
    more = beginning(step.text, SINGLE, ())
    assert run_command(step, *more) in codes, f"{step.text} {' '.join(more)}"
    return True


@pytest.fixture
def folder(tmp_path: Path, face_set: Path, edgeface: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Somebody's folder: ears and faces of people, a folder of photographs, and files of weights."""
    fill_folder(tmp_path, face_set, edgeface)
    monkeypatch.setattr(earface, "train", train_little)
    monkeypatch.syspath_prepend(str(tmp_path))
    with chdir(tmp_path):
        yield tmp_path


def run_all(pages: tuple[str, ...]) -> None:
    names: dict[str, Any] = {}
    for page in pages:
        for step in steps(PROJECT / "docs" / "tutorials" / page):
            run(step, names)


@pytest.mark.slow
@pytest.mark.parametrize("pages", JOURNEYS.values(), ids=JOURNEYS)
def test_a_tutorial_works_as_it_is_typed(folder: Path, pages: tuple[str, ...]) -> None:
    run_all(pages)


@pytest.mark.slow
@pytest.mark.parametrize("page", PREPARED)
def test_a_tutorial_about_machines_works_as_it_is_typed(folder: Path, ear_set: Path, face_set: Path, page: str) -> None:
    shutil.copytree(ear_set, folder / "data" / "preprocessed")
    shutil.copytree(face_set, folder / "dataset")
    run_all((page,))


def test_every_tutorial_is_run() -> None:
    pages = {page for pages in JOURNEYS.values() for page in pages} | set(PREPARED)
    assert {path.name for path in TUTORIALS if any(steps(path))} == pages
