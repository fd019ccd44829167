"""Landmarks of many crops in one NPZ file: `files` (N,) and `points` (N, K, 2), as other landmarkers write them."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from earface.core.errors import InputError, reading
from earface.core.limits import MAX_POINTS, MAX_POINTS_BYTES
from earface.data.affine import hide_outside
from earface.data.annotations import (
    VISIBLE,
    Annotations,
    Photograph,
    enclosing_box,
    photograph_headers,
    size_in,
    stacked_boxes,
)
from earface.data.boxes import check_view
from earface.data.names import person_name, warn_of_odd_names
from earface.data.photograph_paths import PhotographPaths


def read_points_npz(path: str | os.PathLike[str], data_root: str | os.PathLike[str] | None = None) -> Annotations:
    """One ear a picture, whose box encloses its points; the first folder of a file is its subject.

    points: pixels, whole numbers at pixel centres; those outside the picture become not labelled. data_root: the folder
    that relative files start from and may not leave; default: the folder of `path`. Raises InputError.
    """
    with reading(path, "holds no arrays `files` and `points`"):
        return _annotations(Path(path), data_root)


def _annotations(path: Path, data_root: str | os.PathLike[str] | None) -> Annotations:
    files, points = _arrays(path)
    paths = PhotographPaths(path, data_root)
    try:
        pictures = [paths.resolve(file) for file in files]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    headers = photograph_headers(path, pictures)
    if points.shape[1] > 1 and points.min() >= 0 and points.max() <= 1:
        raise InputError(f"{path}: `points` look like fractions of the picture: multiply by its width and height")
    photographs = []
    for file, picture, places in zip(files, pictures, points, strict=True):
        size = size_in(headers[picture])
        ear = np.column_stack([places, np.full(len(places), VISIBLE)]).astype(np.float32)
        if size is not None:
            ear = hide_outside(ear, *size)
        try:
            box = stacked_boxes([enclosing_box(ear, size)])
        except InputError as error:
            raise InputError(f"{path}: {file}: {error}") from None
        subject = person_name(file.split("/")[0]) if "/" in file else ""
        photographs.append(Photograph(picture, size, box, ear[None], has_boxes=False, subject=subject))
    check_view(path, [(photograph.path, photograph.boxes[0].tolist()) for photograph in photographs], headers)
    paths.report()
    warn_of_odd_names((photograph.subject for photograph in photographs if photograph.subject), path)
    names = tuple(f"point_{number:02d}" for number in range(1, points.shape[1] + 1))
    return Annotations(path, photographs, names)


def _arrays(path: Path) -> tuple[list[str], np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        if sum(info.file_size for info in archive.infolist()) > MAX_POINTS_BYTES:
            raise InputError(f"unpacks to more than the limit of {MAX_POINTS_BYTES:,} bytes")
    with np.load(path, allow_pickle=False) as archive:
        files, points = archive["files"], archive["points"].astype(np.float64)
    if files.ndim != 1 or files.dtype.kind != "U" or not len(files):
        raise InputError(f"{path}: `files` is {files.dtype} {files.shape}, not N names")
    if points.ndim != 3 or points.shape[::2] != (len(files), 2) or not 0 < points.shape[1] <= MAX_POINTS:
        raise InputError(f"{path}: `points` is {points.shape}, not ({len(files)}, K, 2)")
    if not np.isfinite(points).all():
        raise InputError(f"{path}: `points` holds NaN or infinity")
    return files.tolist(), points
