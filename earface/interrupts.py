"""Ctrl-C before a program's `main` is there ends it as later: with one line. Imported first, so it imports nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

PACKAGES = ("earface", "ear_teacher", "dsr", "facial_rec", "pipeline", "data", "benchmarks")
EXIT_INTERRUPTED = 130  # as in earface.core.errors, which imports more than this file may


def quiet_interrupts() -> None:
    """If this process is one of our programs, a KeyboardInterrupt that nothing catches is one line and exit code 130.

    Where another program imports the packages nothing changes. What comes before the first of them, Python's own start,
    shows its traceback.
    """
    if sys.excepthook is sys.__excepthook__ and is_ours(sys.orig_argv):
        sys.excepthook = _in_one_line


def is_ours(command: Sequence[str]) -> bool:
    """Of a command line, Python and its options included: `-m` and a module of ours, a file of ours, or `earface`."""
    words = iter(command[1:])
    for word in words:
        if word == "-m":
            return next(words, "").partition(".")[0] in PACKAGES
        if word in ("-X", "-W"):
            next(words, None)
        elif not word.startswith("-"):
            return _is_our_file(word)
        elif word == "-c":
            return False
    return False


def _is_our_file(path: str) -> bool:
    from pathlib import Path

    file = Path(path).resolve()
    root = Path(__file__).resolve().parents[1]
    return Path(path).stem == "earface" or (root in file.parents and file.relative_to(root).parts[0] in PACKAGES)


def _in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        return sys.__excepthook__(kind, error, trace)
    print("interrupted", file=sys.stderr)
    raise SystemExit(EXIT_INTERRUPTED)
