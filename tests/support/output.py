"""What a command says, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

Command = Callable[[Sequence[str]], int]


def run(main: Command, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The exit code of a command in this process, its output and its errors."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refusal(main: Command, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line in which a command says what is wrong with its arguments."""
    code, _, error = run(main, capsys, *arguments)
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error
