"""Photographs of people to aligned faces, their very-low-resolution copies, and one split of the identities.

    earface faces prepare --images PHOTOGRAPHS --out ROOT
    earface faces prepare --images ALIGNED_128 --aligned --out ROOT

PHOTOGRAPHS has a folder for each identity, or Multi-PIE names (001_01_01_051_07_crop_128.png), or comes with --index, a
CSV of file and identity. ROOT gets {train,val,test}_processed/{hr_images,vlr_images}/NAME.png, splits.json, faces.csv
(each face's identity, role and photograph) and prepare_report.json. Run again after an interruption, it goes on.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from earface.core.errors import InputError, OneLineParser, entry_point
from earface.core.files import atomic_write, require_empty, require_file, require_folder
from earface.core.first_imports import first_imports
from earface.core.progress import progress, tracked
from earface.core.tool_options import add_overwrite, next_step
from earface.data.face_folders import INDEX, REPORT, SPLITS_FILE, USUAL_ROOT, WORK
from earface.data.face_sizes import DEGRADATIONS, VLRSize, parse_vlr_size

if TYPE_CHECKING:
    from earface.data.duplicates import DuplicatePair
    from earface.data.face_inspection import AlignedFace, RejectedFace
    from earface.data.face_rows import FaceRow
    from earface.data.identity_split import IdentitySplit


def build_parser() -> OneLineParser:
    """The flags and their defaults."""
    parser = OneLineParser(
        prog="earface faces prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs, searched through")
    parser.add_argument("--index", type=Path, help="CSV with the columns file and identity; files are below --images")
    parser.add_argument("--out", type=Path, required=True, help="ROOT, a new or empty folder")
    parser.add_argument("--aligned", action="store_true", help="the pictures are aligned faces of 128x128 already")
    parser.add_argument("--detector", type=Path, help="YuNet's ONNX file (downloaded once and cached)")
    parser.add_argument("--min-score", type=float, default=0.7, help="of a face, above 0 and below 1 (0.7)")
    parser.add_argument(
        "--min-face", type=int, default=64, help="pixels; a smaller box would be enlarged more than 1.5 times (64)"
    )
    parser.add_argument(
        "--several",
        choices=("central", "reject"),
        default="central",
        help="photographs with several faces: take the large one near the middle, or leave it out (central)",
    )
    parser.add_argument("--vlr-size", default="32", help="32, 24, 16 or 14x16, width x height (32)")
    parser.add_argument("--degradation", choices=DEGRADATIONS, default="bicubic", help="how VLR is made (bicubic)")
    parser.add_argument("--seed", type=int, default=42, help="decides the split, and realistic degradation (42)")
    parser.add_argument("--splits", type=Path, help="splits.json to keep to; only identities that it lacks are dealt")
    parser.add_argument(
        "--duplicates",
        choices=("error", "keep-together"),
        default="error",
        help="one picture under two identities in two splits: stop, or put both identities in one (error)",
    )
    add_overwrite(parser)
    return parser


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """Find, align, split, check, degrade, write; 0, or 2 with one line on stderr."""
    args = build_parser().parse_args(argv)
    size = _checked(args)
    _check_out(args.out, args.overwrite)
    # after parsing: help, a mistyped flag and a missing file answer without numpy, OpenCV and torch
    with first_imports():
        from earface.data.duplicates import joined_subjects
        from earface.data.face_detection import FaceDetector, detector_file
        from earface.data.face_inspection import FaceFinder, inspect_faces
        from earface.data.face_rows import faces_from_folder, faces_from_index, prepared_names
        from earface.data.face_set_writer import BATCH, clear, shared_pictures, write_faces, write_index
        from earface.data.identity_split import deal_identities, write_splits

    detector = None if args.aligned else FaceDetector(detector_file(args.detector), args.min_score)
    rows = faces_from_folder(args.images) if args.index is None else faces_from_index(args.index, args.images)
    if len({row.identity for row in rows}) == 1:
        raise InputError(f"{args.images}: holds one identity, {rows[0].identity}: nothing to tell apart; more wanted")
    fixed = None if args.splits is None else _fixed_split(args.splits, rows)
    finder = FaceFinder(detector, args.min_face, args.several == "reject")
    _make_work_folder(args.out)
    with progress("finding faces", len(rows)) as state:
        faces, rejects = inspect_faces(rows, prepared_names(rows), finder, args.out / WORK, state.update)
    identities = [face.row.identity for face in faces]
    with progress("comparing pictures of different people"):
        pairs = shared_pictures(faces)
    groups = None
    if args.duplicates == "keep-together":
        groups = dict(zip(identities, joined_subjects(identities, pairs), strict=True))
    split = deal_identities(identities, args.seed, fixed, groups)
    report = _report(args, size, finder.settings(), faces, rejects, pairs, split)
    across = [p for p in pairs if split.split_of(identities[p.first]) != split.split_of(identities[p.second])]
    if across:
        _refuse(args.out, report, faces, across)
    clear(args.out)
    write_index(args.out / WORK / INDEX, faces, split)
    for start in tracked(range(0, len(faces), BATCH), "writing faces, batches"):
        write_faces(args.out, faces[start : start + BATCH], split, size, args.degradation, args.seed)
    write_index(args.out / INDEX, faces, split)
    write_splits(args.out / SPLITS_FILE, split, identities)
    _write_report(args.out, report)
    shutil.rmtree(args.out / WORK, ignore_errors=True)
    _print_summary(args.out, faces, rejects, split)
    return 0


def _fixed_split(path: Path, rows: Sequence[FaceRow]) -> IdentitySplit:
    from earface.data.identity_split import read_splits

    fixed = read_splits(path)
    present = {row.identity for row in rows}
    if present.isdisjoint(fixed.roles):
        raise InputError(f"{path}: names none of the {len(present)} identities here ({min(present)}, ...)")
    return fixed


def _check_out(out: Path, overwrite: bool) -> None:
    """Raise InputError for a folder in use. A set with a work folder and no report is unfinished, and gone on with."""
    unfinished = (out / WORK).is_dir() and not (out / REPORT).exists()
    require_empty(out, overwrite or unfinished)


def _make_work_folder(out: Path) -> None:
    try:
        (out / WORK).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}") from None


def _report(
    args: argparse.Namespace,
    size: VLRSize,
    detection: dict[str, object],
    faces: Sequence[AlignedFace],
    rejects: Sequence[RejectedFace],
    pairs: Sequence[DuplicatePair],
    split: IdentitySplit,
) -> dict[str, object]:
    import numpy as np

    from earface.data.face_rows import split_folder
    from earface.data.identity_split import SPLIT_OF_ROLE

    identities: dict[str, set[str]] = defaultdict(set)
    pictures: Counter[str] = Counter()
    for face in faces:
        role = split.roles[face.row.identity]
        identities[role].add(face.row.identity)
        pictures[role] += 1
    report: dict[str, object] = {
        "images": str(args.images),
        "index": None if args.index is None else str(args.index),
        "vlr_size": str(size),
        "degradation": args.degradation,
        "seed": args.seed,
        "splits": None if args.splits is None else str(args.splits),
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
    if not args.aligned:
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
        f"{len(pairs)} picture(s) stand under two identities in two splits: {first}; all are in "
        f"{out / WORK / REPORT}; correct the identities, or use --duplicates keep-together"
    )


def _write_report(folder: Path, report: dict[str, object]) -> None:
    from earface.data.identity_split import as_json

    with atomic_write(folder / REPORT) as temporary:
        temporary.write_text(as_json(report), encoding="utf-8", errors="backslashreplace")


def _print_summary(
    out: Path, faces: Sequence[AlignedFace], rejects: Sequence[RejectedFace], split: IdentitySplit
) -> None:
    from rich.console import Console
    from rich.table import Table

    from earface.data.face_rows import split_folder
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
    given = {} if out == Path(USUAL_ROOT) else {"dataset_root": out}
    for line in (f"all of it: {out / REPORT}", next_step("dsr train", **given)):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _checked(args: argparse.Namespace) -> VLRSize:
    if not 0.0 < args.min_score < 1.0:
        raise InputError(f"--min-score {args.min_score} is out of range: above 0 and below 1 wanted")
    if args.min_face < 1:
        raise InputError(f"--min-face {args.min_face} is out of range: 1 or more wanted")
    if args.seed < 0:
        raise InputError(f"--seed {args.seed} is out of range: 0 or more wanted")
    require_folder(args.images)
    for path in filter(None, (args.index, args.splits, args.detector)):
        require_file(path)
    if args.out.resolve().is_relative_to(args.images.resolve()):
        raise InputError(f"--out {args.out} lies in --images {args.images}: its faces would be photographs next time")
    return parse_vlr_size(args.vlr_size)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
