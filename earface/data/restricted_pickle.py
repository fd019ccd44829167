"""Unpickling that runs nothing, for the object arrays of NPY files.

A pickle is a program. Here it may only build numpy arrays of numbers, text and objects, builtin containers and pure
paths. numpy's own `dtype.__setstate__` is kept from it too: a forged dtype would make numpy read raw bytes as pointers.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

import numpy as np

from earface.core.errors import InputError
from earface.core.limits import MAX_EMPTY_ROWS


class RestrictedUnpickler(pickle.Unpickler):
    """Reads such a pickle; anything else in it is an InputError that names what was asked for.

    What it hands the pickle to call are bound methods, whose attributes the pickle cannot set, with checked arguments.
    """

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for an admitted global; another is an InputError, before anything is imported."""
        plain = module.replace("numpy._core.", "numpy.core.").replace("__builtin__", "builtins")
        plain = plain.replace("pathlib._local", "pathlib")
        admitted: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy.core.multiarray", "_reconstruct"): self._new_array,
            ("numpy.core.multiarray", "scalar"): self._scalar,
            ("numpy.core.numeric", "_frombuffer"): self._array_from_buffer,
            ("numpy", "dtype"): self._dtype,
            ("numpy", "ndarray"): self._not_callable,
            ("_codecs", "encode"): self._latin1,
            ("builtins", "bytes"): self._no_bytes,
            ("builtins", "set"): set,
            ("builtins", "frozenset"): frozenset,
            **{("pathlib", kind): self._posix_path for kind in ("PurePosixPath", "PosixPath", "PurePath", "Path")},
            **{("pathlib", kind): self._windows_path for kind in ("PureWindowsPath", "WindowsPath")},
        }
        if (plain, name) not in admitted:
            raise InputError(
                f"its pickle asks for {module}.{name}, which is refused: only arrays, containers and paths"
            )
        return admitted[plain, name]

    def _posix_path(self, *parts: str) -> PurePath:
        return PurePosixPath(*parts)

    def _windows_path(self, *parts: str) -> PurePath:
        return PureWindowsPath(*parts)

    def _latin1(self, text: str, encoding: str) -> bytes:
        return text.encode("latin1")

    def _no_bytes(self) -> bytes:
        return b""

    def _not_callable(self, *args: object) -> NoReturn:
        raise InputError("its pickle calls ndarray directly, which numpy does not")

    def _dtype(self, spec: str, *flags: object) -> PickledDtype:
        return PickledDtype(spec)

    def _new_array(self, subtype: object, shape: object, spec: object) -> PickledArray:
        return PickledArray((0,), np.uint8)  # numpy pickles (0,) and gives the shape with the data

    def _array_from_buffer(
        self, buffer: bytes, dtype: PickledDtype, shape: tuple[int, ...], order: str
    ) -> PickledArray:
        array = PickledArray((0,), np.uint8)
        array.__setstate__((1, shape, dtype, order == "F", bytes(buffer)))
        return array

    def _scalar(self, dtype: PickledDtype, content: bytes = b"") -> object:
        return np.frombuffer(content, dtype.dtype, count=1)[0]


def refuse_empty_rows(shape: tuple[int, ...]) -> None:
    """Raise InputError for many rows without content: a few bytes declare billions, and each becomes an object."""
    if 0 in shape and shape[0] > MAX_EMPTY_ROWS:
        raise InputError(f"an array of shape {shape} holds nothing")


class PickledDtype:
    """A dtype as a pickle describes it: a boolean, number, text or object, nothing structured."""

    def __init__(self, spec: str) -> None:
        if not re.fullmatch(r"b1|[iu][1248]|f[248]|[SU][1-9]\d{0,6}|O8?", spec):
            raise InputError(f"its pickle holds an array of {spec!r:.40}, not of numbers, text or objects")
        self.dtype: np.dtype[Any] = np.dtype(spec)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise InputError("its pickle holds a structured array, not one of numbers, text or objects")
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class PickledArray(np.ndarray):
    """An array that takes its content from a pickle only if shape, dtype and data agree."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, fortran, content = state
        dtype, shape = dtype.dtype, tuple(int(length) for length in shape)
        held = len(content) // (1 if dtype.kind == "O" else dtype.itemsize)
        if type(content) is not (list if dtype.kind == "O" else bytes) or min(shape, default=0) < 0:
            raise InputError("its pickle holds an array without its data")
        if math.prod(shape) != held or len(shape) > 8:
            raise InputError(f"its pickle declares an array of {shape} but holds {held} values")
        refuse_empty_rows(shape)
        super().__setstate__((1, shape, dtype, bool(fortran), content))  # type: ignore[arg-type]
