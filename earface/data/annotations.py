"""Photographs with the boxes and landmarks of their ears, and the files these come from.

COCO keypoint JSON is in `earface/data/coco.py`; here are `boxes.csv` and folders of `.pts`.
Coordinates are pixels of the upright picture. Boxes are measured from its top left corner, so that the picture is the
box 0 0 width height; whole coordinates of landmarks are pixel centres, so that the picture spans [-.5, width - .5].
That is COCO's custom.
The order of landmarks is anatomical: it is the same on a left and a right ear.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earface.core.errors import InputError, reading
from earface.core.files import atomic_write
from earface.core.limits import MAX_POINTS, MAX_PTS_BYTES
from earface.core.notices import warn
from earface.core.text import decoded
from earface.data.boxes import (
    Floats as Floats,  # exported
)
from earface.data.boxes import (
    Size as Size,
)
from earface.data.boxes import (
    check_boxes,
    check_view,
    checked_box,
    checked_numbers,
    read_headers,
    slack,
)
from earface.data.folders import DataRoot, list_images
from earface.data.images import Header
from earface.data.names import person_name, warn_of_odd_names
from earface.data.photograph_paths import PhotographPaths, visible_files
from earface.data.tables import Row, read_csv, require_columns, write_csv

UNLABELLED, HIDDEN, VISIBLE = 0, 1, 2  # COCO's visibility
SIDES = ("l", "r")
BOX_COLUMNS = ("x", "y", "width", "height")


@dataclass(frozen=True)
class Photograph:
    """One photograph with N ears of K landmarks each; N may be 0, and so may K."""

    path: Path
    size: Size | None  # None: it cannot be read, and no file says it
    boxes: Floats  # (N, 4) x y width height of the visible extent
    keypoints: Floats  # (N, K, 3) x y visibility: 0 not labelled (x y mean nothing), 1 hidden, 2 visible
    has_boxes: bool = True  # False: the boxes only enclose the landmarks, and other ears may be unmarked
    sides: tuple[str, ...] = ()  # of each ear: l, r or empty for unknown; () = unknown
    subject: str = ""  # who it is; empty for unknown

    @property
    def has_landmarks(self) -> bool:
        """Whether any landmark is labelled."""
        return bool((self.keypoints[..., 2] != UNLABELLED).any())


@dataclass(frozen=True)
class Annotations:
    """The photographs of one file or folder, which share their landmarks."""

    source: Path
    photographs: list[Photograph]
    landmark_names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()  # pairs of landmarks to join by a line, from 1 on as in COCO

    def __len__(self) -> int:
        return len(self.photographs)

    @property
    def num_ears(self) -> int:
        return sum(len(photograph.boxes) for photograph in self.photographs)


def read_boxes_csv(path: str | os.PathLike[str], data_root: str | os.PathLike[str] | None = None) -> Annotations:
    """A CSV with the columns file, x, y, width, height and perhaps subject and side: one ear a row.

    Rows of one file are one photograph's ears; a row whose four numbers are empty names a photograph without any.
    data_root: the folder that relative files start from and may not leave; default: the folder of `path`.
    Raises InputError.
    """
    with reading(path, "not a table of boxes"):
        return _boxes_csv(Path(path), data_root)


def _boxes_csv(path: Path, data_root: str | os.PathLike[str] | None) -> Annotations:
    table = read_csv(path)
    require_columns(table, ("file", *BOX_COLUMNS), path)
    paths = PhotographPaths(path, data_root)
    rows: dict[Path, list[Row]] = {}
    for record in table:
        try:
            rows.setdefault(paths.resolve(record["file"]), []).append(record)
        except InputError as error:
            raise InputError(f"{path} line {record.line}: {error}") from None
    headers = photograph_headers(path, rows)
    check_boxes(path, ((photograph, _cells(record)) for photograph in rows for record in rows[photograph]), headers)
    photographs = []
    for photograph, records in rows.items():
        boxes, sides, subjects, size = [], [], set(), size_in(headers[photograph])
        for record in records:
            try:
                subjects.add(person_name(record.get("subject", "")))
                if any(_cells(record)):
                    boxes.append(checked_box(_cells(record), size))
                    sides.append(checked_side(record.get("side", "")))
            except InputError as error:
                raise InputError(f"{path} line {record.line} ({record['file']}): {error}") from None
        subject = subjects.pop() if len(subjects) == 1 else ""  # two people in one picture: unknown
        photographs.append(
            Photograph(photograph, size, stacked_boxes(boxes), no_points(len(boxes)), True, tuple(sides), subject)
        )
    paths.report()
    warn_of_odd_names((each.subject for each in photographs if each.subject), path)
    return Annotations(path, photographs)


def _cells(record: Row) -> list[str]:
    return [record[column] for column in BOX_COLUMNS]


def write_boxes_csv(path: str | os.PathLike[str], annotations: Annotations) -> None:
    """One row an ear, as `read_boxes_csv` reads them; landmarks are not kept."""
    path = Path(path)
    root = DataRoot(path.parent)
    rows: list[tuple[str, ...]] = []
    for photograph in annotations.photographs:
        name, sides = root.written(photograph.path), photograph.sides or ("",) * len(photograph.boxes)
        for box, side in zip(photograph.boxes.tolist(), sides, strict=True):
            rows.append((name, *(f"{value:.10g}" for value in box), photograph.subject, side))
        if not len(photograph.boxes):
            rows.append((name, "", "", "", "", photograph.subject, ""))
    write_csv(path, ("file", *BOX_COLUMNS, "subject", "side"), rows)


def read_pts_folder(folder: str | os.PathLike[str]) -> Annotations:
    """Every photograph below `folder` with a NAME.pts beside it: one ear each, whose box encloses the points.

    The coordinates are taken as they stand, whole numbers at pixel centres from 0 on. ibug's tools number pixels from
    1, but its ear set does not: it has points at x = 0 and -1 on a picture's edge, and over its 21 pictures the outer
    contour meets the strongest image gradient at a shift of (0.0, -0.5) px. The box reaches half a pixel beyond the
    outermost points' centres.
    """
    found = list_images(folder)
    pictures = [path for path in found if path.with_suffix(".pts").is_file()]
    alone = sorted({*visible_files(Path(folder), "*.pts")} - {path.with_suffix(".pts") for path in pictures})
    if alone:
        raise InputError(f"{alone[0]}: no picture of that name beside it (and {len(alone) - 1} more such files)")
    if not pictures:
        raise InputError(f"{folder}: holds no picture with a .pts file of its name")
    photographs: list[Photograph] = []
    headers = photograph_headers(Path(folder), pictures)
    for picture in pictures:
        file, size = picture.with_suffix(".pts"), size_in(headers[picture])
        try:
            points = checked_points(read_pts(file), size)
            if photographs and len(points) != photographs[0].keypoints.shape[1]:
                first = photographs[0]
                raise InputError(f"{len(points)} points, but {first.path.stem}.pts has {first.keypoints.shape[1]}")
            boxes = stacked_boxes([enclosing_box(points, size)])
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        photographs.append(Photograph(picture, size, boxes, points[None], has_boxes=False))
    check_view(Path(folder), [(each.path, each.boxes[0].tolist()) for each in photographs], headers)
    if len(pictures) < len(found):
        warn(f"{folder}: {len(found) - len(pictures)} of {len(found)} pictures have no .pts file and are left out")
    count = photographs[0].keypoints.shape[1]
    return Annotations(Path(folder), photographs, tuple(f"point_{number:02d}" for number in range(1, count + 1)))


def read_pts(path: Path) -> Floats:
    """The points of one file, (K, 3), all visible."""
    try:
        if path.stat().st_size > MAX_PTS_BYTES:
            raise InputError(f"more than the limit of {MAX_PTS_BYTES:,} bytes")
        head, opened, rest = decoded(path.read_bytes(), path).partition("{")
        body, closed, _ = rest.partition("}")
        fields = dict(line.split(":", 1) for line in head.splitlines() if ":" in line)
        declared = int(fields["n_points"])
        points = [[float(number) for number in line.split()] for line in body.splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"{error.strerror}") from None
    except InputError as error:
        raise InputError(str(error).removeprefix(f"{path}: ")) from None
    except (ValueError, KeyError):
        raise InputError('not a .pts file: expected "n_points: K" and K lines "x y" between { and }') from None
    if not opened or not closed or len(points) != declared or any(len(point) != 2 for point in points):
        raise InputError(f'declares {declared} points and holds {len(points)}: expected one line "x y" for each')
    return np.array([[*point, VISIBLE] for point in points], np.float32).reshape(-1, 3)


def write_pts(path: str | os.PathLike[str], points: Floats) -> None:
    """One ear's (K, 2) or (K, 3) points; the format has no visibility."""
    lines = [f"{x:.3f} {y:.3f}" for x, y in points[:, :2].tolist()]
    with atomic_write(path, sync=False) as temporary:
        temporary.write_text("\n".join(["version: 1", f"n_points: {len(lines)}", "{", *lines, "}", ""]))


