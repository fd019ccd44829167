"""Photographs of ears to `train_teacher.npy` and `val_teacher.npy`: `earface ears prepare --images FOLDER`.

The split is by subject, no photograph is on both sides, and `prepare_report.json` beside them says what was left out.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import atomic_write, output_folder, require_file, require_folder
from earface.core.first_imports import first_imports
from earface.core.tool_options import next_step
from earface.data.options import USUAL_EARS, EarPreparationOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from earface.data.duplicates import DuplicatePair, Signatures
    from earface.data.ear_inspection import RejectedEar
    from earface.data.ear_rows import EarRow

TEACHER_FILES = {"train": "train_teacher.npy", "val": "val_teacher.npy"}
REPORT, REFUSED = "prepare_report.json", "prepare_refused.json"  # the latter in place of the files


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """Read, split, check, write; 0, or 2 with one line on stderr."""
    options = parse_options(EarPreparationOptions, argv, prog="earface ears prepare")
    pattern = None if options.subject_pattern is None else _compiled(options.subject_pattern)
    images, out = Path(options.images), Path(options.out)
    index, splits = (None if path is None else Path(path) for path in (options.index, options.splits))
    require_folder(images)
    for path in filter(None, (index, splits)):
        require_file(path)
    _make_folder(out, options.overwrite)
    # after parsing: help, a mistyped flag and a missing file answer without numpy and OpenCV
    with first_imports("NumPy and OpenCV"):
        import numpy as np
        from rich.console import Console
        from rich.table import Table

        from earface.data.duplicates import collect_signatures, find_duplicates, joined_subjects
        from earface.data.ear_inspection import inspect_ears, write_split
        from earface.data.ear_rows import fixed_split, rows_from_folder, rows_from_index
        from earface.data.splits import split_by_subject

    columns = (options.file_column, options.subject_column, options.box_columns)
    rows, warnings = (
        rows_from_folder(images, pattern) if index is None else rows_from_index(images, index, *columns, pattern)
    )
    kept, found, rejects = inspect_ears(rows, options.min_size)
    signatures = collect_signatures(ear.signature for ear in found)
    subjects = [row.subject for row in kept]
    groups, together = subjects, []
    if options.duplicates == "keep-together":
        together = find_duplicates(signatures)
        groups = joined_subjects(subjects, together)
    if splits is None:
        is_val = split_by_subject(groups, options.val_fraction, options.seed)
    else:
        is_val = fixed_split(splits, subjects)
    pairs = _across(signatures, is_val)
    report: dict[str, object] = {
        "images": str(images),
        "index": None if index is None else str(index),
        "seed": options.seed,
        "val_fraction": options.val_fraction,
        "splits": None if splits is None else str(splits),
        "duplicates": options.duplicates,
        "warnings": warnings,
        "rejected": [asdict(reject) for reject in rejects],
        "duplicates_across_the_split": [_described(pair, kept) for pair in pairs],
        "kept_together": [_described(pair, kept) for pair in together if subjects[pair.first] != subjects[pair.second]],
    }
    if pairs and options.duplicates != "drop":
        _write_report(out / REFUSED, report)
        first = "; ".join(f"{kept[p.first].name} = {kept[p.second].name} ({p.kind}, {p.score:.2f})" for p in pairs[:3])
        advice = "`duplicates` drop" + (" or `duplicates` keep-together" if splits is None else ", or change `splits`")
        raise InputError(
            f"{len(pairs)} pair(s) of pictures show one photograph on both sides of the split: {first}; "
            f"all are in {out / REFUSED}; use {advice}"
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
        path = out / TEACHER_FILES[side]
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
    _write_report(out / REPORT, report)
    (out / REFUSED).unlink(missing_ok=True)
    console = Console()
    console.print(table)
    _print_notes(console, warnings, rejects, len(pairs), out)
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
    console.print(f"report: {out / REPORT}", soft_wrap=True, highlight=False, markup=False)
    files = {side: out / name for side, name in TEACHER_FILES.items()}
    given = {} if out == Path(USUAL_EARS) else {f"{side}_npy": path for side, path in files.items()}
    for line in [f"{side}: {path}" for side, path in files.items()] + [next_step("ears train", **given)]:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _make_folder(out: Path, overwrite: bool) -> None:
    """Before hours of reading."""
    try:
        output_folder(out, (*TEACHER_FILES.values(), REPORT), overwrite)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"`out` {out}: {error.strerror}") from None


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InputError(f"`subject_pattern` {pattern}: {error}") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
