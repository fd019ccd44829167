"""What every stage is given: where files lie, how much time is left, and where its rows go."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Context:
    """One stage's surroundings. `work` is scratch, shared by the stages of a run; `out` is what is kept."""

    stage: str
    work: Path
    assets: Path
    out: Path
    smoke: bool
    seconds: float  # the stage's limit
    started: float = field(default_factory=time.monotonic)

    @property
    def device(self) -> str:
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def left(self) -> float:
        """Seconds until the limit."""
        return self.started + self.seconds - time.monotonic()

    def row(self, **values: Any) -> None:
        """One line of the stage's table, on disk at once: it stays when the stage is killed."""
        path = self.work / "rows" / f"{self.stage}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as stream:
            stream.write(json.dumps(values) + "\n")
        print("row", json.dumps(values), flush=True)

    def rows(self, stage: str) -> list[dict[str, Any]]:
        """What another stage of this run has found so far."""
        path = self.work / "rows" / f"{stage}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def case(self, name: str, function: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
        """Run it and write a row: ok, seconds, peak memory and what it returns, or the error's last line."""
        fresh_device()
        start = time.perf_counter()
        try:
            found = {"ok": True, **(function() or {})}
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            found = {"ok": False, "error": f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"}
        row = {"case": name, **found, "seconds": round(time.perf_counter() - start, 1), **peak_memory()}
        self.row(**row)
        return row


def fresh_device() -> None:
    """Forget what an earlier case left: garbage, cached blocks, compiled graphs, peaks."""
    gc.collect()
    torch: Any = sys.modules.get("torch")  # a stage that does without it shall not wait for it
    if torch is None:
        return
    if hasattr(torch, "_dynamo"):
        torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, int]:
    """MiB of tensors at the highest since `fresh_device`."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    return {"peak_mib": round(torch.cuda.max_memory_allocated() / 2**20)}


class EntryError(RuntimeError):
    """An entry script that ended with another exit code than wanted; the message is its error line."""


@contextlib.contextmanager
def kept_stderr() -> Iterator[io.StringIO]:
    """What the block writes to stderr, which is shown too."""
    kept = io.StringIO()
    with contextlib.redirect_stderr(kept):
        try:
            yield kept
        finally:
            sys.__stderr__.write(kept.getvalue())  # type: ignore[union-attr]


def call(main: Callable[[list[str]], int], argv: list[str], wanted: tuple[int, ...] = (0,)) -> str:
    """Run an entry script in this process; what it wrote to stderr. Raises EntryError."""
    with kept_stderr() as kept:
        code = main(argv)
    if code not in wanted:
        lines = [line for line in kept.getvalue().splitlines() if line.strip()]
        raise EntryError(f"exit code {code}: {lines[-1] if lines else 'no message'}")
    return kept.getvalue()
