from __future__ import annotations

import shlex

import pytest

from earface.commands import COMMANDS
from earface.core.errors import OneLineParser
from earface.core.tool_options import add_overwrite, next_step


def test_the_next_step_can_be_typed_as_it_stands() -> None:
    line = next_step("dsr evaluate", checkpoint="my runs/last.ckpt", dataset_root="it's")
    program, *words = shlex.split(line.removeprefix("next: "))
    assert program == "earface"
    assert " ".join(words[:2]) in COMMANDS
    assert words[2:] == ["--checkpoint", "my runs/last.ckpt", "--dataset-root", "it's"]


def test_help_shows_a_default_where_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    parser = OneLineParser(prog="earface try")
    add_overwrite(parser)
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--images", help="folder")
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    shown = capsys.readouterr().out
    assert "(default: 32)" in shown
    assert "None" not in shown
    assert "False" not in shown
