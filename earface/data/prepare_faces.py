"""Photographs of people to aligned faces, their very-low-resolution copies, and one split of the identities.

    earface faces prepare --images PHOTOGRAPHS --out ROOT
    earface faces prepare --images ALIGNED_128 --aligned --out ROOT

PHOTOGRAPHS has a folder for each identity, or Multi-PIE names (001_01_01_051_07_crop_128.png), or comes with --index, a
CSV of file and identity. ROOT gets {train,val,test}_processed/{hr_images,vlr_images}/NAME.png, splits.json, faces.csv
(each face's identity, role and photograph) and prepare_report.json. Run again after an interruption, it continues.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import atomic_write, require_empty, require_file, require_folder
from earface.core.first_imports import first_imports
from earface.core.notices import lists_of_warnings, warnings_given
from earface.core.progress import progress, tracked
from earface.core.tool_options import next_step
from earface.data.face_folders import INDEX, REPORT, SPLITS_FILE, USUAL_ROOT, WORK
from earface.data.face_sizes import USUAL_VLR, VLRSize, parse_vlr_size
from earface.data.options import FacePreparationOptions

if TYPE_CHECKING:
    from earface.data.duplicates import DuplicatePair
    from earface.data.face_inspection import AlignedFace, RejectedFace
    from earface.data.face_rows import FaceRow
    from earface.data.identity_split import IdentitySplit


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """Find, align, split, check, degrade, write; 0, or 2 with one line on stderr."""
    options = parse_options(FacePreparationOptions, argv, prog="earface faces prepare")
    images, out = Path(options.images), Path(options.out)
    index, splits, detector_path = (
        None if path is None else Path(path) for path in (options.index, options.splits, options.detector)
    )
    require_folder(images)
    for path in filter(None, (index, splits, detector_path)):
        require_file(path)
    _check_out(out, options.overwrite)
    # after parsing: help, a mistyped flag and a missing file answer without numpy, OpenCV and torch
    with first_imports():
        from earface.data.duplicates import joined_subjects
        from earface.data.face_detection import FaceDetector, detector_file
        from earface.data.face_inspection import FaceFinder, inspect_faces
        from earface.data.face_rows import faces_from_folder, faces_from_index, prepared_names
        from earface.data.face_set_writer import BATCH, clear, shared_pictures, write_faces, write_index
        from earface.data.identity_split import deal_identities, write_splits
        from earface.data.names import warn_of_lost_people

    detector = None if options.aligned else FaceDetector(detector_file(detector_path), options.min_score)
    rows = faces_from_folder(images) if index is None else faces_from_index(index, images)
    if len({row.identity for row in rows}) == 1:
        raise InputError(f"{images}: holds one identity, {rows[0].identity}; at least two are needed")
    fixed = None if splits is None else _fixed_split(splits, rows)
    finder = FaceFinder(detector, options.min_face, options.several == "reject")
    _make_work_folder(out)
    with progress("finding faces", len(rows)) as state:
        faces, rejects = inspect_faces(rows, prepared_names(rows), finder, out / WORK, state.update)
    warn_of_lost_people((row.identity for row in rows), (face.row.identity for face in faces), images)
    identities = [face.row.identity for face in faces]
    with progress("comparing pictures of different people"):
        pairs = shared_pictures(faces)
    groups = None
    if options.duplicates == "keep-together":
        groups = dict(zip(identities, joined_subjects(identities, pairs), strict=True))
    split = deal_identities(identities, options.seed, fixed, groups)
    report = _report(options, finder.settings(), faces, rejects, pairs, split)
    across = [p for p in pairs if split.split_of(identities[p.first]) != split.split_of(identities[p.second])]
    if across:
        _refuse(out, report, faces, across)
    clear(out)
    write_index(out / WORK / INDEX, faces, split)
    size = parse_vlr_size(options.vlr_size)
    for start in tracked(range(0, len(faces), BATCH), "writing faces, batches"):
        write_faces(out, faces[start : start + BATCH], split, size, options.degradation, options.seed)
    write_index(out / INDEX, faces, split)
    write_splits(out / SPLITS_FILE, split, identities)
    _write_report(out, report)
    shutil.rmtree(out / WORK, ignore_errors=True)
    _print_summary(out, faces, rejects, split, size)
    return 0


def _fixed_split(path: Path, rows: Sequence[FaceRow]) -> IdentitySplit:
    from earface.data.identity_split import read_splits

    fixed = read_splits(path)
    present = {row.identity for row in rows}
    if present.isdisjoint(fixed.roles):
        raise InputError(f"{path}: names none of the {len(present)} identities here ({min(present)}, ...)")
    return fixed


def _check_out(out: Path, overwrite: bool) -> None:
    """Raise InputError for a folder in use. A set with a work folder and no report is unfinished, and is continued."""
    unfinished = (out / WORK).is_dir() and not (out / REPORT).exists()
    require_empty(out, overwrite or unfinished)


def _make_work_folder(out: Path) -> None:
    try:
        (out / WORK).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"`out` {out}: {error.strerror}") from None


def _report(
    options: FacePreparationOptions,
    detection: dict[str, object],
    faces: Sequence[AlignedFace],
    rejects: Sequence[RejectedFace],
    pairs: Sequence[DuplicatePair],
    split: IdentitySplit,
) -> dict[str, object]:
    import numpy as np

    from earface.data.face_folders import split_folder
    from earface.data.identity_split import SPLIT_OF_ROLE

    identities: dict[str, set[str]] = defaultdict(set)
    pictures: Counter[str] = Counter()
    for face in faces:
        role = split.roles[face.row.identity]
        identities[role].add(face.row.identity)
        pictures[role] += 1
    report: dict[str, object] = {
        "images": str(Path(options.images)),
        "index": None if options.index is None else str(Path(options.index)),
        "vlr_size": str(parse_vlr_size(options.vlr_size)),
        "degradation": options.degradation,
        "seed": options.seed,
        "splits": None if options.splits is None else str(Path(options.splits)),
        "detection": detection,
        "pictures": len(faces) + len(rejects),
        "faces": len(faces),
        "roles": {
            role: {"split": split_folder(SPLIT_OF_ROLE[role]), "identities": len(identities[role]), "pictures": count}
            for role in SPLIT_OF_ROLE
            for count in (pictures[role],)
        },
        "rejected_by_kind": Counter(reject.kind for reject in rejects),
        "rejected": [asdict(reject) for reject in rejects],
        "one_picture_two_identities": [_described(pair, faces) for pair in pairs],
    }
    if not options.aligned:
        report["chosen_among_several"] = [face.row.name for face in faces if face.others]
        for name in ("score", "enlargement", "residual"):
            values = np.quantile([getattr(face, name) for face in faces], [0.05, 0.5, 0.95])
            report[name] = dict(zip(("5%", "50%", "95%"), np.round(values, 3).tolist(), strict=True))
    return report


def _described(pair: DuplicatePair, faces: Sequence[AlignedFace]) -> dict[str, object]:
    names = [faces[pair.first].row.name, faces[pair.second].row.name]
    return {"files": names, "kind": pair.kind, "score": round(pair.score, 4)}


def _refuse(out: Path, report: dict[str, object], faces: Sequence[AlignedFace], pairs: Sequence[DuplicatePair]) -> None:
    _write_report(out / WORK, report)
    first = "; ".join(
        f"{faces[p.first].row.name} = {faces[p.second].row.name} ({p.kind}, {p.score:.2f})" for p in pairs[:3]
    )
    raise InputError(
        f"{len(pairs)} picture(s) appear under two identities in two splits: {first}; all are in "
        f"{out / WORK / REPORT}; correct the identities, or use `duplicates` keep-together"
    )


def _write_report(folder: Path, report: dict[str, object]) -> None:
    from earface.data.identity_split import as_json

    content = as_json(report | {"warnings": warnings_given(), "left_out": lists_of_warnings()})
    with atomic_write(folder / REPORT) as temporary:
        temporary.write_text(content, encoding="utf-8", errors="backslashreplace")


def _print_summary(
    out: Path, faces: Sequence[AlignedFace], rejects: Sequence[RejectedFace], split: IdentitySplit, vlr_size: VLRSize
) -> None:
    from rich.console import Console
    from rich.table import Table

    from earface.data.face_folders import split_folder
    from earface.data.identity_split import SPLIT_OF_ROLE

    table = Table("role", "identities", "pictures", "folder", title="faces")
    for role, name in SPLIT_OF_ROLE.items():
        own = [face.row.identity for face in faces if split.roles[face.row.identity] == role]
        table.add_row(role, str(len(set(own))), str(len(own)), split_folder(name))
    console = Console()
    console.print(table)
    for kind, count in Counter(reject.kind for reject in rejects).items():
        console.print(f"{count} {kind}, left out", markup=False)
    for reject in rejects[:10]:
        console.print(f"  {reject.name}: {reject.reason}", markup=False)
    given: dict[str, object] = {} if out == Path(USUAL_ROOT) else {"dataset_root": out}
    if str(vlr_size) != USUAL_VLR:
        given["vlr_size"] = vlr_size
    for line in (f"report: {out / REPORT}", next_step("dsr train", **given)):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
