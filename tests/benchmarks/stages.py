"""Stages with faults, for the test of who runs them."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.gpu.context import Context


def run(part: str, context: Context) -> None:
    context.row(case=part, ok=True)
    if part == "hangs":  # and so does a process of its own
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (context.out / "child").write_text(f"{child.pid}\n")
        time.sleep(600)
    elif part == "fails":
        raise RuntimeError("as asked")
    elif part == "case fails":
        context.case("one", lambda: {"found": 1 // 0})
        context.case("another", lambda: {"found": 2})
