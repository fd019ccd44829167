"""Warnings are the last lines of a command, once each; and what ends a command is one line."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from earface.core.errors import InputError, entry_point
from earface.core.notices import DataWarning, lists_of_warnings, warn, warnings_given


@entry_point
def odd(argv: Sequence[str] | None = None) -> int:
    warn("SET: something\nis odd", ["a", "b"])
    warn("SET: something\nis odd")
    warn("SET: so is this")
    print("results")
    assert warnings_given() == ["SET: something is odd", "SET: so is this"]
    assert lists_of_warnings() == {"SET: something is odd": ["a", "b"]}
    return 0


def test_a_command_ends_with_what_it_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # nothing stays of an earlier command
        assert odd([]) == 0
        shown = capsys.readouterr()
        assert shown.out == "results\n"
        assert shown.err == "warning: SET: something is odd\nwarning: SET: so is this\n"
    assert warnings_given() == []


def test_python_code_gets_a_python_warning() -> None:
    with pytest.warns(DataWarning, match="so is this"):
        warn("so is this")


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EOPNOTSUPP, errno.ENOSPC, errno.EROFS, errno.ELOOP])
def test_whatever_the_file_system_says_is_one_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    @entry_point
    def failing(argv: Sequence[str] | None = None) -> int:
        raise OSError(number, os.strerror(number), "/share/out.csv")

    assert failing([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: /share/out.csv: {os.strerror(number)}: ")
    assert line.endswith(", then run the same command")


def test_a_name_too_long_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    @entry_point
    def failing(argv: Sequence[str] | None = None) -> int:
        return int(Path("a" * 300).exists() or Path("a" * 300).stat().st_size)

    assert failing([]) == 2
    assert "File name too long: shorten the name" in capsys.readouterr().err


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    @entry_point
    def failing(argv: Sequence[str] | None = None) -> int:
        raise KeyError("a fault")

    with pytest.raises(KeyError, match="a fault"):
        failing([])


def test_a_pipe_that_is_closed_early_ends_a_command_quietly() -> None:
    command = f"{sys.executable} -m earface --help; {sys.executable} -m earface ears train --help-all"
    done = subprocess.run(f"({command}) | head -n 1", shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "usage: earface COMMAND [options]\n", "")


def test_a_pipe_that_closes_during_work_ends_it_quietly_too() -> None:
    """Also where rich writes, which makes an exit code 1 of it, and where a line of progress is the first to notice."""
    program = """
import time
from earface.core.errors import entry_point
from earface.core import progress

progress.FIRST_LINE_S = progress.NEXT_LINES_S = 0.01

@entry_point
def main(argv=None):
    from rich.console import Console
    print("first", flush=True)
    with progress.progress("working"):
        time.sleep(0.5)
    Console().print("second")
    raise RuntimeError("not reached")

raise SystemExit(main())
"""
    command = f"{sys.executable} -c '{program}' | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("first\n141\n", "")


def test_every_name_can_be_printed_on_every_console(monkeypatch: pytest.MonkeyPatch) -> None:
    name = os.fsdecode(b"Jos\xe9/\xe5\xb1\xb1")

    @entry_point
    def printing(argv: Sequence[str] | None = None) -> int:
        print(name)
        raise InputError(name)

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="cp1252") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert printing([]) == 2
    for stream in (out, err):
        stream.flush()
        assert b"Jos\\udce9/\\u5c71" in stream.buffer.getvalue()  # type: ignore[attr-defined]
