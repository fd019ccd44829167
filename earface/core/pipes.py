"""A program whose output nobody reads any more, as behind `| head`, ends without a word."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CLOSED_PIPE = 141  # 128 and the number of the signal


@contextmanager
def quiet_closed_pipe() -> Iterator[None]:
    """Around a program; the block is left where its output has no reader."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # a program of Windows without a console has none
                sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again at its end
