"""A run whose validation is worse at its end than at its beginning says so, instead of what its best was."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ear_teacher.train import main
from earface.training.loggers import MetricsCSV
from earface.training.run_recorder import divergence


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([0.5, 0.1, 0.7], "val/loss 0.7 after the last epoch, 0.5 after the first"),
        ([0.5, 0.7, 0.5], ""),
        ([0.5, 0.1, 0.4], ""),
        ([0.01889, 0.018, 0.01931], ""),  # of a tiny ear VAE, which starts near its best
        ([0.5], ""),
        ([], ""),
    ],
)
def test_the_last_validation_is_compared_with_the_first(losses: list[float], said: str, tmp_path: Path) -> None:
    table = MetricsCSV(tmp_path)
    for epoch, loss in enumerate(losses):
        table.log_metrics({"epoch": epoch, "val/loss": loss}, epoch)
        table.log_metrics({"epoch": epoch, "train/loss": 9.0 + epoch}, epoch)
    trainer: Any = SimpleNamespace(loggers=[table])
    assert divergence(trainer) == said


@pytest.mark.runs
def test_a_ruined_run_says_diverged_in_its_last_line_and_report(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ruin = ["--lr", "10", "--grad-clip", "0", "--warmup-epochs", "2", "--schedule", "constant", "--epochs", "3"]
    assert main([*tiny, *ruin]) == 0
    output = capsys.readouterr().out
    assert output.rstrip().splitlines()[-1].startswith("diverged val/loss ")
    assert "best val/loss" not in output
    (record,) = (tmp_path / "logs").rglob("run.json")
    assert json.loads(record.read_text())["state"] == "diverged"
    assert "diverged" in record.with_name("report.html").read_text()