def photograph_headers(source: Path, paths: Iterable[Path]) -> dict[Path, Header | None]:
    """Of each photograph; None for an unreadable one, which is for the loader. Raises InputError if one is missing."""
    paths = list(paths)
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f"{source}: {len(missing)} of {len(paths)} photographs are missing: {'; '.join(missing[:3])}; "
            "name the folder that they lie in"
        )
    return read_headers(paths)


def size_in(header: Header | None) -> Size | None:
    return None if header is None else header[0]


def checked_points(points: Sequence[object] | Floats, size: Size | None) -> Floats:
    """(K, 3) x y visibility, not labelled ones at 0 0; those just outside the picture are moved to its edge."""
    numbers = checked_numbers(np.ravel(np.asarray(points, object)).tolist(), "landmarks")
    if len(numbers) % 3 or len(numbers) > 3 * MAX_POINTS:
        raise InputError(f"landmarks of {len(numbers)} numbers: expected x y visibility of each")
    table = numbers.reshape(-1, 3)
    if not np.isin(table[:, 2], (UNLABELLED, HIDDEN, VISIBLE)).all():
        raise InputError("a landmark's visibility is not 0 (not labelled), 1 (hidden) or 2 (visible)")
    labelled = table[:, 2] != UNLABELLED
    table[~labelled] = 0
    places = table[labelled, :2]
    if len(places) > 1 and places.min() >= 0 and places.max() <= 1:
        raise InputError("landmarks look like fractions of the picture: multiply by its width and height")
    if size is not None and len(places):
        beyond, last = slack(size), np.array(size) - 1
        outside = ((places < -beyond) | (places > last + beyond)).any(axis=1)
        if outside.any():
            number = int(np.flatnonzero(labelled)[outside][0]) + 1
            raise InputError(f"landmark {number} lies outside the {size[0]}x{size[1]} picture: set its visibility to 0")
        table[labelled, :2] = places.clip(0, last)
    return table.astype(np.float32)


