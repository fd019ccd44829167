"""Warnings about a user's files: the last lines that a command prints, and part of its report.

A result that may be wrong is never silent. Whoever finds something odd calls `warn`; the command's entry point shows
it, and what writes a report asks `warnings_given`.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from earface.core.limits import MAX_MESSAGE

_collected: list[dict[str, list[str]]] = []  # of the commands that run, the innermost last: warnings, and what of


class DataWarning(UserWarning):
    """What Python code that runs no command gets instead of a line on stderr."""


def one_line(message: str) -> str:
    """As one line that a terminal shows as it is, whatever a file's name or content has put into it."""
    flat = re.sub(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*", " ", message)
    flat = re.sub(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", flat)
    return flat if len(flat) <= MAX_MESSAGE else f"{flat[: MAX_MESSAGE - 4]} ..."


def warn(message: str, listed: Sequence[str] = ()) -> None:
    """Say once that something in the user's files is odd: what, which file, what to do, in one line.

    listed: all of what the line only counts, for the command's report.
    """
    message = one_line(message)
    if _collected:
        _collected[-1].setdefault(message, list(listed))
    else:
        warnings.warn(message, DataWarning, stacklevel=2)


def warn_at_once(message: str) -> None:
    """As `warn`, and on stderr when it is first said: of work that goes on for hours after it."""
    message = one_line(message)
    if _collected and message not in _collected[-1]:
        with suppress(OSError):  # a terminal that was closed
            print("warning: " + " ".join(as_flags(message).split()), file=sys.stderr, flush=True)
    warn(message)


def warnings_given() -> list[str]:
    """Those of the command that runs, in their order; empty where none runs."""
    return list(_collected[-1]) if _collected else []


def lists_of_warnings() -> dict[str, list[str]]:
    """What those of them that only count would list, by their line."""
    return {message: listed for message, listed in _collected[-1].items() if listed} if _collected else {}


def as_flags(message: str) -> str:
    """Options in backticks as the command line spells them: `batch_size` -> --batch-size."""
    option = r"`(?!earface |python )([a-z]\w*)([^`]*)`"  # a command in backticks stays
    return re.sub(option, lambda found: f"--{found[1].replace('_', '-')}{found[2]}", message)


def show_warnings() -> None:
    """Print them on stderr: at a command's end, and before work that takes hours. By the first process alone."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        for message in warnings_given():
            print("warning: " + " ".join(as_flags(message).split()), file=sys.stderr, flush=True)


@contextmanager
def collecting_warnings() -> Iterator[None]:
    """Around a command's work."""
    _collected.append({})
    try:
        yield
    finally:
        _collected.pop()
