"""The project's tests that are marked `cuda`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

from benchmarks.gpu.context import Context

NONE_COLLECTED = 5  # pytest's exit code


def run(part: str, context: Context) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-vv",
        "-m",
        "cuda",
        "-p",
        "no:cacheprovider",
        "--durations=10",
        "tests/cuda",
    ]
    command += ["--collect-only"] if context.smoke else []
    count: Counter[str] = Counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"EARFACE_TEST_CUDA": "1"},
    )
    for line in process.stdout or ():
        print(line, end="", flush=True)
        if match := re.match(r"(tests\S+.*) (PASSED|FAILED|ERROR|SKIPPED)\b", line):
            count[match[2]] += 1
            if match[2] in ("FAILED", "ERROR"):
                context.row(case=match[1][:200], ok=False)
    context.row(case="pytest -m cuda", ok=process.wait() in (0, NONE_COLLECTED), **count)
