"""The examination of the machine: what it says is so, and its exit code is 1 where a training would fail."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from earface.commands import main
from earface.data.npy import write_teacher_npy
from earface.doctor import machine, software
from earface.doctor.weights import NEEDED, address
from earface.nn.precision import automatic_precision
from tests.conftest import only_line


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, an empty cache, no network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def examined(capsys: pytest.CaptureFixture[str], code: int) -> dict[str, dict[str, str]]:
    assert main(["doctor", "--json"]) == code
    return {each["name"]: each for each in json.loads(capsys.readouterr().out)}


def test_what_is_missing_is_named_with_the_way_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = examined(capsys, code=1)
    for each in NEEDED:
        assert found[each.name]["status"] == ("problem" if each.default else "note")
        assert address(each.name) in found[each.name]["advice"]
    assert "--encoder-weights FILE or none" in found["resnet50.tv_in1k"]["advice"]
    assert "earface ears prepare" in found["data/preprocessed/train_teacher.npy"]["advice"]
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "these stop a training as it is typed first" in shown
    assert all(each.name in shown for each in NEEDED)


def test_a_default_training_fails_where_it_says_so(
    here: Path, ear_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ear_set, here / "data" / "preprocessed")
    assert "ears of " in examined(capsys, code=1)["data/preprocessed/train_teacher.npy"]["value"]
    assert main(["ears", "train", "--image-size", "32", "--linear-path-size", "16"]) == 2
    assert "resnet50.tv_in1k" in only_line(capsys)


def test_cached_weights_are_found_where_they_lie(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = here / "hub" / "checkpoints" / "edgeface_xxs.pt"
    path.parent.mkdir(parents=True)
    path.touch()
    found = examined(capsys, code=1)["edgeface_xxs"]
    assert (found["status"], found["value"]) == ("ok", str(path))


def test_the_versions_and_the_precision_are_those_in_use(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = examined(capsys, code=1)
    assert found["numpy"]["value"] == np.__version__
    assert torch.__version__.startswith(found["torch"]["value"])
    assert found["precision on the CPU"]["value"].startswith(automatic_precision("cpu")[0])
    assert f"{os.cpu_count()} cores" in found["processor"]["value"]


def test_a_version_that_is_too_old_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "version", {"torch": "2.5.1+cu121", "timm": "1.0.20"}.__getitem__)
    assert software._required("torch", "2.6").status == "problem"
    assert software._required("timm", "1.0.20").status == "ok"
    monkeypatch.undo()
    assert software._minimums()["torch"] == "2.6"


def test_a_small_shared_memory_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: usage._replace(total=64_000_000))
    shared = {each.name: each for each in machine.machine()}.get("/dev/shm")
    if shared is not None:  # on Linux
        assert (shared.status, "shm-size" in shared.advice) == ("problem", True)


def test_data_that_moved_away_is_a_problem(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "data" / "preprocessed").mkdir(parents=True)
    write_teacher_npy(here / "data/preprocessed/train_teacher.npy", image_paths=["gone.png", "too.png"])
    found: dict[str, Any] = examined(capsys, code=1)["data/preprocessed/train_teacher.npy"]
    assert (found["status"], found["value"]) == ("problem", "2 of 2 pictures are missing")


def test_an_unknown_flag_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--jsn"]) == 2
    assert "did you mean --json?" in only_line(capsys)
