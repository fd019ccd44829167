from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import earface
from earface.commands import COMMANDS, GROUPS, main
from tests.conftest import TINY, only_line

ROOT = Path(__file__).parents[2]
CONSOLE_SCRIPT = Path(sysconfig.get_path("scripts"), "earface")
DOCUMENTED = """
    ears prepare|annotations|synthesize|scenes|check|train|evaluate|extract|sample|eigenears
    ears detector train|evaluate|predict
    ears recognize train|evaluate|embed
    faces prepare|synthesize|embed|finetune|evaluate
    dsr train|evaluate|upscale
    enroll|identify|evaluate|report|compare|doctor
    gallery show|remove
    export ears|detector|recognizer|dsr|edgeface
"""
FIRST_WORDS = "ears, faces, dsr, enroll, identify, gallery, evaluate, export, report, compare or doctor"
DOORS = {
    "ears prepare": "data.prepare_ears",
    "ears annotations": "data.convert_annotations",
    "ears synthesize": "data.synthetic.ears",
    "ears scenes": "data.synthetic.scenes",
    "faces prepare": "data.prepare_faces",
    "faces synthesize": "data.synthetic.faces",
}
# The program, then which modules it has imported that neither Python nor the interpreter's start brought.
IMPORTED = """
import json, sys
at_start = set(sys.modules)
from earface.commands import main
try:
    code = main(sys.argv[1:])
except SystemExit as stopped:
    code = stopped.code
names = set(sys.modules) - at_start
print(json.dumps([code, sorted(n for n in names if n.split(".")[0] not in sys.stdlib_module_names)]))
"""


def documented() -> list[str]:
    lines = [line.split() for line in DOCUMENTED.split("\n") if line.strip()]
    return [" ".join([*group, word]) for *group, words in lines for word in words.split("|")]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "100"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", *arguments)


def imported_by(*arguments: str) -> tuple[int, set[str]]:
    """Exit code, and the modules from outside the standard library."""
    code, names = json.loads(run(sys.executable, "-c", IMPORTED, *arguments).stdout.splitlines()[-1])
    return code, set(names)


# The table


