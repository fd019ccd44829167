"""What a run needs before it can begin: all that is missing is reported at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from earface.core.errors import InputError

Thing = TypeVar("Thing")


class MissingWeightsError(InputError):
    """Weights that are neither in the cache nor can be downloaded."""

    def __init__(self, what: str, url: str, reason: str, advice: str) -> None:
        super().__init__(f"cannot download the weights of {what} from {url} ({reason}): {advice}")
        self.what, self.url, self.reason, self.advice = what, url, reason, advice


class Needed:
    """Several attempts to get something, whose InputErrors become one at the end of the block.

    with Needed() as needed:
        encoder = needed(lambda: load_encoder(...))
        recognizer = needed(lambda: load_recognizer(...), "`recognizer` FILE")

    Inside the block nothing that was asked for may be used: one that failed is None.
    """

    def __init__(self) -> None:
        self._errors: list[InputError] = []

    def __enter__(self) -> Needed:
        return self

    def __call__(self, get: Callable[[], Thing], advice: str = "") -> Thing:
        """What `get` returns. advice: how a user gives it instead, where its weights cannot be downloaded."""
        try:
            return get()
        except MissingWeightsError as error:
            own = (error.what, error.url, error.reason, advice or error.advice)
            self._errors.append(MissingWeightsError(*own))
        except InputError as error:
            self._errors.append(error)
        nothing: Any = None  # seen by nobody: the block's end raises
        return nothing

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._errors:
            raise _together(self._errors)


def _together(errors: Sequence[InputError]) -> InputError:
    """One error of all: downloads that failed share the reason. What two attempts need is named once."""
    errors = list({str(error): error for error in errors}.values())
    if len(errors) == 1:
        return errors[0]
    missing = [error for error in errors if isinstance(error, MissingWeightsError)]
    others = [str(error) for error in errors if error not in missing]
    if len(missing) < 2:
        return InputError("; ".join(map(str, errors)))
    listed = "; ".join(f"{error.what} ({error.url}): {error.advice}" for error in missing)
    together = f"the weights of {len(missing)} networks cannot be downloaded ({missing[0].reason}): {listed}"
    return InputError("; ".join([together, *others]))
