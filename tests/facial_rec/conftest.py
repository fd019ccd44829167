"""A short real fine-tuning that several files look at."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from facial_rec.finetune_edgeface import main
from tests.conftest import VLR

Arguments = Callable[..., list[str]]


@pytest.fixture(scope="session")
def options_of(face_set: Path, edgeface: Path, tmp_path_factory: pytest.TempPathFactory) -> Arguments:
    """`options_of(folder, *extra)`: one epoch of each stage, two steps an epoch."""
    cache = tmp_path_factory.mktemp("cache")

    def of(folder: Path, *extra: str) -> list[str]:
        return [
            *("--dataset-root", str(face_set), "--recognizer", str(edgeface), "--upsampler", "bicubic"),
            *("--vlr-size", VLR, "--cache-dir", str(cache), "--stage1-epochs", "1", "--stage2-epochs", "1"),
            *("--checkpoint-dir", str(folder / "checkpoints"), "--log-dir", str(folder / "logs"), "--batch-size", "4"),
            *("--backbone-lr", "1e-4", "--precision", "32", "--num-workers", "0", "--progress", "none", *extra),
        ]

    return of


@pytest.fixture(scope="session")
def finished(options_of: Arguments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetuned")
    assert main(options_of(folder, "--keep-weight", "1", "--lambda-align", "1")) == 0
    return folder


def last(folder: Path, stage: int) -> dict[str, Any]:
    """The last checkpoint of a stage."""
    return torch.load(folder / "checkpoints" / f"stage{stage}" / "last.ckpt", weights_only=True)


def metric_rows(folder: Path, stage: int) -> list[dict[str, float]]:
    """metrics.csv of a stage's first run, empty cells left out."""
    path = folder / "logs" / f"edgeface_stage{stage}" / "version_0" / "metrics.csv"
    with path.open(newline="") as file:
        return [{key: float(text) for key, text in row.items() if text} for row in csv.DictReader(file)]
