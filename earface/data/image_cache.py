"""Pictures decoded, cropped and resized once, into a memory map that every later run opens."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsIndex

import cv2
import numpy as np
import PIL
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.core.files import atomic_write, check_free_space, remove_abandoned
from earface.core.notices import warn
from earface.data.boxes import checked_box, oddities, read_headers
from earface.data.images import Pixels, read_ahead, read_image, resize_image
from earface.data.names import warn_of_lost_people
from earface.data.npy import TeacherData

RULE = 1  # raise it when the same files would become other pixels
BOX_RULE = 1  # the same, of crops alone
SHOWN = 3
MAX_UNREADABLE = 0.05  # of the rows; more is a wrong folder rather than a few bad files


class ImageMap(np.memmap[Any, np.dtype[np.uint8]]):
    """A read-only map of a file, pickled as the file's name: workers that are started rather than forked open it."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        file: Any = self._mmap  # type: ignore[attr-defined]  # None of what has been computed
        if file is None or self.filename is None or not self.flags.c_contiguous or self.dtype != np.uint8:
            return super().__reduce_ex__(protocol)
        mapped_from = self.offset - self.offset % mmap.ALLOCATIONGRANULARITY
        within = self.ctypes.data - np.frombuffer(file, np.uint8).ctypes.data
        return open_map, (self.filename, self.shape, mapped_from + within)


def open_map(path: str | os.PathLike[str], shape: tuple[int, ...], offset: int = 0) -> ImageMap:
    return ImageMap(path, np.uint8, mode="r", offset=offset, shape=shape)


@dataclass(frozen=True)
class ImageCache:
    """The rows that could be read, in their order."""

    images: ImageMap  # (N, S, S, C)
    kept: NDArray[np.int64]  # (N,) the row of TeacherData that each image is
    skipped: list[tuple[str, str]]  # path, reason
    oddities: list[str] = field(default_factory=list)  # of the boxes

    def __len__(self) -> int:
        return len(self.kept)

    def warn_of_skipped(self, data: TeacherData) -> None:
        """Warn of the rows of `data` that are left out, and of people who have no other."""
        if not self.skipped:
            return
        listed = [f"{name}: {reason}" for name, reason in self.skipped]
        first = "; ".join(listed[:SHOWN])
        warn(f"{data.source}: {len(listed)} of {len(data)} pictures cannot be used and are left out ({first})", listed)
        if data.subjects is not None:
            warn_of_lost_people(data.subjects, [data.subjects[row] for row in self.kept], data.source)


def open_image_cache(
    data: TeacherData,
    *,
    image_size: int,
    channels: int,
    crop_to_bbox: bool = False,
    cache_dir: str | os.PathLike[str],
    progress: Callable[[int, int], None] | None = None,
) -> ImageCache:
    """The pictures of `data` as uint8 (N, image_size, image_size, channels), made at the first call.

    The file's name is a digest of all that decides its content: paths, sizes and times of change, image size, channels,
    boxes if they are used, library versions. It appears whole or not at all, so a kill, or several processes at once,
    do no harm. crop_to_bbox: each picture is cut to its box, clipped to the picture, before the resize.
    An image array that has this form already is used as it is, without a copy.
    Unreadable pictures, and boxes that `checked_box` refuses or that hold no pixel, are skipped, and reported again
    when the cache is found; so is what is odd about the boxes.
    progress: called with (rows done, rows in all).
    Raises InputError if more than 5 % are skipped, if the boxes are of another kind, or if the disk has no room.
    """
    if channels not in (1, 3) or image_size < 1:
        raise InputError(f"image size {image_size}, {channels} channels: expected 1 pixel or more, 1 or 3 channels")
    if crop_to_bbox and data.bboxes is None:
        raise InputError(f"{data.source}: has no bboxes to crop to")
    shape = (len(data), image_size, image_size, channels)
    images = data.images
    if isinstance(images, np.memmap) and images.shape == shape and images.flags.c_contiguous and not crop_to_bbox:
        return ImageCache(images.view(ImageMap), np.arange(len(data)), [])
    path = Path(cache_dir) / f"{_digest(data, image_size, channels, crop_to_bbox)}.bin"
    remove_abandoned(path.parent)
    cache = _open(path, shape)
    if cache is None:
        check_free_space(path, int(np.prod(shape)))
        _build(path, data, shape, crop_to_bbox, progress)
        cache = _open(path, shape)
    if cache is None:
        raise InputError(f"{path}: vanished while it was opened; run the same command again")
    for oddity in cache.oddities:
        warn(oddity)
    return cache


def read_picture(data: TeacherData, row: int, *, channels: int, crop_to_bbox: bool = False) -> Pixels:
    """One row of `data` at its own size: (H, W, channels) uint8, cut to its box if asked for.

    Raises InputError for what cannot be read, and for a box that `checked_box` refuses or that holds no pixel.
    """
    image = _source_image(data, row, channels)
    if crop_to_bbox and data.bboxes is not None:
        checked_box(data.bboxes[row].tolist(), (image.shape[1], image.shape[0]))
        image = crop_to_box(image, data.bboxes[row])
    return image


