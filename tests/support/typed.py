"""What the documents say to type, run: less of everything, and files where weights would be downloaded.

`python -m tests.support.typed` lists every command line and Python block: run, or parsed only, and why.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from earface.commands import COMMANDS
from earface.runs import TrainedRun, train
from tests.support.documents import COMMANDS_PAGE, DOCUMENTS, PROJECT, TUTORIALS, lines, spans, table

PERCEPTUAL = "timm:test_resnet.r160_in1k"  # timm's own test model
COMMAND = re.compile(rf"^earface ({'|'.join(sorted(COMMANDS, key=len, reverse=True))})(?= |$)")
PROGRAM = re.compile(r"^python (?:-m )?([\w./]+)(?= |$)")
MODULES = {
    module: command
    for commands, modules in table(COMMANDS_PAGE)
    for command, module in zip(spans(commands), spans(modules), strict=True)
}

TRAINING = ("--num-workers", "0", "--progress", "none", "--precision", "32", "--accelerator", "cpu")
ONE = ("--epochs", "1", *TRAINING)
DETECTOR = ("--base-channels", "4", "--pyramid-width", "16", "--crop-size", "32", "--image-size", "64")
FACES = ("--base-channels", "8", "--residual-blocks", "1", "--batch-size", "8", "--lambda-perceptual", "0")
EARS = ("--backbone", "conv", "--backbone-weights", "none", "--base-channels", "4", "--image-size", "64")
TUNING = ("--stage1-epochs", "1", "--stage2-epochs", "1", "--upsampler", "bicubic", "--batch-size", "4")
WEIGHTS = ("--recognizer", "edgeface.pt")  # of random weights, since none can be downloaded
BOTH = (*WEIGHTS, "--second-recognizer", "edgeface.pt")
PERCEPTION = ("--perceptual-backbone", PERCEPTUAL, "--perceptual-weights", "perceptual.pth")
# What is typed after each command, wherever it stands.
SMALL = {
    "ears synthesize": ("--subjects", "10", "--images-per-subject", "2", "--image-size", "64"),
    "ears scenes": ("--photographs", "12", "--width", "96", "--height", "72"),
    "ears check": ("--image-size", "64"),
    "ears train": (*ONE, "--base-channels", "4", "--latent-dim", "8", "--linear-path-size", "16", *PERCEPTION),
    "ears sample": ("--num", "4"),
    "ears detector train": (*ONE, *DETECTOR, "--batch-size", "4"),
    "ears detector predict": ("--score-threshold", "0.001"),
    "ears recognize train": (*ONE, *EARS),
    "faces synthesize": ("--subjects", "12", "--images-per-subject", "3"),
    "faces prepare": ("--aligned", "true"),  # YuNet cannot be downloaded
    "faces finetune": (*TRAINING, *TUNING, *WEIGHTS),
    "faces evaluate": WEIGHTS,
    "faces embed": WEIGHTS,
    "dsr train": (*ONE, *FACES),
    "dsr evaluate": BOTH,
    "evaluate": (*WEIGHTS, "--bootstrap", "100", "--device", "cpu"),
    "enroll": (*WEIGHTS, "--aligned", "true"),
}
CODES = {"doctor": (0, 1)}  # 1: what a usual training wants is missing


class Step(NamedTuple):
    """A command line, or a Python block, of a page."""

    page: str  # its path below the project's folder
    language: str  # bash, python, or prose: code in a sentence or a table
    text: str

    @property
    def program(self) -> tuple[str, list[str]] | None:
        """The command of `earface` that it is, whichever way it is typed, and its arguments."""
        if self.language == "python":
            return None
        if found := COMMAND.match(self.text):
            return found[1], shlex.split(self.text[found.end() :])
        if found := PROGRAM.match(self.text):
            name = MODULES.get(found[1].removesuffix(".py").replace("/", "."))
            return (name, shlex.split(self.text[found.end() :])) if name else None
        return None


def steps(path: Path, prose: bool = False) -> Iterator[Step]:
    """Of the blocks of a page; before them, if asked, the commands in its sentences and tables."""
    text, page = path.read_text(encoding="utf-8"), str(path.relative_to(PROJECT))
    if prose:
        for span in spans(text):
            step = Step(page, "prose", span)
            if step.program:
                yield step
    for language, block in re.findall(r"^```(bash|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        texts = lines(block) if language == "bash" else [block]
        yield from (Step(page, language, text) for text in texts)


def beginning(text: str, table: dict[str, Any], otherwise: Any) -> Any:
    """What a table holds for the line that the text begins with."""
    return next((value for start, value in table.items() if text.startswith(start)), otherwise)


def run_command(step: Step, *more: str) -> int:
    """The exit code of a command in this process, with its SMALL and more arguments after what is typed."""
    assert step.program, step.text
    name, arguments = step.program
    less = SMALL.get(name, ())
    typed = dict(pairwise(arguments)).get("--recognizer")
    if name in ("enroll", "evaluate") and typed and Path(typed).exists():  # of ears
        less = () if name == "enroll" else less[2:]
    return import_module(COMMANDS[name].module).main([*arguments, *less, *more])


def train_little(kind: str, data: str, **options: Any) -> TrainedRun:
    """`earface.train`, with SMALL as its commands."""
    flags = SMALL[f"{kind} train"]
    less = {flag.removeprefix("--").replace("-", "_"): value for flag, value in pairwise(flags) if flag[:2] == "--"}
    return train(kind, data, **options | less)


def fill_folder(folder: Path, face_set: Path, edgeface: Path) -> None:
    """crops/ of ten people's ears, photographs/ of faces, new_photographs/ with ears in them, and files of weights."""
    import timm
    import torch
    from PIL import Image

    from earface.synthetic.ear_set import EarSet, write_ear_set
    from earface.synthetic.scene_set import SceneSet, write_scene_set

    write_ear_set(folder / "drawn", EarSet(10, 4, 96, seed=3), val_fraction=0.2, num_workers=1, overwrite=True)
    people = ("anna", "ben", "cleo", "dan", "eva", "finn", "gwen", "hal", "ida", "jon")
    for ear in sorted((folder / "drawn" / "images").iterdir()):
        subject, _, number = ear.stem.partition("_")
        place = folder / "crops" / people[int(subject[1:]) - 1] / f"{int(number)}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.open(ear).save(place, quality=95)
    for face in (face_set.parent / "drawn").rglob("*.png"):
        place = folder / "photographs" / face.name.partition("_")[0] / face.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(face, place)
    write_scene_set(folder / "new", SceneSet(12, 96, 72, seed=5))
    shutil.copytree(folder / "new" / "images", folder / "new_photographs")
    shutil.copy(edgeface, folder / "edgeface.pt")
    torch.save(timm.create_model(PERCEPTUAL.removeprefix("timm:")).state_dict(), folder / "perceptual.pth")


