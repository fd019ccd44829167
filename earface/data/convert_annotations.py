"""Annotated photographs of any kind to COCO keypoint JSON, as a whole and split for training.

    earface ears annotations --boxes boxes.csv --out annotations.json
    earface ears annotations --pts FOLDER --out annotations.json
    earface ears annotations --points landmarks.npz --out annotations.json
    earface ears annotations --coco FILE --images FOLDER --out annotations.json
    earface ears annotations --yolo FOLDER --out annotations.json

Beside annotations.json it writes annotations_train.json and annotations_val.json, which share no photograph; for
cross-validation, `--folds 5`, five pairs annotations_fold1_train.json, annotations_fold1_val.json, ...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import refuse_to_replace, require_file, require_folder
from earface.core.first_imports import first_imports
from earface.core.notices import warn
from earface.core.tool_options import next_step
from earface.data.options import AnnotationOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from earface.data.annotations import Annotations


def read_source(options: AnnotationOptions) -> Annotations:
    """The annotations of the one source that is given. Raises InputError if it has no ear."""
    annotations = _annotations(options)
    if not annotations.num_ears:
        raise InputError(f"{annotations.source}: {len(annotations)} photographs and no ears; give annotations of ears")
    return annotations


def _annotations(options: AnnotationOptions) -> Annotations:
    from earface.data.annotations import read_boxes_csv, read_pts_folder
    from earface.data.coco import read_coco
    from earface.data.points_npz import read_points_npz
    from earface.data.yolo import read_yolo

    if options.boxes:
        return read_boxes_csv(options.boxes, options.images)
    if options.coco:
        return read_coco(options.coco, options.images, options.category)
    if options.points:
        return read_points_npz(options.points, options.images)
    if options.yolo:
        return read_yolo(options.yolo, options.images, options.category)
    assert options.pts, "the options have one of the five"
    return read_pts_folder(options.pts)


def split_paths(out: Path, fold: int | None = None) -> tuple[Path, Path]:
    """The files of the training and the validation part of `out`; folds are counted from 1."""
    stem = out.stem if fold is None else f"{out.stem}_fold{fold}"
    return out.with_name(f"{stem}_train.json"), out.with_name(f"{stem}_val.json")


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """Read, check, split, write; 0, or 2 with one line on stderr."""
    options = parse_options(AnnotationOptions, argv, prog="earface ears annotations")
    for file in filter(None, (options.boxes, options.points, options.coco)):
        require_file(file)
    for folder in filter(None, (options.pts, options.yolo, options.images)):
        require_folder(folder)
    out = Path(options.out)
    folds = [*range(1, options.folds + 1)] if options.folds else [None] if options.val_fraction else []
    written = [out, *(path for fold in folds for path in split_paths(out, fold))]
    for path in written:
        if path.exists() and options.coco and path.samefile(options.coco):
            raise InputError(f"`out` {path} would replace the file that is read: choose another name")
    refuse_to_replace(written, options.overwrite)
    # after parsing: help, a mistyped flag and a missing file answer without numpy and OpenCV
    with first_imports("NumPy and OpenCV"):
        from earface.data.annotation_split import described, divide, inspect_photographs, kept_whole
        from earface.data.coco import write_coco
        from earface.data.duplicates import collect_signatures, find_duplicates
        from earface.data.splits import folds_by_subject, split_by_subject

    annotations, signatures, rejects = inspect_photographs(read_source(options))
    parts = [(out, annotations)]
    if options.val_fraction or options.folds:
        pairs = find_duplicates(collect_signatures(signatures))
        together = options.duplicates == "keep-together"
        names, groups = kept_whole(annotations, pairs, by=options.split_by, together=together)
        masks: list[tuple[int | None, NDArray[np.bool_]]]
        if options.folds:
            fold_of = folds_by_subject(groups, options.folds, options.seed)
            masks = [(number + 1, fold_of == number) for number in range(options.folds)]
        else:
            masks = [(None, split_by_subject(groups, options.val_fraction, options.seed))]
        for fold, is_val in masks:
            parts += zip(split_paths(out, fold), divide(annotations, names, pairs, is_val), strict=True)
    for path, part in parts:
        write_coco(path, part)
        print(f"{path}: {described(part)}")
    people = [{photograph.subject for photograph in part.photographs if photograph.subject} for _, part in parts[1:3]]
    if len(people) == 2 and (shared := people[0] & people[1]):
        print(f"note: {len(shared)} people are on both sides; --split-by subject keeps each on one side")
    for reject in rejects:
        print(f"left out: {reject}")
    if rejects:
        warn(f"{annotations.source}: {len(rejects)} photographs cannot be read and are left out")
    if len(parts) > 1:
        train, val = (path for path, _ in parts[1:3])
        print(next_step("ears detector train", train_json=train, val_json=val))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
