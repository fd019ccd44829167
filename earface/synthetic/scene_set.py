"""Sets of synthetic photographs of heads, with the boxes and landmarks of their ears."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earface.core.errors import InputError
from earface.core.files import require_empty
from earface.data.annotations import Annotations, Photograph
from earface.data.coco import write_coco
from earface.data.images import Pixels, write_image
from earface.synthetic.ear_anatomy import EAR_LANDMARKS
from earface.synthetic.ear_set import EAR_SKELETON
from earface.synthetic.factors import MAX_SEED
from earface.synthetic.options import MAX_SIDE, MIN_SIDE, SceneSetOptions
from earface.synthetic.scene_rendering import SCENES_PER_GROUP, draw_scene
from earface.synthetic.workers import check_workers, map_processes

ANNOTATIONS = "annotations.json"
MAX_PHOTOGRAPHS = 1_000_000


@dataclass(frozen=True)
class SceneSet(SceneSetOptions):
    """Which photographs of the population `seed`."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("photographs", 1, MAX_PHOTOGRAPHS),
            ("width", MIN_SIDE, MAX_SIDE),
            ("height", MIN_SIDE, MAX_SIDE),
            ("seed", 0, MAX_SEED),
        ):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} must lie in [{low}, {high}], not {getattr(self, name)}")


def draw_scenes(
    out: Path,
    scenes: SceneSet,
    *,
    workers: int = 1,
    overwrite: bool = False,
    done: Callable[[int], None] = lambda count: None,
) -> Annotations:
    """Draw a set into the folder `out`: `images/000000.jpg`, ..., and last `annotations.json`. It returns the latter.

    The files do not depend on `workers`. done: called with the number of photographs finished since its last call.
    Raises InputError for a folder in use, unless `overwrite`, which replaces an earlier set and nothing else.
    """
    check_workers(workers)
    require_empty(out, overwrite)
    (out / ANNOTATIONS).unlink(missing_ok=True)
    for path in (out / "images").glob("[0-9]" * 6 + ".jpg"):
        path.unlink()
    groups = range(-(-scenes.photographs // SCENES_PER_GROUP))
    work = functools.partial(_write_group, scenes, out)
    photographs = [
        photograph
        for group in map_processes(work, groups, workers, lambda: done(SCENES_PER_GROUP))
        for photograph in group
    ]
    annotations = Annotations(out / ANNOTATIONS, photographs, EAR_LANDMARKS, tuple(EAR_SKELETON))
    write_coco(out / ANNOTATIONS, annotations)
    return annotations


def _write_group(scenes: SceneSet, out: Path, group: int) -> list[Photograph]:
    """Draw the scenes of two people into `out`. It runs in a worker process."""
    first = group * SCENES_PER_GROUP
    photographs = []
    for index in range(first, min(first + SCENES_PER_GROUP, scenes.photographs)):
        scene = draw_scene(scenes.seed, index, scenes.width, scenes.height)
        path = out / "images" / f"{index:06d}.jpg"
        write_image(path, scene.image, quality=scene.quality)
        size = (scenes.width, scenes.height)
        subject = f"G{group:06d}"
        photographs.append(Photograph(path, size, scene.boxes, scene.keypoints, True, scene.sides, subject))
    return photographs


def write_sheet(path: Path, scenes: SceneSet, count: int = 20, columns: int = 4) -> None:
    """A contact sheet of the first `count` photographs: boxes, and landmarks white where seen, black where hidden."""
    pictures = [_marked(scenes, index) for index in range(min(count, scenes.photographs))]
    blank = np.full_like(pictures[0], 255)
    pictures += [blank] * (-len(pictures) % columns)
    rows = [np.hstack(pictures[start : start + columns]) for start in range(0, len(pictures), columns)]
    write_image(path, np.vstack(rows))


def _marked(scenes: SceneSet, index: int) -> Pixels:
    scene = draw_scene(scenes.seed, index, scenes.width, scenes.height)
    image = scene.image
    for x, y, width, height in scene.boxes.tolist():
        left, top, right, bottom = round(x), round(y), round(x + width) - 1, round(y + height) - 1
        image[[top, bottom], left : right + 1] = image[top : bottom + 1, [left, right]] = (0, 255, 0)
    for x, y, seen in scene.keypoints.reshape(-1, 3).tolist():
        if seen:
            image[round(y), round(x)] = 255 if seen == 2 else 0
    return image
