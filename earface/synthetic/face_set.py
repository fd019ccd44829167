"""A set of synthetic faces on disk: PNG files with Multi-PIE names, and an index of their landmarks and factors."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.core.files import atomic_write, require_empty
from earface.core.options import check_options
from earface.data.image_grid import tile_images
from earface.data.images import write_image
from earface.data.multipie import CAMERA_YAW, MultiPieName
from earface.data.tables import write_csv
from earface.synthetic.face_anatomy import FACE_LANDMARKS
from earface.synthetic.face_factors import CODES, GALLERY, ViewCode, sample_shape, sample_view
from earface.synthetic.face_rendering import FacePicture, draw_face
from earface.synthetic.factors import check_seed
from earface.synthetic.options import FaceSetOptions, Layout
from earface.synthetic.workers import PNG_FLAGS, map_processes

INDEX = "index.csv"


@dataclass(frozen=True)
class FaceSet(FaceSetOptions):
    """Which pictures of the population `seed`: subjects from 1 on, seen by the cameras within `max_yaw` degrees."""

    def __post_init__(self) -> None:
        check_options(self)
        check_seed(seed=self.seed)
        if self.images_per_subject > (most := len(self.codes)):
            raise InputError(
                f"`images_per_subject` {self.images_per_subject}: must be at most {most}, the number of pictures of a "
                f"subject by the cameras within `max_yaw` {self.max_yaw}"
            )

    @property
    def codes(self) -> tuple[ViewCode, ...]:
        """Every picture that there is of one person, the frontal one first."""
        return _codes(self.max_yaw)


@functools.lru_cache(maxsize=4)
def _codes(max_yaw: int) -> tuple[ViewCode, ...]:
    cameras = [camera for camera in CODES["camera"] if abs(CAMERA_YAW[camera]) <= max_yaw]
    others = itertools.product(CODES["session"], CODES["recording"], cameras, CODES["illumination"])
    return GALLERY, *(code for code in itertools.starmap(ViewCode, others) if code != GALLERY)


def view_codes(faces: FaceSet, subject: int) -> list[ViewCode]:
    """The pictures of a subject: a frontal, neutral, evenly lit one for the gallery, then any others, none twice.

    A set with more images per subject begins with the same ones.
    """
    codes = faces.codes
    order = np.random.default_rng([faces.seed, subject, 2]).permutation(len(codes) - 1)[: faces.images_per_subject - 1]
    return [GALLERY, *(codes[1 + place] for place in order)]


def subject_name(subject: int) -> str:
    return f"{subject:03d}"


def image_name(faces: FaceSet, subject: int, code: ViewCode, layout: str) -> str:
    """The path below the set's folder."""
    name = str(MultiPieName(subject_name(subject), **dataclasses.asdict(code), size=faces.image_size))
    return f"images/{subject_name(subject)}/{name}" if layout == "folders" else f"images/{name}"


def _draw_subject(faces: FaceSet, subject: int) -> Iterator[tuple[ViewCode, FacePicture]]:
    shape = sample_shape(faces.seed, subject)
    for code in view_codes(faces, subject):
        yield code, draw_face(shape, sample_view(faces.seed, subject, code), faces.image_size)


def synthesize_faces(faces: FaceSet) -> tuple[NDArray[np.uint8], list[str]]:
    """The set in memory: images (N, H, W, 3) uint8 RGB and their N names, in the order of `write_face_set`."""
    pictures = [(n, *pair) for n in range(1, faces.subjects + 1) for pair in _draw_subject(faces, n)]
    names = [Path(image_name(faces, subject, code, "multipie")).name for subject, code, _ in pictures]
    return np.stack([picture.image for _, _, picture in pictures]), names


def _write_subject(faces: FaceSet, out: Path, layout: str, subject: int) -> list[dict[str, object]]:
    """Write one subject's pictures into `out` and return their rows of the index. It runs in a worker process."""
    rows = []
    for code, picture in _draw_subject(faces, subject):
        file = image_name(faces, subject, code, layout)
        encoded = cv2.imencode(".png", cv2.cvtColor(picture.image, cv2.COLOR_RGB2BGR), PNG_FLAGS)[1]
        with atomic_write(out / file, sync=False) as temporary:
            temporary.write_bytes(encoded.tobytes())
        row: dict[str, object] = {"file": file, "subject": subject_name(subject), **dataclasses.asdict(code)}
        for name, (x, y), seen in zip(FACE_LANDMARKS, picture.landmarks, picture.visibility, strict=True):
            row |= {f"{name}_x": f"{x:.3f}", f"{name}_y": f"{y:.3f}", f"{name}_visible": int(seen)}
        row |= dataclasses.asdict(sample_view(faces.seed, subject, code))
        rows.append(row | dataclasses.asdict(sample_shape(faces.seed, subject)))
    return rows


def _clear(out: Path, overwrite: bool) -> None:
    """Make `out` ready. With `overwrite` an earlier set's own files go, the index first; others stay."""
    require_empty(out, overwrite)
    (out / INDEX).unlink(missing_ok=True)
    images = out / "images"
    for path in [*images.glob("*.png"), *images.glob("[0-9][0-9][0-9]/*.png")]:
        if str(MultiPieName.parse(path.name)) == path.name:
            path.unlink()
    for folder in images.glob("[0-9][0-9][0-9]"):
        if not any(folder.iterdir()):
            folder.rmdir()


def write_face_set(
    out: str | os.PathLike[str],
    faces: FaceSet,
    *,
    layout: Layout = "multipie",
    num_workers: int = 1,
    overwrite: bool = False,
    done: Callable[[int], None] = lambda count: None,
) -> list[str]:
    """Write a set into the folder `out` and return lines that say what was written where.

    `images/001_01_01_051_07_crop_128.png` and so on, with the layout "folders" in a folder per subject; and last
    `index.csv`: file, subject, codes, the five landmarks with COCO's visibility (1 hidden, 2 visible), and every
    factor. The files do not depend on `num_workers`. done: called with the number of pictures finished since its last
    call.
    Raises InputError for bad values or a folder in use.
    """
    if layout not in get_args(Layout):
        raise InputError(f"`layout` {layout}: choose one of {', '.join(get_args(Layout))}")
    out = Path(out)
    _clear(out, overwrite)
    work = functools.partial(_write_subject, faces, out, layout)
    subjects = map_processes(work, range(1, faces.subjects + 1), num_workers, lambda: done(faces.images_per_subject))
    rows = [row for subject in subjects for row in subject]
    write_csv(out / INDEX, list(rows[0]), (list(row.values()) for row in rows))
    size = faces.image_size
    return [
        f"{len(rows)} pictures of {faces.subjects} subjects, {size}x{size}, aligned: {out / 'images'}",
        f"landmarks and every factor: {out / INDEX}",
    ]


def write_image_grid(path: str | os.PathLike[str], faces: FaceSet, rows: int = 8, columns: int = 10) -> None:
    """An image grid PNG: a row for each of the first subjects, with their first pictures."""
    columns = min(columns, faces.images_per_subject)
    pictures = [
        picture.image
        for subject in range(1, min(rows, faces.subjects) + 1)
        for _, picture in itertools.islice(_draw_subject(faces, subject), columns)
    ]
    write_image(path, tile_images(pictures, columns))
