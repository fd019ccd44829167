"""COCO keypoint JSON in and out: https://cocodataset.org/#format-data.

Read by hand: pycocotools indexes such a file without checking it, so that a missing field is a KeyError in the middle
of training, and a wrong unit is never noticed. What is written here loads in pycocotools.

Beyond the standard, an annotation may have "side" (l or r) and an image "subject"; other keys are ignored.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earface.core.errors import InputError, reading
from earface.core.files import atomic_write, read_json
from earface.core.limits import MAX_POINTS, MAX_SIDE
from earface.core.notices import warn
from earface.data.annotations import (
    Annotations,
    Photograph,
    box_of_ear,
    checked_points,
    checked_side,
    no_points,
    photograph_headers,
    size_in,
    stacked_boxes,
)
from earface.data.boxes import Floats, Size, check_boxes
from earface.data.ear_categories import Key, ear_categories
from earface.data.folders import DataRoot
from earface.data.names import person_name, warn_of_odd_names
from earface.data.photograph_paths import PhotographPaths

CATEGORY = "ear"


@dataclass(frozen=True)
class CocoFile:
    """The ears of a COCO file, and by which ids it names what they are in: as written, for what is written for it."""

    annotations: Annotations
    image_ids: list[Key]  # of each photograph
    file_names: list[str]
    category_id: Key  # of the ears; the first, where several are


def read_coco(
    path: str | os.PathLike[str], data_root: str | os.PathLike[str] | None = None, category: str | None = None
) -> Annotations:
    """The ears of a COCO file; which of its categories these are is for `ear_categories`, with `category` chosen.

    An image without annotations is a photograph without ears. An annotation needs a bbox or a labelled keypoint; an
    image of which some ears have no bbox, or one without width or height, has `has_boxes` False.
    data_root: the folder that file names start from and may not leave, and below which `PhotographPaths` looks for
    those that lead nowhere; default: the folder of `path`.
    Raises InputError naming the file, the entry and what to do.
    """
    return read_coco_file(path, data_root, category).annotations


def read_coco_file(
    path: str | os.PathLike[str], data_root: str | os.PathLike[str] | None = None, category: str | None = None
) -> CocoFile:
    """As `read_coco`, with the ids of the file."""
    path = Path(path)
    content = read_json(path)
    with reading(path, "not a COCO file: a value in it is of another kind than COCO has there"):
        return _coco_file(path, content, PhotographPaths(path, data_root), category)


def write_coco(path: str | os.PathLike[str], annotations: Annotations) -> None:
    """Write what `read_coco` reads; paths below the file's folder are relative, so that both can be moved together."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    root = DataRoot(path.parent)
    images: list[dict[str, object]] = []
    ears: list[dict[str, object]] = []
    for photograph in annotations.photographs:
        if photograph.size is None:
            raise InputError(f"{photograph.path}: cannot be read, so its width and height are unknown: leave it out")
        width, height = photograph.size
        image = {"id": len(images) + 1, "file_name": root.written(photograph.path), "width": width, "height": height}
        images.append(image | ({"subject": photograph.subject} if photograph.subject else {}))
        for number, (box, points) in enumerate(zip(photograph.boxes, photograph.keypoints, strict=True)):
            ear: dict[str, object] = {"id": len(ears) + 1, "image_id": len(images), "category_id": 1, "iscrowd": 0}
            if photograph.has_boxes:
                x, y, w, h = (_rounded(value) for value in box)
                ear |= {"bbox": [x, y, w, h], "area": _rounded(w * h)}
            if len(points):
                ear |= {"num_keypoints": int((points[:, 2] > 0).sum()), "keypoints": _flat(points)}
            if photograph.sides and photograph.sides[number]:
                ear["side"] = photograph.sides[number]
            ears.append(ear)
    category: dict[str, object] = {"id": 1, "name": CATEGORY, "supercategory": "head"}
    if annotations.landmark_names:
        category |= {"keypoints": list(annotations.landmark_names), "skeleton": [*map(list, annotations.skeleton)]}
    info = {"description": "boxes from the picture's top left corner, whole keypoint coordinates at pixel centres"}
    text = json.dumps({"info": info, "images": images, "annotations": ears, "categories": [category]})
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _rounded(value: Any) -> float:
    return round(float(value), 3)


