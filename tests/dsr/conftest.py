"""A recogniser and a perceptual network at random weights, and one short run that several files look at."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

from dsr.train_dsr import main
from earface.nn.frozen import FrozenRecognizer
from facial_rec.recognizer import load_frozen_recognizer
from tests.conftest import VLR

PERCEPTUAL = "timm:test_resnet.r160_in1k"  # timm's own test model, 0.4 M parameters
ALONE = ("--recognizer", "none", "--lambda-identity", "0", "--lambda-feature-match", "0", "--lambda-perceptual", "0")

Arguments = Callable[..., list[str]]


@pytest.fixture(scope="session")
def recognizer(edgeface: Path) -> FrozenRecognizer:
    found = load_frozen_recognizer("--recognizer", str(edgeface), "arcface")
    assert found is not None
    return found


@pytest.fixture(scope="session")
def perceptual(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments that take a perceptual network from a file."""
    path = tmp_path_factory.mktemp("perceptual") / "weights.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model(PERCEPTUAL.removeprefix("timm:")).state_dict(), path)
    return ["--perceptual-backbone", PERCEPTUAL, "--perceptual-weights", str(path)]


@pytest.fixture(scope="session")
def arguments(face_set: Path, edgeface: Path) -> Arguments:
    """`arguments(folder, *extra)` of a run of about a second an epoch: two steps, 15 thousand parameters."""

    def of(folder: Path, *extra: str) -> list[str]:
        return [
            *("--dataset-root", str(face_set), "--recognizer", str(edgeface), "--second-recognizer", "none"),
            *("--checkpoint-dir", str(folder / "checkpoints"), "--log-dir", str(folder / "logs")),
            *("--vlr-size", VLR, "--base-channels", "8", "--residual-blocks", "1", "--batch-size", "8"),
            *("--epochs", "2", "--lr", "1e-3", "--warmup-epochs", "1", "--ema-decay", "0.9", "--precision", "32"),
            *("--lambda-perceptual", "0", "--num-workers", "0", "--log-every-n-steps", "2", "--progress", "none"),
            *extra,
        ]

    return of


@pytest.fixture(scope="session")
def finished(arguments: Arguments, perceptual: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs with every term of the loss."""
    folder = tmp_path_factory.mktemp("finished")
    assert main(arguments(folder, *perceptual, "--lambda-perceptual", "0.025")) == 0
    return folder


def metric_rows(folder: Path) -> list[dict[str, float]]:
    """metrics.csv of the first run, empty cells left out."""
    with (folder / "logs" / "dsr" / "version_0" / "metrics.csv").open(newline="") as file:
        return [{key: float(text) for key, text in row.items() if text} for row in csv.DictReader(file)]
