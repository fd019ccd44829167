"""Ctrl-C before a program's `main` runs ends it with one line, and nothing changes for who imports the packages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from earface.interrupts import is_ours

pytestmark = pytest.mark.runs

ROOT = Path(__file__).parents[2]
SLOW = """
import sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            print("importing", flush=True)
            time.sleep(600)

sys.meta_path.insert(0, Slow())
"""


def interrupted(arguments: list[str], slow: str, folder: Path) -> tuple[int, str]:
    """Exit code and errors of a Python program that gets SIGINT where it imports `slow`."""
    (folder / "sitecustomize.py").write_text(SLOW.format(name=slow))
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # what a background job ignores, its children do
    program = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, heard)
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "importing\n"
        program.send_signal(signal.SIGINT)
        return program.wait(timeout=60), program.communicate()[1]
    finally:
        program.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize(
    ("program", "slow"),
    [
        ("-m ear_teacher.train", "ear_teacher.train"),  # before its first line
        ("-m ear_teacher.train", "ear_teacher.config"),
        ("-m dsr.train_dsr", "argparse"),
        ("-m facial_rec.embed", "facial_rec.embed"),
        ("-m pipeline.identify", "pipeline.identify"),
        ("-m data.prepare_ears", "earface.data"),
        ("-m earface ears train", "earface.commands"),
        ("-m earface ears train", "ear_teacher.train"),
        ("-W ignore {root}/ear_teacher/train.py", "earface.core.errors"),
    ],
)
def test_an_interrupt_before_main_is_one_line(program: str, slow: str, tmp_path: Path) -> None:
    assert interrupted(program.format(root=ROOT).split(), slow, tmp_path) == (130, "interrupted\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_another_program_that_imports_the_packages_ends_as_it_would(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("import earface, ear_teacher, colorsys")
    code, errors = interrupted(["-m", "other"], "colorsys", tmp_path)
    assert code == -signal.SIGINT
    assert errors.startswith("Traceback")


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        ("python -m earface ears train", True),
        ("python -X dev -m dsr.evaluate", True),
        ("python /somewhere/bin/earface --help", True),
        ("python C:/somewhere/Scripts/earface.exe --help", True),
        (f"python {ROOT}/ear_teacher/detector/train.py", True),
        ("python /home/someone/pipeline/own.py", False),
        (f"python {ROOT}/tests/conftest.py", False),
        ("python -m pytest -m dsr", False),
        ("python -c earface", False),
        ("python own.py -m earface", False),
        ("python", False),
        ("", False),
    ],
)
def test_which_programs_are_ours(command: str, ours: bool) -> None:
    assert is_ours(command.split()) == ours