def _flat(points: Floats) -> list[float]:
    return [number for x, y, v in points for number in (_rounded(x), _rounded(y), int(v))]


def _coco_file(path: Path, content: object, paths: PhotographPaths, chosen: str | None) -> CocoFile:
    if not isinstance(content, dict):
        raise InputError("not a COCO file: expected an object with images, annotations and categories")
    categories = _by_id(_entries(content, "categories"), "categories")
    images = _by_id(_entries(content, "images"), "images")
    if not images:
        raise InputError("its list images is empty")
    files: dict[Path, Key] = {}
    for key, image in images.items():
        name = _field(image, "file_name", str, f"image {key}")
        file = paths.resolve(name)
        if file in files:
            raise InputError(f"image {key}: {name} is image {files[file]} too: join their annotations under one image")
        files[file] = key
    entries = _with_ids(_entries(content, "annotations"), images, categories)
    sides = ear_categories(
        path,
        {key: str(category.get("name", "")) for key, category in categories.items()},
        Counter(ear["category_id"] for ear in entries),
        chosen,
    )
    names, skeleton = _landmarks([categories[key] for key in sides])
    ears: dict[Key, list[dict[str, Any]]] = {key: [] for key in images}
    for ear in entries:
        if ear["category_id"] in sides:
            ears[ear["image_id"]].append({**ear, "side": ear.get("side") or sides[ear["category_id"]]})
    sizes = _sizes(path, files, images)
    given = ((file, ear["bbox"]) for file, key in files.items() for ear in ears[key])
    check_boxes(path, ((file, box) for file, box in given if isinstance(box, list)), {f: (sizes[f], 1) for f in files})
    photographs = [_photograph(file, sizes[file], images[key], ears[key], len(names)) for file, key in files.items()]
    _warn_of_oddities(path, [ear for each in ears.values() for ear in each], photographs)
    paths.report()
    return CocoFile(
        Annotations(path, photographs, names, skeleton),
        [image["id"] for image in images.values()],
        [image["file_name"] for image in images.values()],
        categories[next(iter(sides))]["id"],
    )


def _by_id(entries: list[dict[str, Any]], name: str) -> dict[Key, dict[str, Any]]:
    found: dict[Key, dict[str, Any]] = {}
    for number, entry in enumerate(entries, 1):
        key = _id(entry, "id", f"{name} entry {number}")
        if key in found:
            raise InputError(f"{name} entry {number}: id {key} is there twice: give each its own")
        found[key] = entry
    return found


def _with_ids(
    entries: list[dict[str, Any]], images: dict[Key, dict[str, Any]], categories: dict[Key, dict[str, Any]]
) -> list[dict[str, Any]]:
    """The annotations, each with the ids of its image and category, a bbox or None, and `where` it is for messages."""
    found = []
    for number, entry in enumerate(entries, 1):
        where = f"annotations entry {number}"
        image_id = _id(entry, "image_id", where)
        if image_id not in images:
            raise InputError(f"{where}: image_id {image_id} is none of the images")
        if entry.get("category_id") is None and len(categories) == 1:
            category_id = next(iter(categories))
        else:
            category_id = _id(entry, "category_id", where)
        where = f"annotation {entry.get('id', number)} of {images[image_id]['file_name']}"
        ids = {"image_id": image_id, "category_id": category_id, "bbox": entry.get("bbox"), "where": where}
        found.append({**entry, **ids})
    return found


def _sizes(path: Path, files: dict[Path, Key], images: dict[Key, dict[str, Any]]) -> dict[Path, Size]:
    """As the file states them. Raises InputError where that is not what the photograph has."""
    sizes = {}
    for file, header in photograph_headers(path, files).items():
        image, size = images[files[file]], size_in(header)
        where = f"image {files[file]} ({image['file_name']})"
        width, height = (_field(image, name, int, where) for name in ("width", "height"))
        if size is not None and (width, height) != size:
            turned = ": annotate the picture as its EXIF orientation shows it" if (height, width) == size else ""
            raise InputError(
                f"{where}: written as {width}x{height}, but the file has {size[0]}x{size[1]}"
                + (turned or ": scale the annotations, or put the right file there")
            )
        sizes[file] = (width, height)
    return sizes


