"""Work that takes time says so: a bar on a terminal; elsewhere a line within two seconds, then one every ten."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, TypeVar

FIRST_LINE_S, NEXT_LINES_S = 2.0, 10.0

Item = TypeVar("Item")
_running: list[Progress] = []  # the innermost last
_printing = threading.Lock()
_display: list[Any] = []  # rich's, of the outermost one: each inside it has a bar of its own there


class Progress:
    """How far a piece of work is. total: None where it is not known."""

    def __init__(self, what: str, total: int | None) -> None:
        self.what, self.total, self.done = what, total, 0

    def advance(self, count: int = 1) -> None:
        self.update(self.done + count)

    def update(self, done: int, total: int | None = None) -> None:
        """done: since the start."""
        self.done = done
        self.total = self.total if total is None else total


@contextmanager
def progress(what: str, total: int | None = None, *, quiet: bool = False, bar: bool = True) -> Iterator[Progress]:
    """Shown on stdout while the block runs, unless it is `quiet` or one of several processes but the first.

    what: such as `decoding ears`. The block calls `advance` or `update`; one that cannot shows that time passes.
    bar: on a terminal; without it lines there, too. Inside another one's block this one's lines take their place.
    """
    state = Progress(what, total)
    if quiet or os.environ.get("LOCAL_RANK", "0") != "0":
        yield state
        return
    with _printing:
        _running.append(state)
    try:
        with _bar(state) if bar and sys.stdout.isatty() else _lines(state):
            yield state
    finally:
        _running.remove(state)


def tracked(items: Iterable[Item], what: str, total: int | None = None, *, quiet: bool = False) -> Iterator[Item]:
    """The items one by one, counted. total: default their length, where they have one."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(what, total, quiet=quiet) as state:
        for item in items:
            yield item
            state.advance()


@contextmanager
def _bar(state: Progress) -> Iterator[None]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    outermost = not _display
    if outermost:
        _display.append(Bar(*columns, TimeRemainingColumn(), transient=True))
    (bar,) = _display
    task = bar.add_task(state.what, total=state.total)

    def show() -> None:
        bar.update(task, description=state.what, completed=state.done, total=state.total)

    try:
        with bar if outermost else nullcontext(), _repeatedly(show, 0.2, 0.2):
            yield
    finally:
        bar.remove_task(task)
        if outermost:
            _display.clear()


@contextmanager
def _lines(state: Progress) -> Iterator[None]:
    start = time.monotonic()

    def show() -> None:
        seconds = time.monotonic() - start
        counted = f" {state.done:,} of {state.total:,}," if state.total else f" {state.done:,}," if state.done else ""
        with _printing:
            if _running[-1] is state:  # else what runs inside it is shown
                print(f"{state.what}:{counted} {seconds:.0f} s", flush=True)

    with _repeatedly(show, FIRST_LINE_S, NEXT_LINES_S):
        yield


@contextmanager
def _repeatedly(show: Callable[[], None], first: float, then: float) -> Iterator[None]:
    """Calls `show` from a thread after `first` seconds and then every `then`, until the block ends."""
    ended = threading.Event()

    def run() -> None:
        wait = first
        with suppress(BrokenPipeError):  # the program's own next line ends it
            while not ended.wait(wait):
                show()
                wait = then

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
