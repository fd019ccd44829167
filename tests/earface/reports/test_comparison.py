"""Runs side by side: what differs, in which direction, and runs that cannot be compared."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from earface.commands import main
from earface.reports.comparison import compare
from earface.reports.run_folder import RunFolder
from tests.conftest import only_line


def run(
    folder: Path,
    rows: list[Mapping[str, float]],
    settings: Mapping[str, Any],
    record: Mapping[str, Any] | None = None,
    kind: str = "dsr",
) -> Path:
    """The logs of a run, as a training leaves them."""
    logs = folder / "logs" / kind / "version_0"
    logs.mkdir(parents=True)
    columns = sorted({name for row in rows for name in row})
    with (logs / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    (logs / "config.yaml").write_text(yaml.safe_dump(dict(settings)))
    if record is not None:
        (logs / "run.json").write_text(json.dumps({"format": 1, "state": "complete", "seconds": 60.0, **record}))
    return folder


def epochs(*losses: float, rank1: float = 0.5) -> list[Mapping[str, float]]:
    return [
        {"epoch": number, "step": 10 * number, "val/loss": loss, "val/psnr": 30 - loss, "val/rank1": rank1}
        for number, loss in enumerate(losses)
    ]


def test_settings_and_metrics_that_differ_are_shown_with_their_direction(tmp_path: Path) -> None:
    first = run(tmp_path / "a", epochs(3.0, 1.0, 2.0), {"lr": 0.1, "seed": 1, "log_dir": "x"}, {"defaults": {"new": 7}})
    second = run(tmp_path / "b", epochs(2.0, 0.5, rank1=0.25), {"lr": 0.2, "seed": 1, "log_dir": "y", "new": 8}, {})
    found = compare([RunFolder.read(first), RunFolder.read(second)])
    assert found.names == ["a", "b"]
    assert found.settings == [("lr", ["0.1", "0.2"]), ("new", ["7", "8"])]
    metrics = {name: [(cell.text, cell.difference, cell.better) for cell in cells] for name, cells in found.metrics}
    assert metrics["PSNR"] == [("29.00 dB", "", None), ("29.50 dB", "+0.50 dB", True)]
    assert metrics["rank-1"] == [("50.0 %", "", None), ("25.0 %", "-25.0 points", False)]
    assert metrics["loss"][1] == ("0.5000", "-0.5000", None)  # whose weights may differ
    assert next(iter(metrics)) == "PSNR"  # what one looks at first
    assert dict(found.facts)["best epoch"] == ["2", "2"]
    assert dict(found.curves)["loss"]["a"] == [(1, 3.0), (2, 1.0), (3, 2.0)]


def test_the_page_holds_the_tables_and_a_curve_of_each_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(run(tmp_path / name, epochs(2.0, loss), {"lr": loss})) for name, loss in (("a", 1.0), ("b", 0.5))]
    page = tmp_path / "page.html"
    assert main(["compare", *runs, "--out", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "29.50 dB (+0.50 dB)" in printed
    content = page.read_text()
    assert content.count("data:image/svg+xml") == 3
    assert "+0.50 dB" in content
    assert main(["compare", *runs, "--out", str(page)]) == 2
    assert "is there already" in only_line(capsys)


def test_other_validation_data_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(run(tmp_path / name, epochs(1.0), {}, {"data": {"digest_of_validation": name}})) for name in ("a", "b")]
    assert main(["compare", *runs, "--out", str(tmp_path / "page.html")]) == 0
    assert "validated on different pictures" in capsys.readouterr().err


def test_runs_that_share_no_metric_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(tmp_path / "a", epochs(1.0), {})
    second = run(tmp_path / "b", [{"epoch": 0, "step": 1, "train/loss": 1.0}], {})
    assert main(["compare", str(first), str(second), "--out", str(tmp_path / "page.html")]) == 2
    assert "no metric of validation in common" in only_line(capsys)
    assert not (tmp_path / "page.html").exists()


def test_runs_of_different_kinds_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(run(tmp_path / kind, epochs(1.0), {}, kind=kind)) for kind in ("dsr", "ear_vae")]
    assert main(["compare", *runs]) == 2
    assert only_line(capsys).endswith("(Ear VAE): are runs of different kinds; compare those of one\n")


def test_without_a_page_the_tables_are_printed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [str(run(tmp_path / name, epochs(2.0, loss), {})) for name, loss in (("a", 1.0), ("b", 0.5))]
    for _ in range(2):
        assert main(["compare", *runs]) == 0
    assert "29.50 dB (+0.50 dB)" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.html"))


def test_one_run_is_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(run(tmp_path / "a", epochs(1.0), {}))]) == 2
    assert "is one run; give two or more" in only_line(capsys)
