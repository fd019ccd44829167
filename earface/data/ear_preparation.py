"""Ears located, split by subject and checked, then written in one form."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from earface.core.errors import InputError
from earface.core.files import write_json
from earface.core.notices import lists_of_warnings, warn, warnings_given
from earface.core.tool_options import next_step
from earface.data.duplicates import (
    DuplicatePair,
    Signatures,
    collect_signatures,
    find_duplicates,
    joined_subjects,
)
from earface.data.ear_contract import STRETCH, EarAligner
from earface.data.ear_inspection import InspectedEar, Inspection, RejectedEar, inspect_ears
from earface.data.ear_networks import EAR_LANDMARKS, EarBoxes, EarLandmarker
from earface.data.ear_pictures import save_histograms, save_kept, save_rejected
from earface.data.ear_rows import EarRow, fixed_split, rows_from_folder, rows_from_index
from earface.data.ear_writing import clear_ears, collection_of, side_of, write_ears, write_split
from earface.data.names import warn_of_lost_people
from earface.data.options import EAR_REPORT, TEACHER_FILES, USUAL_EARS, EarPreparationOptions
from earface.data.splits import split_by_subject

REFUSED = "prepare_refused.json"  # in place of the files
SWAPPED = 0.8  # of the given sides contradict the landmarks: the column means something else


@dataclasses.dataclass(frozen=True)
class PreparedSplit:
    """The ears that are kept, and which of them are for validation; `usable` ones are written."""

    rows: list[EarRow]
    found: list[InspectedEar]
    is_val: NDArray[np.bool_]
    usable: NDArray[np.bool_]

    def part(self, side: str) -> NDArray[np.int64]:
        """Rows of `train` or `val`."""
        return np.flatnonzero(self.is_val & self.usable if side == "val" else ~self.is_val)


def prepare_ears(options: EarPreparationOptions, pattern: re.Pattern[str] | None, console: Console) -> None:
    """Everything behind the command's parsing. Raises InputError for what a user can get wrong."""
    images, out = Path(options.images), Path(options.out)
    aligner = ear_aligner(options)
    boxes = None if options.detector is None else EarBoxes(Path(options.detector), options.min_score)
    rows = _rows(options, images, pattern)
    if len({row.subject for row in rows}) == 1:
        who = rows[0].subject
        raise InputError(f"{options.index or images}: shows one subject, {who}; another is needed to validate on")
    inspection = Inspection(aligner, boxes, options.min_size, options.side == "column", options.misfits == "letterbox")
    kept, found, rejects = inspect_ears(rows, inspection, options.index)
    warn_of_lost_people((row.subject for row in rows), (row.subject for row in kept), images)
    _warn_of_sides(kept, found)
    report: dict[str, object] = {
        "images": str(images),
        "contract": aligner.contract.id,
        **{name: getattr(options, name) for name in ("index", "fit", "size", "seed", "val_fraction", "splits")},
        "duplicates": options.duplicates,
        "rejected": [{"name": each.name, "kind": each.kind, "reason": each.reason} for each in rejects],
        "kept_as_letterbox": [row.name for row, ear in zip(kept, found, strict=True) if ear.misfit],
        "sides_that_disagree": [row.name for row, ear in zip(kept, found, strict=True) if _disagrees(row, ear)],
    }
    split, num_dropped = _split(options, kept, found, out, report)
    table = _write(options, split, aligner, out, report, collection_of(rows))
    _draw(out, split, rejects, aligner, options.size)
    write_json(out / EAR_REPORT, report | {"warnings": warnings_given(), "left_out": lists_of_warnings()})
    (out / REFUSED).unlink(missing_ok=True)
    console.print(table)
    _print_notes(console, rejects, found, num_dropped, out)


def ear_aligner(options: EarPreparationOptions) -> EarAligner:
    """Raises InputError where the form needs landmarks and nothing places them."""
    if options.fit != "canonical":
        return EarAligner(options.fit)
    path = EAR_LANDMARKS if options.landmarker is None else Path(options.landmarker)
    if not path.is_file():
        raise InputError("`fit` canonical: give `landmarker`, the landmarks.onnx of earface export detector")
    return EarAligner(options.fit, EarLandmarker(path), options.max_residual)


def _rows(options: EarPreparationOptions, images: Path, pattern: re.Pattern[str] | None) -> list[EarRow]:
    if options.index is None:
        return rows_from_folder(images, pattern)
    columns = options.file_column, options.subject_column, options.box_columns, options.side_column
    return rows_from_index(images, Path(options.index), *columns, pattern)


def _disagrees(row: EarRow, ear: InspectedEar) -> bool:
    """Whether the landmarks contradict the side that the index gives."""
    fit = ear.located.fit
    return bool(row.side) and fit is not None and (fit.side != row.side or fit.confidence < 0)


def _warn_of_sides(rows: Sequence[EarRow], found: Sequence[InspectedEar]) -> None:
    judged = [_disagrees(*each) for each in zip(rows, found, strict=True) if each[0].side and each[1].located.fit]
    if not any(judged):
        return
    line = f"the landmarks contradict the given side of {sum(judged)} of {len(judged)} ears (listed in {EAR_REPORT})"
    swapped = sum(judged) > SWAPPED * len(judged)
    warn(line + (": does the column mean the other ear, or are the pictures mirrored?" if swapped else ""))


