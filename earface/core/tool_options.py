"""What every command that writes results shares."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass
from typing import Literal

from earface.core.options import option

Device = Literal["auto", "cpu", "cuda", "mps"]
OVERWRITE_HELP = "replace what is there already"


@dataclass(frozen=True)
class ToolOptions:
    """A subclass is the options of a command."""

    overwrite: bool = option(False, OVERWRITE_HELP)


@dataclass(frozen=True)
class DeviceOptions(ToolOptions):
    """Of a command that computes."""

    device: Device = option("auto", "auto: the GPU if there is one")


@dataclass(frozen=True)
class WeightsOptions(ToolOptions):
    """Of a command that reads training checkpoints."""

    weights: Literal["averaged", "raw"] = option("averaged", "the moving average if the run kept one, or the last step")


@dataclass(frozen=True)
class ModelOptions(WeightsOptions, DeviceOptions):
    """Of a command that computes with a model trained here."""


@dataclass(frozen=True)
class PeopleOptions(ToolOptions):
    """Of a command whose report shows faces or ears."""

    pictures: bool = option(
        True, "show people in pictures; false: numbers and plots alone, and pictures of an earlier call are deleted"
    )


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """The same, for a command whose flags are argparse's."""
    parser.add_argument("--overwrite", action="store_true", help=OVERWRITE_HELP)


def typed(command: str, **options: object) -> str:
    """A command as it is typed. command: `ears train`; options: its flags and their values, True: the flag alone."""
    words = command.split()
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return f"earface {shlex.join(words)}"


def next_step(command: str, **options: object) -> str:
    """The line that says what to type next."""
    return f"next: {typed(command, **options)}"