def test_the_commands_are_the_documented_ones() -> None:
    assert sorted(COMMANDS) == sorted(documented())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_a_program_with_a_usage(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(import_module(COMMANDS[name].module).main)
    with pytest.raises(SystemExit) as stopped:
        main([*name.split(), "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_usage_names_the_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        main([*name.split(), "--help"])
    assert capsys.readouterr().out.split()[1 : 2 + len(name.split())] == ["earface", *name.split()]


@pytest.mark.runs
@pytest.mark.parametrize("name", DOORS)
def test_a_door_opens_the_same_program(name: str, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with contextlib.suppress(SystemExit):
        main([*name.split(), "--help"])
    assert run_module(DOORS[name], "--help").stdout == capsys.readouterr().out


@pytest.mark.runs
@pytest.mark.parametrize("name", ["ears train", "faces finetune"])
def test_a_module_is_the_same_program(name: str, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with contextlib.suppress(SystemExit):
        main([*name.split(), "--help"])
    assert run_module(COMMANDS[name].module, "--help").stdout == capsys.readouterr().out


@pytest.mark.slow
def test_check_is_the_models_self_check(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with contextlib.suppress(SystemExit):
        main(["ears", "check", "--help"])
    assert run_module("ear_teacher.model", "--help").stdout == capsys.readouterr().out


# Help


@pytest.mark.parametrize("group", GROUPS)
def test_help_has_one_line_for_each_command_below(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*group.split(), "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    below = [name for name in COMMANDS if f"{name} ".startswith(f"{group} ".lstrip())]
    for name in below:
        assert len([line for line in lines if line.startswith(f"  earface {name}  ")]) == 1
    assert len([line for line in lines if line.startswith("  ") and "--" not in line]) == len(below)
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("group", GROUPS)
def test_a_missing_word_shows_the_same_help_as_an_error(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([*group.split(), "--help"])
    wanted = capsys.readouterr().out
    assert main(group.split()) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", wanted)


# What is mistyped


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        ("ear", "earface ears?"),
        ("ears trian", "earface ears train?"),
        ("ears detector evalute --checkpoint x", "earface ears detector evaluate?"),
        ("dsr upscal", "earface dsr upscale?"),
        ("idenitfy", "earface identify?"),
        ("export edge_face", "earface export edgeface?"),
        ("fine_tune", "earface faces finetune?"),
        ("detector", "earface ears detector or earface export detector?"),
        ("extract", "earface ears extract?"),
        (
            "train",
            "earface ears train, earface ears detector train, earface ears recognize train or earface dsr train?",
        ),
    ],
)
def test_an_unknown_word_is_answered_with_the_nearest(
    words: str, nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    line = only_line(capsys)
    assert line.endswith(f": no such command; did you mean {nearest}\n")


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        (["xyzzy"], FIRST_WORDS),
        (["--config", "x.yaml"], FIRST_WORDS),
        (["dsr", ""], "train, evaluate or upscale"),
        (["dsr", "x\ny"], "train, evaluate or upscale"),
        (["ears", "detector", "--version"], "train, evaluate or predict"),
    ],
)
def test_a_word_near_to_none_is_answered_with_all(
    arguments: list[str], known: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert only_line(capsys).endswith(f": no such command; choose {known}\n")


# Nothing is imported that is not needed

TABLE = {"earface", "earface.commands", "earface.interrupts", "earface.core", "earface.core.pipes"}


@pytest.mark.runs
@pytest.mark.parametrize("words", ["", "--help", "ears --help", "ears detector", "export", "ears trian", "train"])
def test_help_and_a_mistyped_word_import_the_table_alone(words: str) -> None:
    code, names = imported_by(*words.split())
    assert code == (0 if "--help" in words else 2)
    assert names == TABLE


@pytest.mark.runs
def test_the_version_imports_no_library() -> None:
    assert imported_by("--version") == (0, TABLE)


@pytest.mark.runs
def test_only_the_chosen_program_is_imported() -> None:
    code, names = imported_by("ears", "train", "--help")
    assert code == 0
    assert names & {each.module for each in COMMANDS.values()} == {"ear_teacher.train"}
    assert not names & {"torch", "pytorch_lightning"}


# The version


def test_the_version_is_the_projects(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert earface.__version__ == wanted
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"earface {wanted}\n"


def test_not_installed_it_says_that_the_version_is_unknown() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import earface; print(earface.__version__)"
    assert run(sys.executable, "-I", "-S", "-c", code).stdout == "0+unknown\n"


def test_a_name_that_the_package_lacks_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'earface' has no attribute 'EarVAE'"):
        _ = earface.EarVAE


# Runs


@pytest.mark.runs
def test_the_console_script_and_the_module_are_the_command() -> None:
    script, module = run(CONSOLE_SCRIPT, "--help"), run_module("earface", "--help")
    assert script.returncode == module.returncode == 0
    assert script.stdout == module.stdout
    assert script.stdout.startswith("usage: earface COMMAND")


@pytest.mark.runs
def test_the_programs_exit_code_is_passed_on(tmp_path: Path) -> None:
    """With processes that are spawned, so that each imports the console script anew."""
    draw = (CONSOLE_SCRIPT, "ears", "synthesize", "--subjects", "2", "--images-per-subject", "2", "--image-size", "32")
    done = run(*draw, "--num-workers", "2", "--out", str(tmp_path / "ears"))
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "ears").rglob("*.png"))) == 4
    again = run(*draw, "--out", str(tmp_path / "ears"))
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_console_script_trains_with_loader_processes(ear_set: Path, tmp_path: Path) -> None:
    done = run(
        *(CONSOLE_SCRIPT, "ears", "train", *TINY, "--num-workers", "2", "--epochs", "1"),
        *("--train-npy", str(ear_set / "train_teacher.npy"), "--val-npy", str(ear_set / "val_teacher.npy")),
        *("--checkpoint-dir", str(tmp_path / "checkpoints"), "--log-dir", str(tmp_path / "logs")),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
