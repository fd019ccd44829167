"""The pictures of several files as one array of them, which is never made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class ImageRows:
    """(N, S, S, C) uint8: the pictures of several arrays, such as memory maps, in a row.

    Indexed as that array would be: by a number, a slice or numbers, and what may follow. The result is an array of just
    these rows, a view where they are of one part.
    """

    def __init__(self, parts: Sequence[NDArray[np.uint8]]) -> None:
        """parts: each (N_i, S, S, C)."""
        self.parts = list(parts)
        self.starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.parts[0].shape[1:])

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        """Raises IndexError for a row that is not there, by which a loop over the pictures ends."""
        rows, *inside = key if isinstance(key, tuple) else (key,)
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"row {rows} of {len(self)} pictures")
            row = int(rows) % len(self)
            part = int(np.searchsorted(self.starts, row, side="right")) - 1
            return np.asarray(self.parts[part][(row - self.starts[part], *inside)])
        if isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(len(self))
            ends = zip(self.parts, self.starts[:-1].tolist(), strict=True)
            taken = [
                part[(slice(max(start - first, 0), stop - first), *inside)]
                for part, first in ends
                if start < first + len(part) and first < stop
            ]
            if taken:
                return taken[0] if len(taken) == 1 else np.concatenate(taken)
            return self.parts[0][(slice(0, 0), *inside)]
        chosen = [self[(int(row), *inside)] for row in np.arange(len(self))[rows]]
        return np.stack(chosen) if chosen else self[(slice(0, 0), *inside)]


Images = NDArray[np.uint8] | ImageRows


def in_a_row(parts: Sequence[NDArray[np.uint8]]) -> Images:
    """The pictures of several arrays; of one, that itself."""
    return parts[0] if len(parts) == 1 else ImageRows(parts)
