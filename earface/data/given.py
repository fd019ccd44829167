"""Pictures as Python code has them.

A picture is a path, a picture of Pillow's, a uint8 array (H, W, C) or (H, W), or a uint8 tensor (C, H, W): RGB or grey.
Several are a sequence of these, an array or tensor with one more dimension, or the path of a folder. A float tensor
(B, C, S, S) or (C, S, S) in [-1, 1] is what a model takes, and is not changed; other floats are refused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.data.folders import pictures_at
from earface.data.images import Pixels, pixels_of, read_image

Picture = str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor
Pictures = Picture | Sequence[Picture]
ROUNDING = 1e-3  # beyond [-1, 1], as an interpolation leaves it


def in_model_range(given: Pictures) -> Tensor | None:
    """A float tensor (B, C, H, W) or (C, H, W) as a batch; None for anything else.

    Raises InputError where its values are not in [-1, 1]; warns where they look like [0, 1].
    """
    if not isinstance(given, Tensor) or not given.is_floating_point():
        return None
    images = given[None] if given.ndim == 3 else given
    if images.ndim != 4 or not len(images):
        raise InputError(f"a tensor of pictures is (B, C, H, W) or (C, H, W), not {tuple(given.shape)}")
    low, high = float(images.min()), float(images.max())
    if not (low >= -1 - ROUNDING and high <= 1 + ROUNDING):  # true for NaN, too
        raise InputError(
            f"float pictures from {low:g} to {high:g}: give them in [-1, 1] (x / 127.5 - 1 of 0 to 255), or as uint8"
        )
    if low >= 0 and high > 0.5:
        warn("float pictures without a value below 0: models take [-1, 1], which is 2 * x - 1 of [0, 1]")
    return images


def each_picture(given: Pictures) -> list[tuple[str, Picture]]:
    """The pictures one by one, each with a name for messages; those of a folder where a path leads to one.

    Raises InputError where there is none.
    """
    if isinstance(given, str | os.PathLike):
        return [(str(path), path) for path in pictures_at(given)]
    if isinstance(given, Image.Image) or (isinstance(given, np.ndarray | Tensor) and given.ndim < 4):
        return [("the picture", given)]
    found = [(_name(each, row), each) for row, each in enumerate(given)]
    if not found:
        raise InputError("no pictures were given")
    return found


def _name(picture: Picture, row: int) -> str:
    return str(picture) if isinstance(picture, str | os.PathLike) else f"picture {row}"


def pixels_of_picture(picture: Picture, name: str, channels: int = 3) -> Pixels:
    """(H, W, channels) uint8, RGB or grey. Raises InputError for what is no picture."""
    if isinstance(picture, str | os.PathLike):
        return read_image(Path(picture), channels)
    pixels = pixels_of(picture) if isinstance(picture, Image.Image) else _of_array(picture, name)
    if pixels.shape[2] == channels:
        return pixels
    conversion = cv2.COLOR_RGB2GRAY if channels == 1 else cv2.COLOR_GRAY2RGB
    return np.asarray(cv2.cvtColor(pixels, conversion), np.uint8).reshape(*pixels.shape[:2], channels)


def _of_array(picture: NDArray[Any] | Tensor, name: str) -> Pixels:
    if isinstance(picture, Tensor):
        layout, shape = "(C, H, W) tensor", tuple(picture.shape)
        array = picture.detach().cpu().numpy()
        array = array.transpose(1, 2, 0) if array.ndim == 3 else array
    elif isinstance(picture, np.ndarray):
        layout, shape, array = "(H, W, C) array", picture.shape, picture
    else:
        raise InputError(f"{name}: is a {type(picture).__name__}, not a path, a picture, an array or a tensor")
    if array.dtype != np.uint8:
        raise InputError(f"{name}: {layout} of {array.dtype}, which is to be uint8{_way_to_uint8(array)}")
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        raise InputError(f"{name}: a {layout} with 1 or 3 channels is wanted, not {shape}")
    return np.ascontiguousarray(array)


def _way_to_uint8(array: NDArray[Any]) -> str:
    """What to do, for a message: as the values are."""
    if array.dtype.kind not in "iuf" or not array.size or not (array.min() >= 0 and array.max() <= 255):  # NaN, too
        return ", 0 to 255"
    if array.dtype.kind != "f":
        return ": x.astype('uint8')"
    return ": x.round().astype('uint8')" if array.max() > 1 else ": round(255 * x) of [0, 1]"


def stacked(images: Sequence[Pixels]) -> Tensor:
    """Pictures of one size: uint8 (B, H, W, C)."""
    return torch.from_numpy(np.stack(images))
