"""The tutorials, from the first line to the last: every command and program, on synthetic pictures with tiny networks.

`python -m tests.test_tutorials` lists what of all documents is run, by which test, and why the rest is parsed only.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import chdir
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image

import earface
from earface.commands import COMMANDS
from earface.commands import main as run_command
from earface.runs import TrainedRun, train
from tests.conftest import PERCEPTUAL
from tests.support.documents import PROJECT, TUTORIALS, lines

COMMAND = re.compile(rf"^earface ({'|'.join(sorted(COMMANDS, key=len, reverse=True))})(?= |$)")

# Pages that go on from one another, in one folder.
JOURNEYS = {
    "ears": ("own_ears.md", "features_for_scikit_learn.md", "own_encoder.md"),
    "faces": ("own_faces.md",),
    "labels": ("few_labels.md",),
}
PREPARED = ("cluster_and_gpus.md", "without_network.md")  # take sets that are prepared already
TRAINING = ("--epochs", "1", "--num-workers", "0", "--progress", "none", "--precision", "32", "--accelerator", "cpu")
DETECTOR = ("--image-size", "64", "--base-channels", "4", "--pyramid-width", "16", "--crop-size", "32")
FACES = ("--base-channels", "8", "--residual-blocks", "1", "--batch-size", "8", "--lambda-perceptual", "0")
WEIGHTS = ("--recognizer", "edgeface.pt")  # of random weights, since none can be downloaded
BOTH = (*WEIGHTS, "--second-recognizer", "edgeface.pt")
PERCEPTION = ("--perceptual-backbone", PERCEPTUAL, "--perceptual-weights", "perceptual.pth")
# What is typed after each command: less of everything, and files where weights would be downloaded.
SMALL = {
    "ears train": (*TRAINING, "--base-channels", "4", "--latent-dim", "8", "--linear-path-size", "16", *PERCEPTION),
    "ears detector train": (*TRAINING, *DETECTOR, "--batch-size", "4"),
    "ears scenes": ("--photographs", "12", "--width", "96", "--height", "72"),
    "ears detector predict": ("--score-threshold", "0.001"),
    "faces prepare": ("--aligned", "true"),  # YuNet cannot be downloaded
    "dsr train": (*TRAINING, *FACES),
    "dsr evaluate": BOTH,
    "evaluate": (*WEIGHTS, "--bootstrap", "100"),
    "enroll": (*WEIGHTS, "--aligned", "true"),
    "identify": WEIGHTS,
}
CONV = ("--encoder", "conv", "--image-size", "64")
ALONE = (
    *CONV,
    "--devices",
    "1",
    "--num-nodes",
    "1",
    "--strategy",
    "auto",
)  # several processes would start pytest again
# Of single lines: last of all.
SINGLE = {
    "earface dsr train --vlr-size 16 --variant small": BOTH,
    "earface ears train --devices 4": ALONE,
    "earface ears train --accelerator cpu --devices 2": ALONE,
    "earface ears train --max-time": (*CONV, "--max-time", "00:00:00:01", "--epochs", "500"),
}
CODES = {  # of commands that do not end with 0
    "earface doctor": (0, 1),  # 1: what a usual training wants is missing
    "earface ears train --max-time": (75,),
}
NOT_RUN = {  # beginnings of lines that are not of this project, or not of this machine
    "source ": "the environment of whoever types it",
    "echo ": "the shell's",
}


class Step(NamedTuple):
    """A command line, or a Python block, of a page."""

    page: str
    language: str
    text: str


def train_little(kind: str, data: str, **options: Any) -> TrainedRun:
    """`earface.train`, with SMALL as its commands."""
    flags = SMALL[f"{kind} train"]
    less = {flag.removeprefix("--").replace("-", "_"): value for flag, value in pairwise(flags) if flag[:2] == "--"}
    return train(kind, data, **options | less)


def steps(path: Path) -> Iterator[Step]:
    for language, block in re.findall(r"^```(bash|python)\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
        texts = lines(block) if language == "bash" else [block]
        yield from (Step(path.name, language, text) for text in texts)


def beginning(text: str, table: dict[str, Any], otherwise: Any) -> Any:
    return next((value for start, value in table.items() if text.startswith(start)), otherwise)


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
    command = COMMAND.match(step.text)
    assert command, step.text
    more = (*SMALL.get(command[1], ()), *beginning(step.text, SINGLE, ()))
    code = run_command([*shlex.split(step.text)[1:], *more])
    assert code in beginning(step.text, CODES, (0,)), f"{step.text} {' '.join(more)}: {code}"
    return True


@pytest.fixture
def folder(
    tmp_path: Path, ear_set: Path, face_set: Path, edgeface: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Somebody's folder: ears and faces of people, a folder of photographs, and files of weights."""
    import timm

    from earface.synthetic.ear_set import EarSet, write_ear_set
    from earface.synthetic.scene_set import SceneSet, write_scene_set

    write_ear_set(tmp_path / "drawn", EarSet(10, 4, 96, seed=3), val_fraction=0.2, num_workers=1, overwrite=True)
    people = ("anna", "ben", "cleo", "dan", "eva", "finn", "gwen", "hal", "ida", "jon")
    for ear in sorted((tmp_path / "drawn" / "images").iterdir()):
        subject, _, number = ear.stem.partition("_")
        place = tmp_path / "crops" / people[int(subject[1:]) - 1] / f"{int(number)}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.open(ear).save(place, quality=95)
    for face in (face_set.parent / "drawn").rglob("*.png"):
        place = tmp_path / "photographs" / face.name.partition("_")[0] / face.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(face, place)
    write_scene_set(tmp_path / "new", SceneSet(12, 96, 72, seed=5))
    shutil.copytree(tmp_path / "new" / "images", tmp_path / "new_photographs")
    shutil.copy(edgeface, tmp_path / "edgeface.pt")
    torch.save(timm.create_model(PERCEPTUAL.removeprefix("timm:")).state_dict(), tmp_path / "perceptual.pth")
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
