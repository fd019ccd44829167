"""The unattended check of a CUDA machine: what its parent process does about stages, and all of it on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.__main__ import GPUBenchmark, ended, finish, fits, main, run_all, start
from benchmarks.gpu.stages import STAGES, Stage
from tests.conftest import only_line

pytestmark = pytest.mark.runs


def faulty(part: str, seconds: float = 60) -> Stage:
    return Stage(part.replace(" ", "_"), "tests.benchmarks.stages", part, seconds)


def results(stages: list[Stage], folder: Path, minutes: float = 5) -> dict[str, Any]:
    """As written to disk."""
    (folder / "out").mkdir()
    run_all(stages, GPUBenchmark(out=str(folder / "out"), minutes=minutes), folder / "work")
    return json.loads((folder / "out" / "results.json").read_text())


def test_stage_over_its_limit_ends_with_its_children_and_keeps_its_rows(tmp_path: Path) -> None:
    """The limit comes once the stage has started a child, however long that takes."""
    options, child = GPUBenchmark(out=str(tmp_path)), tmp_path / "child"
    running = start(faulty("hangs", seconds=3600), options, tmp_path / "work", time.monotonic() + 3600)
    try:
        while running.process.poll() is None and not (child.exists() and child.read_text().endswith("\n")):
            time.sleep(0.01)
        assert list(ended([running])) == []
        running.seconds = 0.0
        assert list(ended([running])) == [running]
    finally:
        found = finish(running, options, tmp_path / "work")
    assert found["killed"]
    assert found["rows"] == [{"case": "hangs", "ok": True}]
    process, until = Path(f"/proc/{child.read_text().strip()}/stat"), time.monotonic() + 30
    while not gone(process):  # a signal is not obeyed at once on a busy machine
        assert time.monotonic() < until
        time.sleep(0.01)


def gone(process: Path) -> bool:
    """By its file in /proc; of a zombie only that is left."""
    try:
        return process.read_text().split()[2] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_failures_stop_neither_other_stages_nor_other_cases(tmp_path: Path) -> None:
    stages = results([faulty("fails"), faulty("case fails"), faulty("works")], tmp_path)["stages"]
    assert stages["fails"]["exit_code"] == 1
    assert "RuntimeError: as asked" in stages["fails"]["tail"]
    assert [row["ok"] for row in stages["case_fails"]["rows"]] == [True, False, True]
    assert "ZeroDivisionError" in stages["case_fails"]["rows"][1]["error"]
    assert stages["works"]["exit_code"] == 0
    table = (tmp_path / "out" / "table.md").read_text()
    assert "## case_fails: ok" in table
    assert "1 failed" in table
    assert "RuntimeError: as asked" in (tmp_path / "out" / "log.txt").read_text()


def test_stages_beyond_the_budget_are_named_and_not_started(tmp_path: Path) -> None:
    found = results([faulty("works"), faulty("fails")], tmp_path, minutes=0.01)
    assert found["stages"] == {}
    assert found["not_started"] == ["works", "fails"]


def test_what_measures_time_runs_alone() -> None:
    alone, data, check = Stage("a", "", "", 1), Stage("b", "", "", 1, "data"), Stage("c", "", "", 1, "checks")
    assert all(fits(stage, [], 6) for stage in (alone, data, check))
    assert fits(check, [check], 6)
    assert not fits(check, [check, check], 2)
    for stage, running in ((alone, check), (check, alone), (check, data), (alone, alone)):
        assert not fits(stage, [running], 6)
    assert all(not stage.beside for stage in STAGES if stage.name.startswith(("machine", "speed", "race")))


def test_unknown_stage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--stages", "machine,nothing"]) == 2
    assert "nothing" in only_line(capsys)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_smoke_run_passes_every_stage(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "--smoke",
        "--out",
        str(out),
        "--minutes",
        "55",
        "--at-once",
        "2",
    ]
    finished = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    found = json.loads((out / "results.json").read_text())
    assert set(found["stages"]) == {stage.name for stage in STAGES}, finished.stdout
    bad = {
        name: [row for row in stage["rows"] if row.get("ok") is False] or stage["tail"]
        for name, stage in found["stages"].items()
        if stage["exit_code"] != 0 or any(row.get("ok") is False for row in stage["rows"])
    }
    assert bad == {}
    assert finished.returncode == 0
