"""The same training or evaluation command after the data has been prepared anew."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dsr.train_dsr
import ear_teacher.detector.evaluate
import ear_teacher.detector.train
import ear_teacher.evaluate
import ear_teacher.recognition.evaluate
import ear_teacher.recognition.train
import ear_teacher.train
import facial_rec.finetune_edgeface
from earface.core.stopping import EXIT_PAUSED
from earface.data.annotations import Annotations, Photograph
from earface.data.coco import read_coco, write_coco
from earface.data.npy import read_teacher_npy, write_teacher_npy
from earface.data.prepare_faces import main as prepare_faces
from earface.synthetic.scene_set import SceneSet, write_scene_set
from tests.conftest import TINY, VLR
from tests.ear_teacher.detector.test_training import TINY as TINY_DETECTOR
from tests.ear_teacher.recognition.test_training import SMALL as SMALL_RECOGNIZER
from tests.support.output import Command, refusal, run

pytestmark = pytest.mark.runs

EARS = ("train_teacher.npy", "val_teacher.npy")
SHARED = (
    *("--num-workers", "0", "--progress", "none", "--precision", "32", "--vlr-size", VLR, "--batch-size", "8"),
    *("--warmup-epochs", "0"),
)


@pytest.fixture
def ears(ear_set: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ear_set, tmp_path / "data"))


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    return ["--checkpoint-dir", str(tmp_path / "checkpoints"), "--log-dir", str(tmp_path / "logs")]


def ear_files(ears: Path) -> list[str]:
    return ["--train-npy", str(ears / EARS[0]), "--val-npy", str(ears / EARS[1])]


def write_ears(folder: Path, sides: Sequence[Sequence[str]]) -> None:
    """Both teacher files again, with these subjects each."""
    rows = [
        row for name in EARS for data in [read_teacher_npy(folder / name)] for row in zip(*columns(data), strict=True)
    ]
    for name, subjects in zip(EARS, sides, strict=True):
        own = [row for row in rows if row[1] in subjects]
        write_teacher_npy(folder / name, image_paths=[row[0] for row in own], subjects=[row[1] for row in own])


def columns(data: Any) -> tuple[list[Path], list[str]]:
    return data.image_paths, data.subjects


def subjects_of(folder: Path) -> list[list[str]]:
    return [sorted(set(read_teacher_npy(folder / name).subjects or ())) for name in EARS]


@pytest.mark.parametrize(
    ("train", "evaluate", "shape"),
    [
        (ear_teacher.train.main, ear_teacher.evaluate.main, TINY),
        (ear_teacher.recognition.train.main, ear_teacher.recognition.evaluate.main, SMALL_RECOGNIZER),
    ],
    ids=["VAE", "recogniser"],
)
def test_ears_that_were_split_anew_are_refused(
    train: Command, evaluate: Command, shape: tuple[str, ...], ears: Path, places: list[str], capsys: Any
) -> None:
    """Two subjects change sides. Where they only change their order, or some leave, the run goes on."""
    command = [*ear_files(ears), *places, *shape, "--epochs", "3"]
    assert train([*command, "--stop-after-epoch", "1"]) == EXIT_PAUSED
    trained, validated = subjects_of(ears)
    write_ears(ears, [[*trained[1:], validated[0]], [*validated[1:], trained[0]]])
    last = Path(places[1]) / "last.ckpt"
    capsys.readouterr()
    line = refusal(train, capsys, *command)
    assert f"{last}: the data was split anew (trained on before, validated on now: 1 person such as " in line
    assert trained[0] in line
    assert "--resume never" in line
    line = refusal(evaluate, capsys, "--checkpoint", last, "--out", last.parent / "evaluation")
    assert "1 of 2 people, such as " in line
    assert trained[0] in line
    write_ears(ears, [trained, validated])
    code, _, errors = run(train, capsys, *command, "--stop-after-epoch", 2)
    assert code == EXIT_PAUSED
    assert "10 people with other pictures" not in errors


def test_ears_that_left_are_warned_of_before_training_goes_on(ears: Path, places: list[str], capsys: Any) -> None:
    trained, validated = subjects_of(ears)
    write_ears(ears, [trained, validated])
    command = [*ear_files(ears), *places, *TINY, "--epochs", "2"]
    assert ear_teacher.train.main([*command, "--stop-after-epoch", "1"]) == EXIT_PAUSED
    write_ears(ears, [trained[2:], validated])
    code, _, errors = run(ear_teacher.train.main, capsys, *command)
    assert code == 0
    said = "warning: " + str(Path(places[1]) / "last.ckpt") + ": the training data is not what the run began with: "
    assert errors.count(said + "2 people fewer\n") == 2  # before the first step, and at the end
    code, _, errors = run(ear_teacher.evaluate.main, capsys, "--checkpoint", Path(places[1]) / "last.ckpt")
    assert (code, errors) == (0, "")


def test_a_checkpoint_from_before_there_were_digests_goes_on(ears: Path, places: list[str], capsys: Any) -> None:
    command = [*ear_files(ears), *places, *TINY, "--epochs", "2"]
    assert ear_teacher.train.main([*command, "--stop-after-epoch", "1"]) == EXIT_PAUSED
    last = Path(places[1]) / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    del checkpoint["data"]
    torch.save(checkpoint, last)
    assert ear_teacher.train.main(command) == 0
    assert "data" in torch.load(last, weights_only=True)
    assert run(ear_teacher.evaluate.main, capsys, "--checkpoint", last)[0] == 0


def test_photographs_that_were_split_anew_are_refused(tmp_path: Path, places: list[str], capsys: Any) -> None:
    photographs = [
        dataclasses.replace(each, subject="")
        for each in write_scene_set(tmp_path / "a", SceneSet(12, 96, 72)).photographs
    ]
    names = read_coco(tmp_path / "a" / "annotations.json").landmark_names

    def split(first: list[Photograph], second: list[Photograph]) -> None:
        for name, rows in (("train", first), ("val", second)):
            write_coco(tmp_path / f"{name}.json", Annotations(tmp_path, rows, names))

    split(photographs[:8], photographs[8:])
    files = ["--train-json", str(tmp_path / "train.json"), "--val-json", str(tmp_path / "val.json")]
    command = [*files, *places, *TINY_DETECTOR, "--epochs", "2"]
    assert ear_teacher.detector.train.main([*command, "--stop-after-epoch", "1"]) == EXIT_PAUSED
    split(photographs[2:10], [*photographs[:2], *photographs[10:]])
    capsys.readouterr()
    line = refusal(ear_teacher.detector.train.main, capsys, *command)
    assert "trained on before, validated on now: 2 pictures such as a/" in line
    last = Path(places[1]) / "last.ckpt"
    line = refusal(ear_teacher.detector.evaluate.main, capsys, "--checkpoint", last, "--out", tmp_path / "out")
    assert "val.json: 2 of 4 pictures, such as a/" in line


@pytest.mark.parametrize(
    ("train", "shape"),
    [
        (
            dsr.train_dsr.main,
            "--recognizer none --second-recognizer none --lambda-identity 0 --lambda-feature-match 0 "
            "--lambda-perceptual 0 --base-channels 8 --residual-blocks 1 --epochs 2",
        ),
        (facial_rec.finetune_edgeface.main, "--weights {edgeface} --inputs hr --min-images 1 --stage1-epochs 2"),
    ],
    ids=["DSR", "EdgeFace"],
)
def test_faces_that_were_split_anew_are_refused(
    train: Command, shape: str, face_set: Path, edgeface: Path, tmp_path: Path, places: list[str], capsys: Any
) -> None:
    def prepare(seed: int) -> None:
        given = ["--images", str(face_set.parent / "drawn"), "--aligned", "--out", str(tmp_path / "set")]
        assert prepare_faces([*given, "--vlr-size", VLR, "--seed", str(seed), "--overwrite"]) == 0

    prepare(1)
    given = [*shape.format(edgeface=edgeface).split(), *SHARED]
    command = ["--dataset-root", str(tmp_path / "set"), *places, *given]
    assert train([*command, "--stop-after-epoch", "1"]) == EXIT_PAUSED
    prepare(2)
    capsys.readouterr()
    line = refusal(train, capsys, *command)
    assert "the data was split anew (" in line
    assert " such as 0" in line
    prepare(1)
    assert train([*command, "--stop-after-epoch", "2"]) in (0, EXIT_PAUSED)


# What is odd from the start


@pytest.mark.parametrize(
    ("train", "flags"),
    [
        (ear_teacher.train.main, ("npy", TINY)),
        (ear_teacher.recognition.train.main, ("npy", SMALL_RECOGNIZER)),
    ],
    ids=["VAE", "recogniser"],
)
@pytest.mark.parametrize("copied", [False, True])
def test_one_file_on_both_sides_is_refused(
    train: Command, flags: Any, copied: bool, ears: Path, places: list[str], capsys: Any
) -> None:
    (ears / EARS[1]).unlink()
    if copied:
        shutil.copy(ears / EARS[0], ears / EARS[1])
    given = ear_files(ears) if copied else ["--train-npy", str(ears / EARS[0]), "--val-npy", str(ears / EARS[0])]
    assert "is the file that is trained on" in refusal(train, capsys, *given, *places, *flags[1])


def test_one_annotation_file_on_both_sides_is_refused(tmp_path: Path, places: list[str], capsys: Any) -> None:
    write_scene_set(tmp_path / "a", SceneSet(4, 96, 72))
    file = tmp_path / "a" / "annotations.json"
    given = ["--train-json", file, "--val-json", file, *places, *TINY_DETECTOR]
    assert "is the file that is trained on" in refusal(ear_teacher.detector.train.main, capsys, *given)


def test_pictures_of_nobody_known_on_both_sides_are_refused(ears: Path, places: list[str], capsys: Any) -> None:
    paths = [path for name in EARS for path in read_teacher_npy(ears / name).image_paths or ()]
    for name, own in zip(EARS, (paths[:40], paths[38:]), strict=True):
        write_teacher_npy(ears / name, image_paths=own)
    line = refusal(ear_teacher.train.main, capsys, *ear_files(ears), *places, *TINY)
    assert f"val_teacher.npy: 2 of 12 pictures are also trained on, such as {paths[38]}" in line


@pytest.mark.parametrize("train", [ear_teacher.train.main, ear_teacher.recognition.train.main])
def test_boxes_that_are_not_used_are_warned_of(train: Command, ears: Path, places: list[str], capsys: Any) -> None:
    """Whole photographs would be trained on in silence."""
    for name in EARS:
        data = read_teacher_npy(ears / name)
        assert data.image_paths
        boxes = np.tile(np.array([20, 20, 20, 24], np.float32), (len(data), 1))
        write_teacher_npy(ears / name, image_paths=data.image_paths, subjects=data.subjects, bboxes=boxes)
    shape = TINY if train is ear_teacher.train.main else SMALL_RECOGNIZER
    code, _, errors = run(train, capsys, *ear_files(ears), *places, *shape, "--epochs", 1)
    assert code == 0
    cure = "add --crop-to-bbox" if train is ear_teacher.train.main else "earface ears prepare"
    for name in EARS:
        assert f"{name}: has boxes that are a small part of the pictures" in errors
    assert cure in errors
    if train is ear_teacher.train.main:
        given = (*places, *shape, "--epochs", 1, "--resume", "never", "--crop-to-bbox")
        assert "has boxes" not in run(train, capsys, *ear_files(ears), *given)[2]


def test_pictures_of_one_colour_are_warned_of_in_training_and_evaluation(
    ears: Path, places: list[str], capsys: Any
) -> None:
    """What boxes of one pixel leave: PSNR rises beyond what any picture allows."""
    rng = np.random.default_rng(0)
    for name, count in zip(EARS, (40, 10), strict=True):
        colour = rng.integers(90, 92, (count, 1, 1, 3), np.uint8)
        np.save(ears / name, np.ascontiguousarray(np.broadcast_to(colour, (count, 64, 64, 3))))
    given = [*ear_files(ears), *places, *TINY, "--epochs", "1"]
    code, _, errors = run(ear_teacher.train.main, capsys, *given)
    assert code == 0
    assert "warning: " + str(ears / EARS[1]) + ": 10 of 10 pictures are of one colour, such as " in errors
    out = ears / "out"
    last = Path(places[1]) / "last.ckpt"
    code, _, errors = run(ear_teacher.evaluate.main, capsys, "--checkpoint", last, "--out", out)
    assert code == 0
    warned = json.loads((out / "metrics.json").read_text())["warnings"]
    assert [f"warning: {line}" for line in warned] == errors.splitlines()
