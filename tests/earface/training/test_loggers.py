"""metrics.csv: its rows and columns, also after a resume."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from earface.training.loggers import MetricsCSV


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def log_losses(log: MetricsCSV, *losses: float) -> None:
    for step, loss in enumerate(losses):
        log.log_metrics({"epoch": 0, "loss": loss}, step)


def test_each_call_is_a_row(tmp_path: Path) -> None:
    log_losses(MetricsCSV(tmp_path), 0.5, 0.25)
    assert rows(tmp_path) == [
        {"epoch": "0", "step": "0", "loss": "0.5"},
        {"epoch": "0", "step": "1", "loss": "0.25"},
    ]


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_reopening_keeps_exactly_the_rows_it_is_told_to(tmp_path: Path, kept: int) -> None:
    log_losses(MetricsCSV(tmp_path), 0.5, 0.25, 0.125)
    MetricsCSV(tmp_path, keep_rows=kept).log_metrics({"epoch": 9, "loss": 0.0}, 9)
    assert [row["loss"] for row in rows(tmp_path)] == [*["0.5", "0.25", "0.125"][:kept], "0"]


def test_a_row_cut_short_by_a_kill_is_dropped_with_those_after_the_checkpoint(tmp_path: Path) -> None:
    log_losses(MetricsCSV(tmp_path), 0.5, 0.25)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("0,2,0.1")
    MetricsCSV(tmp_path, keep_rows=2).log_metrics({"epoch": 1, "loss": 0.0}, 3)
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "3"]


def test_a_new_metric_adds_a_column_and_leaves_it_empty_before(tmp_path: Path) -> None:
    log = MetricsCSV(tmp_path)
    log_losses(log, 0.5)
    log.log_metrics({"epoch": 1, "psnr": 20.0}, 1)
    assert rows(tmp_path) == [
        {"epoch": "0", "step": "0", "loss": "0.5", "psnr": ""},
        {"epoch": "1", "step": "1", "loss": "", "psnr": "20"},
    ]


def test_a_resumed_file_is_that_of_one_run(tmp_path: Path) -> None:
    whole, first = MetricsCSV(tmp_path / "whole"), MetricsCSV(tmp_path / "parts")
    metrics = [{"epoch": 0, "loss": 1 / 3}, {"epoch": 0, "psnr": 2 / 3}, {"epoch": 1, "loss": 1e-9, "ssim": 0.1}]
    for step, row in enumerate(metrics):
        whole.log_metrics(row, step)
    for step, row in enumerate(metrics[:2]):
        first.log_metrics(row, step)
    MetricsCSV(tmp_path / "parts", keep_rows=2).log_metrics(metrics[2], 2)
    assert (tmp_path / "parts" / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


def test_a_run_that_logs_nothing_makes_no_file(tmp_path: Path) -> None:
    MetricsCSV(tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
