"""Pictures of several files in a row are indexed as the array would be that they never become."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earface.data.image_cache import open_map
from earface.data.image_rows import ImageRows, in_a_row

SIZES = (3, 1, 5)
KEYS: list[Any] = [
    *(
        0,
        3,
        8,
        -1,
        np.int64(5),
        slice(None),
        slice(1, 3),
        slice(2, 6),
        slice(7, 99),
        slice(4, 4),
        slice(None, None, -2),
    ),
    *([8, 0, 3, 3], np.arange(9) % 2 == 0, np.array([], np.int64), (slice(2, 6), slice(1, 3)), (4, 0), ([5, 1], 2)),
]


def parts() -> list[Any]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (size, 4, 4, 3), np.uint8) for size in SIZES]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_any_index_gives_what_the_array_gives(key: Any) -> None:
    found, wanted = ImageRows(parts())[key], np.concatenate(parts())[key]
    assert found.dtype == np.uint8
    assert found.shape == wanted.shape
    assert np.array_equal(found, wanted)


def test_rows_end_and_the_shape_is_that_of_the_array() -> None:
    rows = ImageRows(parts())
    assert (len(rows), rows.shape) == (9, (9, 4, 4, 3))
    with pytest.raises(IndexError):
        rows[9]


def test_rows_of_one_part_are_no_copy_and_one_part_is_itself() -> None:
    given = parts()
    rows = ImageRows(given)
    assert np.shares_memory(rows[4:9], given[2])
    assert np.shares_memory(rows[3], given[1])
    assert in_a_row(given[:1]) is given[0]


def test_maps_travel_as_the_names_of_their_files(tmp_path: Path) -> None:
    maps = []
    for number, part in enumerate(parts()):
        big = np.repeat(part, 100, axis=0)
        big.tofile(tmp_path / f"{number}.bin")
        maps.append(open_map(tmp_path / f"{number}.bin", big.shape))
    sent = pickle.dumps(ImageRows(maps))
    assert len(sent) < 3000
    assert np.array_equal(pickle.loads(sent)[:], ImageRows(maps)[:])
