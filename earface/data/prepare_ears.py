"""Photographs of ears to `train_teacher.npy` and `val_teacher.npy`: `earface ears prepare --images FOLDER`.

The split is by subject, no photograph is on both sides, and `prepare_report.json` beside them says what was left out.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from earface.core.errors import InputError, OneLineParser, entry_point
from earface.core.files import atomic_write, output_folder, require_file, require_folder
from earface.core.first_imports import first_imports
from earface.core.tool_options import add_overwrite, next_step
from earface.data.tables import BOX_COLUMNS, SUBJECT_COLUMN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from earface.data.duplicates import DuplicatePair, Signatures
    from earface.data.ear_inspection import RejectedEar
    from earface.data.ear_rows import EarRow

DEFAULT_OUT = Path("data/preprocessed")  # where earface ears train looks
TEACHER_FILES = {"train": "train_teacher.npy", "val": "val_teacher.npy"}
REPORT, REFUSED = "prepare_report.json", "prepare_refused.json"  # the latter in place of the files


def build_parser() -> OneLineParser:
    """The flags and their defaults."""
    parser = OneLineParser(prog="earface ears prepare", description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs, searched through")
    parser.add_argument("--index", type=Path, help="CSV of the photographs to take; its paths are below --images")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="where the two .npy and the report go")
    parser.add_argument("--val-fraction", type=float, default=0.2, help="of the subjects, above 0 and below 1")
    parser.add_argument("--seed", type=int, default=42, help="decides which subjects are validation")
    parser.add_argument(
        "--splits", type=Path, help='subjects fixed: JSON {"val": [...]} or CSV subject,split (train|val)'
    )
    parser.add_argument(
        "--subject-pattern",
        help="regular expression on the path below --images; its first group, or all it matches, is the subject",
    )
    parser.add_argument("--file-column", default="file", help="column of --index with the path")
    parser.add_argument(
        "--subject-column", default=SUBJECT_COLUMN, help="column of --index with the subject, if it has one"
    )
    parser.add_argument(
        "--box-columns", default=BOX_COLUMNS, help="four columns of --index, pixels; used if all four are there"
    )
    parser.add_argument("--min-size", type=int, default=16, help="pixels; an ear narrower or lower is left out")
    parser.add_argument(
        "--duplicates",
        choices=("error", "drop", "keep-together"),
        default="error",
        help="one photograph on both sides: stop; drop the validation copy; or put its subjects on one side",
    )
    add_overwrite(parser)
    return parser


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """Read, split, check, write; 0, or 2 with one line on stderr."""
    args = build_parser().parse_args(argv)
    _check(args)
    pattern = None if args.subject_pattern is None else _compiled(args.subject_pattern)
    # after parsing: help, a mistyped flag and a missing file answer without numpy and OpenCV
    with first_imports("NumPy and OpenCV"):
        import numpy as np
        from rich.console import Console
        from rich.table import Table

        from earface.data.duplicates import collect_signatures, find_duplicates, joined_subjects
        from earface.data.ear_inspection import inspect_ears, write_split
        from earface.data.ear_rows import fixed_split, rows_from_folder, rows_from_index
        from earface.data.splits import split_by_subject

    rows, warnings = (
        rows_from_folder(args.images, pattern)
        if args.index is None
        else rows_from_index(args.images, args.index, args.file_column, args.subject_column, args.box_columns, pattern)
    )
    kept, found, rejects = inspect_ears(rows, args.min_size)
    signatures = collect_signatures(ear.signature for ear in found)
    subjects = [row.subject for row in kept]
    groups, together = subjects, []
    if args.duplicates == "keep-together":
        together = find_duplicates(signatures)
        groups = joined_subjects(subjects, together)
    if args.splits is None:
        is_val = split_by_subject(groups, args.val_fraction, args.seed)
    else:
        is_val = fixed_split(args.splits, subjects)
    pairs = _across(signatures, is_val)
    report = {
        "images": str(args.images),
        "index": None if args.index is None else str(args.index),
        "seed": args.seed,
        "val_fraction": args.val_fraction,
        "splits": None if args.splits is None else str(args.splits),
        "duplicates": args.duplicates,
        "warnings": warnings,
        "rejected": [asdict(reject) for reject in rejects],
        "duplicates_across_the_split": [_described(pair, kept) for pair in pairs],
        "kept_together": [_described(pair, kept) for pair in together if subjects[pair.first] != subjects[pair.second]],
    }
    if pairs and args.duplicates != "drop":
        _write_report(args.out / REFUSED, report)
        first = "; ".join(f"{kept[p.first].name} = {kept[p.second].name} ({p.kind}, {p.score:.2f})" for p in pairs[:3])
        way_out = "--duplicates drop" + (" or keep-together" if args.splits is None else ", or change --splits")
        raise InputError(
            f"{len(pairs)} pair(s) of pictures show one photograph on both sides of the split: {first}; "
            f"all are in {args.out / REFUSED}; use {way_out}"
        )
    usable = np.ones(len(kept), np.bool_)
    usable[[pair.first for pair in pairs]] = False
    if not (usable & is_val).any():
        raise InputError(
            "every validation picture has a copy among the training pictures: nothing is left to validate on"
        )
    sides = {"train": np.flatnonzero(~is_val), "val": np.flatnonzero(is_val & usable)}
    table = Table("split", "pictures", "subjects", "median size", title="ears")
    for side, chosen in sides.items():
        path = args.out / TEACHER_FILES[side]
        write_split(path, [kept[index] for index in chosen])
        width, height = np.median([found[index].size for index in chosen], axis=0)
        side_subjects = sorted({subjects[index] for index in chosen})
        report[side] = {
            "file": path.name,
            "pictures": len(chosen),
            "subjects": side_subjects,
            "median_size": [float(width), float(height)],
        }
        table.add_row(side, str(len(chosen)), str(len(side_subjects)), f"{width:.0f}x{height:.0f}")
    _write_report(args.out / REPORT, report)
    (args.out / REFUSED).unlink(missing_ok=True)
    console = Console()
    console.print(table)
    _print_notes(console, warnings, rejects, len(pairs), args.out)
    return 0


def _across(signatures: Signatures, is_val: NDArray[np.bool_]) -> list[DuplicatePair]:
    """Pairs (validation row, training row) of one photograph."""
    import numpy as np

    from earface.data.duplicates import DuplicatePair, find_duplicates

    val, train = np.flatnonzero(is_val), np.flatnonzero(~is_val)
    return [
        DuplicatePair(int(val[pair.first]), int(train[pair.second]), pair.score, pair.kind)
        for pair in find_duplicates(signatures[val], signatures[train])
    ]


def _described(pair: DuplicatePair, rows: Sequence[EarRow]) -> dict[str, object]:
    return {"files": [rows[pair.first].name, rows[pair.second].name], "kind": pair.kind, "score": round(pair.score, 4)}


def _write_report(path: Path, report: dict[str, object]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _print_notes(
    console: Console, warnings: Sequence[str], rejects: Sequence[RejectedEar], num_dropped: int, out: Path
) -> None:
    for warning in warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)
    if num_dropped:
        console.print(f"{num_dropped} pair(s) of copies: the validation picture was dropped", markup=False)
    kinds = Counter("unreadable" if reject.unreadable else "too small" for reject in rejects)
    for kind, count in kinds.items():
        console.print(f"{count} {kind}, left out", markup=False)
    for reject in rejects[:10]:
        console.print(f"  {reject.name}: {reject.reason}", markup=False)
    console.print(f"all of it: {out / REPORT}", soft_wrap=True, highlight=False, markup=False)
    files = {side: out / name for side, name in TEACHER_FILES.items()}
    given = {} if out == DEFAULT_OUT else {f"{side}_npy": path for side, path in files.items()}
    for line in [f"{side}: {path}" for side, path in files.items()] + [next_step("ears train", **given)]:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _check(args: argparse.Namespace) -> None:
    if not 0.0 < args.val_fraction < 1.0:
        raise InputError(f"--val-fraction {args.val_fraction} is out of range: above 0 and below 1 wanted")
    if args.min_size < 1:
        raise InputError(f"--min-size {args.min_size} is out of range: 1 or more wanted")
    require_folder(args.images)
    for path in filter(None, (args.index, args.splits)):
        require_file(path)
    try:
        output_folder(args.out, (*TEACHER_FILES.values(), REPORT), args.overwrite)
        args.out.mkdir(parents=True, exist_ok=True)  # before hours of reading
    except OSError as error:
        raise InputError(f"--out {args.out}: {error.strerror}") from None


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InputError(f"--subject-pattern {pattern!r}: {error}") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
