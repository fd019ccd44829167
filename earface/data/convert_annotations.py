"""Annotated photographs of any kind to COCO keypoint JSON, in whole and split for training.

    earface ears annotations --boxes boxes.csv --out annotations.json
    earface ears annotations --pts FOLDER --out annotations.json
    earface ears annotations --coco FILE --images FOLDER --out annotations.json

Beside annotations.json it writes annotations_train.json and annotations_val.json, which share no photograph; for
cross-validation, `--folds 5`, five pairs annotations_fold1_train.json, annotations_fold1_val.json, ...
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from earface.core.errors import InputError, OneLineParser, entry_point
from earface.core.files import refuse_to_replace, require_file, require_folder
from earface.core.first_imports import first_imports
from earface.core.tool_options import add_overwrite, next_step

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from earface.data.annotations import Annotations


def build_parser() -> OneLineParser:
    """The flags and their defaults."""
    parser = OneLineParser(
        prog="earface ears annotations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--boxes", type=Path, help="CSV with columns file, x, y, width, height (subject, side)")
    source.add_argument("--pts", type=Path, help="folder of photographs with a .pts of the same name beside each")
    source.add_argument("--coco", type=Path, help="COCO keypoint JSON, to check and to split")
    parser.add_argument(
        "--images", type=Path, help="folder of the file names in --boxes or --coco; default: the file's"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON to write; the split's names come from it")
    parser.add_argument(
        "--val-fraction", type=float, default=0.2, help="at least 0 and below 1; 0 writes no split (0.2)"
    )
    parser.add_argument(
        "--folds", type=int, default=0, help="write this many splits for cross-validation instead of one; 0: one (0)"
    )
    parser.add_argument("--seed", type=int, default=42, help="decides what is validation (42)")
    parser.add_argument(
        "--split-by", choices=("photograph", "subject"), default="photograph", help="what stays whole (photograph)"
    )
    parser.add_argument(
        "--duplicates",
        choices=("error", "keep-together"),
        default="error",
        help="two pictures that show one photograph, one on each side: stop, or put both on one side (error)",
    )
    add_overwrite(parser)
    return parser


def read_source(boxes: Path | None, pts: Path | None, coco: Path | None, images: Path | None) -> Annotations:
    """The one of three that is given."""
    from earface.data.annotations import read_boxes_csv, read_pts_folder
    from earface.data.coco import read_coco

    if boxes is not None:
        return read_boxes_csv(boxes, images)
    if coco is not None:
        return read_coco(coco, images)
    if images is not None:
        raise InputError("--images belongs to --boxes and --coco: the photographs of --pts lie beside their points")
    assert pts is not None, "the parser wants one of the three"
    return read_pts_folder(pts)


def split_paths(out: Path, fold: int | None = None) -> tuple[Path, Path]:
    """Where training and validation part of `out` stand; folds are counted from 1."""
    stem = out.stem if fold is None else f"{out.stem}_fold{fold}"
    return out.with_name(f"{stem}_train.json"), out.with_name(f"{stem}_val.json")


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """Read, check, split, write; 0, or 2 with one line on stderr."""
    args = build_parser().parse_args(argv)
    if not 0.0 <= args.val_fraction < 1.0:
        raise InputError(f"--val-fraction {args.val_fraction} is out of range: at least 0 and below 1 wanted")
    if args.out.suffix.lower() != ".json":
        raise InputError(f"--out {args.out}: a name that ends in .json wanted")
    for path in filter(None, (args.boxes, args.coco)):
        require_file(path)
    for path in filter(None, (args.pts, args.images)):
        require_folder(path)
    folds = [*range(1, args.folds + 1)] if args.folds else [None] if args.val_fraction else []
    written = [args.out, *(path for fold in folds for path in split_paths(args.out, fold))]
    for path in written:
        if path.exists() and args.coco is not None and path.samefile(args.coco):
            raise InputError(f"--out {path} would replace the file that is read: choose another name")
    refuse_to_replace(written, args.overwrite)
    # after parsing: help, a mistyped flag and a missing file answer without numpy and OpenCV
    with first_imports("NumPy and OpenCV"):
        from earface.data.annotation_split import described, divide, inspect_photographs, kept_whole
        from earface.data.coco import write_coco
        from earface.data.duplicates import collect_signatures, find_duplicates
        from earface.data.splits import folds_by_subject, split_by_subject

    annotations, signatures, rejects = inspect_photographs(read_source(args.boxes, args.pts, args.coco, args.images))
    parts = [(args.out, annotations)]
    if args.val_fraction or args.folds:
        pairs = find_duplicates(collect_signatures(signatures))
        together = args.duplicates == "keep-together"
        names, groups = kept_whole(annotations, pairs, by=args.split_by, together=together)
        masks: list[tuple[int | None, NDArray[np.bool_]]]
        if args.folds:
            fold_of = folds_by_subject(groups, args.folds, args.seed)
            masks = [(number + 1, fold_of == number) for number in range(args.folds)]
        else:
            masks = [(None, split_by_subject(groups, args.val_fraction, args.seed))]
        for fold, is_val in masks:
            parts += zip(split_paths(args.out, fold), divide(annotations, names, pairs, is_val), strict=True)
    for path, part in parts:
        write_coco(path, part)
        print(f"{path}: {described(part)}")
    people = [{photograph.subject for photograph in part.photographs if photograph.subject} for _, part in parts[1:3]]
    if len(people) == 2 and (shared := people[0] & people[1]):
        print(f"note: {len(shared)} people are on both sides; --split-by subject keeps each on one")
    for reject in rejects:
        print(f"left out: {reject}")
    if len(parts) > 1:
        train, val = (path for path, _ in parts[1:3])
        print(next_step("ears detector train", train_json=train, val_json=val))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
