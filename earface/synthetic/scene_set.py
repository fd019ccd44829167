"""Sets of synthetic photographs of heads, with the boxes and landmarks of their ears."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from earface.core.files import require_empty
from earface.core.options import check_options
from earface.data.annotations import Annotations, Photograph
from earface.data.coco import write_coco
from earface.data.image_grid import tile_images
from earface.data.images import Pixels, write_image
from earface.synthetic.ear_anatomy import EAR_LANDMARKS
from earface.synthetic.ear_set import EAR_SKELETON
from earface.synthetic.factors import check_seed
from earface.synthetic.options import SceneSetOptions
from earface.synthetic.scene_rendering import SCENES_PER_GROUP, draw_scene
from earface.synthetic.workers import map_processes

ANNOTATIONS = "annotations.json"


@dataclass(frozen=True)
class SceneSet(SceneSetOptions):
    """Which photographs of the population `seed`."""

    def __post_init__(self) -> None:
        check_options(self)
        check_seed(seed=self.seed)


def write_scene_set(
    out: Path,
    scenes: SceneSet,
    *,
    num_workers: int = 1,
    overwrite: bool = False,
    done: Callable[[int], None] = lambda count: None,
) -> Annotations:
    """Write a set into the folder `out`: `images/000000.jpg`, ..., and last `annotations.json`. It returns the latter.

    The files do not depend on `num_workers`. done: called with the number of photographs finished since its last call.
    Raises InputError for a folder in use, unless `overwrite`, which replaces an earlier set and nothing else.
    """
    require_empty(out, overwrite)
    (out / ANNOTATIONS).unlink(missing_ok=True)
    for path in (out / "images").glob("[0-9]" * 6 + ".jpg"):
        path.unlink()
    groups = range(-(-scenes.photographs // SCENES_PER_GROUP))
    work = functools.partial(_write_group, scenes, out)
    photographs = [
        photograph
        for group in map_processes(work, groups, num_workers, lambda: done(SCENES_PER_GROUP))
        for photograph in group
    ]
    annotations = Annotations(out / ANNOTATIONS, photographs, EAR_LANDMARKS, tuple(EAR_SKELETON))
    write_coco(out / ANNOTATIONS, annotations)
    return annotations


def _write_group(scenes: SceneSet, out: Path, group: int) -> list[Photograph]:
    """Write the scenes of two people into `out`. It runs in a worker process."""
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


def write_image_grid(path: Path, scenes: SceneSet, count: int = 20, columns: int = 4) -> None:
    """An image grid of the first `count` photographs: boxes, and landmarks white where visible, black where hidden."""
    write_image(path, tile_images([_marked(scenes, index) for index in range(min(count, scenes.photographs))], columns))


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
