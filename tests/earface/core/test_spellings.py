"""Options under their old names and values: as flags, in configuration files, and as a checkpoint stores them."""

from __future__ import annotations

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
@pytest.mark.parametrize("as_file", [False, True])
def test_an_old_flag_or_value_means_what_it_meant(
    argv: tuple[str, ...], wanted: dict[str, object], as_file: bool, tmp_path: Path
) -> None:
    if as_file:
        name, _, value = argv[0].removeprefix("--").partition("=")
        values = [value] if value else list(argv[1:])
        if "--workers" in values or name.startswith("no-"):
            pytest.skip("a flag's own way of writing")
        text = str(values) if name == "tuned" else values[0] if values else "true"
        (tmp_path / "run.yaml").write_text(f"{name}: {text}\n")
        argv = ("--config", str(tmp_path / "run.yaml"))
    options = parse_options(Several, argv, prog="p")
    found = {name: getattr(options, name) for name in wanted}
    assert {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()} == wanted


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
