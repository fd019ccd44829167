"""Aligned faces in Python code and commands: as they are given, or found in photographs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.data.face_detection import FaceDetector, detector_file
from earface.data.face_inspection import CENTRED, FaceFinder
from earface.data.face_sizes import FACE_SIZE, MIN_FACE, VLRRange, VLRSize
from earface.data.given import Pictures, each_picture, pixels_of_picture
from earface.data.images import Pixels, read_image
from earface.data.options import FACE_SCORE, FindingOptions

MUCH = 0.2  # of an aligned face: more than what lies around the face itself on one side
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


@dataclass(frozen=True)
class OtherSizes:
    """Of faces that a super-resolver enlarges, those that are not of a size that it takes; any thread may look."""

    larger: dict[str, str] = field(default_factory=dict)  # by name, such as 250x250
    smaller: dict[str, str] = field(default_factory=dict)

    def look(self, name: str | Path, size: VLRSize, taken: VLRSize | VLRRange) -> None:
        """size: of the face, before it was brought to one that is `taken`."""
        nearest = taken.nearest(*size) if isinstance(taken, VLRRange) else taken
        if size != nearest:
            larger = size.width > nearest.width or size.height > nearest.height
            (self.larger if larger else self.smaller)[str(name)] = f"{size.width}x{size.height}"

    def warn(self, count: int, taken: VLRSize | VLRRange, advice: str) -> None:
        """Warn of them, if any. count: of all faces; advice: what else to do with the larger ones."""
        for sizes, other, what in (
            (self.larger, "larger", f"shrunk to it first: {advice}"),
            (self.smaller, "smaller", "enlarged to it first"),
        ):
            if sizes:
                name, size = min(sizes.items())
                warn(
                    f"{len(sizes)} of {count} faces are {other} than the super-resolver takes, {taken} px (such as "
                    f"{name}, {size}), and are {what}",
                    [f"{name}: {size}" for name, size in sorted(sizes.items())],
                )


@dataclass(frozen=True)
class FaceReader:
    """A file to the aligned face in it, (H, W, 3) uint8; any number of threads may call it.

    finder: for photographs; None: each picture is an aligned face. Raises InputError for a file that cannot be read or
    has no face.
    """

    finder: FaceFinder | None
    sizes: dict[Path, float] = field(default_factory=dict)  # pixels of the file on a side of each face that was read
    found: dict[Path, str] = field(default_factory=dict)  # how, of those that were not aligned already
    cut: dict[Path, float] = field(default_factory=dict)  # share beyond the photograph, of those with more than MUCH

    def __call__(self, path: Path) -> Pixels:
        picture = read_image(path)
        if self.finder is None:
            self.sizes[path] = float(min(picture.shape[:2]))
            return picture
        face, found = self.finder(picture)
        if isinstance(face, str) or isinstance(found, str):
            raise InputError(f"{path}: {found}")
        self.found[path] = found["found"]
        if found.get("outside", 0.0) > MUCH:
            self.cut[path] = found["outside"]
        self.sizes[path] = FACE_SIZE / found["enlargement"] if "enlargement" in found else float(face.shape[0])
        return face

    def size_of(self, path: Path, face: Pixels) -> VLRSize:
        """Width and height of a face that was read, in pixels of its file."""
        if self.finder is None:
            return VLRSize(face.shape[1], face.shape[0])
        return VLRSize(round(self.sizes[path]), round(self.sizes[path]))

    def warn(self, count: int) -> None:
        """Warn of crops in which no face was found, and of faces that are cut, if any. count: of all pictures."""
        if self.cut:
            worst = max(self.cut, key=lambda path: self.cut[path])
            warn(
                f"{len(self.cut)} of {count} faces are cut by the border of the photograph (such as {worst}, by "
                f"{self.cut[worst]:.0%}): what is missing is grey, and they are recognised less well",
                [f"{path}: {share:.0%}" for path, share in sorted(self.cut.items())],
            )
        if centred := sorted(str(path) for path, how in self.found.items() if how == CENTRED):
            warn(
                f"in {len(centred)} of {count} pictures no face is found (such as {centred[0]}), and being so small "
                "they are taken as crops of faces, by their middle square: check them, or give `no_centred_crops`",
                centred,
            )


def small_face_finder(options: FindingOptions) -> FaceFinder:
    """Also of faces that only the picture enlarged shows, and of crops. Raises InputError without the detector."""
    detector = FaceDetector(
        detector_file(None if options.detector is None else Path(options.detector)), options.min_score or FACE_SCORE
    )
    return FaceFinder(detector, options.min_face, enlarging=True, centred_crops=options.centred_crops)


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
