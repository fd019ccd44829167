"""YOLO label files: one text file a picture, one line an ear, `class cx cy w h` in fractions of width and height.

Lines of a pose model go on with its landmarks, `x y` or `x y visibility` of each, on COCO's coordinates. Read are the
usual twin folders images/ and labels/, at any depth, and label files that lie beside their pictures; names of classes
are taken from data.yaml or classes.txt. https://docs.ultralytics.com/datasets/pose/
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError, reading
from earface.core.limits import MAX_POINTS, MAX_YAML_BYTES
from earface.core.notices import warn
from earface.core.text import decoded
from earface.data.annotations import (
    UNLABELLED,
    VISIBLE,
    Annotations,
    Photograph,
    box_of_ear,
    checked_points,
    no_points,
    stacked_boxes,
)
from earface.data.boxes import Size, check_boxes, checked_numbers, read_headers, warn_of_turned
from earface.data.ear_categories import Key, ear_categories
from earface.data.folders import list_images
from earface.data.images import Header
from earface.data.photograph_paths import visible_files

NO_LABELS = re.compile(r"classes|labels|readme.*|train|val|valid|test|trainval|predefined_classes", re.IGNORECASE)
OUTSIDE = 0.05  # of the picture; numbers beyond are no fractions


@dataclass(frozen=True)
class Line:
    """One line of a label file."""

    where: str  # for messages
    label: int
    numbers: NDArray[np.float64]  # cx cy w h and the landmarks' numbers


def read_yolo(
    folder: str | os.PathLike[str], images: str | os.PathLike[str] | None = None, category: str | None = None
) -> Annotations:
    """The ears of a folder of label files; which classes these are is for `ear_categories`.

    images: where the pictures lie; default: in `folder`, or in the twin images/ of a folder labels/. A picture with an
    empty label file or none is a photograph without ears.
    Raises InputError naming the file and the line.
    """
    with reading(folder, "not a folder of YOLO's labels"):
        return _annotations(Path(folder), images, category)


def _annotations(folder: Path, images: str | os.PathLike[str] | None, category: str | None) -> Annotations:
    pictures = Path(images) if images is not None else _pictures_of(folder)
    labels = _label_files(folder, pictures)
    lines = {picture: _lines(file) for picture, file in labels.items() if file is not None}
    names, declared = _declared(folder, pictures)
    every = [line for each in lines.values() for line in each]
    if not every:
        raise InputError(f"{folder}: none of its label files holds a line: nothing is annotated")
    num_landmarks, values = _landmarks_of_lines(folder, every, declared)
    counts: Counter[Key] = Counter(line.label for line in every)
    unnamed: dict[Key, str] = {label: f"class {label}" if len(counts) > 1 else "ear" for label in counts}
    sides = ear_categories(folder, names or unnamed, counts, category)
    ears = {picture: [line for line in each if line.label in sides] for picture, each in lines.items()}
    headers = read_headers(labels)
    in_pixels = {
        line.where: (picture, _box(line, header[0]))
        for picture, each in ears.items()
        if (header := headers[picture]) is not None
        for line in each
    }
    check_boxes(folder, in_pixels.values(), {picture: header and (header[0], 1) for picture, header in headers.items()})
    warn_of_turned(folder, {picture for picture, _ in in_pixels.values()}, headers)
    photographs = [
        _photograph(picture, headers[picture], ears.get(picture, []), sides, (num_landmarks, values))
        for picture in labels
    ]
    if absent := sum(file is None for file in labels.values()):
        warn(f"{folder}: {absent} of {len(labels)} pictures have no label file, and count as photographs without ears")
    landmarks = tuple(f"point_{number:02d}" for number in range(1, num_landmarks + 1))
    return Annotations(folder, photographs, landmarks)


def _pictures_of(folder: Path) -> Path:
    twin = folder.absolute().with_name("images")
    return twin if folder.absolute().name == "labels" and twin.is_dir() else folder


def _label_files(folder: Path, pictures: Path) -> dict[Path, Path | None]:
    """The label file of each picture. Raises InputError for one without a picture, and one of two pictures."""
    texts = list(visible_files(folder, "*.txt"))
    in_labels = [path for path in texts if "labels" in (folder.absolute().name, *path.relative_to(folder).parts[:-1])]
    known = dict.fromkeys(path for path in in_labels or texts if not NO_LABELS.fullmatch(path.stem))
    if not known:
        raise InputError(f"{folder}: holds no label files (NAME.txt of each picture NAME.jpg)")
    found: dict[Path, Path | None] = {}
    owners: dict[Path, Path] = {}
    for picture in list_images(pictures):
        name = picture.relative_to(pictures).with_suffix(".txt")
        twin = Path(*("labels" if part == "images" else part for part in name.parts))
        found[picture] = next((f for f in (folder / twin, folder / name, folder / "labels" / name) if f in known), None)
        if (file := found[picture]) is not None and owners.setdefault(file, picture) != picture:
            raise InputError(f"{file}: belongs to {owners[file]} and to {picture}: rename one with its labels")
    alone = [file for file in known if file not in owners]
    if alone:
        raise InputError(
            f"{alone[0]}: no picture of that name in {pictures} (and {len(alone) - 1} more such files): name the "
            "folder of the pictures by `images`"
        )
    return found


def _lines(file: Path) -> list[Line]:
    try:
        text = decoded(file.read_bytes(), file)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
    lines = []
    for number, written in enumerate(text.splitlines(), 1):
        if not written.strip():
            continue
        where = f"{file} line {number}"
        try:
            label, *numbers = checked_numbers(written.split(), "line").tolist()
        except InputError as error:
            raise InputError(f"{where}: {error}: expected class cx cy w h") from None
        fractions = all(-OUTSIDE <= value <= 1 + OUTSIDE for value in numbers[:4])
        if len(numbers) < 4 or not label.is_integer() or label < 0 or not fractions:
            raise InputError(f"{where}: {written.strip()[:60]!r} is not class cx cy w h, fractions of the picture")
        lines.append(Line(where, int(label), np.array(numbers)))
    return lines


def _declared(folder: Path, pictures: Path) -> tuple[dict[Key, str], tuple[int, int] | None]:
    """The names of the classes, empty if unknown, and how many landmarks of how many numbers data.yaml states."""
    places = dict.fromkeys(place for each in (folder, pictures) for place in (each.absolute(), each.absolute().parent))
    for file in (file for place in places for file in sorted(place.glob("*.y*ml"))):
        content = _yaml(file)
        listed = content.get("names")
        if isinstance(listed, dict | list):
            pairs = listed.items() if isinstance(listed, dict) else enumerate(listed)
            names: dict[Key, str] = {int(key): str(name) for key, name in pairs if str(key).isdecimal()}
            shape: Any = content.get("kpt_shape")
            usable = isinstance(shape, list) and [type(number) for number in shape] == [int, int] and shape[1] in (2, 3)
            return names, (shape[0], shape[1]) if usable else None
    for file in (place / "classes.txt" for place in (*places, folder / "labels")):
        if file.is_file():
            return dict(enumerate(map(str.strip, decoded(file.read_bytes(), file).split("\n")))), None
    return {}, None


def _yaml(file: Path) -> dict[Any, Any]:
    import yaml

    try:
        text = file.read_text(encoding="utf-8-sig") if file.stat().st_size <= MAX_YAML_BYTES else ""
        content = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _landmarks_of_lines(folder: Path, lines: Sequence[Line], declared: tuple[int, int] | None) -> tuple[int, int]:
    """How many landmarks each line has, and how many numbers each: 2 or 3. Raises InputError for any other lines."""
    lengths = Counter(len(line.numbers) - 4 for line in lines)
    first = {length: next(line for line in lines if len(line.numbers) - 4 == length) for length in lengths}
    length, line = next(iter(first.items()))
    if set(lengths) == {0}:
        return 0, 2
    if declared is not None and set(lengths) == {declared[0] * declared[1]}:
        return declared
    outlines = f"{folder}: holds outlines (segments), as in {{}}: export boxes, class cx cy w h, or landmarks"
    if len(lengths) > 1:
        if declared is None and 0 not in lengths and not any(each % 2 for each in lengths):
            raise InputError(outlines.format(line.where))
        others = " and ".join(f"{each + 5} numbers ({first[each].where})" for each in [*lengths][:2])
        raise InputError(f"{folder}: has lines of {others}: give landmarks, all of them, on each ear or on none")
    if declared is not None:
        raise InputError(f"{line.where}: {length} numbers after the box, but kpt_shape states {list(declared)}")
    points = np.stack([each.numbers for each in lines])
    if length % 3 == 0 and np.isin(points[:, 6::3], (0, 1, 2)).all():
        count, values = length // 3, 3
    elif length % 2 == 0 and _are_landmarks(points):
        count, values = length // 2, 2
    elif length % 2 == 0:
        raise InputError(outlines.format(line.where) + " (with kpt_shape in data.yaml, if these are landmarks)")
    else:
        raise InputError(f"{line.where}: {length + 5} numbers: expected class cx cy w h and x y of each landmark")
    if count > MAX_POINTS:
        raise InputError(f"{line.where}: {count} landmarks are more than the limit of {MAX_POINTS}")
    return count, values


def _are_landmarks(lines: NDArray[np.float64]) -> bool:
    """Whether lines (N, 4 + 2K) are a box and points in it, rather than an outline.

    An outline's first two points would be a box's centre and size. As both lie on its edge, the other points leave such
    a box or fill a small part of it.
    """
    points = lines[:, 4:].reshape(len(lines), -1, 2)
    centre, size = lines[:, None, :2], lines[:, None, 2:4]
    labelled = (points > 0).any(axis=2)
    inside = ~labelled | (np.abs(points - centre) <= 0.6 * size).all(axis=2)
    low = np.where(labelled.reshape(*labelled.shape, 1), points, np.inf).min(axis=1)
    fills = (points.max(axis=1) - low >= 0.6 * size[:, 0]).all(axis=1)
    return bool(inside.all() and fills.mean() > 0.5)


def _box(line: Line, size: Size) -> list[float]:
    """x y width height in pixels."""
    cx, cy, width, height = (line.numbers[:4] * np.tile(size, 2)).tolist()
    return [cx - width / 2, cy - height / 2, width, height]


def _photograph(
    picture: Path, header: Header | None, lines: Sequence[Line], sides: dict[Key, str], landmarks: tuple[int, int]
) -> Photograph:
    count, values = landmarks
    if header is None:  # left to the loader; without its size nothing can be placed
        return Photograph(picture, None, stacked_boxes([]), no_points(0, count))
    boxes, points, size, has_boxes = [], no_points(len(lines), count), header[0], True
    for line, place in zip(lines, points, strict=True):
        try:
            if count:
                place[:] = checked_points(_points(line.numbers[4:].reshape(count, values), size).ravel().tolist(), size)
            box, given = box_of_ear(_box(line, size), place, size)
        except InputError as error:
            raise InputError(f"{line.where}: {error}") from None
        boxes.append(box)
        has_boxes = has_boxes and given
    return Photograph(
        picture, size, stacked_boxes(boxes), points, has_boxes, tuple(sides[line.label] for line in lines)
    )


def _points(written: NDArray[np.float64], size: Size) -> NDArray[np.float64]:
    """(K, 2 or 3) fractions -> (K, 3) pixels and visibility; without one, 0 0 and what is negative is not labelled."""
    places = written[:, :2] * np.array(size)
    if written.shape[1] == 3:
        return np.column_stack([places, written[:, 2]])
    labelled = (written > 0).any(axis=1) & (written >= 0).all(axis=1)
    return np.column_stack([places, np.where(labelled, VISIBLE, UNLABELLED)])
