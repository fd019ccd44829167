"""A program whose output nobody reads any more, as behind `| head`, ends without a word."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

EXIT_CLOSED_PIPE = 141  # 128 and the number of the signal


@contextmanager
def quiet_closed_pipe() -> Iterator[None]:
    """Around a program; the block is left where its output has no reader."""
    piped = _is_piped()
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # a program of Windows without a console has none
                sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again at its end
    except SystemExit as stopped:
        if stopped.code != 1 or not piped or _is_piped():  # what rich makes of it, which points stdout elsewhere
            raise


def _is_piped() -> bool:
    """Whether stdout is a pipe, or was before it had no reader."""
    with suppress(OSError, ValueError, AttributeError):
        mode = os.fstat(sys.stdout.fileno()).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
    return False
