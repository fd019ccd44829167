"""A recogniser at random weights, and one short run that several files look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dsr.train_dsr import main
from earface.nn.frozen import FrozenRecognizer
from facial_rec.recognizer import load_frozen_recognizer
from tests.conftest import VLR

ALONE = ("--recognizer", "none", "--lambda-identity", "0", "--lambda-feature-match", "0", "--lambda-perceptual", "0")

Arguments = Callable[..., list[str]]


@pytest.fixture(scope="session")
def recognizer(edgeface: Path) -> FrozenRecognizer:
    found = load_frozen_recognizer("--recognizer", str(edgeface), "arcface")
    assert found is not None
    return found


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
