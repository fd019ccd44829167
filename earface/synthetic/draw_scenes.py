"""Draw photographs of heads with ears of every size, with the boxes and 17 landmarks of the ears as COCO keypoints.

    earface ears scenes --out runs/scenes --photographs 2000 --width 480 --height 360 --seed 42

Each photograph follows from (seed, its number) and its size alone. Eight in a row share two people, and these are their
"subject": split by subject, no ear is on both sides.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from earface.core.errors import OneLineParser, entry_point
from earface.core.files import refuse_to_replace, require_empty
from earface.core.first_imports import first_imports
from earface.core.tool_options import add_overwrite
from earface.synthetic.options import MAX_SIDE, MIN_SIDE, SceneSetOptions


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="earface ears scenes", description="Draw photographs of heads with the boxes of their ears."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write; it must be new or empty")
    parser.add_argument("--photographs", type=int, default=SceneSetOptions.photographs, help="how many")
    parser.add_argument("--width", type=int, default=SceneSetOptions.width, help=f"pixels, {MIN_SIDE} to {MAX_SIDE}")
    parser.add_argument("--height", type=int, default=SceneSetOptions.height, help=f"pixels, {MIN_SIDE} to {MAX_SIDE}")
    parser.add_argument(
        "--seed", type=int, default=SceneSetOptions.seed, help="another seed is other people and places"
    )
    parser.add_argument("--workers", type=int, default=None, help="drawing processes; all cores if not given")
    parser.add_argument("--sheet", type=Path, default=None, metavar="PATH", help="also write a contact sheet PNG there")
    add_overwrite(parser)
    return parser


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Draw, write, say where; 0, or 2 with one line on stderr."""
    args = _parser().parse_args(argv)
    require_empty(args.out, args.overwrite)
    refuse_to_replace(filter(None, [args.sheet]), args.overwrite, "--sheet")
    # after parsing: help and a mistyped flag answer without numpy and OpenCV
    with first_imports("NumPy and OpenCV"):
        from earface.synthetic.scene_set import SceneSet, draw_scenes, write_sheet
        from earface.synthetic.workers import drawing_progress, num_cores

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
