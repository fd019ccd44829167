"""What is missing is reported together, in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from earface.core.errors import InputError
from earface.core.needed import MissingWeightsError, Needed


def failing(error: Exception) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


def missing(what: str) -> MissingWeightsError:
    return MissingWeightsError(what, f"https://hub/{what}", "no network", f"--{what} FILE")


def together(*attempts: Callable[[], Any], advice: str = "") -> list[Any]:
    """The last is given the advice."""
    with Needed() as needed:
        return [needed(get) for get in attempts[:-1]] + [needed(attempts[-1], advice)]


def reported(*attempts: Callable[[], Any], advice: str = "") -> str:
    with pytest.raises(InputError) as caught:
        together(*attempts, advice=advice)
    return str(caught.value)


def test_what_is_there_is_returned() -> None:
    assert together(lambda: 1, lambda: "two") == [1, "two"]


def test_one_error_is_reported_as_it_is() -> None:
    assert reported(lambda: 1, failing(InputError("a.pt: no such file"))) == "a.pt: no such file"
    assert reported(failing(missing("vgg"))) == str(missing("vgg"))


def test_all_are_tried_and_named_with_the_way_to_give_each() -> None:
    given = failing(InputError("a.pt: no such file")), failing(missing("vgg")), failing(missing("resnet"))
    assert reported(*given, advice="--encoder FILE") == (
        "the weights of 2 networks cannot be downloaded (no network): vgg (https://hub/vgg): --vgg FILE; "
        "resnet (https://hub/resnet): --encoder FILE; a.pt: no such file"
    )


def test_one_download_and_another_fault_are_both_told() -> None:
    line = reported(failing(InputError("a.pt: no such file")), failing(missing("vgg")))
    assert line == f"a.pt: no such file; {missing('vgg')}"


def test_what_is_needed_twice_is_named_once() -> None:
    assert reported(failing(missing("yunet")), failing(missing("yunet"))) == str(missing("yunet"))


def test_another_kind_of_error_goes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        together(failing(InputError("first")), failing(ZeroDivisionError()))
