"""Boxes as files give them, checked: x y width height in pixels, from the upright picture's top left corner.

What is written as something else (corners, fractions, boxes of the picture before its EXIF orientation is applied) is
refused or warned of: a wrong crop looks like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.core.progress import tracked
from earface.data.images import Header, image_header, read_ahead

MAX_WRONG = 0.05  # of the boxes; more are another kind of box rather than slips
TINY = 2.0  # pixels; a set in which no box is larger is in another unit
MIN_SIDE = 16  # of pictures on which such boxes are none
MIN_FOLLOWED = 10  # boxes from which a correlation says something
FOLLOWS = 0.8  # correlation of xmax with xmin; that of a width with x is about 0, or negative
SIDEWAYS = 5  # EXIF orientations from here on exchange width and height
Floats = NDArray[np.float32]
Size = tuple[int, int]  # width, height
Written = tuple[Hashable, Sequence[object]]  # a picture and the numbers of a box on it


def checked_box(box: Sequence[object], size: Size | None) -> Floats:
    """(4,) x y width height, cut to the picture. It may extend beyond the picture by `slack`, a slip of the hand.

    size: of the upright picture; None: unknown. Raises InputError for a box that is empty, outside, or no such box.
    """
    numbers = checked_numbers(box, "box")
    if len(numbers) != 4:
        raise InputError(f"box of {len(numbers)} numbers: expected x y width height")
    written = " ".join(f"{value:g}" for value in numbers)
    x, y, width, height = numbers.tolist()
    right, bottom = x + width, y + height
    if looks_like_fractions(numbers):
        raise InputError(f"box {written} looks like fractions of the picture: multiply by its width and height")
    if width <= 0 or height <= 0:
        raise InputError(f"box {written} has no size: expected x y width height in pixels")
    if size is not None:
        beyond = slack(size)
        if min(x, y) < -beyond or right > size[0] + beyond or bottom > size[1] + beyond:
            raise InputError(
                f"box {written} leaves the {size[0]}x{size[1]} picture: expected x y width height in pixels, "
                "not corners"
            )
        x, y, right, bottom = max(x, 0), max(y, 0), min(right, size[0]), min(bottom, size[1])
        if right <= x or bottom <= y:
            raise InputError(f"box {written} lies outside the {size[0]}x{size[1]} picture")
    return np.array([x, y, right - x, bottom - y], np.float32)


def check_boxes(source: object, boxes: Iterable[Written], headers: Mapping[Any, Header | None]) -> None:
    """What the boxes of a file are when they are looked at together; each by itself is for `checked_box`.

    boxes: the picture and the numbers of each, as written. headers: of the pictures; None: it cannot be read; with
    orientation 1 where the file says how large the upright picture is.
    Raises InputError if they look like corners or fractions, and if none is larger than two pixels; warns where they
    may be corners. The rest is `check_view`.
    """
    for oddity in oddities(source, boxes, headers):
        warn(oddity)


def oddities(source: object, boxes: Iterable[Written], headers: Mapping[Any, Header | None]) -> list[str]:
    """What `check_boxes` warns of; raises what it raises."""
    boxes = list(boxes)
    table, sizes, _ = _readable(boxes, headers)
    if not len(table):
        return []
    if all(map(looks_like_fractions, table)):
        raise InputError(f"{source}: the boxes look like fractions of the picture: multiply by its width and height")
    if table[:, 2:].min() > 0 and table[:, 2:].max() <= TINY and sizes.min() > MIN_SIDE:
        raise InputError(
            f"{source}: none of its {len(table)} boxes is larger than {TINY:g} pixels: expected x y width height in "
            "pixels of the picture"
        )
    return [*filter(None, (_corners_in_doubt(source, table, sizes), _view_in_doubt(source, boxes, headers)))]


def check_view(source: object, boxes: Iterable[Written], headers: Mapping[Any, Header | None]) -> None:
    """Whether boxes are of the upright pictures, in a file that does not say how large its pictures are.

    Raises InputError where they fit only what is stored, before EXIF turns it. Warns where EXIF turns pictures and
    no box fits the upright one alone.
    """
    if oddity := _view_in_doubt(source, list(boxes), headers):
        warn(oddity)


def _view_in_doubt(source: object, boxes: Sequence[Written], headers: Mapping[Any, Header | None]) -> str:
    table, sizes, orientations = _readable(boxes, headers)
    sideways = orientations >= SIDEWAYS
    fits = _fits(table, sizes)
    fits_stored = _fits(table, np.where(sideways[:, None], sizes[:, ::-1], sizes))
    wrong = int((sideways & fits_stored & ~fits).sum())
    if wrong > MAX_WRONG * sideways.sum():
        raise InputError(
            f"{source}: {wrong} boxes fit their pictures as these are stored, and not as EXIF turns them: give boxes "
            "of the upright pictures"
        )
    if (sideways & fits & ~fits_stored).any():
        return ""
    return _turned(source, {picture for picture, box in boxes if _four(box) is not None}, headers)


def warn_of_turned(source: object, pictures: Collection[Hashable], headers: Mapping[Any, Header | None]) -> None:
    """The warning of `check_view`, where boxes are fractions and so fit either view."""
    if oddity := _turned(source, pictures, headers):
        warn(oddity)


def _turned(source: object, pictures: Collection[Hashable], headers: Mapping[Any, Header | None]) -> str:
    turned = [picture for picture in pictures if (header := headers[picture]) is not None and header[1] != 1]
    if not turned:
        return ""
    return (
        f"{source}: EXIF turns {len(turned)} of the {len(pictures)} pictures, and nothing shows that the boxes are of "
        "the upright ones: look at some of them"
    )


def read_headers(pictures: Iterable[Path], *, quiet: bool = False) -> dict[Path, Header | None]:
    """Of each picture, the size of the upright picture and the EXIF orientation; None where it cannot be read."""

    def header(picture: Path) -> Header | None:
        try:
            return image_header(picture)
        except InputError:
            return None

    pictures = list(dict.fromkeys(pictures))
    headers = tracked(read_ahead(header, pictures), "reading the pictures' sizes", len(pictures), quiet=quiet)
    return dict(zip(pictures, headers, strict=True))


def checked_numbers(values: Sequence[object], name: str) -> NDArray[np.float64]:
    """(N,) finite numbers. Raises InputError."""
    try:
        if any(isinstance(value, bool | list | tuple | dict) for value in values):
            raise TypeError
        numbers = np.array([float(value) for value in values])  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        advice = ": decimals follow a point, as in 5.5" if any("," in str(value) for value in values) else ""
        raise InputError(f"{name} {str(list(values))[:80]} is not numbers{advice}") from None
    if not np.isfinite(numbers).all():
        raise InputError(f"{name} holds NaN or infinity")
    return numbers


def looks_like_fractions(box: NDArray[np.float64]) -> bool:
    """Of the picture's width and height, as x y width height or with the centre for x y."""
    x, y, width, height = box.tolist()
    if min(width, height) <= 0 or min(x, y) < -0.05:
        return False
    return max(x + width, y + height) <= 1 or (max(width, height) < 1 and max(x, y) <= 1.05)


