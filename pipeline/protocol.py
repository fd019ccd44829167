"""Which pictures are enrolled and which are searched for; and that none of them gives the answer away.

Gallery and probes are of the people who score. Thresholds are fitted on others, the people of `tune`.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.duplicates import collect_signatures, find_duplicates, picture_signature
from data.errors import InputError
from data.face_rows import HR_FOLDER, SPLITS_FILE, FaceRow, read_faces, split_folder
from data.images import DataRoot, read_ahead, read_image
from data.multipie import FRONTAL, FRONTAL_FLASH, MultiPieName
from data.prepare_faces import ALIGNED_COARSE
from data.splits import split_by_subject

NEUTRAL = "01"  # the recording without expression, in every session
PATTERN = "SUBJECT_SESSION_RECORDING_CAMERA_ILLUMINATION_crop_128.png, such as 001_01_01_051_07_crop_128.png"
PAIRS_PATTERN = "NAME N1 N2, or NAME1 N1 NAME2 N2"


@dataclass(frozen=True)
class Enrolment:
    """Pictures that are enrolled, and probes: of the same people (mated) and of others (non-mated)."""

    gallery: list[FaceRow]
    probes: list[FaceRow]

    @property
    def mated(self) -> list[bool]:
        """Of each probe, whether its person is enrolled."""
        people = {row.identity for row in self.gallery}
        return [row.identity in people for row in self.probes]

    @property
    def rows(self) -> list[FaceRow]:
        return [*self.gallery, *self.probes]


@dataclass(frozen=True)
class Pair:
    """Two pictures, by their numbers in `first` and `second` of Protocol, and the fold that they are in."""

    first: int
    second: int
    same: bool
    fold: int


@dataclass(frozen=True)
class Protocol:
    """What an evaluation compares."""

    rule: str  # which pictures are enrolled, in words
    score: Enrolment
    tune: Enrolment
    pairs: list[Pair] | None = None  # then `score` holds their first and second pictures, and nobody is searched for

    def notes(self) -> list[str]:
        """Who is only enrolled, and who is only searched for."""
        if self.pairs is not None:
            return []
        enrolled = {row.identity for row in self.score.gallery}
        probed = {row.identity for row in self.score.probes}
        found = []
        if distractors := sorted(enrolled - probed):
            found.append(f"{len(distractors)} people are enrolled and have no probe ({_some(distractors)})")
        if others := sorted(probed - enrolled):
            found.append(f"{len(others)} people have probes and are not enrolled: non-mated ({_some(others)})")
        return found


@dataclass(frozen=True)
class GalleryRule:
    """Which picture of a person is enrolled."""

    camera: str = FRONTAL
    illumination: str = FRONTAL_FLASH
    recording: str = NEUTRAL

    def __call__(self, rows: Sequence[FaceRow]) -> tuple[Enrolment, str]:
        """By Multi-PIE names the first that was taken so, else the first by name; all others are probes.

        Who has no such picture is left out, by Multi-PIE names; else who has one picture is a non-mated probe.
        """
        by_name = all(MultiPieName.parse(row.path.name) for row in rows)
        several = Counter(row.identity for row in rows)
        enrolled: dict[str, FaceRow] = {}
        for row in sorted(rows, key=lambda row: (row.identity, row.path.name)):
            if self._suits(row) if by_name else several[row.identity] > 1 and row.role != "nonmated":
                enrolled.setdefault(row.identity, row)
        if by_name and not enrolled:
            raise InputError(
                f"{rows[0].path.parent}: no picture of camera {self.camera}, illumination {self.illumination}, "
                f"recording {self.recording} to enrol; names are {PATTERN}"
            )
        chosen = {row.path for row in enrolled.values()}
        probes = [row for row in rows if row.path not in chosen and (not by_name or row.identity in enrolled)]
        rule = "first picture by name of everyone with two or more"
        if by_name:
            rule = f"first of camera {self.camera}, illumination {self.illumination}, recording {self.recording}"
        return Enrolment(list(enrolled.values()), probes), rule

    def _suits(self, row: FaceRow) -> bool:
        told = MultiPieName.parse(row.path.name)
        assert told is not None
        return (told.camera, told.illumination, told.recording) == (self.camera, self.illumination, self.recording)


def from_dataset(root: str, rule: GalleryRule, tune_fraction: float, seed: int) -> Protocol:
    """Of a prepared set, its test people score and its val people tune; of any other set of faces, a part tunes.

    root: a prepared set, its test_processed, or what data.face_rows.read_faces takes. Raises InputError.
    """
    path = Path(root)
    inside = path if (path / split_folder("test") / HR_FOLDER).is_dir() else path.parent
    prepared = path == inside or (path / HR_FOLDER).is_dir()
    if prepared:
        scored = read_faces(inside, ("test",)) if path == inside else read_faces(path)
        has_val = (inside / split_folder("val") / HR_FOLDER).is_dir() and path != inside / split_folder("val")
        tuned = read_faces(inside, ("val",)) if has_val else []
        score, said = rule(scored)
        tune = rule(tuned)[0] if tuned else Enrolment([], [])
        where = f"people of {SPLITS_FILE}" if (inside / SPLITS_FILE).is_file() else split_folder("test")
        return Protocol(f"{said}; {where}", score, tune)
    if not path.exists():
        raise InputError(f"--dataset_root {root}: no such folder; python -m data.prepare_faces makes one")
    tune_rows, score_rows = _dealt(read_faces(root), tune_fraction, seed)
    score, said = rule(score_rows)
    return Protocol(said, score, rule(tune_rows)[0] if tune_rows else Enrolment([], []))


def from_lists(gallery: str, probes: str, tune_fraction: float, seed: int) -> Protocol:
    """gallery, probes: a CSV of file and identity, or a folder, each. Raises InputError."""
    enrolled, searched = read_faces(gallery), read_faces(probes)
    people = [row.identity for row in enrolled]
    if not set(people) & {row.identity for row in searched}:
        raise InputError(f"--probes {probes}: nobody in it is in --gallery {gallery}")
    tune = {row.identity for row in _dealt(enrolled, tune_fraction, seed)[0]}
    score = Enrolment(*([row for row in rows if row.identity not in tune] for rows in (enrolled, searched)))
    fitted = Enrolment(*([row for row in rows if row.identity in tune] for rows in (enrolled, searched)))
    return Protocol(f"{Path(gallery).name} against {Path(probes).name}", score, fitted)


def from_pairs(root: str, pairs: str) -> Protocol:
    """LFW's pairs.txt: `FOLDS PAIRS`, then for each fold PAIRS matched (NAME N1 N2) and PAIRS mismatched lines.

    Pictures are ROOT/NAME/NAME_000N.*; the first of a pair is the gallery's, the second the probe. Raises InputError.
    """
    path = Path(pairs)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--pairs {pairs}: cannot be read ({error})") from None
    folds, count = _pairs_header(path, lines)
    if len(lines) - 1 != 2 * folds * count:
        raise InputError(f"{path}: {len(lines) - 1} pairs, but {folds} folds of 2 x {count} wanted")
    folder, found = DataRoot(root), []
    first: dict[FaceRow, int] = {}
    second: dict[FaceRow, int] = {}
    for number, line in enumerate(lines[1:]):
        parts = line.split("\t") if "\t" in line else line.split()
        if len(parts) not in (3, 4) or not all(part.isdigit() for part in parts[1::2] if len(parts) == 4):
            raise InputError(f"{path} line {number + 2}: {line!r}: {PAIRS_PATTERN} wanted")
        names = (parts[0], parts[0]) if len(parts) == 3 else (parts[0], parts[2])
        numbers = (parts[1], parts[2]) if len(parts) == 3 else (parts[1], parts[3])
        both = zip(names, numbers, strict=True)
        one, other = (_lfw_picture(folder, name, written, path, number + 2) for name, written in both)
        if one.path == other.path:
            raise InputError(f"{path} line {number + 2}: a picture is compared with itself")
        places = first.setdefault(one, len(first)), second.setdefault(other, len(second))
        found.append(Pair(*places, names[0] == names[1], number // (2 * count)))
    return Protocol(
        f"{len(found)} pairs in {folds} folds", Enrolment(list(first), list(second)), Enrolment([], []), found
    )


def _pairs_header(path: Path, lines: Sequence[str]) -> tuple[int, int]:
    numbers = re.findall(r"\d+", lines[0]) if lines and re.fullmatch(r"[\d\s]+", lines[0]) else []
    if numbers and len(numbers) <= 2 and min(map(int, numbers)) > 0:
        return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else (1, int(numbers[0]))
    raise InputError(f"{path} line 1: the number of folds and of pairs wanted, such as '10 300'")


def _lfw_picture(folder: DataRoot, name: str, written: str, path: Path, line: int) -> FaceRow:
    try:
        stem = f"{name}_{int(written):04d}"
        place = folder.resolve(name)
        found = sorted(place.glob(f"{stem}.*"))
    except (ValueError, InputError) as error:
        raise InputError(f"{path} line {line}: {error}; {PAIRS_PATTERN} wanted") from None
    if not found:
        raise InputError(f"{path} line {line}: no picture {name}/{stem}.* in {folder.folder}")
    return FaceRow(found[0], f"{name}/{found[0].name}", name)


def _dealt(rows: Sequence[FaceRow], fraction: float, seed: int) -> tuple[list[FaceRow], list[FaceRow]]:
    """The rows of people for thresholds, and the others."""
    if fraction == 0:
        return [], list(rows)
    tuning = split_by_subject([row.identity for row in rows], fraction, seed)
    return (
        [row for row, chosen in zip(rows, tuning, strict=True) if chosen],
        [row for row, chosen in zip(rows, tuning, strict=True) if not chosen],
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


# -- leakage -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leak:
    """Two pictures that must not be in the two places where they are."""

    first: FaceRow
    second: FaceRow
    reason: str

    def __str__(self) -> str:
        return f"{self.first.path} and {self.second.path}: {self.reason}"


def find_leaks(protocol: Protocol, progress: Callable[[int], None] = lambda done: None) -> list[Leak]:
    """Someone who tunes and scores; one photograph enrolled and searched for, or of a person who tunes and another.

    Photographs are compared as files, pixels, and near duplicates (data/duplicates.py). Pictures of one person by
    Multi-PIE names may be alike, since their names say that another flash or camera took them.
    """
    if protocol.pairs is not None:
        return []  # a picture may be the first of one pair and the second of another
    tuning = {row.identity: row for row in protocol.tune.rows}
    shared = next((row for row in protocol.score.rows if row.identity in tuning), None)
    if shared is not None:
        return [Leak(shared, tuning[shared.identity], f"{shared.identity} tunes the threshold and scores")]
    sides = [
        *((row, "enrolled") for row in protocol.score.gallery),
        *((row, "searched for") for row in protocol.score.probes),
        *((row, "to fit thresholds, enrolled") for row in protocol.tune.gallery),
        *((row, "to fit thresholds, searched for") for row in protocol.tune.probes),
    ]
    leaks: list[Leak] = []
    side_of: dict[Path, tuple[FaceRow, str]] = {}
    for row, side in sides:
        earlier, its_side = side_of.setdefault(row.path.resolve(), (row, side))
        if its_side != side:
            leaks.append(Leak(earlier, row, f"one file, {its_side} and {side}"))
    if leaks:
        return leaks
    rows = [row for row, _ in sides]
    signatures = []
    for done, signature in enumerate(read_ahead(lambda row: picture_signature(read_image(row.path)), rows), start=1):
        signatures.append(signature)
        progress(done)
    for pair in find_duplicates(collect_signatures(signatures), min_coarse=ALIGNED_COARSE):
        (first, one), (second, other) = sides[pair.first], sides[pair.second]
        named = MultiPieName.parse(first.path.name) and MultiPieName.parse(second.path.name)
        if one == other and first.identity == second.identity:
            continue  # two probes alike, or two pictures of one template
        if named and first.identity == second.identity and pair.kind == "near":
            continue
        what = "the same pixels" if pair.kind == "exact" else f"one photograph (correlation {pair.score:.2f})"
        leaks.append(Leak(first, second, f"{what}, {one} and {other}"))
    return leaks


def without_leaks(protocol: Protocol, leaks: Sequence[Leak], policy: Literal["refuse", "drop"]) -> Protocol:
    """drop: the probes that leak are left out. Raises InputError for leaks that may not be, or cannot be, dropped."""
    if not leaks:
        return protocol
    score, tune = ({row.path for row in part.probes} for part in (protocol.score, protocol.tune))
    dropped = {
        next((row.path for row in (leak.second, leak.first) if row.path in score | tune), None) for leak in leaks
    }
    if policy == "refuse" or None in dropped or any("tunes the threshold" in leak.reason for leak in leaks):
        cure = "--leakage drop leaves such probes out" if None not in dropped else "take one of them away"
        raise InputError(f"{len(leaks)} leaks between gallery and probes, such as {leaks[0]}; {cure}")
    kept = [
        dataclasses.replace(part, probes=[row for row in part.probes if row.path not in dropped])
        for part in (protocol.score, protocol.tune)
    ]
    return dataclasses.replace(protocol, score=kept[0], tune=kept[1])
