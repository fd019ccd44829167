"""earface.train does what the command does, and hands over the model and the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import earface
from ear_teacher.train import main as train_ears
from earface.core.errors import InputError
from earface.runs import TRAININGS
from earface.synthetic.scene_set import SceneSet, write_scene_set
from tests.conftest import TINY, VLR

pytestmark = pytest.mark.runs

SMALL: dict[str, Any] = {"num_workers": 0, "progress": "none", "precision": "32", "batch_size": 4}
SHAPE: dict[str, Any] = {
    "encoder": "conv", "base_channels": 4, "image_size": 64, "latent_dim": 8, "linear_path_size": 16, "lr": 1e-3,
    "log_every_n_steps": 2, "augment": "none",
}  # fmt: skip


def folders(tmp_path: Path) -> dict[str, Any]:
    return {"checkpoint_dir": str(tmp_path / "checkpoints"), "log_dir": tmp_path / "logs"}


def test_it_is_the_command(ear_set: Path, tmp_path: Path) -> None:
    run = earface.train("ears", ear_set, epochs=1, **SMALL, **SHAPE, **folders(tmp_path / "python"))
    assert (run.kind, run.folder, run.paused) == ("ears", tmp_path / "python" / "checkpoints", False)
    data = ("--train-npy", ear_set / "train_teacher.npy", "--val-npy", ear_set / "val_teacher.npy")
    places = ("--checkpoint-dir", tmp_path / "command", "--log-dir", tmp_path / "logs")
    assert train_ears([*map(str, (*data, *places, *TINY, "--epochs", 1))]) == 0
    last = [torch.load(folder / "last.ckpt", weights_only=True) for folder in (run.folder, tmp_path / "command")]
    ours, theirs = (each["state_dict"] for each in last)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert run.model.embed(ear_set / "images").shape == (50, 8)


def test_a_run_that_is_paused_goes_on(ear_set: Path, tmp_path: Path) -> None:
    given = {"epochs": 2, **SMALL, **SHAPE, **folders(tmp_path)}
    assert earface.train("ears", ear_set, stop_after_epoch=1, **given).paused
    assert not earface.train("ears", ear_set, **given).paused


def test_the_other_kinds(face_set: Path, edgeface: Path, tmp_path: Path) -> None:
    write_scene_set(tmp_path / "ears", SceneSet(6, 96, 72))
    for part in ("train", "val"):
        (tmp_path / "ears" / f"annotations_{part}.json").write_bytes((tmp_path / "ears/annotations.json").read_bytes())
    with pytest.raises(InputError, match="is the file that is trained on"):
        earface.train(
            "detector", tmp_path / "ears" / "annotations.json", encoder="conv", encoder_weights="none", **SMALL
        )
    none = {"recognizer": "none", "second_recognizer": "none", "lambda_identity": 0, "lambda_feature_match": 0}
    shape = {"vlr_size": VLR, "base_channels": 8, "residual_blocks": 1, "lambda_perceptual": 0}
    run = earface.train("dsr", face_set, epochs=1, **none, **shape, **SMALL, **folders(tmp_path / "dsr"))
    assert run.model.upscale(face_set / "val_processed" / "vlr_images").shape == (6, 128, 128, 3)
    given = {"recognizer": edgeface, "upsampler": "bicubic", "vlr_size": VLR, "stage1_epochs": 1, "stage2_epochs": 1}
    own = folders(tmp_path / "faces") | {"cache_dir": tmp_path / "cache"}
    run = earface.train("faces", face_set, **given, **SMALL, **own)
    assert run.model.embed(torch.rand(2, 3, 112, 112) * 2 - 1).shape == (2, 512)


def test_what_the_command_refuses_is_an_error(ear_set: Path) -> None:
    for options, problem in (
        ({"epochz": 3}, "epochz"),
        ({"epochs": 0}, "must be"),
        ({"train_npy": "nowhere.npy"}, "nowhere.npy: no such file"),
    ):
        with pytest.raises(InputError, match=problem):
            earface.train("ears", ear_set, **options)
    with pytest.raises(InputError, match="choose one of ears, recognizer, detector, dsr, faces"):
        earface.train("eyes", ear_set)  # type: ignore[arg-type]


def test_every_training_command_has_its_kind() -> None:
    from earface.commands import COMMANDS

    trainers = {each.module for name, each in COMMANDS.items() if name.endswith((" train", " finetune"))}
    assert {each.module for each in TRAININGS.values()} == trainers
