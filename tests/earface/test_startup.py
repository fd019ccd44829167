"""What a command can answer at once imports no large library: help, the version, a mistyped flag, a missing file.

Every command is a fork of one process that has read what all share, and reports what it has imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from earface.commands import COMMANDS

pytestmark = pytest.mark.runs

ROOT = Path(__file__).parents[2]
LARGE = ("torch", "pytorch_lightning", "numpy", "cv2", "matplotlib", "albumentations", "sklearn", "timm")
PROGRAM = """
import contextlib, io, json, os, sys
import earface.core.command_line, earface.core.errors  # what all share; the rest is each command's own
from earface.commands import main

def answer(words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as stopped:
            code = stopped.code
        except Exception as error:
            code = repr(error)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "imported": sorted(sys.modules)}

for words in json.load(sys.stdin):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        with open(write, "w") as stream:
            json.dump(answer(words), stream)
        os._exit(0)
    os.close(write)
    with open(read) as stream:
        print(stream.read(), flush=True)
    os.waitpid(child, 0)
"""

MISSING = {  # arguments that name something that is not there, and what it is; or a file where a folder belongs
    "ears prepare": "--images nowhere/photographs",
    "ears annotations": "--boxes nowhere/boxes.csv --out {tmp}/a.json",
    "ears synthesize": "--out {file}",
    "ears scenes": "--out {file}",
    "ears check": "--encoder nowhere",
    "ears train": "--train-npy nowhere/train.npy --checkpoint-dir {tmp}",
    "ears evaluate": "--checkpoint nowhere/last.ckpt",
    "ears extract": "--input nowhere/photographs",
    "ears sample": "--checkpoint nowhere/last.ckpt --out {tmp}/samples",
    "ears eigenears": "--checkpoint nowhere/last.ckpt",
    "ears detector train": "--train-json nowhere/train.json",
    "ears detector evaluate": "--checkpoint nowhere/last.ckpt",
    "ears detector predict": "--input nowhere/photographs",
    "ears recognize train": "--train-npy nowhere/train.npy",
    "ears recognize evaluate": "--checkpoint nowhere/last.ckpt",
    "ears recognize embed": "--input nowhere/ears",
    "faces prepare": "--images nowhere/photographs --out {tmp}/faces",
    "faces synthesize": "--out {file}",
    "faces embed": "--input nowhere/photographs",
    "faces finetune": "--dataset-root nowhere/dataset",
    "faces evaluate": "--dataset-root nowhere/dataset",
    "dsr train": "--dataset-root nowhere/dataset --checkpoint-dir {tmp}",
    "dsr evaluate": "--checkpoint nowhere/last.ckpt",
    "dsr upscale": "--input nowhere/faces --out {tmp}",
    "enroll": "--input nowhere/people --out {tmp}/gallery.npz",
    "identify": "--input nowhere/people",
    "gallery show": "--gallery nowhere/gallery.npz",
    "gallery remove": "--gallery nowhere/gallery.npz --name ada",
    "evaluate": "--dataset-root nowhere/dataset",
    "report": "nowhere/run",
    "compare": "nowhere/run nowhere/other",
    "export ears": "--checkpoint nowhere/last.ckpt --out {tmp}/exported",
    "export detector": "--checkpoint nowhere/last.ckpt --out {tmp}/exported",
    "export recognizer": "--checkpoint nowhere/last.ckpt --out {tmp}/exported",
    "export dsr": "--checkpoint nowhere/last.ckpt --out {tmp}/exported",
    "export edgeface": "--checkpoint nowhere/last.ckpt --out {tmp}/exported",
}
TAKES_NO_FILE = {"doctor"}
CASES = {"help": "--help", "all": "--help-all", "version": "--version", "mistyped": "--outt x", "missing": ""}
WITH_GROUPS = ("ears train", "ears detector train", "ears recognize train", "dsr train", "faces finetune")

Answers = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What each command says to each of CASES, and which modules it has imported then."""
    if sys.platform == "win32":
        pytest.skip("Windows has no fork")
    folder = tmp_path_factory.mktemp("startup")
    (folder / "file").write_text("")
    of = CASES | {"all": WITH_GROUPS, "missing": MISSING.keys()}
    keys = [(name, case) for name in COMMANDS for case in CASES if case not in ("all", "missing") or name in of[case]]
    arguments = {
        (name, case): MISSING[name].format(tmp=folder, file=folder / "file") if case == "missing" else CASES[case]
        for name, case in keys
    }
    words = [[*name.split(), *arguments[name, case].split()] for name, case in keys]
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(words), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(keys, map(json.loads, done.stdout.splitlines()), strict=True))


def test_every_command_that_takes_a_file_is_tried_without_it() -> None:
    assert MISSING.keys() | TAKES_NO_FILE == COMMANDS.keys()


def of_case(answers: Answers, *cases: str) -> dict[str, dict[str, Any]]:
    return {f"{name} {case}": found for (name, case), found in answers.items() if case in cases}


def test_what_is_answered_at_once_imports_no_large_library(answers: Answers) -> None:
    found = {name: sorted(set(LARGE) & set(each["imported"])) for name, each in of_case(answers, *CASES).items()}
    assert {name: large for name, large in found.items() if large} == {}


def test_every_command_has_help_and_the_version(answers: Answers) -> None:
    for name, each in of_case(answers, "help", "all", "version").items():
        assert (each["code"], each["err"]) == (0, ""), name
        assert each["out"].startswith("earface " if name.endswith("version") else "usage: earface "), name


def test_a_mistyped_flag_is_one_line_that_names_it(answers: Answers) -> None:
    for name, each in of_case(answers, "mistyped").items():
        assert (each["code"], each["out"]) == (2, ""), name
        assert each["err"].startswith("error: unrecognized arguments: --outt"), name
        assert each["err"].count("\n") == 1, name


def test_a_mistyped_flag_is_answered_with_the_nearest_of_the_command(answers: Answers) -> None:
    """Every command that has --out is asked for --outt."""
    helped = {name: found["out"] for (name, case), found in answers.items() if case == "help"}
    with_out = [name for name, text in helped.items() if "--out " in text]
    assert len(with_out) > 15
    for name in with_out:
        assert answers[name, "mistyped"]["err"].endswith("; did you mean --out?\n"), name


def test_what_is_missing_is_one_line_that_names_it(answers: Answers) -> None:
    for name, each in of_case(answers, "missing").items():
        assert (each["code"], each["out"]) == (2, ""), name
        assert each["err"].count("\n") == 1, name
        assert "nowhere" in each["err"] or "is a file; give a folder" in each["err"], (name, each["err"])


def test_the_models_own_module_shows_its_help_without_pytorch() -> None:
    """`python -m ear_teacher.model`, which the documents type."""
    code = (
        "import runpy, sys; sys.argv[1:] = ['--help']\n"
        "try: runpy.run_module('ear_teacher.model', run_name='__main__', alter_sys=True)\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("usage: earface ears check")
    assert done.stdout.endswith("False\n")
