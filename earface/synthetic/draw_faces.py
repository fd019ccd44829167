"""Draw faces of fixed identities under pose, light and expression, so that every face trainer runs with no download.

    earface faces synthesize --out runs/synthetic_faces --subjects 200 --images-per-subject 10

They are aligned to ArcFace's five points and named as in Multi-PIE. Each picture follows from (seed, subject, name)
alone. The factors and their ranges: `earface/synthetic/face_factors.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from earface.core.errors import OneLineParser, entry_point
from earface.core.files import refuse_to_replace, require_empty
from earface.core.first_imports import first_imports
from earface.core.tool_options import add_overwrite
from earface.synthetic.options import LAYOUTS, FaceSetOptions


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="earface faces synthesize", description="Draw faces with known identities, factors and landmarks."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write; it must be new or empty")
    parser.add_argument("--subjects", type=int, default=FaceSetOptions.subjects, help="persons, up to 999")
    parser.add_argument(
        "--images-per-subject", type=int, default=FaceSetOptions.images_per_subject, help="pictures of each"
    )
    parser.add_argument(
        "--image-size",
        type=int,
        default=FaceSetOptions.image_size,
        help="side of the square pictures in pixels, 32 to 512",
    )
    parser.add_argument(
        "--max-yaw",
        type=int,
        default=FaceSetOptions.max_yaw,
        help="cameras up to so many degrees to either side, 0 to 90",
    )
    parser.add_argument(
        "--seed", type=int, default=FaceSetOptions.seed, help="population: another seed is other people"
    )
    parser.add_argument("--layout", default=LAYOUTS[0], choices=LAYOUTS, help="one folder, or one per subject")
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
        from earface.synthetic.face_set import FaceSet, draw_dataset, write_sheet
        from earface.synthetic.workers import drawing_progress, num_cores

    faces = FaceSet(args.subjects, args.images_per_subject, args.image_size, args.max_yaw, args.seed)
    with drawing_progress(faces.subjects * faces.images_per_subject) as done:
        lines = draw_dataset(
            args.out,
            faces,
            layout=args.layout,
            workers=num_cores() if args.workers is None else args.workers,
            overwrite=args.overwrite,
            done=done,
        )
    if args.sheet:
        write_sheet(args.sheet, faces)
        lines.append(f"contact sheet: {args.sheet}")
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