def crop_to_box(image: Pixels, box: NDArray[np.float32]) -> Pixels:
    """(H, W, C) -> (h, w, C): the pixels of the box x y width height, clipped to the picture.

    Edges are rounded to whole pixels. Raises InputError if no pixel remains.
    """
    height, width = image.shape[:2]
    edges = np.rint([box[0], box[1], box[0] + box[2], box[1] + box[3]])
    left, top, right, bottom = edges.clip(0, [width, height, width, height]).astype(np.int64)
    cropped = image[top:bottom, left:right]
    if cropped.size == 0:
        written = " ".join(f"{value:g}" for value in box)
        raise InputError(f"box {written} (x y width height) holds no pixel of the {width}x{height} picture")
    return cropped


def _digest(data: TeacherData, image_size: int, channels: int, crop_to_bbox: bool) -> str:
    digest = hashlib.sha256()
    digest.update(repr((RULE, image_size, channels, crop_to_bbox, cv2.__version__, PIL.__version__)).encode())
    for path in [data.source] if data.image_paths is None else data.image_paths:
        digest.update(repr(file_identity(path)).encode())
    if crop_to_bbox and data.bboxes is not None:
        digest.update(repr(BOX_RULE).encode())
        digest.update(np.ascontiguousarray(data.bboxes).tobytes())
    return digest.hexdigest()[:32]


def file_identity(path: Path) -> tuple[object, ...]:
    """What changes when a file's content does: its path, size and time of change."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return str(path.absolute()), "unreadable"
    return str(path.absolute()), status.st_size, status.st_mtime_ns


def _open(path: Path, shape: tuple[int, int, int, int]) -> ImageCache | None:
    """The finished cache, or None if there is none. Its JSON is written last."""
    try:
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        skipped, odd = content["skipped"], [str(oddity) for oddity in content.get("oddities", [])]
        rows = [entry["row"] for entry in skipped]
        kept = np.setdiff1d(np.arange(shape[0]), np.array(rows, np.int64))
        if path.stat().st_size != len(kept) * int(np.prod(shape[1:])):
            return None
        images = open_map(path, (len(kept), *shape[1:]))
        return ImageCache(images, kept, [(entry["path"], entry["reason"]) for entry in skipped], odd)
    except (OSError, ValueError, KeyError, TypeError):  # missing, or damaged by hand: made again
        return None


def _build(
    path: Path,
    data: TeacherData,
    shape: tuple[int, int, int, int],
    crop_to_bbox: bool,
    progress: Callable[[int, int], None] | None,
) -> None:
    def make(row: int) -> bytes | InputError:
        try:
            image = read_picture(data, row, channels=shape[3], crop_to_bbox=crop_to_bbox)
            return resize_image(image, shape[1]).tobytes()
        except InputError as error:
            return error

    skipped: list[dict[str, object]] = []
    odd = box_oddities(data) if crop_to_bbox else []
    with atomic_write(path) as temporary:
        # written, not mapped: a full disk under a map kills the process
        with temporary.open("wb") as stream:
            for row, made in enumerate(read_ahead(make, range(shape[0]))):
                if isinstance(made, bytes):
                    stream.write(made)
                else:
                    name = f"{data.source} row {row}" if data.image_paths is None else str(data.image_paths[row])
                    skipped.append({"row": row, "path": name, "reason": str(made).removeprefix(f"{name}: ")})
                if progress is not None:
                    progress(row + 1, shape[0])
        if len(skipped) > MAX_UNREADABLE * shape[0]:
            first = "; ".join(f"{entry['path']}: {entry['reason']}" for entry in skipped[:3])
            raise InputError(
                f"{data.source}: {len(skipped)} of {shape[0]} pictures cannot be used, "
                f"over {MAX_UNREADABLE:.0%}: {first}"
            )
    with atomic_write(path.with_suffix(".json")) as temporary:
        temporary.write_text(
            json.dumps({"shape": shape, "skipped": skipped, "oddities": odd}, indent=1), encoding="utf-8"
        )


def box_oddities(data: TeacherData) -> list[str]:
    """What is odd about its boxes together, to be warned of. Raises InputError if they are of another kind."""
    if data.bboxes is None:
        return []
    boxes = data.bboxes.tolist()
    if data.image_paths is not None:
        headers = read_headers(data.image_paths, quiet=True)
        return oddities(data.source, zip(data.image_paths, boxes, strict=True), headers)
    assert data.images is not None, "TeacherData holds paths or images"
    sizes = {row: ((image.shape[1], image.shape[0]), 1) for row, image in enumerate(data.images)}
    return oddities(data.source, enumerate(boxes), sizes)


def _source_image(data: TeacherData, row: int, channels: int) -> Pixels:
    if data.image_paths is not None:
        return read_image(data.image_paths[row], channels)
    assert data.images is not None, "TeacherData holds paths or images"
    image = np.ascontiguousarray(data.images[row])
    if image.shape[2] == channels:
        return image
    conversion = cv2.COLOR_RGB2GRAY if channels == 1 else cv2.COLOR_GRAY2RGB
    return np.asarray(cv2.cvtColor(image, conversion), np.uint8).reshape(*image.shape[:2], channels)
