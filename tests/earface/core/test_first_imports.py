"""Imports that take long are announced, and Ctrl-C during them ends the program with one line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from earface.core.first_imports import first_imports

pytestmark = pytest.mark.runs

ROOT = Path(__file__).parents[3]
SLOW = """
import sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {library!r}:
            time.sleep(600)

sys.meta_path.insert(0, Slow())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize(
    ("words", "library", "loading"),
    [
        ("ear_teacher.train --train-npy {ears}/train_teacher.npy --val-npy {ears}/val_teacher.npy", "torch", "PyTorch"),
        ("earface dsr evaluate --checkpoint {file} --dataset-root {ears} --out {ears}/out", "torch", "PyTorch"),
        ("data.prepare_ears --images {ears} --out {tmp}/out", "numpy", "NumPy and OpenCV"),
    ],
)
def test_slow_imports_are_announced_and_can_be_interrupted(
    words: str, library: str, loading: str, ear_set: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW.format(library=library))
    (tmp_path / "file.ckpt").write_bytes(b"")
    given = words.format(ears=ear_set, tmp=tmp_path, file=tmp_path / "file.ckpt").split()
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", *given]
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # what a background job ignores, its children do
    program = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, heard)
    try:
        assert program.stdout is not None
        assert re.fullmatch(rf"loading {loading}: \d+ s\n", program.stdout.readline())
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=60)
    finally:
        program.kill()
    assert (program.returncode, out, err) == (130, "", "interrupted\n")


def test_imports_that_are_there_already_say_nothing_and_leave_the_signal(capsys: pytest.CaptureFixture[str]) -> None:
    import torch  # noqa: F401

    before = signal.getsignal(signal.SIGINT)
    with first_imports():
        assert signal.getsignal(signal.SIGINT) is before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("ignored", [False, True])
def test_the_handler_of_before_comes_back(ignored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ignores Ctrl-C, as under nohup, stays all the while."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    old = signal.getsignal(signal.SIGINT)
    before = signal.SIG_IGN if ignored else signal.default_int_handler
    try:
        signal.signal(signal.SIGINT, before)
        with first_imports():
            assert (signal.getsignal(signal.SIGINT) is before) == ignored
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, old)
