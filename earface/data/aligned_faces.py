"""Aligned faces in Python code and commands: as they are given, or found in photographs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.data.face_detection import FaceDetector
from earface.data.face_inspection import FaceFinder
from earface.data.face_sizes import FACE_SIZE, MIN_FACE
from earface.data.given import Pictures, each_picture, pixels_of_picture
from earface.data.images import Pixels

USUAL_SIZE = round(1.5 * FACE_SIZE)  # pixels; few align to more, and few photographs are smaller


@dataclass(frozen=True)
class LargeFaces:
    """Of pictures that are given as aligned faces, those that look like photographs; any number of threads may look."""

    sizes: dict[str, str] = field(default_factory=dict)  # by name, such as 250x250

    def look(self, name: str | Path, picture: Pixels) -> None:
        height, width, _ = picture.shape
        if max(height, width) > USUAL_SIZE:
            self.sizes[str(name)] = f"{width}x{height}"

    def warn(self, count: int, advice: str) -> None:
        """Warn of them, if any. count: of all pictures; advice: what to do with photographs."""
        if self.sizes:
            name, size = min(self.sizes.items())
            warn(
                f"{len(self.sizes)} of {count} pictures are larger than aligned faces usually are (such as {name}, "
                f"{size}): if they are photographs, {advice}",
                [f"{name}: {size}" for name, size in sorted(self.sizes.items())],
            )


def found_face(picture: Pixels, name: str | Path, finder: FaceFinder | None) -> Pixels:
    """The aligned face in a photograph, (128, 128, 3); without finder the picture, which is one.

    Raises InputError for a photograph without a face.
    """
    if finder is None:
        return picture
    face, found = finder(picture)
    if isinstance(face, str):
        raise InputError(f"{name}: {found}")
    return face


def each_face(given: Pictures, detector: str | os.PathLike[str] | None) -> Iterator[tuple[str, Pixels]]:
    """Pictures as `earface.data.given` takes them to aligned faces one by one, (S, S, 3), with names for messages.

    detector: YuNet's ONNX file, for photographs; None: they are aligned faces, with a warning of large ones. Raises
    InputError, also for what is not square, and for a photograph without a face.
    """
    finder = None if detector is None else FaceFinder(FaceDetector(detector), MIN_FACE)
    pictures, large = each_picture(given), LargeFaces()
    for name, picture in pictures:
        face = found_face(pixels_of_picture(picture, name), name, finder)
        large.look(name, face)
        height, width, _ = face.shape
        if height != width:
            raise InputError(
                f"{name}: {width}x{height} is not square; an aligned face is (for photographs: `detector`)"
            )
        yield name, face
    large.warn(len(pictures), "give `detector`, YuNet's file, which finds the faces in them")
