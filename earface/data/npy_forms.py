"""The forms in which people keep pictures in an NPY or NPZ file, brought to one: a mapping of named columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.core.notices import warn

COLUMNS = ("image_paths", "images", "bboxes", "subjects", "landmarks", "sides", "contract", "collection")
OF_ROWS = {  # a key of a row: its column
    **dict.fromkeys(("image_path", "path", "file", "filename"), "image_paths"),
    "image": "images",
    **dict.fromkeys(("bbox", "box"), "bboxes"),
    **dict.fromkeys(("subject", "identity"), "subjects"),
    "side": "sides",
}


def mapping_of(content: NDArray[Any]) -> Mapping[str, Any]:
    """Columns of an array as it was saved.

    It is one dict of columns; text or paths, which are `image_paths`; dicts, one a row; pictures of one size or of many
    in an object array; else `images`. Raises InputError for other objects.
    """
    if content.dtype.kind in "US" and content.ndim == 1:
        return {"image_paths": content}
    if content.dtype != object:
        return {"images": content}
    items = content.reshape(-1).tolist() if content.ndim <= 1 else []
    if content.ndim == 0 and isinstance(items[0], dict):
        return items[0]
    if content.ndim > 1 and all(isinstance(item, int | float) for item in content.flat):
        return {"images": np.array(content.tolist())}
    if items and all(isinstance(item, str | PurePath) for item in items):
        return {"image_paths": items}
    if len(items) == 1 and isinstance(items[0], dict) and set(items[0]) & {*COLUMNS}:
        return items[0]
    if items and all(isinstance(item, dict) for item in items):
        return _columns(items)
    if items and all(isinstance(item, np.ndarray) for item in items):
        return {"images": items}
    kinds = ", ".join(sorted({type(item).__name__ for item in items})) or "objects"
    raise InputError(
        f"holds an array of {kinds}: expected a dict with image_paths, bboxes, ..., such dicts, paths, or pictures as "
        "arrays"
    )


def columns_known(mapping: Mapping[Any, Any], source: object) -> dict[str, Any]:
    """Those of COLUMNS that it has and are not None, with a warning of the others.

    Raises InputError unless it has exactly one of `image_paths` and `images`.
    """
    further = sorted(str(key) for key in mapping if key not in COLUMNS)
    if ("image_paths" in mapping) == ("images" in mapping):
        keys = ", ".join(sorted(map(str, mapping))) or "none"
        raise InputError(f"expected exactly one of the keys image_paths and images; it has {keys}")
    if further:
        cure = "" if "subjects" in mapping else "; whose picture each is stands under subjects"
        warn(f"{source}: {', '.join(further)} are not read (known are {', '.join(COLUMNS)}){cure}")
    return {name: mapping[name] for name in COLUMNS if mapping.get(name) is not None}


def _columns(rows: Sequence[dict[Any, Any]]) -> dict[str, list[Any]]:
    keys = set(rows[0])
    for number, row in enumerate(rows):
        if set(row) != keys:
            raise InputError(f"row {number} has the keys {', '.join(map(str, row))}, row 0 {', '.join(map(str, keys))}")
    return {OF_ROWS.get(key, key): [row[key] for row in rows] for key in rows[0]}
