"""docs/ARCHITECTURE.md says that an encoder, a loss term and a metric each take one file and one line: added so to a
copy of the packages, they are trained, logged and evaluated."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.runs

PROJECT = Path(__file__).resolve().parent.parent
PATCHES = """
class PatchBackbone(Backbone):
    def __init__(self, in_channels: int, image_size: int) -> None:
        super().__init__()
        self.channels, self.grids = [8], [image_size // 8]
        self.patches = nn.Conv2d(in_channels, 8, 8, stride=8)

    @classmethod
    def from_config(cls, config, weights):
        return cls(config.in_channels, config.image_size)

    def forward(self, images):
        return [self.patches(images)]

    def layer_groups(self):
        return [[self.patches]]
"""


def insert(path: Path, after: str, line: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(after) == 1
    path.write_text(text.replace(after, after + line), encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packages, with an encoder, a loss term and a metric more."""
    for package in ("earface", "ear_teacher"):
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "logs"))
    teacher = tmp_path / "ear_teacher"
    imports = "from torch import nn\n\nfrom ear_teacher.backbones import Backbone\n"
    (teacher / "patches.py").write_text(imports + PATCHES, encoding="utf-8")
    insert(teacher / "config.py", "ENCODERS = {", '\n    "patches": "ear_teacher.patches:PatchBackbone",')
    smooth = "\n\n\ndef smooth_loss(prediction, target):\n    return prediction.diff(dim=3).abs().mean(dim=(1, 2, 3))\n"
    insert(teacher / "losses.py", "return 1.0 - ssim(prediction, target)", smooth)
    insert(teacher / "losses.py", '"center": center_loss', ', "smooth": smooth_loss')
    insert(teacher / "losses.py", "    center: float\n", "    smooth: float\n")
    insert(
        teacher / "config.py",
        "    edge_weight: float",
        ' = option(0.5, "of the Sobel term", low=0)\n    smooth_weight: float',
    )
    error = "\n\ndef error(prediction, target):\n    return (prediction - target).abs().mean(dim=(1, 2, 3))\n\n"
    quality = tmp_path / "earface" / "metrics" / "image_quality.py"
    insert(quality, "WINDOW = 11\n", error)
    insert(quality, '{"psnr": psnr', ', "error": error')
    return tmp_path


@pytest.mark.slow
def test_an_encoder_a_loss_term_and_a_metric_are_one_file_and_one_line_each(copy: Path, ear_set: Path) -> None:
    data = ["--train-npy", ear_set / "train_teacher.npy", "--val-npy", ear_set / "val_teacher.npy"]
    shape = "--encoder patches --encoder-weights none --image-size 32 --latent-dim 4 --linear-path-size 16"
    loss = "--perceptual-weight 0 --smooth-weight 2"
    run = "--epochs 1 --num-workers 0 --name added --accelerator cpu"
    for module, options in (
        ("ear_teacher.train", [*data, *f"{shape} {loss} {run}".split()]),
        ("ear_teacher.evaluate", ["--checkpoint", "runs/added/checkpoints/last.ckpt", "--device", "cpu"]),
    ):
        command = [sys.executable, "-m", module, *map(str, options)]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    checkpoint = torch.load(copy / "runs/added/checkpoints/last.ckpt", weights_only=True)
    assert any(name.startswith("model.encoder.backbone.patches.") for name in checkpoint["state_dict"])
    with (copy / "runs/added/logs/ear_vae/version_0/metrics.csv").open(newline="") as stream:
        logged = {name: value for row in csv.DictReader(stream) for name, value in row.items() if value}
    assert float(logged["train/smooth"]) > 0
    assert 0 < float(logged["val/error"]) < 1
    found = json.loads((copy / "runs/added/evaluation/last/metrics.json").read_text())
    assert found["error"] == pytest.approx(float(logged["val/error"]), rel=1e-3)
    assert 0 < found["pca_error"] < 1
