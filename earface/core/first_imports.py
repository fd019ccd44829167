"""The imports that come after parsing: from a cold disk PyTorch alone takes many seconds."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from earface.core.errors import EXIT_INTERRUPTED
from earface.core.progress import progress
from earface.core.stopping import note


@contextmanager
def first_imports(what: str = "PyTorch") -> Iterator[None]:
    """Around them: a line within about two seconds, if they take so long, and Ctrl-C ends the process with one line.

    At once, since nothing is lost yet, and an exception inside a library's import may come out as anything.
    """
    if "torch" in sys.modules:
        yield
        return
    with progress(f"loading {what}", bar=False), _interruptible():
        yield


@contextmanager
def _interruptible() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    try:
        if before not in (signal.SIG_IGN, None):
            signal.signal(signal.SIGINT, _end)
    except ValueError:  # not the main thread, which alone hears signals
        before = None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _end(number: int, frame: Any) -> NoReturn:
    note("interrupted")
    os._exit(EXIT_INTERRUPTED)
