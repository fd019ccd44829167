"""Draw ears from an anatomical model, so that every trainer runs with no download.

    earface ears synthesize --out runs/synthetic_ears --subjects 200 --images-per-subject 10

Each picture follows from (seed, subject, picture) alone.
The factors and their ranges: `earface/synthetic/ear_factors.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from earface.core.errors import OneLineParser, entry_point
from earface.core.files import refuse_to_replace, require_empty
from earface.core.first_imports import first_imports
from earface.core.tool_options import add_overwrite
from earface.synthetic.options import EarSetOptions


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="earface ears synthesize", description="Draw ears with known factors, boxes and landmarks."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write; it must be new or empty")
    parser.add_argument("--subjects", type=int, default=EarSetOptions.subjects, help="persons")
    parser.add_argument(
        "--images-per-subject", type=int, default=EarSetOptions.images_per_subject, help="pictures of each"
    )
    parser.add_argument(
        "--image-size",
        type=int,
        default=EarSetOptions.image_size,
        help="side of the square pictures in pixels, 32 to 512",
    )
    parser.add_argument("--val-fraction", type=float, default=0.2, help="share of the subjects that validate")
    parser.add_argument("--seed", type=int, default=EarSetOptions.seed, help="population: another seed is other people")
    parser.add_argument("--workers", type=int, default=None, help="drawing processes; all cores if not given")
    parser.add_argument("--sheet", type=Path, default=None, metavar="PATH", help="also write a contact sheet PNG there")
    add_overwrite(parser)
    return parser


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    require_empty(args.out, args.overwrite)
    refuse_to_replace(filter(None, [args.sheet]), args.overwrite, "--sheet")
    # after parsing: help and a mistyped flag answer without numpy and OpenCV
    with first_imports("NumPy and OpenCV"):
        from earface.synthetic.ear_set import EarSet, draw_dataset, write_sheet
        from earface.synthetic.workers import drawing_progress, num_cores

    ears = EarSet(args.subjects, args.images_per_subject, args.image_size, args.seed)
    with drawing_progress(ears.subjects * ears.images_per_subject) as done:
        lines = draw_dataset(
            args.out,
            ears,
            val_fraction=args.val_fraction,
            workers=num_cores() if args.workers is None else args.workers,
            overwrite=args.overwrite,
            done=done,
        )
    if args.sheet:
        write_sheet(args.sheet, ears)
        lines.append(f"contact sheet: {args.sheet}")
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
