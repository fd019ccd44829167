"""An ear recogniser is trained: what a batch holds, how the margin rises, what is stored, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ear_teacher import EarRecognizer
from ear_teacher.recognition.config import EarRecognizerTrainingConfig
from ear_teacher.recognition.datamodule import BalancedEars, EarFile, EarRecognizerDataModule
from ear_teacher.recognition.losses import EarRecognizerLoss
from ear_teacher.recognition.train import main as train
from earface.core.errors import InputError
from earface.data.npy import read_teacher_npy, write_teacher_npy
from earface.nn.checkpoint import read_checkpoint
from earface.nn.margin_head import margin_at
from tests.conftest import only_line
from tests.support.training import assert_same, metric_rows, outcome

SMALL = (
    *("--backbone", "conv", "--base-channels", "4", "--image-size", "64", "--embedding-dim", "16"),
    *("--backbone-weights", "none", "--images-per-class", "6", "--batch-size", "8", "--margin-epochs", "2"),
    *("--num-workers", "0", "--progress", "none", "--precision", "32"),
)


def run(ears: Path, out: Path, *flags: object) -> int:
    files = ["--train-npy", ears / "train_teacher.npy", "--val-npy", ears / "val_teacher.npy"]
    folders = ["--checkpoint-dir", out / "checkpoints", "--log-dir", out / "logs"]
    return train([*map(str, [*files, *folders, *SMALL, "--epochs", 2, *flags])])


@pytest.mark.runs
def test_training_learns_and_validates_on_other_people(ear_set: Path, tmp_path: Path) -> None:
    assert run(ear_set, tmp_path, "--epochs", 3, "--margin", 0) == 0
    rows = metric_rows(tmp_path)
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    eers = [row["val/eer"] for row in rows if "val/eer" in row]
    assert losses[-1] < losses[0]
    assert len(eers) == 3
    assert all(0 <= eer <= 1 for eer in eers)
    checkpoint = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert checkpoint["hyper_parameters"]["kind"] == "earface.EarRecognizer"
    model = EarRecognizer.load(tmp_path / "checkpoints" / "last.ckpt")
    assert model.provenance.classes == "person"
    assert len(model.provenance.trained_on) == 8
    images = torch.rand(3, 3, 64, 64) * 2 - 1
    found = model.embed_exactly(images)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(model.embed_exactly(images.flip(3)), found, atol=1e-5, rtol=0)
    model.save_pretrained(tmp_path / "folder")
    again = EarRecognizer.from_pretrained(tmp_path / "folder")
    assert torch.equal(again.embed_exactly(images), found)
    assert again.provenance == model.provenance


@pytest.mark.runs
def test_an_interrupted_run_ends_with_the_same_bits(ear_set: Path, tmp_path: Path) -> None:
    assert run(ear_set, tmp_path / "whole", "--augment", "strong") == 0
    assert run(ear_set, tmp_path / "parts", "--augment", "strong", "--stop-after-epoch", 1) == 75
    assert run(ear_set, tmp_path / "parts", "--augment", "strong") == 0
    for one, other in zip(outcome(tmp_path / "whole"), outcome(tmp_path / "parts"), strict=True):
        assert_same(one, other)


def file_of(counts: list[int]) -> EarFile:
    subjects = [f"s{number}" for number, count in enumerate(counts) for _ in range(count)]
    images: Any = np.zeros((len(subjects), 32, 32, 3), np.uint8)
    return EarFile("a.npy", images, [str(row) for row in range(len(subjects))], subjects, [""] * len(subjects), "")


def test_classes_are_drawn_evenly_and_every_image_before_one_comes_again() -> None:
    counts = [2, 5, 31]
    labels = np.repeat(np.arange(3), counts)
    ears = BalancedEars([file_of(counts)], labels, 10, "none", seed=4)
    assert len(ears) == 30
    drawn = [[ears.row(epoch, index) for index in range(30)] for epoch in range(31)]
    for epoch in drawn:
        assert Counter(labels[epoch].tolist()) == {0: 10, 1: 10, 2: 10}
    assert Counter(row for epoch in drawn[:1] for row in epoch if labels[row] == 0) == {0: 5, 1: 5}
    assert set(Counter(row for epoch in drawn for row in epoch if labels[row] == 2).values()) == {10}
    assert drawn[0] != drawn[1]


def test_the_margin_rises_in_a_straight_line() -> None:
    assert [margin_at(step, 4, 0.3) for step in (0, 1, 2, 4, 9)] == pytest.approx([0, 0.075, 0.15, 0.3, 0.3])
    assert margin_at(0, 0, 0.3) == 0.3


def test_the_loss_is_cross_entropy() -> None:
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    wanted = (np.log1p(np.exp(-2.0)) + np.log1p(np.exp(1.0))) / 2
    assert float(EarRecognizerLoss()(logits, labels).total) == pytest.approx(wanted, abs=1e-6)


def with_sides(source: Path, out: Path) -> Path:
    """A copy of a teacher file with alternating sides."""
    data = read_teacher_npy(source)
    assert data.image_paths is not None
    sides = ["l", "r"] * len(data)
    write_teacher_npy(out, image_paths=data.image_paths, subjects=data.subjects, sides=sides[: len(data)])
    return out


def test_the_two_ears_of_a_person_are_one_class_or_two(ear_set: Path, tmp_path: Path) -> None:
    path = with_sides(ear_set / "train_teacher.npy", tmp_path / "train.npy")
    for classes, count in (("person", 8), ("ear", 16)):
        config = EarRecognizerTrainingConfig(
            train_npy=(str(path),), val_npy=(str(ear_set / "val_teacher.npy"),), classes=classes, progress="none"
        )
        assert len(EarRecognizerDataModule(config).classes) == count


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--backbone", "edgeface_xxs", "--image-size", "64"], "--image-size 64: edgeface_xxs has 112"),
        (["--backbone", "nothing"], "--backbone nothing: choose one of"),
        (["--image-size", "100"], "must be a multiple of 32"),
        (["--backbone-weights", "none.pt"], "--backbone-weights none.pt: no such file"),
        (["--train-npy", "none.npy"], "none.npy: no such file"),
        (["--classes", "ear"], "names no sides"),
        (["--val-npy", "TRAIN"], "is the file that is trained on"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(
    flags: list[str], message: str, ear_set: Path, tmp_path: Path, capsys: Any
) -> None:
    given = [str(ear_set / "train_teacher.npy") if each == "TRAIN" else each for each in flags]
    assert run(ear_set, tmp_path, *given) == 2
    assert message in only_line(capsys)


def test_one_person_is_too_few_and_unknown_people_too(ear_set: Path, tmp_path: Path, capsys: Any) -> None:
    data = read_teacher_npy(ear_set / "train_teacher.npy")
    assert data.image_paths is not None
    write_teacher_npy(tmp_path / "one.npy", image_paths=data.image_paths[:5], subjects=["anna"] * 5)
    write_teacher_npy(tmp_path / "nobody.npy", image_paths=data.image_paths[:5])
    for name, message in (("one", "1 class of ears; two people or more"), ("nobody", "names no subjects")):
        assert run(ear_set, tmp_path / name, "--train-npy", tmp_path / f"{name}.npy") == 2
        assert message in only_line(capsys)


def test_equal_names_of_two_sets_are_two_people(ear_set: Path, tmp_path: Path) -> None:
    """001 of one set is not 001 of another, and the same set in two folders is one."""
    data = read_teacher_npy(ear_set / "train_teacher.npy")
    assert data.image_paths is not None
    assert data.subjects is not None
    for folder, collection in (("a", "first"), ("b", "second"), ("c", "first")):
        path = tmp_path / folder / "ears.npy"
        path.parent.mkdir()
        rows = slice(1 if folder == "c" else 0, None)  # no copy of the first
        paths, subjects = data.image_paths[rows], data.subjects[rows]
        write_teacher_npy(path, image_paths=paths, subjects=subjects, collection=collection)

    def module(train: str, val: str) -> EarRecognizerDataModule:
        files = {"train_npy": (f"{tmp_path}/{train}/ears.npy",), "val_npy": (f"{tmp_path}/{val}/ears.npy",)}
        found = EarRecognizerDataModule(EarRecognizerTrainingConfig(**files, progress="none"))
        found.setup()
        return found

    first, second = module("a", "b"), module("b", "a")
    assert first.train_files[0].people.isdisjoint(second.train_files[0].people)
    assert first.train_files[0].people == second.val_files[0].people
    with pytest.raises(InputError, match="8 subjects are also in"):
        module("a", "c")


@pytest.mark.runs
def test_a_run_goes_on_with_its_own_classes_alone(ear_set: Path, tmp_path: Path, capsys: Any) -> None:
    path = with_sides(ear_set / "train_teacher.npy", tmp_path / "train.npy")
    assert run(ear_set, tmp_path, "--train-npy", path, "--stop-after-epoch", 1) == 75
    data = read_teacher_npy(path)
    assert data.image_paths is not None
    write_teacher_npy(path, image_paths=data.image_paths[:20], subjects=(data.subjects or [])[:20])
    capsys.readouterr()
    assert run(ear_set, tmp_path, "--train-npy", path) == 2
    assert "not those that the run began with" in only_line(capsys)
