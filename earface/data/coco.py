"""COCO keypoint JSON in and out: https://cocodataset.org/#format-data.

Read by hand: pycocotools indexes such a file without checking it, so that a missing field is a KeyError in the middle
of training, and a wrong unit is never noticed. What is written here loads in pycocotools.

Beyond the standard, an annotation may have "side" (l or r) and an image "subject"; other keys are ignored.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from earface.core.errors import InputError
from earface.core.files import atomic_write
from earface.data.annotations import (
    MAX_POINTS,
    Annotations,
    Floats,
    Photograph,
    checked_box,
    checked_points,
    checked_side,
    enclosing_box,
    no_points,
    photograph_sizes,
    stacked_boxes,
)
from earface.data.folders import DataRoot

MAX_BYTES = 1024**3
CATEGORY = "ear"


def read_coco(path: str | os.PathLike[str], data_root: str | os.PathLike[str] | None = None) -> Annotations:
    """The ears of a COCO file with one category, or with several of which one is named "ear".

    An image without annotations is a photograph without ears. An annotation needs a bbox or a labelled keypoint; an
    image of which some ears have no bbox has `has_boxes` False.
    data_root: the folder that file names start from and may not leave; default: the folder of `path`.
    Raises InputError naming the file, the entry and what to do.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"more than the limit of {MAX_BYTES:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        return _annotations(path, content, DataRoot(path.parent if data_root is None else data_root))
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None


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


def _annotations(path: Path, content: object, root: DataRoot) -> Annotations:
    if not isinstance(content, dict):
        raise InputError("not a COCO file: expected an object with images, annotations and categories")
    category, names, skeleton = _category(_entries(content, "categories"))
    images: dict[int | str, dict[str, Any]] = {}
    for number, image in enumerate(_entries(content, "images"), 1):
        where = f"images entry {number}"
        if _id(image, "id", where) in images:
            raise InputError(f"{where}: id {image['id']} is there twice: give each image its own")
        images[image["id"]] = image
    if not images:
        raise InputError("its list images is empty")
    files: dict[Path, int | str] = {}
    for key, image in images.items():
        name = _field(image, "file_name", str, f"image {key}")
        file = root.resolve(name)
        if file in files:
            raise InputError(f"image {key}: {name} is image {files[file]} too: join their annotations under one image")
        files[file] = key
    ears: dict[int | str, list[dict[str, Any]]] = {key: [] for key in images}
    for number, ear in enumerate(_entries(content, "annotations"), 1):
        where = f"annotations entry {number}"
        image_id = _id(ear, "image_id", where)
        if image_id not in images:
            raise InputError(f"{where}: image_id {image_id} is none of the images")
        if _id(ear, "category_id", where) == category:
            ears[image_id].append(
                {**ear, "where": f"annotation {ear.get('id', number)} of {images[image_id]['file_name']}"}
            )
    found = photograph_sizes(path, files)
    photographs = []
    for (file, key), size in zip(files.items(), found, strict=True):
        image = images[key]
        width, height = (
            _field(image, name, int, f"image {key} ({image['file_name']})") for name in ("width", "height")
        )
        if size is not None and (width, height) != size:
            turned = ": annotate the picture as its EXIF orientation shows it" if (height, width) == size else ""
            raise InputError(
                f"image {key} ({image['file_name']}): written as {width}x{height}, but the file has {size[0]}x{size[1]}"
                + (turned or ": scale the annotations, or put the right file there")
            )
        photographs.append(_photograph(file, (width, height), image, ears[key], len(names)))
    return Annotations(path, photographs, names, skeleton)


def _photograph(
    file: Path, size: tuple[int, int], image: dict[str, Any], ears: list[dict[str, Any]], num_landmarks: int
) -> Photograph:
    boxes, points, sides = [], no_points(len(ears), num_landmarks), []
    for ear, place in zip(ears, points, strict=True):
        try:
            if ear.get("iscrowd", 0):
                raise InputError("iscrowd: a crowd is not an ear; give each ear an annotation of its own")
            if ear.get("keypoints"):
                given = checked_points(_field(ear, "keypoints", list, "it"), size)
                if len(given) != num_landmarks:
                    raise InputError(f"{len(given)} keypoints, but its category names {num_landmarks}")
                place[:] = given
            has_box = ear.get("bbox") is not None
            boxes.append(checked_box(_field(ear, "bbox", list, "it"), size) if has_box else enclosing_box(place, size))
            sides.append(checked_side(ear.get("side")))
        except InputError as error:
            raise InputError(f"{ear['where']}: {error}") from None
    has_boxes = all(ear.get("bbox") is not None for ear in ears)
    subject = str(image.get("subject", "") or "")
    return Photograph(file, size, stacked_boxes(boxes), points, has_boxes, tuple(sides), subject)


def _category(categories: list[dict[str, Any]]) -> tuple[int | str, tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Its id, the names of its keypoints, its skeleton."""
    named = [entry for entry in categories if str(entry.get("name", "")).lower() == CATEGORY]
    if len(categories) != 1 and len(named) != 1:
        listed = ", ".join(str(entry.get("name")) for entry in categories[:8]) or "none"
        raise InputError(f'categories: {listed}; expected exactly one named "{CATEGORY}"')
    entry = categories[0] if len(categories) == 1 else named[0]
    names = _field(entry, "keypoints", list, "category") if "keypoints" in entry else []
    if len(names) > MAX_POINTS or not all(isinstance(name, str) for name in names):
        raise InputError(f"category keypoints: expected at most {MAX_POINTS} names")
    pairs = _field(entry, "skeleton", list, "category") if "skeleton" in entry else []
    for pair in pairs:
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(type(n) is int and 1 <= n <= len(names) for n in pair)
        ):
            raise InputError(f"category skeleton: {str(pair)[:40]} is not two of the keypoints 1 to {len(names)}")
    return _id(entry, "id", "category"), tuple(names), tuple((first, second) for first, second in pairs)


def _entries(content: dict[str, Any], name: str) -> list[dict[str, Any]]:
    entries = _field(content, name, list, "the file")
    wrong = next((number for number, entry in enumerate(entries, 1) if not isinstance(entry, dict)), None)
    if wrong is not None:
        raise InputError(f"{name} entry {wrong} is not an object")
    return entries


def _field(entry: dict[str, Any], name: str, kind: type, where: str) -> Any:
    words = {int: "a whole number above 0", str: "text", list: "a list"}[kind]
    if name not in entry:
        raise InputError(f"{where} has no {name}: expected {words}")
    value: Any = entry[name]
    right = type(value) is kind  # a bool is no number here
    if not right or (kind is int and value < 1):
        raise InputError(f"{where}: {name} {str(value)[:40]!r} is not {words}")
    return value


def _id(entry: dict[str, Any], name: str, where: str) -> int | str:
    value = entry.get(name)
    if type(value) not in (int, str):
        raise InputError(f"{where}: {name} {str(value)[:40]!r} is not a number or a name")
    return value  # type: ignore[return-value]
