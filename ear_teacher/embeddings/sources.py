"""The pictures of a table's rows, which were encoded earlier."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ear_teacher.ear_reader import EarReader, EarSource, image_sources, sources_of
from earface.core.errors import InputError
from earface.data.images import Pixels, read_ahead
from earface.data.npy import TeacherData, read_teacher_npy

__all__ = ["EarReader", "EarSource", "image_sources", "read_ears", "sources_of", "sources_of_table"]

ARRAY_ROW = re.compile(r"(.+\.np[yz]) row (\d+)", re.DOTALL)  # how a row of an image array is named


def sources_of_table(paths: Sequence[str], boxes: NDArray[np.float32] | None) -> list[EarSource | None]:
    """The sources of rows that were encoded earlier; None for those of an image array that no longer exists.

    boxes: (N, 4), NaN for whole pictures.
    """
    data = TeacherData(Path(), [Path(path) for path in paths], None, boxes, None, None)
    arrays: dict[str, TeacherData | None] = {}
    found: list[EarSource | None] = []
    for row, path in enumerate(paths):
        source: EarSource | None = EarSource(data, row, crop=boxes is not None and bool(np.isfinite(boxes[row]).all()))
        named = ARRAY_ROW.fullmatch(path)
        if named:
            if named[1] not in arrays:
                arrays[named[1]] = _array(named[1])
            array = arrays[named[1]]
            source = None
            if array is not None and int(named[2]) < len(array):
                source = EarSource(array, int(named[2]), crop=False)
        found.append(source)
    return found


def _array(path: str) -> TeacherData | None:
    try:
        return read_teacher_npy(path)
    except InputError:
        return None


def read_ears(sources: Sequence[EarSource | None], channels: int) -> list[Pixels | None]:
    """The pictures at their own sizes; None for what cannot be read."""

    def read(source: EarSource | None) -> Pixels | None:
        try:
            return None if source is None else source.read(channels)
        except InputError:
            return None

    return list(read_ahead(read, sources))
