"""Pairs of pictures for verification, from the lists that LFW and sets like it come with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path, PurePosixPath

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.core.text import decoded
from earface.data.face_rows import FaceRow
from earface.data.folders import DataRoot
from earface.data.image_cache import MAX_UNREADABLE
from earface.data.names import person_name, warn_of_odd_names
from earface.data.picture_formats import EXTENSIONS
from pipeline.protocol import AnyProtocol, Enrolment, Pair, Protocol

FORMS = "NAME N1 N2; NAME1 N1 NAME2 N2; PATH1 PATH2 0|1; 0|1 PATH1 PATH2; or PATH 0|1 in two lines"
LABELS = {"1": True, "0": False, "-1": False}
FOLDS = 10  # where a list names none, as is usual
SHOWN = 3
# whose a picture is by its name: Maria_Callas_0002, and AgeDB's 12_MariaCallas_35_f
_NUMBERED, _AGED = re.compile(r"(.+?)_\d+"), re.compile(r"\d+_(.+)_\d+_[mf]")


@dataclass(frozen=True)
class _Wanted:
    """A pair as the list writes it."""

    line: int
    text: str
    pictures: tuple[str, str]  # paths below the root, with or without an extension
    names: tuple[str, str]  # of the people; empty where only paths are given
    same: bool


def from_pairs(root: str, pairs: str) -> Protocol:
    """The pairs of a list; the first picture of a pair is the gallery's, the second the probe.

    Lines are those of LFW's pairs.txt, whose pictures are ROOT/NAME/NAME_000N.*, or name two paths below the root and
    whether they show one person, or one path each with that (CALFW, CPLFW). Cells are between tabs, commas, semicolons
    or blanks. A first line of numbers, FOLDS PAIRS or PAIRS, says how many pairs of one person and of two are in a
    fold; where there is none, or it does not agree, see `_folds`.
    Pairs whose pictures are missing are left out with a warning. Raises InputError for any other line, for a picture
    that is compared with itself, and where more than 5 % of the pairs would be left out.
    """
    path = Path(pairs)
    try:
        text = decoded(path.read_bytes(), path)
    except OSError as error:
        raise InputError(f"`pairs` {pairs}: cannot be read ({error.strerror})") from None
    lines = [(number, line.strip(" \t,;")) for number, line in enumerate(text.splitlines(), 1)]
    header, wanted = _parsed(path, [(number, line) for number, line in lines if line])
    fold_of, dealt = _folds(path, [each.same for each in wanted], header)
    pictures, missing, found = _Pictures(root), [], []
    for each, fold in zip(wanted, fold_of, strict=True):
        try:
            one, other = (pictures.find(*picture) for picture in zip(each.pictures, each.names, strict=True))
        except _MissingError as error:
            missing.append(f"{path.name} line {each.line}: {error}")
            continue
        except InputError as error:
            raise InputError(f"{path} line {each.line}: {error}") from None
        if one == other:
            raise InputError(f"{path} line {each.line}: {each.text!r}: a picture is compared with itself")
        found.append((one, other, each.same, fold))
    refuse_too_many(len(missing), len(wanted), missing, path)
    if missing:
        warn(f"{path}: {len(missing)} of {len(wanted)} pairs are left out, whose pictures are missing ({missing[0]})")
    rows = _named({row for pair in found for row in pair[:2]})
    warn_of_odd_names((row.identity for row in rows.values()), path)
    first: dict[FaceRow, int] = {}
    second: dict[FaceRow, int] = {}
    listed = [
        Pair(first.setdefault(rows[one], len(first)), second.setdefault(rows[other], len(second)), same, fold)
        for one, other, same, fold in found
    ]
    if doubtful := [pair for pair in found if pair[2] != (rows[pair[0]].identity == rows[pair[1]].identity)]:
        one, other, same, _ = doubtful[0]
        warn(
            f"{path}: names contradict {len(doubtful)} of {len(found)} pairs, such as {one.name} and {other.name}, "
            f"which count as {'one person' if same else 'two people'}: check the list"
        )
    words = f"{len(found)} pairs in {len(set(fold_of))} folds"
    words += ", dealt evenly: the list names none" if dealt else ""
    return Protocol(words, Enrolment(list(first), list(second)), Enrolment([], []), listed, left_out=missing)


def keep_pairs(protocol: AnyProtocol, kept: Sequence[Pair]) -> AnyProtocol:
    """Those pairs alone, and their pictures. Raises InputError where none is left."""
    if not kept:
        raise InputError("no pair is left to compare")
    gallery = {place: number for number, place in enumerate(dict.fromkeys(pair.first for pair in kept))}
    probes = {place: number for number, place in enumerate(dict.fromkeys(pair.second for pair in kept))}
    test = Enrolment(
        [protocol.test.gallery[place] for place in gallery], [protocol.test.probes[place] for place in probes]
    )
    numbered = [replace(pair, first=gallery[pair.first], second=probes[pair.second]) for pair in kept]
    return replace(protocol, test=test, pairs=numbered)


def refuse_too_many(left_out: int, count: int, reasons: Sequence[str], source: object) -> None:
    """Raise InputError where more than 5 % of the pairs are left out. reasons: the first are shown."""
    if left_out > MAX_UNREADABLE * count:
        raise InputError(
            f"{source}: {left_out} of {count} pairs cannot be compared, over {MAX_UNREADABLE:.0%}: "
            f"{'; '.join(reasons[:SHOWN])}"
        )


def _parsed(path: Path, lines: list[tuple[int, str]]) -> tuple[tuple[int, int] | None, list[_Wanted]]:
    """FOLDS and PAIRS of the first line, where it says so, and the pairs of the others."""
    header: tuple[int, int] | None = None
    first = _cells(lines[0][1]) if lines else []
    if 1 <= len(first) <= 2 and all(cell.isdecimal() and int(cell) > 0 for cell in first):
        header = (1, int(first[0])) if len(first) == 1 else (int(first[0]), int(first[1]))
        lines = lines[1:]
    elif len(first) > 2 and not any(cell.isdecimal() or _is_picture(cell) for cell in first):
        lines = lines[1:]  # names of columns
    if not lines:
        raise InputError(f"{path}: names no pairs ({FORMS})")
    if _is_picture_and_label(_cells(lines[0][1])):
        return header, _of_two_lines(path, lines)
    return header, [_of_line(path, number, line) for number, line in lines]


def _cells(line: str) -> list[str]:
    delimiter = next((each for each in "\t,;" if each in line), None)
    return [cell.strip() for cell in line.split(delimiter)]


def _of_line(path: Path, number: int, line: str) -> _Wanted:
    match _cells(line):
        case [name, one, other] if one.isdecimal() and other.isdecimal():
            cells = name, one, name, other
        case [name, one, other_name, other] if one.isdecimal() and other.isdecimal():
            cells = name, one, other_name, other
        case [one, other, label] if label in LABELS:
            return _Wanted(number, line, (one, other), ("", ""), LABELS[label])
        case [label, one, other] if label in LABELS:
            return _Wanted(number, line, (one, other), ("", ""), LABELS[label])
        case _:
            raise InputError(f"{path} line {number}: {line!r} is none of {FORMS}")
    names = person_name(cells[0]), person_name(cells[2])
    pictures = (f"{cells[at]}/{cells[at]}_{int(cells[at + 1]):04d}" for at in (0, 2))
    return _Wanted(number, line, (next(pictures), next(pictures)), names, names[0] == names[1])


def _is_picture(cell: str) -> bool:
    return PurePosixPath(cell).suffix.lower() in EXTENSIONS


def _is_picture_and_label(cells: Sequence[str]) -> bool:
    return len(cells) == 2 and _is_picture(cells[0]) and cells[1].isdecimal()


def _of_two_lines(path: Path, lines: Sequence[tuple[int, str]]) -> list[_Wanted]:
    """CALFW's and CPLFW's: a picture a line, with 0 for two people and any other number for one."""
    if len(lines) % 2:
        raise InputError(f"{path} line {lines[-1][0]}: {lines[-1][1]!r}: the second picture of its pair is missing")
    found = []
    for (number, line), (next_number, next_line) in zip(lines[::2], lines[1::2], strict=True):
        one, other = _cells(line), _cells(next_line)
        for at, text, cells in ((number, line, one), (next_number, next_line, other)):
            if not _is_picture_and_label(cells):
                raise InputError(f"{path} line {at}: {text!r}: PATH and a number wanted, as in the lines before")
        if one[1] != other[1]:
            raise InputError(f"{path} line {next_number}: {next_line!r}: another number than its pair's ({line!r})")
        found.append(_Wanted(number, line, (one[0], other[0]), ("", ""), int(one[1]) > 0))
    return found


def _folds(path: Path, same: Sequence[bool], header: tuple[int, int] | None) -> tuple[list[int], bool]:
    """The fold of each pair, and whether the folds are ours.

    By the header where it agrees with the count of pairs. Else a fold begins where a pair of one person follows one of
    two, if that gives as many as the header says, or without a header at most FOLDS. Else pairs of one person and
    pairs of two are each dealt to consecutive folds of the same size.
    """
    if header is not None and len(same) == 2 * header[0] * header[1]:
        return [place // (2 * header[1]) for place in range(len(same))], False
    starts = [place > 0 and own and not same[place - 1] for place, own in enumerate(same)]
    found = sum(starts) + 1
    if header is not None:
        warn(
            f"{path}: holds {len(same)} pairs, and its first line says {header[0]} folds of 2 x {header[1]}: "
            "the folds are taken as they are"
        )
    if found == header[0] if header is not None else 2 <= found <= FOLDS:
        return list(accumulate(map(int, starts))), False
    folds = FOLDS if header is None else header[0]
    counts = {kind: sum(own == kind for own in same) for kind in (True, False)}
    if folds == 1 or min(counts.values()) < folds:
        return [0] * len(same), False
    seen, dealt = {True: 0, False: 0}, []
    for own in same:
        dealt.append(seen[own] * folds // counts[own])
        seen[own] += 1
    return dealt, True


class _MissingError(InputError):
    """A picture that is not there."""


class _Pictures:
    """The pictures below a folder, found by name whatever their extension and the Unicode form of their names."""

    def __init__(self, root: str) -> None:
        self.root = DataRoot(root)
        self._listings: dict[Path, tuple[dict[str, Path], dict[str, Path]]] = {}

    def find(self, written: str, identity: str) -> FaceRow:
        """Raises _MissingError, and InputError for a path that leaves the root."""
        path = self.root.resolve(written)
        extension = path.suffix.lower() in EXTENSIONS
        pictures, _ = self._listed(path.parent)
        found = pictures.get(person_name(path.name)) or pictures.get(person_name(path.stem if extension else path.name))
        if found is None:
            raise _MissingError(f"no picture {written if extension else f'{written}.*'} in {self.root.folder}")
        name = found.relative_to(self.root.folder) if found.is_relative_to(self.root.folder) else found
        return FaceRow(found, name.as_posix(), identity)

    def _listed(self, folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
        """Pictures by name and by name without extension, and folders by name."""
        if folder not in self._listings:
            real: Path | None = folder
            if not folder.is_dir() and folder != self.root.folder and folder.is_relative_to(self.root.folder):
                real = self._listed(folder.parent)[1].get(person_name(folder.name))
            entries = sorted(real.iterdir()) if real is not None and real.is_dir() else []
            files = [each for each in entries if each.suffix.lower() in EXTENSIONS]
            pictures = {person_name(each.stem): each for each in reversed(files)}
            pictures |= {person_name(each.name): each for each in files}
            self._listings[folder] = pictures, {person_name(each.name): each for each in entries if each.is_dir()}
        return self._listings[folder]


def _named(rows: set[FaceRow]) -> dict[FaceRow, FaceRow]:
    """With the identities that paths give: the first folder where there are several, else by the picture's name."""
    below = {row: PurePosixPath(row.name).parts for row in rows if not row.identity}
    folders = {parts[0] for parts in below.values() if len(parts) > 1}
    by_folder = len(folders) > 1 and all(len(parts) > 1 for parts in below.values())
    named = {row: row for row in rows}
    for row, parts in below.items():
        by_name = _AGED.fullmatch(row.path.stem) or _NUMBERED.fullmatch(row.path.stem)
        named[row] = replace(row, identity=parts[0] if by_folder else by_name[1] if by_name else row.path.stem)
    return named