def checked_side(side: object) -> str:
    if side in (None, ""):
        return ""
    short = str(side).strip().lower()[:1]
    if short not in SIDES:
        raise InputError(f"side {side!r} is neither l nor r")
    return short


def enclosing_box(points: Floats, size: Size | None) -> Floats:
    """(4,) x y width height around the labelled of (K, 3) points, half a pixel beyond their centres."""
    places = points[points[:, 2] != UNLABELLED, :2] + 0.5
    if not len(places):
        raise InputError("neither a box nor a labelled landmark")
    low, high = places.min(0) - 0.5, places.max(0) + 0.5
    if size is not None:
        low, high = low.clip(0, size), high.clip(0, size)
    return np.concatenate([low, high - low]).astype(np.float32)


def box_of_ear(box: Sequence[object] | None, points: Floats, size: Size | None) -> tuple[Floats, bool]:
    """(4,) x y width height, and whether `box` says it: one that is missing or has no size is that of (K, 3) points."""
    labelled = bool((points[:, 2] != UNLABELLED).any())
    if box is None or not len(box):
        return enclosing_box(points, size), False
    if labelled and len(box) == 4 and (checked_numbers(box, "box")[2:] == 0).any():
        return enclosing_box(points, size), False
    return checked_box(box, size), True


def stacked_boxes(boxes: Sequence[Floats]) -> Floats:
    return np.stack(boxes) if boxes else np.empty((0, 4), np.float32)


def no_points(num_ears: int, num_landmarks: int = 0) -> Floats:
    return np.zeros((num_ears, num_landmarks, 3), np.float32)
