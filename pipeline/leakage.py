"""Leakage: pictures and people in both gallery and probes, or among both test and calibration identities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.data.duplicates import (
    ALIGNED_COARSE,
    DuplicatePair,
    collect_signatures,
    find_duplicates,
    picture_signature,
)
from earface.data.images import read_ahead, read_image
from earface.data.multipie import MultiPieName
from earface.data.picture_rows import PictureRow
from pipeline.pairs import keep_pairs
from pipeline.protocol import AnyProtocol, Protocol
from pipeline.protocol_checks import check_identities


@dataclass(frozen=True)
class Leak:
    """Two pictures that must not be used as they are."""

    first: PictureRow
    second: PictureRow  # the probe, where one of them is
    reason: str
    droppable: bool  # whether leaving out `second` is enough

    def __str__(self) -> str:
        return f"{self.first.path} and {self.second.path}: {self.reason}"


@dataclass(frozen=True)
class _Placed:
    """A picture and its use."""

    row: PictureRow
    use: str
    probe: bool

    def leak(self, other: _Placed, what: str) -> Leak:
        first, second = (other, self) if self.probe and not other.probe else (self, other)
        return Leak(first.row, second.row, f"{what}, {first.use} and {second.use}", second.probe)


def find_leaks(protocol: Protocol, progress: Callable[[int], None] = lambda done: None) -> list[Leak]:
    """Identities used for both test and calibration, and photographs used twice.

    Photographs are compared as files, pixels, and near duplicates (earface/data/duplicates.py). Near duplicates of one
    person are allowed if both have Multi-PIE names, which say that flash or camera differ. Of pairs, those whose two
    pictures are one photograph: any picture may be the first of one pair and the second of another.
    progress: called with the count of pictures read.
    """
    if protocol.pairs is not None:
        return _leaking_pairs(protocol, progress)
    calibrating = {row.identity: row for row in protocol.calibration.rows}
    shared = next((row for row in protocol.test.rows if row.identity in calibrating), None)
    if shared is not None:
        both = f"{shared.identity} is both a test and a calibration identity"
        return [Leak(shared, calibrating[shared.identity], both, False)]
    leaks: list[Leak] = []
    files: dict[Path, _Placed] = {}
    for each in (
        *(_Placed(row, "enrolled", False) for row in protocol.test.gallery),
        *(_Placed(row, "searched for", True) for row in protocol.test.probes),
        *(_Placed(row, "enrolled to fit thresholds", False) for row in protocol.calibration.gallery),
        *(_Placed(row, "searched for to fit thresholds", True) for row in protocol.calibration.probes),
    ):
        earlier = files.setdefault(each.row.path.resolve(), each)
        if earlier.use != each.use:
            leaks.append(earlier.leak(each, "one file"))
    placed = list(files.values())
    for pair in _duplicates([each.row for each in placed], progress):
        first, second = placed[pair.first], placed[pair.second]
        if first.row.identity == second.row.identity:
            if first.use == second.use:
                continue  # two probes alike, or two pictures of one template
            if pair.kind == "near" and _differ_by_name(first.row, second.row):
                continue
        leaks.append(first.leak(second, _what(pair)))
    return leaks


def _leaking_pairs(protocol: Protocol, progress: Callable[[int], None]) -> list[Leak]:
    files = {row.path.resolve(): row for row in protocol.test.rows}
    number = {path: place for place, path in enumerate(files)}
    rows = list(files.values())
    found = {(pair.first, pair.second): pair for pair in _duplicates(rows, progress)}
    leaks = []
    for each in protocol.pairs or ():
        first, second = protocol.test.gallery[each.first], protocol.test.probes[each.second]
        one, other = (number[row.path.resolve()] for row in (first, second))
        pair = found.get((min(one, other), max(one, other)))
        if one == other:
            leaks.append(Leak(first, second, "one file on both sides of a pair", True))
        elif pair is not None and not (each.same and pair.kind == "near" and _differ_by_name(first, second)):
            leaks.append(Leak(first, second, f"{_what(pair)} on both sides of a pair", True))
    return leaks


def _duplicates(rows: Sequence[PictureRow], progress: Callable[[int], None]) -> list[DuplicatePair]:
    """Pairs of the rows that show one photograph."""
    signatures = []
    read = read_ahead(lambda row: picture_signature(read_image(row.path)), rows)
    for done, signature in enumerate(read, start=1):
        signatures.append(signature)
        progress(done)
    return find_duplicates(collect_signatures(signatures), min_coarse=ALIGNED_COARSE)


def _differ_by_name(first: PictureRow, second: PictureRow) -> bool:
    """Whether two Multi-PIE names say that the photographs are not the same."""
    names = [MultiPieName.parse(row.path.name) for row in (first, second)]
    return None not in names and len({replace(name, size=None) for name in names if name}) == 2


def _what(pair: DuplicatePair) -> str:
    return "the same pixels" if pair.kind == "exact" else f"one photograph (correlation {pair.score:.2f})"


def without_leaks(protocol: AnyProtocol, leaks: Sequence[Leak], policy: Literal["refuse", "drop"]) -> AnyProtocol:
    """drop: the probes or pairs that leak are left out. Raises InputError for leaks that may not or cannot be dropped.

    Of pairs, whose list is given, those that leak are kept under `refuse`, with a warning.
    """
    if not leaks:
        return protocol
    if protocol.pairs is not None:
        if policy == "refuse":
            warn(f"{len(leaks)} of {len(protocol.pairs)} pairs compare one photograph with itself ({leaks[0]})")
            return protocol
        leaking = {(leak.first.path, leak.second.path) for leak in leaks}
        sides = protocol.test.gallery, protocol.test.probes
        return keep_pairs(
            protocol,
            [p for p in protocol.pairs if (sides[0][p.first].path, sides[1][p.second].path) not in leaking],
        )
    stuck = next((leak for leak in leaks if not leak.droppable), None)
    if policy == "refuse" or stuck is not None:
        cure = "`leakage` drop leaves such probes out" if stuck is None else "remove one of them"
        raise InputError(f"leakage ({len(leaks)} in all): {stuck or leaks[0]}; {cure}")
    dropped = {leak.second.path for leak in leaks}
    test, calibration = (
        replace(part, probes=[row for row in part.probes if row.path not in dropped])
        for part in (protocol.test, protocol.calibration)
    )
    return replace(protocol, test=test, calibration=calibration)


def resolve_leakage(
    protocol: AnyProtocol, policy: Literal["refuse", "drop"], progress: Callable[[int], None] = lambda done: None
) -> tuple[AnyProtocol, list[str]]:
    """Without the probes that leak, and a line for each. progress: called with the count of pictures read.

    Raises InputError as without_leaks does, and where there is nothing left to measure.
    """
    leaks = find_leaks(protocol, progress)
    left = without_leaks(protocol, leaks, policy)
    check_identities(left)
    if left is protocol:
        return left, []
    first = {leak.second.path: leak for leak in reversed(leaks)}
    return left, [f"{leak.second.name}: {leak}" for leak in reversed(first.values())]
