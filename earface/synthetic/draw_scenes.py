"""Synthetic photographs of heads with ears of every size, and the ears' boxes and 17 landmarks as COCO keypoints.

    earface ears scenes --out runs/scenes --photographs 2000 --width 480 --height 360 --seed 42

Each photograph follows from (seed, its number) and its size alone. Eight in a row show the same two people, their
"subject": in a split by subject, no ear is on both sides.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.files import refuse_to_replace, require_empty
from earface.core.first_imports import first_imports
from earface.synthetic.options import SyntheticSceneOptions


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Render, write, say where; 0, or 2 with one line on stderr."""
    options = parse_options(SyntheticSceneOptions, argv, prog="earface ears scenes")
    out = Path(options.out)
    require_empty(out, options.overwrite)
    image_grid = [] if options.image_grid is None else [Path(options.image_grid)]
    refuse_to_replace(image_grid, options.overwrite, "`image_grid`")
    # after parsing: help and a mistyped flag answer without numpy and OpenCV
    with first_imports("NumPy and OpenCV"):
        from earface.synthetic.scene_set import SceneSet, write_image_grid, write_scene_set
        from earface.synthetic.workers import num_cores, picture_progress

    scenes = SceneSet(options.photographs, options.width, options.height, options.seed)
    num_workers = options.num_workers or num_cores()
    start = time.perf_counter()
    with picture_progress(scenes.photographs) as done:
        annotations = write_scene_set(out, scenes, num_workers=num_workers, overwrite=options.overwrite, done=done)
    rate = scenes.photographs / (time.perf_counter() - start)
    empty = sum(not len(photograph.boxes) for photograph in annotations.photographs)
    print(f"{len(annotations)} photographs {scenes.width}x{scenes.height}: {out / 'images'}")
    print(f"{annotations.num_ears} ears, {empty} photographs without one: {annotations.source}")
    print(f"{rate:.0f} photographs per second by {num_workers} process(es)")
    for path in image_grid:
        write_image_grid(path, scenes)
        print(f"image grid: {path}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
