"""Whatever a file of somebody else does to a reader, and however it is named: one line that names it."""

from __future__ import annotations

import errno
import os

import pytest

from earface.core.errors import InputError, reading
from earface.core.limits import MAX_MESSAGE
from earface.core.notices import collecting_warnings, one_line, warn, warnings_given


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EINVAL, "Invalid argument"), "not a table"),  # a seek to a place that no file has
        (OSError("cannot be read"), "not a table"),
        (TypeError("can only join text"), "not a table"),
        (MemoryError(), "not a table; it asks for more memory or depth than there is"),
        (RecursionError(), "not a table; it asks for more memory or depth than there is"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "check the disk or network share"),
        (InputError("line 3 is too long"), "line 3 is too long"),
        (InputError("a.csv line 3 is too long"), "a.csv line 3 is too long"),
    ],
)
def test_whatever_is_raised_becomes_an_input_error_that_names_the_file_once(error: Exception, said: str) -> None:
    with pytest.raises(InputError) as found, reading("a.csv", "not a table"):
        raise error
    assert str(found.value).count("a.csv") == 1
    assert said in str(found.value)


@pytest.mark.parametrize("text", ["a\nb", "a\r\n  b", "a\u2028b", "a\x0bb", "a\x85b"])
def test_a_name_with_a_line_end_stays_in_one_line(text: str) -> None:
    assert str(InputError(f"{text}.npy: damaged")) == "a b.npy: damaged"
    with collecting_warnings():
        warn(f"{text}.npy: odd")
        assert warnings_given() == ["a b.npy: odd"]


def test_a_name_cannot_move_the_cursor_of_a_terminal_nor_fill_it() -> None:
    assert one_line("\x1b[2J\x07.npy") == "\\x1b[2J\\x07.npy"
    assert one_line("ear\t.npy, \u8033.npy") == "ear\t.npy, \u8033.npy"
    assert len(one_line("x" * 10**6)) == MAX_MESSAGE
