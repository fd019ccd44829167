"""The benchmark of a long run finds what grows, and sees every epoch."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.long_run import Epoch, growth, main, too_much

STEADY = [Epoch(number, 500.0 + number % 2, 30, 12, 8.0 + 0.1 * (number % 3)) for number in range(1, 31)]


def test_a_start_that_is_slow_and_small_is_no_growth() -> None:
    assert too_much(growth([Epoch(1, 300.0, 20, 9, 80.0), *STEADY[1:]])) == []


@pytest.mark.parametrize(
    ("name", "late"), [("memory_mb", 520.0), ("files", 31), ("threads", 13), ("step_ms", 8.5), ("step_ms", 7.5)]
)
def test_what_is_more_at_the_end_is_named(name: str, late: float) -> None:
    assert too_much(growth([*STEADY[:20], *(replace(each, **{name: late}) for each in STEADY[20:])])) == [name]


@pytest.mark.runs
def test_every_epoch_is_looked_at(tmp_path: Path) -> None:
    assert main(["--smoke", "--out", str(tmp_path)]) == 0
    with (tmp_path / "epochs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all(float(row[name]) > 0 for row in rows for name in ("memory_mb", "files", "threads", "step_ms"))
    assert Image.open(tmp_path / "long_run.png").size[0] > 500
