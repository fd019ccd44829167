"""One run, one folder: the lock, whom it names, and what is taken over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from earface.core.errors import InputError
from earface.core.notices import collecting_warnings, warnings_given
from earface.training.one_run import HOLDER, only_run_in

PROGRAM = """
import sys, time
from pathlib import Path
from earface.training.one_run import only_run_in
with only_run_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_run(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder until its stdin is closed."""
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    with collecting_warnings():
        yield


def test_a_second_run_is_refused_by_the_first_ones_host_and_process(tmp_path: Path) -> None:
    with another_run(tmp_path / "run") as process:
        with (
            pytest.raises(InputError, match=f"process {process.pid} on .* is training in it"),
            only_run_in(tmp_path / "run"),
        ):
            pass
        process.communicate()
    with only_run_in(tmp_path / "run"):  # it has ended
        assert (tmp_path / "run" / HOLDER).is_file()
    assert not [*tmp_path.iterdir()]  # nothing was trained
    assert not warnings_given()


def test_the_folder_of_a_killed_run_is_taken_over_with_a_note(tmp_path: Path) -> None:
    with another_run(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
    with only_run_in(tmp_path):
        (note,) = warnings_given()
        assert f"process {process.pid} on" in note
        assert str(os.getpid()) in (tmp_path / HOLDER).read_text()


def test_a_folder_that_cannot_be_locked_stops_nothing() -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("no file system without files to write here")
    ran = False
    with only_run_in(Path("/proc/self")):
        ran = True
    assert ran
    (note,) = warnings_given()
    assert "cannot be locked" in note


def test_an_error_of_the_run_itself_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"), only_run_in(tmp_path):
        raise OSError("full")
    assert not (tmp_path / HOLDER).exists()