def listing() -> Iterator[tuple[Step, str]]:
    """Every command line and Python block of the documents, and why it is parsed only; empty: it is run."""
    from tests.test_documents import ORIGIN_PAGE, trainings
    from tests.test_guides import GUIDES, of_guide, reason_not_to_run
    from tests.test_tutorials import NOT_RUN

    batches = {options for _, options in trainings()}
    for path in DOCUMENTS:
        page = str(path.relative_to(PROJECT))
        for step in steps(path) if path in TUTORIALS else of_guide(path):
            if path in TUTORIALS:
                reason = beginning(step.text, NOT_RUN, "")
            elif step.language == "python":
                reason = ""
            elif path == ORIGIN_PAGE:
                typed = PROGRAM.sub("", step.text).strip()
                reason = "" if typed in batches else "another way to type one that is run"
            else:
                missing = "a name in a sentence" if step.language == "prose" else "its page is not in GUIDES"
                reason = reason_not_to_run(step) or ("" if page in GUIDES else missing)
            yield step, reason


def main() -> int:
    counts: Counter[str] = Counter()
    for step, reason in listing():
        state = f"parsed only: {reason}" if reason else "run"
        counts[state] += 1
        print(f"{step.page}: {step.text.splitlines()[0]}\n    {state}")
    print()
    for state, count in counts.most_common():
        print(f"{count:4}  {state}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
