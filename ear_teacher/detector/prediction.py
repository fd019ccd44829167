"""Ears detected in photographs, and the files written about them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from torch import Tensor

from ear_teacher.detector.drawing import Skeleton, draw_detections
from ear_teacher.detector.model import EarDetector
from ear_teacher.detector.options import CROPS, DETECTIONS, OVERLAYS, PREDICTION_RESULTS, RESULTS, PredictionOptions
from earface.core.errors import InputError
from earface.core.files import atomic_write, output_folder
from earface.core.progress import Progress
from earface.data.annotations import (
    HIDDEN,
    VISIBLE,
    Annotations,
    Floats,
    Photograph,
    Size,
    checked_points,
    no_points,
    stacked_boxes,
)
from earface.data.boxes import checked_box
from earface.data.coco import write_coco
from earface.data.folders import pictures_at
from earface.data.image_cache import crop_to_box
from earface.data.images import Pixels, read_ahead, read_image, writable_name, write_image


@dataclass(frozen=True)
class Predictions:
    """The detections so far, by photograph."""

    photographs: list[Photograph] = field(default_factory=list)
    scores: list[dict[str, object]] = field(default_factory=list)  # of each ear, in the photographs' order
    unreadable: list[tuple[Path, str]] = field(default_factory=list)  # path, reason


def photographs_of(written: str) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the photographs in it. Raises InputError if there are none."""
    path = Path(written)
    return (path if path.is_dir() else path.parent), pictures_at(path)


def checked_out(options: PredictionOptions) -> Path:
    """`out`, created if necessary.

    Raises InputError if it is a file, and if written pictures would be read by the next run or replace the input.
    """
    out, given = Path(options.out), Path(str(options.input)).resolve()
    if given.is_dir() and out.resolve().is_relative_to(given):
        raise InputError(
            f"`out` {out}: lies in `input` {options.input}, so the next run would read its pictures as photographs; "
            "give a folder elsewhere"
        )
    for name in (OVERLAYS, CROPS):
        if given.is_relative_to((out / name).resolve()):
            raise InputError(f"`out` {out}: `input` {options.input} lies in its {name}/ and would be replaced")
    output_folder(out, PREDICTION_RESULTS, options.overwrite)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"`out` {out}: {error.strerror}; give another folder") from None
    return out


def storable(path: Path, size: Size, found: Mapping[str, Tensor]) -> tuple[Photograph, list[int]]:
    """One photograph's detections as annotations that `read_coco` accepts, and the indices of these detections.

    Boxes are clipped to the photograph, and ears outside it left out. A landmark outside it becomes unlabelled.
    """
    corners = found["boxes"].float().cpu().numpy().clip(0, (*size, *size)).astype(np.float64)
    keypoints = found["keypoints"].float().cpu().numpy()
    boxes, points, kept = [], [], []
    for index, (x0, y0, x1, y1) in enumerate(corners.tolist()):
        try:
            written = [round(number, 3) for number in (x0, y0, x1 - x0, y1 - y0)]
            boxes.append(checked_box(written, size))
        except InputError:
            continue
        points.append(_storable_points(keypoints[index], size))
        kept.append(index)
    stacked = np.stack(points) if points else no_points(0, keypoints.shape[1])
    return Photograph(path, size, stacked_boxes(boxes), stacked), kept


def _storable_points(points: Floats, size: Size) -> Floats:
    places, last = points[:, :2], np.array(size) - 1
    inside = ((places >= -0.5) & (places <= last + 0.5)).all(axis=1)  # false for NaN
    table = np.zeros_like(points)
    table[inside, :2] = places[inside].round(3)
    table[inside, 2] = np.where(points[inside, 2] > 0.5, VISIBLE, HIDDEN)
    try:
        return checked_points(table, size)
    except InputError:  # all in the first pixel: they would be read as fractions of the picture
        return np.zeros_like(points)


def predict_photographs(
    model: EarDetector, paths: Sequence[Path], root: Path, out: Path, options: PredictionOptions, progress: Progress
) -> Predictions:
    """Read, detect and draw one batch at a time, so that memory holds at most `batch_size` photographs."""
    result = Predictions()
    for start in range(0, len(paths), options.batch_size):
        batch: list[tuple[Path, Pixels]] = []
        chosen = paths[start : start + options.batch_size]
        for path, picture in zip(chosen, read_ahead(_read, chosen), strict=True):
            if isinstance(picture, InputError):
                result.unreadable.append((path, str(picture).removeprefix(f"{path}: ")))
            else:
                batch.append((path, picture))
        drawings = []
        detections = model.predict([picture for _, picture in batch])
        for (path, picture), found in zip(batch, detections, strict=True):
            photograph, kept = storable(path, (picture.shape[1], picture.shape[0]), found)
            found = {name: values[kept].cpu() for name, values in found.items()}
            result.photographs.append(photograph)
            result.scores.extend(_scores(found))
            drawings.append((picture, photograph, found))

        def write(drawing: tuple[Pixels, Photograph, dict[str, Tensor]]) -> None:
            picture, photograph, found = drawing
            name = photograph.path.relative_to(root)
            if options.overlays:
                write_overlay(out / OVERLAYS / writable_name(name), picture, found, model.config.skeleton)
            if options.crops:
                write_crops(out / CROPS / name, picture, photograph.boxes)

        for _ in read_ahead(write, drawings):
            pass
        progress.update(start + len(chosen))
    return result


def _read(path: Path) -> Pixels | InputError:
    try:
        return read_image(path)
    except InputError as error:
        return error


def _scores(found: Mapping[str, Tensor]) -> list[dict[str, object]]:
    scores = [{"score": round(score, 5)} for score in found["scores"].tolist()]
    if not found["keypoints_scores"].shape[1]:
        return list(scores)
    visible = [[round(score, 4) for score in ear] for ear in found["keypoints_scores"].tolist()]
    return [score | {"keypoints_scores": ear} for score, ear in zip(scores, visible, strict=True)]


def write_overlay(path: Path, picture: Pixels, found: Mapping[str, Tensor], skeleton: Skeleton) -> None:
    """In the photograph's format and under its name, so that no two collide."""
    write_image(path, draw_detections(picture, found, skeleton=skeleton))


def write_crops(path: Path, picture: Pixels, boxes: Floats) -> None:
    """PATH_1.png and so on, best first. Surplus ones of an earlier run are deleted."""
    number = 0
    for number, box in enumerate(boxes, 1):
        write_image(path.with_name(f"{path.name}_{number}.png"), crop_to_box(picture, box))
    while (stale := path.with_name(f"{path.name}_{number + 1}.png")).is_file():
        stale.unlink()
        number += 1


def write_predictions(out: Path, predictions: Predictions, model: EarDetector) -> None:
    """detections.json, then results.json with the same ids."""
    config = model.config
    names = config.landmark_names or tuple(f"point_{number:02d}" for number in range(1, config.num_landmarks + 1))
    write_coco(out / DETECTIONS, Annotations(out / DETECTIONS, predictions.photographs, names, config.skeleton))
    ears = json.loads((out / DETECTIONS).read_text(encoding="utf-8"))["annotations"]
    standard = ("id", "image_id", "category_id", "bbox", "keypoints")
    results = [
        {name: ear[name] for name in standard if name in ear} | score
        for ear, score in zip(ears, predictions.scores, strict=True)
    ]
    with atomic_write(out / RESULTS) as temporary:
        temporary.write_text(json.dumps(results), encoding="utf-8")


def say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)