def slack(size: Size) -> float:
    """Pixels that an annotation may extend beyond a picture of this size."""
    return max(2.0, 0.01 * max(size))


def _readable(
    boxes: Sequence[Written], headers: Mapping[Any, Header | None]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Boxes (N, 4), sizes (N, 2) and orientations (N,) of those that are four numbers on a picture that can be read."""
    known = [
        (numbers, *header)
        for picture, box in boxes
        if (header := headers[picture]) is not None and (numbers := _four(box)) is not None
    ]
    if not known:
        return np.empty((0, 4)), np.empty((0, 2)), np.empty(0, np.int64)
    table, sizes, orientations = (np.array(each) for each in zip(*known, strict=True))
    return table, sizes.astype(np.float64), orientations


def _four(box: Sequence[object]) -> NDArray[np.float64] | None:
    try:
        numbers = checked_numbers(box, "box")
    except InputError:
        return None
    return numbers if len(numbers) == 4 else None


def _fits(table: NDArray[np.float64], sizes: NDArray[np.float64], corners: bool = False) -> NDArray[np.bool_]:
    """(N,) bool: whether each box lies in its picture, as `checked_box` judges it."""
    beyond = np.maximum(2.0, 0.01 * sizes.max(axis=1, initial=0))[:, None]
    far = table[:, 2:] + (0 if corners else table[:, :2])
    return ((table[:, :2] >= -beyond) & (far <= sizes + beyond)).all(axis=1)


def _corners_in_doubt(source: object, table: NDArray[np.float64], sizes: NDArray[np.float64]) -> str:
    if not (table[:, 2:] > table[:, :2]).all() or not _fits(table, sizes, corners=True).all():
        return ""
    advice = "write x y, xmax - xmin and ymax - ymin"
    if (outside := int((~_fits(table, sizes)).sum())) > MAX_WRONG * len(table):
        raise InputError(
            f"{source}: the boxes look like corners, xmin ymin xmax ymax: as x y width height {outside} of "
            f"{len(table)} leave their pictures: {advice}"
        )
    if not _far_follows_near(table / np.tile(sizes, 2)):
        return ""
    return (
        f"{source}: the boxes may be corners, xmin ymin xmax ymax, since each width grows with x and each height with "
        f"y: look at some of them, and if they are, {advice}"
    )


def _far_follows_near(shares: NDArray[np.float64]) -> bool:
    """Whether the third and fourth number rise with the first and second, as the corners of small boxes do."""
    if len(shares) < MIN_FOLLOWED or (shares.std(axis=0) < 0.02).any():  # a set of crops with one margin
        return False
    return all(np.corrcoef(shares[:, near], shares[:, near + 2])[0, 1] > FOLLOWS for near in (0, 1))
