"""The README and the guides: every command line that synthetic pictures and tiny networks can run, in its place."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import VLR
from tests.support.documents import PROJECT
from tests.support.ear_boxes import write_fixed_boxes
from tests.support.typed import CODES, Step, fill_folder, run_command, steps

GUIDES = {  # and what is typed there instead, before all else
    "README.md": {
        "extract --input photographs/": "extract --input crops/",
        "--out data/preprocessed": "--out drawn",
        "--images crops/ --subject-pattern": "--images one_folder/ --subject-pattern",
    },
    "docs/COMMANDS.md": {},
    "docs/CUDA.md": {},
    "docs/EARS.md": {
        "photographs/": "crops/",
        "prepared/": "prepared/ --calibration-fraction 0",
        "--template-pictures 4": "--template-pictures 1",
        "searched.csv": "searched.csv --known-names note",
    },
    "docs/EXPORT.md": {" --report dsr/evaluation/metrics.json": ""},
    "docs/RUNS.md": {
        "detector train": "detector train --train-json labels/ears_train.json --val-json labels/ears_val.json",
        "runs/resnet18": "ear_teacher/checkpoints",
        "wandb,project=ears,offline=true": "csv",
        "my_callbacks:Alarm,threshold=20": "pytorch_lightning.callbacks:Timer",
    },
    "docs/FILES.md": {"Ada Lovelace": "001"},
    "docs/howto.md": {
        "Ada Lovelace": "001",
        "--input new/": "--input photographs/ --aligned",
        "--input frames/ --photographs": "--input photographs/",
        "--input frames/": "--input photographs/ --aligned",
    },
    "dsr/README.md": {"--input frames --photographs": "--input photographs"},
    "ear_teacher/DETECTION_GUIDE.md": {
        "photographs/boxes.csv": "boxes.csv",
        "--images photographs": "--images new_photographs",
    },
    "ear_teacher/README.md": {"photographs/": "crops/", "--out data/preprocessed": "--out drawn"},
    "ear_teacher/eigenears/README.md": {},
    "facial_rec/README.md": {},
    "pipeline/README.md": {
        "technical/dataset": "dataset",
        "--input new/": "--input photographs/ --aligned",
        "--operating-point fpir=0.01": "--threshold 0.3",  # ten people cannot support it
        "--input frames/": "--input photographs/ --aligned",
        "corridor.mp4 --every-frame 5": "photographs/001/ --aligned",
        "person_17/": "photographs/001/",
    },
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
    """Of a table of links to other pages what these do not have."""
    readme = [step.text for step in steps(PROJECT / "README.md", prose=True)] if path.name == "howto.md" else []
    yield from (step for step in steps(path, prose=True) if step.text not in readme)


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


def write_labels(folder: Path) -> None:
    """The boxes and landmarks of new_photographs, as boxes.csv and .pts files."""
    known = json.loads((folder / "scenes" / "annotations.json").read_text())
    names = {each["id"]: Path(each["file_name"]).name for each in known["images"]}
    boxes = [(Path("new_photographs", names[each["image_id"]]), *each["bbox"]) for each in known["annotations"]]
    write_rows(folder / "boxes.csv", "file,x,y,width,height", boxes)
    (folder / "photographs_with_points").mkdir()
    for each in known["annotations"]:
        name, points = names[each["image_id"]], np.reshape(each["keypoints"], (-1, 3))[:, :2] + 1
        place = folder / "photographs_with_points" / name
        shutil.copy(folder / "new_photographs" / name, place)
        lines = "\n".join(f"{x:.2f} {y:.2f}" for x, y in points)
        place.with_suffix(".pts").write_text(f"version: 1\nn_points: {len(points)}\n{{\n{lines}\n}}\n")


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory, face_set: Path, edgeface: Path) -> Path:
    """A folder with all that the guides' lines name: pictures, lists, labels, and models of one epoch."""
    folder = tmp_path_factory.mktemp("stock")
    fill_folder(folder, face_set, edgeface)
    shutil.rmtree(folder / "drawn")
    crops = sorted((folder / "crops").rglob("*.jpg"))
    (folder / "one_folder").mkdir()
    for path in crops:
        shutil.copy(path, folder / "one_folder" / f"{path.parent.name}_{path.name}")
    for name in ("one.jpg", "someone.jpg", "photo.jpg", "someone.png"):
        Image.open(crops[0]).save(folder / name)
    shutil.copytree(folder / "photographs", folder / "aligned")
    shutil.copytree(folder / "photographs", folder / "faces")
    rows = [(path.relative_to(folder), path.parent.name, "lr"[int(path.stem) % 2]) for path in crops]
    write_rows(folder / "people.csv", "file,identity,side", rows)
    write_rows(folder / "enrolled.csv", "file,identity,side", rows[::2])
    write_rows(folder / "searched.csv", "file,identity,side", rows[1::2])
    write_rows(folder / "ears.csv", "file,subject,side", [(path.relative_to("crops"), *more) for path, *more in rows])
    shutil.move(folder / "new", folder / "scenes")
    shutil.copytree(folder / "crops", folder / "people")
    for name in ("new", "new_pictures"):
        shutil.copytree(folder / "crops" / "anna", folder / name)
    write_labels(folder)
    for name in ("edgeface_xxs_q.pt", "edgeface_xs_q.pt"):
        shutil.copy(edgeface, folder / name)
    with chdir(folder):
        typed("earface ears prepare --images crops/")
        shutil.copytree("data/preprocessed", "prepared")
        for part, people in (("train", "abcdefgh"), ("val", "ij")):
            ears = [np.asarray(Image.open(path)) for path in crops if path.parent.name[0] in people]
            np.save(f"{part}.npy", np.stack(ears))
        typed("earface ears train")
        typed("earface ears recognize train")
        shutil.copytree("ear_teacher/checkpoints/recognizer", "recognizer")
        shutil.copy("recognizer/last.ckpt", "ears.ckpt")
        shutil.copy("scenes/annotations.json", "export.json")
        typed("earface ears annotations --coco export.json --images new_photographs --out labels/annotations.json")
        for path in sorted(Path("labels").glob("annotations*.json")):
            shutil.copy(path, path.with_name(path.name.replace("annotations", "ears")))
        typed("earface ears detector train --train-json labels/ears_train.json --val-json labels/ears_val.json")
        detector = "ear_teacher/checkpoints/detector"
        typed(f"earface ears detector predict --checkpoint {detector} --input new_photographs --out found")
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
    assert not failed, "\n".join(map(str, failed))
