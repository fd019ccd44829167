"""A few drawn faces as a prepared set, recognisers at random weights, and one short run that several files look at."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

from dsr.losses import Recognizer
from dsr.train_dsr import load_recognizer, main

VLR = "16"
PERCEPTUAL = "timm:test_resnet.r160_in1k"  # timm's own test model, 0.4 M parameters
ALONE = ("--recognizer", "none", "--lambda-identity", "0", "--lambda-feature-match", "0", "--lambda-perceptual", "0")

Arguments = Callable[..., list[str]]


@pytest.fixture(scope="session")
def face_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten people with three faces and two with one: 19 to train, 6 of two people to validate, 7 to test."""
    from data.prepare_faces import main as prepare
    from data.synthetic.faces import FaceSet, draw_dataset

    folder = tmp_path_factory.mktemp("faces")
    draw_dataset(folder / "drawn", FaceSet(12, 3, 128, seed=3))
    for subject in ("011", "012"):
        for path in sorted((folder / "drawn").rglob(f"{subject}_*.png"))[1:]:
            path.unlink()
    made = folder / "set"
    assert prepare(["--images", str(folder / "drawn"), "--aligned", "--out", str(made), "--vlr-size", VLR]) == 0
    return made


def random_edgeface(path: Path, seed: int, variant: str = "edgeface_xxs") -> Path:
    """Weights in the authors' layout; layer scales, which start at 1e-6, are large enough to tell faces apart."""
    from facial_rec.model import EdgeFace

    torch.manual_seed(seed)
    model = EdgeFace(variant)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gamma" in name:
                parameter.fill_(0.5)
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def edgeface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_edgeface(tmp_path_factory.mktemp("edgeface") / "xxs.pt", 0)


@pytest.fixture(scope="session")
def recognizer(edgeface: Path) -> Recognizer:
    found = load_recognizer("--recognizer", str(edgeface), "arcface")
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


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    """stderr, which holds one line."""
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error
