"""The README and the guides: every command line that synthetic pictures and tiny networks can run, in its place."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import VLR
from tests.support.documents import PROJECT
from tests.support.ear_boxes import write_fixed_boxes
from tests.support.typed import CODES, Step, fill_folder, run_command, steps

GUIDES = {  # and what is typed there instead, before all else
    "README.md": {"earface ears extract --input photographs/": "earface ears extract --input crops/"},
    "docs/COMMANDS.md": {},
    "docs/CUDA.md": {},
    "docs/EARS.md": {"photographs/": "crops/"},
    "docs/FILES.md": {},
    "docs/howto.md": {},
    "dsr/README.md": {},
    "ear_teacher/DETECTION_GUIDE.md": {},
    "ear_teacher/README.md": {"photographs/": "crops/"},
    "ear_teacher/eigenears/README.md": {},
    "facial_rec/README.md": {},
    "pipeline/README.md": {"technical/dataset": "dataset"},
}
PARSED_ONLY = {  # what a line holds, and why it is not run
    r"AWE|EARVN|IBUG|LFW|lfw|THAT|[A-Z]+(16|24|32)|A\.ckpt|runs/(ears|earvn55|awe\w*)/": "photographs of people",
    r"configs/|runs/(ears17|demo)": "minutes to hours",
    r"--help": "help",
    r"--encoder (sam|resnet50)|dinov2": "a large network",
    r"--devices 4": "several GPUs",
    r"--compile": "compiles for a GPU",
    r"^earface$|^earface evaluate$": "a name",
    r"NAME$|FILE$|FOLDER": "a placeholder",
}
NONE = ("--recognizer", "none", "--second-recognizer", "none", "--lambda-identity", "0", "--lambda-feature-match", "0")
CONV = ("--encoder", "conv", "--encoder-weights", "none", "--image-size", "64")
NEW = ("--resume", "never")
# Of commands: what is typed last, beside SMALL.
LAST = {
    "ears train": (*CONV, *NEW),
    "ears detector train": (*CONV, *NEW),
    "ears recognize train": NEW,
    "faces finetune": ("--upsampler", "bicubic", "--vlr-size", VLR, *NEW),
    "faces evaluate": ("--vlr-size", VLR),
    "dsr train": (*NONE, "--vlr-size", VLR, *NEW),
}
REPLACES = {  # commands with the option `overwrite`
    *("ears prepare", "ears annotations", "ears synthesize", "ears scenes", "ears evaluate", "ears extract"),
    *("ears eigenears", "ears detector evaluate", "ears detector predict", "ears recognize evaluate"),
    *("ears recognize embed", "faces prepare", "faces synthesize", "faces embed", "faces evaluate", "dsr evaluate"),
    *("dsr upscale", "enroll", "identify", "evaluate", "export ears", "export detector", "export recognizer"),
    *("export dsr", "export edgeface"),
}


def of_guide(path: Path) -> Iterator[Step]:
    yield from steps(path, prose=True)


def reason_not_to_run(step: Step) -> str:
    found = next((why for pattern, why in PARSED_ONLY.items() if re.search(pattern, step.text)), "")
    return found or ("" if step.program else "another program")


def typed(line: str, *more: str) -> None:
    """Run a line of this file; more: what is typed last."""
    step = Step("", "bash", line)
    assert step.program, line
    assert run_command(step, *LAST.get(step.program[0], ()), *more) == 0, line


def write_rows(path: Path, header: str, rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header.split(","), *rows])


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory, face_set: Path, edgeface: Path) -> Path:
    """A folder with all that the guides' lines name: pictures, lists, labels, and models of one epoch."""
    folder = tmp_path_factory.mktemp("stock")
    fill_folder(folder, face_set, edgeface)
    shutil.rmtree(folder / "drawn")
    crops = sorted((folder / "crops").rglob("*.jpg"))
    for name in ("one.jpg", "someone.jpg", "photo.jpg", "someone.png"):
        Image.open(crops[0]).save(folder / name)
    shutil.copytree(folder / "photographs", folder / "aligned")
    shutil.copytree(folder / "photographs", folder / "faces")
    rows = [(path.relative_to(folder), path.parent.name, "lr"[int(path.stem) % 2]) for path in crops]
    write_rows(folder / "people.csv", "file,identity,side", rows)
    write_rows(folder / "enrolled.csv", "file,identity,side", rows[::2])
    write_rows(folder / "searched.csv", "file,identity,side", rows[1::2])
    write_rows(folder / "ears.csv", "file,subject,side", [(path.relative_to("crops"), *more) for path, *more in rows])
    for name in ("edgeface_xxs_q.pt", "edgeface_xs_q.pt"):
        shutil.copy(edgeface, folder / name)
    with chdir(folder):
        typed("earface ears prepare --images crops/")
        shutil.copytree("data/preprocessed", "prepared")
        for part in ("train", "val"):
            shutil.copy(f"prepared/{part}_teacher.npy", f"{part}.npy")
        typed("earface ears train")
        typed("earface ears recognize train")
        shutil.copytree("ear_teacher/checkpoints/recognizer", "recognizer")
        shutil.copy("recognizer/last.ckpt", "ears.ckpt")
        shutil.copy("new/annotations.json", "export.json")
        typed("earface ears annotations --coco export.json --images new_photographs --out labels/annotations.json")
        for path in sorted(Path("labels").glob("annotations*.json")):
            shutil.copy(path, path.with_name(path.name.replace("annotations", "ears")))
        typed("earface ears detector train --train-json labels/ears_train.json --val-json labels/ears_val.json")
        Path("exported_detector").mkdir()
        write_fixed_boxes(Path("exported_detector/boxes.onnx"), [[4, 4, 60, 60]], [0.9])
        typed(f"earface faces prepare --images photographs/ --out dataset --vlr-size {VLR}")
        shutil.copytree("dataset/val_processed/vlr_images", "small_faces")
        shutil.copy(next(Path("photographs").rglob("*.png")), "probe.png")
        typed("earface dsr train")
        typed("earface faces finetune")
        typed("earface enroll --input photographs/ --out gallery.npz")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES)
def test_what_a_guide_says_to_type_runs(
    stock: Path, tmp_path: Path, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(stock, folder)
    failed = []
    with chdir(folder):
        for step in of_guide(PROJECT / page):
            if reason_not_to_run(step):
                continue
            line = step.text
            for written, instead in GUIDES[page].items():
                line = line.replace(written, instead)
            step = step._replace(text=line)
            assert step.program
            name = step.program[0]
            more = (*LAST.get(name, ()), *(("--overwrite",) if name in REPLACES else ()))
            code = run_command(step, *more)
            if code not in CODES.get(name, (0,)):
                failed.append((line, code, capsys.readouterr().err.splitlines()[-1:]))
    assert failed == []
