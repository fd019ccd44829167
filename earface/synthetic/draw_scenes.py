"""Draw photographs of heads with ears of every size, with the boxes and 17 landmarks of the ears as COCO keypoints.

    python -m data.synthetic.scenes --out runs/scenes --photographs 2000 --width 480 --height 360 --seed 42

Each photograph follows from (seed, its number) and its size alone. Eight in a row share two people, and these are their
"subject": split by subject, no ear is on both sides.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earface.core.errors import InputError, OneLineParser, entry_point
from earface.data.annotations import Annotations, Photograph
from earface.data.coco import write_coco
from earface.data.images import Pixels, write_image
from earface.synthetic.ear_anatomy import EAR_LANDMARKS
from earface.synthetic.ear_set import EAR_SKELETON
from earface.synthetic.factors import MAX_SEED
from earface.synthetic.scene_rendering import SCENES_PER_GROUP, draw_scene
from earface.synthetic.workers import check_workers, drawing_progress, map_processes, num_cores

ANNOTATIONS = "annotations.json"
MAX_PHOTOGRAPHS = 1_000_000
MIN_SIDE, MAX_SIDE = 64, 2048


@dataclass(frozen=True)
class SceneSet:
    """Which photographs of the population `seed`."""

    photographs: int = 2000
    width: int = 480
    height: int = 360
    seed: int = 42

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
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: --out wants a folder")
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise InputError(f"{out} is not empty: choose another --out, or give --overwrite to replace the set in it")
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


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m data.synthetic.scenes", description="Draw photographs of heads with the boxes of their ears."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write; it must be new or empty")
    parser.add_argument("--photographs", type=int, default=SceneSet.photographs, help="how many")
    parser.add_argument("--width", type=int, default=SceneSet.width, help=f"pixels, {MIN_SIDE} to {MAX_SIDE}")
    parser.add_argument("--height", type=int, default=SceneSet.height, help=f"pixels, {MIN_SIDE} to {MAX_SIDE}")
    parser.add_argument("--seed", type=int, default=SceneSet.seed, help="another seed is other people and places")
    parser.add_argument("--workers", type=int, default=None, help="drawing processes; all cores if not given")
    parser.add_argument("--sheet", type=Path, default=None, metavar="PATH", help="also write a contact sheet PNG there")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier set in --out")
    return parser


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Draw, write, say where; 0, or 2 with one line on stderr."""
    args = _parser().parse_args(argv)
    scenes = SceneSet(args.photographs, args.width, args.height, args.seed)
    workers = num_cores() if args.workers is None else args.workers
    start = time.perf_counter()
    with drawing_progress(scenes.photographs) as done:
        annotations = draw_scenes(args.out, scenes, workers=workers, overwrite=args.overwrite, done=done)
    rate = scenes.photographs / (time.perf_counter() - start)
    empty = sum(not len(photograph.boxes) for photograph in annotations.photographs)
    print(f"{len(annotations)} photographs {scenes.width}x{scenes.height}: {args.out / 'images'}")
    print(f"{annotations.num_ears} ears, {empty} photographs without one: {annotations.source}")
    print(f"{rate:.0f} photographs per second by {workers} process(es)")
    if args.sheet:
        write_sheet(args.sheet, scenes)
        print(f"contact sheet: {args.sheet}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
