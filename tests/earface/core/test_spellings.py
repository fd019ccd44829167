"""Options under their old names and values: as flags, in configuration files, and as a checkpoint stores them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from earface.core.command_line import parse_options
from earface.core.options import option
from earface.core.spellings import OLD_NAMES, current_options


@dataclass(frozen=True)
class Several:
    """Options that have all been renamed."""

    recognizer: str = option("one", "which")
    upsampler: str = option("bicubic", "how")
    num_workers: int = option(1, "how many")
    augment: Literal["none", "light"] = option("light", "how much")
    finetuned: tuple[str, ...] = option((), "which others")


@dataclass(frozen=True)
class Weights:
    """Options of which one bears the old name of another's."""

    recognizer: str = option("one", "which")
    weights: str = option("averaged", "which copy")


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (("--weights", "a.pt"), {"recognizer": "a.pt"}),
        (("--weights=a.pt",), {"recognizer": "a.pt"}),
        (("--route", "hr"), {"upsampler": "none"}),
        (("--inputs", "dsr=.7,interpolation=.2,hr=.1"), {"upsampler": "dsr=.7,bicubic=.2,none=.1"}),
        (("--upsampler", "interpolation"), {"upsampler": "bicubic"}),
        (("--workers", "3"), {"num_workers": 3}),
        (("--augment",), {"augment": "light"}),
        (("--augment", "false"), {"augment": "none"}),
        (("--no-augment",), {"augment": "none"}),
        (("--augment", "none", "--workers", "2"), {"augment": "none", "num_workers": 2}),
        (("--tuned", "a", "b"), {"finetuned": ("a", "b")}),
    ],
)
def test_an_old_flag_or_value_means_what_it_meant(argv: tuple[str, ...], wanted: dict[str, object]) -> None:
    assert found(argv, wanted) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("weights: a.pt", {"recognizer": "a.pt"}),
        ("route: hr", {"upsampler": "none"}),
        ("inputs: dsr=.7,interpolation=.2,hr=.1", {"upsampler": "dsr=.7,bicubic=.2,none=.1"}),
        ("upsampler: interpolation", {"upsampler": "bicubic"}),
        ("augment: true", {"augment": "light"}),
        ("augment: false", {"augment": "none"}),
        ("tuned: [a, b]", {"finetuned": ("a", "b")}),
    ],
)
def test_an_old_key_or_value_of_a_file_means_what_it_meant(
    text: str, wanted: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(f"{text}\n")
    assert found(("--config", str(tmp_path / "run.yaml")), wanted) == wanted


def found(argv: tuple[str, ...], names: Iterable[str]) -> dict[str, object]:
    options = parse_options(Several, argv, prog="p")
    values = {name: getattr(options, name) for name in names}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def test_an_option_keeps_its_name_where_that_is_the_old_name_of_another() -> None:
    options = parse_options(Weights, ("--weights", "raw"), prog="p")
    assert options == Weights(weights="raw")


def test_stored_options_come_under_todays_names_and_others_stay() -> None:
    stored = {"weights": "a", "inputs": "hr", "augment": True, "lr": 0.1, "sheet_images": 4}
    wanted = {"recognizer": "a", "upsampler": "none", "augment": "light", "lr": 0.1, "grid_images": 4}
    assert current_options(stored) == wanted
    assert current_options(wanted) == wanted


def test_no_name_was_renamed_twice() -> None:
    assert not OLD_NAMES.keys() & set(OLD_NAMES.values())
