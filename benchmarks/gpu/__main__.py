"""Everything that CUDA changes, checked and timed unattended: `python -m benchmarks.gpu --out runs/gpu`.

Each stage is a process of its own with a limit; results.json, table.md and log.txt in --out are complete after every
stage. On a machine without a network, `bash benchmarks/gpu_run.sh` installs what was carried and calls this.
`--smoke` runs all of it on a CPU with tiny models.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.report import markdown
from benchmarks.gpu.stages import Stage, chosen
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.options import option

SHARED_MEMORY = Path("/dev/shm")  # a disk's sync would be timed with the checkpoints
ROOM = 24 * 2**30  # bytes of scratch
TAIL = 40  # lines of a failed stage in the table
LOG_CHARACTERS = 200_000  # of each stage in log.txt
POLL = 0.1  # seconds
SMOKE_PATIENCE = 5  # a CPU that others use too
LEAST = 10.0  # seconds of the budget for a stage to be started


@dataclass(frozen=True)
class GPUBenchmark:
    """Check and time everything on a CUDA machine."""

    out: str = option("runs/gpu", "results.json, table.md, log.txt, profile.txt, race_metrics.csv, NAME.ckpt")
    assets: str = option(".gpu", "what benchmarks/gpu_setup.sh made; what is missing there is synthetic")
    stages: str = option("", "names or their beginnings, in this order, comma-separated; NAME:SECONDS limits one")
    minutes: float = option(8.0, "in all; what is running then is killed", above=0)
    at_once: int = option(12, "stages that measure no time run side by side", low=1)
    work: str = option("", "scratch, which stays; default: a new folder in shared memory or TMPDIR, which does not")
    smoke: bool = option(False, "tiny models and data, also on a CPU")


@dataclass
class Running:
    stage: Stage
    process: subprocess.Popen[bytes]
    log: Path
    started: float
    seconds: float


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(GPUBenchmark, argv, prog="python -m benchmarks.gpu")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("results.json", "table.md", "log.txt", "profile.txt", "race_metrics.csv", "*.ckpt"):
        for path in out.glob(name):
            path.unlink()
    work = Path(options.work or tempfile.mkdtemp(prefix="earface_gpu_", dir=scratch()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no stage is left behind
    try:
        results = run_all(chosen(options.stages), options, work)
    finally:
        if not options.work:
            shutil.rmtree(work, ignore_errors=True)
    print(markdown(results))
    return int(any(stage["exit_code"] != 0 for stage in results["stages"].values()))


def scratch() -> str | None:
    """Shared memory where it has room, else the system's temporary folder."""
    if SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > ROOM:
        return str(SHARED_MEMORY)
    return None


def run_all(stages: Sequence[Stage], options: GPUBenchmark, work: Path) -> dict[str, Any]:
    """Start the stages in their order: those that run together side by side, any other alone."""
    deadline = time.monotonic() + options.minutes * 60
    results: dict[str, Any] = {"options": asdict(options), "host": platform.platform(), "stages": {}, "not_started": []}
    running: list[Running] = []
    try:
        schedule(list(stages), running, results, options, work, deadline)
    finally:
        for each in running:
            kill(each)
    return results


def schedule(
    waiting: list[Stage],
    running: list[Running],
    results: dict[str, Any],
    options: GPUBenchmark,
    work: Path,
    deadline: float,
) -> None:
    while waiting or running:
        if waiting and fits(waiting[0], [each.stage for each in running], options.at_once):
            stage = waiting.pop(0)
            if deadline - time.monotonic() < LEAST:
                results["not_started"].append(stage.name)
                write(results, options)
            else:
                running.append(start(stage, options, work, deadline))
            continue
        for each in list(ended(running)):
            running.remove(each)
            results["stages"][each.stage.name] = finish(each, options, work)
            write(results, options)
        time.sleep(POLL)


def fits(stage: Stage, running: Sequence[Stage], at_once: int) -> bool:
    """Whether it may start now: nothing runs, or few that it shares the machine with."""
    if not running:
        return True
    return bool(stage.beside) and len(running) < at_once and all(each.beside == stage.beside for each in running)


def start(stage: Stage, options: GPUBenchmark, work: Path, deadline: float) -> Running:
    seconds = min(stage.seconds * (SMOKE_PATIENCE if options.smoke else 1), deadline - time.monotonic())
    log = work / f"{stage.name}.log"
    (work / "rows").mkdir(parents=True, exist_ok=True)
    (work / "rows" / f"{stage.name}.jsonl").unlink(missing_ok=True)  # of an earlier call with the same --work
    command = [sys.executable, "-m", "benchmarks.gpu.stage"]
    command += [f"--stage={stage.name}", f"--module={stage.module}", f"--part={stage.part}", f"--seconds={seconds:.0f}"]
    command += [f"--work={work}", f"--assets={options.assets}", f"--out={options.out}"]
    command += ["--smoke"] if options.smoke else []
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor")}
    if stage.beside or options.smoke:  # neighbours share the cores
        environment |= {"OMP_NUM_THREADS": "1" if options.smoke else "2", "TORCHINDUCTOR_COMPILE_THREADS": "3"}
    print(f"{stage.name}: started, {seconds:.0f} s at most", flush=True)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    return Running(stage, process, log, time.monotonic(), seconds)


def ended(running: Sequence[Running]) -> Iterator[Running]:
    """Those that have ended, or are past their limit."""
    for each in running:
        if each.process.poll() is not None or time.monotonic() - each.started > each.seconds:
            yield each


def kill(each: Running) -> None:
    """And what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(each.process.pid, signal.SIGKILL)


def finish(each: Running, options: GPUBenchmark, work: Path) -> dict[str, Any]:
    """Kill what is left of its process group, and collect what it found."""
    killed = each.process.poll() is None
    kill(each)
    code = each.process.wait()
    seconds = time.monotonic() - each.started
    text = each.log.read_text(errors="replace")
    with (Path(options.out) / "log.txt").open("a") as stream:
        stream.write(f"\n===== {each.stage.name}: exit code {code}, {seconds:.1f} s\n{text[-LOG_CHARACTERS:]}")
    rows = work / "rows" / f"{each.stage.name}.jsonl"
    found = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    failed = sum(row.get("ok") is False for row in found)
    state = "killed at its limit" if killed else f"exit code {code}"
    print(f"{each.stage.name}: {state}, {seconds:.0f} s, {len(found)} rows, {failed} failed", flush=True)
    tail = text.splitlines()[-TAIL:] if code else []
    return {"exit_code": code, "killed": killed, "seconds": round(seconds, 1), "rows": found, "tail": tail}


def write(results: dict[str, Any], options: GPUBenchmark) -> None:
    out = Path(options.out)
    (out / "results.json").write_text(json.dumps(results, indent=1))
    (out / "table.md").write_text(markdown(results))


if __name__ == "__main__":
    sys.exit(main())
