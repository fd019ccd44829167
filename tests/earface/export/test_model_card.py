"""The folder for the hub: a card of the run, its evaluations and its licence, and a model that loads again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dsr import DSR
from dsr.export import main as export_dsr
from earface.core.errors import InputError
from earface.export.model_card import licence_of, measured
from earface.nn.inference import weights_digest
from facial_rec.model import EdgeFace
from tests.conftest import only_line
from tests.dsr.test_export import small
from tests.support.edgeface import random_edgeface

pytestmark = pytest.mark.runs

REPORT = {
    "checkpoint": "run/last.ckpt",
    "people": 12,
    "files": {"somewhere/val_teacher.npy": {"recognizer": {"rank1": {"value": 0.8125, "interval": [0.75, 0.875]}}}},
    "eer": {"value": None, "interval": None},
    "by_size": [{"low": 1}],
    "notes": ["insufficient data for fine differences: 12 people"],
    "convention": "Leave one out.",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a run of three epochs leaves it."""
    model, path = small(), tmp_path_factory.mktemp("run") / "last.ckpt"
    sides = {side: torch.arange(2 * count).view(count, 2) for side, count in (("train", 5), ("val", 3))}
    options = {"dataset_root": "private/place/lfw", "degradation": "realistic", "seed": 7, "vlr_size": "14x16"}
    content = {
        "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()},
        "hyper_parameters": {"kind": "earface.DSR", "model": vars(model.config), "options": options},
        "data": {"of_people": True, **sides},
        "trained_on": ["0" * 16] * 5,
        "epoch": 2,
        "global_step": 99,
        "callbacks": {"ModelCheckpoint{...}": {"monitor": "val/psnr", "best_model_score": torch.tensor(24.5)}},
    }
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def hub(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    (folder / "metrics.json").write_text(json.dumps(REPORT))
    given = ["--license", "MIT", "--data", "5 people who agreed.", "--report", f"{folder}/metrics.json"]
    out = str(folder / "out")
    assert export_dsr(["--checkpoint", str(checkpoint), "--out", out, "--format", "hub", *given]) == 0
    return folder / "out"


def parts(folder: Path) -> tuple[dict[str, Any], str]:
    """The front matter of the card, and its text."""
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_the_folder_is_whole_and_loads(hub: Path) -> None:
    assert {path.name for path in hub.iterdir()} == {"README.md", "config.json", "model.safetensors", "dsr.onnx"}
    assert weights_digest(DSR.from_pretrained(hub)) == weights_digest(small())


def test_the_front_matter_is_what_the_hub_reads(hub: Path) -> None:
    front, text = parts(hub)
    assert (front["license"], front["library_name"], front["pipeline_tag"]) == ("mit", "earface", "image-to-image")
    assert "face-super-resolution" in front["tags"]
    assert "DSR.from_pretrained" in text


def test_the_card_says_what_the_run_and_its_evaluation_know(hub: Path) -> None:
    _, text = parts(hub)
    for line in (
        "- 5 people who agreed.",
        "- Read from: lfw.",
        "- Trained on 5 people, validated on 3 people.",
        "- Settings: vlr size 14x16, degradation realistic, seed 7.",
        "- Checkpoint of epoch 3, step 99.",
        "| val/psnr | 24.5 | - |",
        "| people | 12 | - |",
        "| files, val teacher.npy, recognizer, rank1 | 0.8125 | 0.75 to 0.875 |",
        "Leave one out.",
        "- insufficient data for fine differences: 12 people",
        "`dsr.onnx`: differs from PyTorch by",
        "no evidence",
    ):
        assert line in text, line
    assert "private" not in text


def test_numbers_of_a_report_are_named_by_the_way_to_them() -> None:
    assert dict(measured({"a": {"b_c": 1, "d": True, "e": "text"}, "f": None, "g": [1]})) == {"a, b c": (1, None)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "a model card needs a licence; give --license: mit"),
        ("--license 'all mine'", "the hub's id of a licence is wanted"),
        ("--license mit --report {folder}/nowhere.json", "nowhere.json: no such file"),
        ("--license mit --report {folder}/list.json", "list.json: not the metrics.json of an evaluation"),
        ("--license mit --format onnx", "--license is for the model card of --format hub"),
        ("--format both --data x", "--data is for the model card of --format hub"),
    ],
)
def test_a_card_that_cannot_be_filled_is_one_line(
    given: str, message: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.json").write_text("[]")
    arguments = ["--checkpoint", str(checkpoint), "--out", f"{tmp_path}/out", "--format", "hub"]
    assert export_dsr([*arguments, *shlex.split(given.format(folder=tmp_path))]) == 2
    assert message in only_line(capsys)
    assert not (tmp_path / "out").exists()


def test_weights_that_began_with_edgefaces_keep_its_licence(tmp_path: Path) -> None:
    model = EdgeFace.from_weights(random_edgeface(tmp_path / "weights.pt", 0))
    assert licence_of(model, None) == licence_of(model, "CC-BY-NC-SA-4.0") == "cc-by-nc-sa-4.0"
    with pytest.raises(
        InputError, match=r"`license` mit: the weights began with EdgeFace's and inherit cc-by-nc-sa-4.0"
    ):
        licence_of(model, "mit")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--quantize int8", "--quantize int8 needs --calibration"),
        ("--calibration {folder}", "--calibration: only --quantize int8 needs pictures"),
        ("--quantize int8 --calibration {folder} --half", "leave out --half"),
        ("--quantize int8 --calibration {folder} --format safetensors", "use --format onnx, both or hub"),
        ("--quantize int8 --calibration {folder}/nowhere", "nowhere: no such file or folder"),
        ("--quantize int8 --calibration {folder}", "holds no pictures"),
    ],
)
def test_int8_that_cannot_be_made_is_one_line(
    given: str, message: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--checkpoint", str(checkpoint), "--out", f"{tmp_path}/out"]
    assert export_dsr([*arguments, *given.format(folder=tmp_path).split()]) == 2
    assert message in only_line(capsys)
    assert not (tmp_path / "out").exists()
