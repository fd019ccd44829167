"""Arrays of images in any of the layouts and ranges that people store them in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError

CHUNK_ROWS = 256


def images_of_array(array: object) -> NDArray[np.uint8]:
    """(N, H, W, C) uint8 of an array of either layout; a view of the memory map if it is uint8 already.

    Floats: see `read_teacher_npy`. Raises InputError for anything else.
    """
    if not isinstance(array, np.ndarray) or (array.dtype != np.uint8 and array.dtype.kind != "f"):
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"images must be a uint8 or float array, not {found}")
    if array.ndim != 4 or 0 in array.shape[1:]:
        raise InputError(f"images of shape {array.shape}: expected (N, H, W, C) or (N, C, H, W), with C = 1 or 3")
    if len(array) == 0:
        raise InputError("the image array has zero rows")
    channels_last, channels_first = array.shape[3] in (1, 3), array.shape[1] in (1, 3)
    if channels_last == channels_first:
        problem = "either axis could be the channels" if channels_last else "no axis of 1 or 3 channels"
        raise InputError(
            f"images of shape {array.shape}: {problem}; expected (N, H, W, C) or (N, C, H, W), with C = 1 or 3"
        )
    array = array if channels_last else array.transpose(0, 2, 3, 1)
    return array if array.dtype == np.uint8 else _from_float(array)


def _from_float(array: NDArray[Any]) -> NDArray[np.uint8]:
    chunks = range(0, len(array), CHUNK_ROWS)
    low = float(np.min([array[start : start + CHUNK_ROWS].min() for start in chunks]))  # np.min hands NaN on
    high = float(np.max([array[start : start + CHUNK_ROWS].max() for start in chunks]))
    if not math.isfinite(low) or not math.isfinite(high):
        raise InputError("the image array holds NaN or infinity")
    tolerance = 1e-3  # rounding in half precision
    if low >= -tolerance and high <= 1.0 + tolerance:
        scale, offset = 255.0, 0.0
    elif low >= -1.0 - tolerance and high <= 1.0 + tolerance:
        scale, offset = 127.5, 127.5
    elif low >= 0.0 and 16.0 < high <= 255.0:
        scale, offset = 1.0, 0.0
    else:
        raise InputError(
            f"float images from {low:g} to {high:g}: expected [0, 1], [-1, 1] or [0, 255]; store them as uint8"
        )
    images = np.empty(array.shape, np.uint8)
    for start in chunks:
        pixels = array[start : start + CHUNK_ROWS].astype(np.float32) * scale + offset
        images[start : start + CHUNK_ROWS] = np.rint(pixels).clip(0, 255).astype(np.uint8)
    return images