def _split(
    options: EarPreparationOptions,
    kept: list[EarRow],
    found: list[InspectedEar],
    out: Path,
    report: dict[str, object],
) -> tuple[PreparedSplit, int]:
    """The split, and how many pairs of copies lost their validation picture.

    Raises InputError, with REFUSED written, for copies on both sides that may not be dropped.
    """
    signatures = collect_signatures(ear.signature for ear in found)
    subjects = [row.subject for row in kept]
    groups: Sequence[str] = subjects
    together: list[DuplicatePair] = []
    if options.duplicates == "keep-together":
        together = find_duplicates(signatures)
        groups = joined_subjects(subjects, together)
    if options.splits is None:
        is_val = split_by_subject(groups, options.val_fraction, options.seed)
    else:
        is_val = fixed_split(Path(options.splits), subjects)
    pairs = _across(signatures, is_val)
    report["duplicates_across_the_split"] = [_described(pair, kept) for pair in pairs]
    report["kept_together"] = [
        _described(pair, kept) for pair in together if subjects[pair.first] != subjects[pair.second]
    ]
    if pairs and options.duplicates != "drop":
        write_json(out / REFUSED, report)
        first = "; ".join(f"{kept[p.first].name} = {kept[p.second].name} ({p.kind}, {p.score:.2f})" for p in pairs[:3])
        advice = "`duplicates` drop" + (
            " or `duplicates` keep-together" if options.splits is None else ", or change `splits`"
        )
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
    return PreparedSplit(kept, found, is_val, usable), len(pairs)


def _write(
    options: EarPreparationOptions,
    split: PreparedSplit,
    aligner: EarAligner,
    out: Path,
    report: dict[str, object],
    collection: str,
) -> Table:
    """The pictures, then the teacher files; fills the report, and returns what is printed of it."""
    parts = {side: split.part(side) for side in TEACHER_FILES}
    order = np.concatenate(list(parts.values()))
    rows, found = [split.rows[row] for row in order], [split.found[row] for row in order]
    ears: dict[int, Path] = {}
    if aligner.contract.id == STRETCH:
        clear_ears(out)
    else:
        ears = dict(zip(order.tolist(), write_ears(out, rows, found, aligner, options.size, collection), strict=True))
    table = Table("split", "ears", "subjects", "left / right", "median size", title="ears")
    for side, chosen in parts.items():
        rows, found = [split.rows[row] for row in chosen], [split.found[row] for row in chosen]
        pictures = [ears[row] for row in chosen.tolist()] if ears else None
        write_split(out / TEACHER_FILES[side], rows, found, pictures, aligner.contract.id, collection)
        width, height = np.median([ear.size for ear in found], axis=0)
        subjects = sorted({row.subject for row in rows})
        sides = Counter(side_of(*each) or "unknown" for each in zip(rows, found, strict=True))
        report[side] = {
            "file": TEACHER_FILES[side],
            "pictures": len(chosen),
            "subjects": subjects,
            "sides": dict(sides),
            "median_size": [float(width), float(height)],
        }
        counted = f"{sides['l']} / {sides['r']}" if sides["l"] + sides["r"] else "unknown"
        table.add_row(side, str(len(chosen)), str(len(subjects)), counted, f"{width:.0f}x{height:.0f}")
    return table


def _draw(out: Path, split: PreparedSplit, rejects: Sequence[RejectedEar], aligner: EarAligner, size: int) -> None:
    rows = np.flatnonzero(split.usable)
    kept, found = [split.rows[row] for row in rows], [split.found[row] for row in rows]
    save_kept(out / "kept.png", kept, found, aligner, size)
    save_rejected(out / "rejected.png", rejects)
    save_histograms(out / "histograms.png", found, aligner.max_residual)


def _across(signatures: Signatures, is_val: NDArray[np.bool_]) -> list[DuplicatePair]:
    """Pairs (validation row, training row) of one photograph."""
    val, train = np.flatnonzero(is_val), np.flatnonzero(~is_val)
    return [
        DuplicatePair(int(val[pair.first]), int(train[pair.second]), pair.score, pair.kind)
        for pair in find_duplicates(signatures[val], signatures[train])
    ]


def _described(pair: DuplicatePair, rows: Sequence[EarRow]) -> dict[str, object]:
    return {"files": [rows[pair.first].name, rows[pair.second].name], "kind": pair.kind, "score": round(pair.score, 4)}


def _print_notes(
    console: Console,
    rejects: Sequence[RejectedEar],
    found: Sequence[InspectedEar],
    num_dropped: int,
    out: Path,
) -> None:
    if num_dropped:
        console.print(f"{num_dropped} pair(s) of copies: the validation picture was dropped", markup=False)
    for kind, count in Counter(reject.kind for reject in rejects).items():
        console.print(f"{count} {kind}, left out", markup=False)
    for reject in rejects[:10]:
        console.print(f"  {reject.name}: {reject.reason}", markup=False)
    if misfits := sum(bool(ear.misfit) for ear in found):
        console.print(f"{misfits} kept as letterbox: their landmarks are of no use", markup=False)
    drawn = ", ".join(["kept.png", *(["rejected.png"] if rejects else []), "histograms.png"])
    for line in (f"look at: {out / drawn}", f"report: {out / EAR_REPORT}"):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    files = {side: out / name for side, name in TEACHER_FILES.items()}
    given = {} if out == Path(USUAL_EARS) else {f"{side}_npy": path for side, path in files.items()}
    for line in [f"{side}: {path}" for side, path in files.items()] + [next_step("ears train", **given)]:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
