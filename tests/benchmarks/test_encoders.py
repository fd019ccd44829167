"""The benchmark of encoders hands what it trained to the one of transfer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.encoders import main
from tests.conftest import only_line
from tests.ear_teacher.detector.test_transfer import written

pytestmark = pytest.mark.runs


@pytest.mark.slow
def test_trained_encoders_are_the_starts_of_the_transfer_table(
    ear_set: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    conv = tmp_path / "conv"
    (conv / "checkpoints").mkdir(parents=True)
    shutil.copy(written(tmp_path, image_size=64), conv / "checkpoints" / "last.ckpt")
    metrics = {"psnr": 20.0, "ssim": 0.5, "rank1": 0.1, "maps_rank1": 0.1}
    costs = {"epochs": 1, "minutes": 1.0, "images_per_second": 1.0, "peak_memory_gb": 1.0}
    (conv / "result.json").write_text(json.dumps({"name": "conv", "metrics": metrics, **costs}))
    transfer = "--only identification:2 --draws 1 --starts conv"
    arguments = ["--only", "conv", "--val-npy", str(ear_set / "val_teacher.npy"), "--out", str(tmp_path)]
    assert main([*arguments, f"--transfer={transfer}"]) == 0
    printed = capfd.readouterr().out
    assert "| conv | 20.00 | 0.500 |" in printed
    assert "identification:2: conv, seed 0: rank1" in printed
    assert "- nothing: identification:2 (1 to run)" in printed


@pytest.mark.parametrize("weights", ["resnet50", "resnet50=nowhere.pth"])
def test_weights_without_a_file_are_one_line(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--weights", weights]) == 2
    assert f"{weights}: give the encoder and its file" in only_line(capsys)
