"""Arrays of images in any of the layouts and ranges that people store them in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError

CHUNK_ROWS = 256


def images_of_array(array: object) -> NDArray[Any]:
    """(N, H, W, C) uint8 of an array of either layout; a view of the memory map if it is uint8 already.

    A list of pictures of different sizes becomes an object array (N,) of uint8 (H, W, C). Floats: see
    `read_teacher_npy`. Raises InputError for anything else.
    """
    if isinstance(array, list):
        array = _of_objects(array)
        if array.dtype == object:
            return array
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "uif":
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"images must be an array of whole numbers or floats, not {found}: store them as uint8")
    if array.ndim == 3 and array.shape[2] not in (1, 3):
        array = array[..., None]
    if array.ndim != 4 or 0 in array.shape[1:]:
        raise InputError(f"images of shape {array.shape}: expected (N, H, W, C) or (N, C, H, W), with C = 1 or 3")
    if len(array) == 0:
        raise InputError("the image array has zero rows")
    if 4 in (array.shape[1], array.shape[3]) and not {1, 3} & {array.shape[1], array.shape[3]}:
        raise InputError(f"images of shape {array.shape}: the fourth channel is not read: store the first three")
    channels_last, channels_first = array.shape[3] in (1, 3), array.shape[1] in (1, 3)
    if channels_last == channels_first:
        problem = "either axis could be the channels" if channels_last else "no axis of 1 or 3 channels"
        raise InputError(
            f"images of shape {array.shape}: {problem}; expected (N, H, W, C) or (N, C, H, W), with C = 1 or 3"
        )
    array = array if channels_last else array.transpose(0, 2, 3, 1)
    if array.dtype == np.uint8:
        return array
    return _from_float(array) if array.dtype.kind == "f" else _from_integers(array)


def _of_objects(pictures: list[Any]) -> NDArray[Any]:
    """One array of pictures of one shape; those of many as an object array (N,) of uint8 (H, W, C)."""
    if len({picture.shape for picture in pictures if isinstance(picture, np.ndarray)}) == 1:
        return np.stack(pictures)
    rows = np.empty(len(pictures), object)
    for row, picture in enumerate(pictures):
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
            found = picture.dtype if isinstance(picture, np.ndarray) else type(picture).__name__
            raise InputError(f"images row {row} is {found}: pictures of different sizes are to be uint8")
        picture = picture[..., None] if picture.ndim == 2 else picture
        if picture.ndim != 3 or picture.shape[2] not in (1, 3) or 0 in picture.shape:
            raise InputError(f"images row {row} has the shape {picture.shape}: expected (H, W, C), with C = 1 or 3")
        rows[row] = picture
    return rows


def _from_integers(array: NDArray[Any]) -> NDArray[np.uint8]:
    chunks = [slice(start, start + CHUNK_ROWS) for start in range(0, len(array), CHUNK_ROWS)]
    low, high = (int(extreme([extreme(array[chunk]) for chunk in chunks])) for extreme in (np.min, np.max))
    wide = array.dtype.itemsize == 2 and array.dtype.kind == "u" and high > 16383  # else of 10 or 12 bits
    divisor = 257 if wide else 1
    if low < 0 or high > 255 * divisor:
        raise InputError(f"whole numbers from {low} to {high}: expected 0 to 255, or 65535; store them as uint8")
    images = np.empty(array.shape, np.uint8)
    for chunk in chunks:
        images[chunk] = np.rint(array[chunk] / divisor)
    return images


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