def _photograph(
    file: Path, size: Size, image: dict[str, Any], ears: list[dict[str, Any]], num_landmarks: int
) -> Photograph:
    boxes, points, sides, has_boxes = [], no_points(len(ears), num_landmarks), [], True
    for ear, place in zip(ears, points, strict=True):
        try:
            if ear.get("keypoints"):
                given = checked_points(_field(ear, "keypoints", list, "it"), size)
                if len(given) != num_landmarks:
                    raise InputError(f"{len(given)} keypoints, but its category names {num_landmarks}")
                place[:] = given
            written = None if ear["bbox"] is None else _field(ear, "bbox", list, "it")
            box, is_given = box_of_ear(written, place, size)
            boxes.append(box)
            sides.append(checked_side(ear["side"]))
            has_boxes = has_boxes and is_given
        except InputError as error:
            raise InputError(f"{ear['where']}: {error}") from None
    subject = image.get("subject") or ""
    if not isinstance(subject, str | int | float):
        raise InputError(f"image {image['id']}: subject {str(subject)[:40]!r} is not a name")
    return Photograph(file, size, stacked_boxes(boxes), points, has_boxes, tuple(sides), person_name(str(subject)))


def _warn_of_oddities(path: Path, ears: list[dict[str, Any]], photographs: list[Photograph]) -> None:
    if crowds := sum(bool(ear.get("iscrowd")) for ear in ears):
        warn(f"{path}: {crowds} of {len(ears)} annotations are crowds (iscrowd), and each box counts as one ear")
    if empty := sum(isinstance(ear["bbox"], list) and 0 in ear["bbox"][2:] for ear in ears):
        warn(f"{path}: {empty} of {len(ears)} boxes have no size, and the boxes around their keypoints were taken")
    warn_of_odd_names((each.subject for each in photographs if each.subject), path)


def _landmarks(categories: list[dict[str, Any]]) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """The names of the keypoints of all categories, and the skeleton. Raises InputError where they differ."""
    names: list[str] = []
    pairs: list[Any] = []
    for category in categories:
        own = _field(category, "keypoints", list, "category") if category.get("keypoints") is not None else []
        if len(own) > MAX_POINTS or not all(isinstance(name, str) for name in own):
            raise InputError(f"category keypoints: expected at most {MAX_POINTS} names")
        if names and own and len(own) != len(names):
            raise InputError(
                f"the categories of the ears have {len(names)} and {len(own)} keypoints: choose one by `category` of "
                "earface ears annotations"
            )
        names = names or own
        pairs = pairs or (_field(category, "skeleton", list, "category") if category.get("skeleton") else [])
    for pair in pairs:
        numbers = pair if isinstance(pair, list) else []
        if len(numbers) != 2 or not all(type(n) is int and 1 <= n <= len(names) for n in numbers):
            raise InputError(f"category skeleton: {str(pair)[:40]} is not two of the keypoints 1 to {len(names)}")
    return tuple(names), tuple((first, second) for first, second in pairs)


def _entries(content: dict[str, Any], name: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = _field(content, name, list, "the file")
    wrong = next((number for number, entry in enumerate(entries, 1) if not isinstance(entry, dict)), None)
    if wrong is not None:
        raise InputError(f"{name} entry {wrong} is not an object")
    return entries


def _field(entry: dict[str, Any], name: str, kind: type, where: str) -> Any:
    words = {int: "a whole number above 0", str: "text", list: "a list"}[kind]
    if name not in entry:
        raise InputError(f"{where} has no {name}: expected {words}")
    value: Any = _whole(entry[name]) if kind is int else entry[name]
    right = type(value) is kind  # a bool is no number here
    if not right or (kind is int and not 1 <= value <= MAX_SIDE):
        raise InputError(f"{where}: {name} {str(value)[:40]!r} is not {words}")
    return value


def _id(entry: dict[str, Any], name: str, where: str) -> Key:
    value = _whole(entry.get(name))
    if type(value) not in (int, str):
        raise InputError(f"{where}: {name} {str(value)[:40]!r} is not a number or a name")
    return value  # type: ignore[return-value]


def _whole(value: object) -> object:
    """640 of 640.0 and "640", as some tools write whole numbers; anything else as it is."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and len(value) < 19 and value.isascii() and value.isdigit() and str(int(value)) == value:
        return int(value)
    return value
