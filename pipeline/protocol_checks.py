"""Whether a protocol can be evaluated: which pictures can be read, and whether they are enough."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import cast

from earface.core.errors import InputError
from earface.data.face_dataset import usable_faces
from earface.data.face_rows import FaceRow
from earface.data.face_sizes import VLRSize
from earface.data.picture_rows import PictureRow
from pipeline.protocol import AnyProtocol, Enrolment, Protocol


def check_identities(protocol: Protocol) -> None:
    """Raise InputError where there is nothing to measure."""
    if not protocol.test.probes:
        raise InputError("no probes: everyone has a single picture, which is enrolled; two or more each wanted")
    if not any(protocol.test.mated):
        raise InputError("no probe shows anyone who is enrolled: two or more pictures of a person wanted")
    people = {row.identity for row in protocol.test.rows}
    if len(people) == 1:
        raise InputError(f"one person, {min(people)}: at least two are needed")


def keep_readable(protocol: Protocol, vlr: VLRSize | None) -> tuple[Protocol, list[str]]:
    """`keep_pictures` of the faces that can be read.

    vlr: the size of the probes' own VLR pictures, where these are used. Raises InputError as usable_faces does, too.
    """
    parts = (protocol.test, protocol.calibration)
    enrolled = cast(list[FaceRow], [row for part in parts for row in part.gallery])
    searched = cast(list[FaceRow], [row for part in parts for row in part.probes])
    if vlr is None:
        kept = set(usable_faces([*enrolled, *searched], None))
    else:
        kept = {*usable_faces(enrolled, None), *usable_faces(searched, vlr)}
    return keep_pictures(protocol, kept)


def keep_pictures(protocol: AnyProtocol, kept: Collection[PictureRow]) -> tuple[AnyProtocol, list[str]]:
    """Without the pictures that are not `kept` (a set), and a line for each that is left out.

    Probes of a person none of whose enrolled pictures can be read are left out too: they would count as non-mated.
    Raises InputError for one of a pair, and where there is nothing left to measure.
    """
    parts = (protocol.test, protocol.calibration)
    enrolled = [row for part in parts for row in part.gallery]
    searched = [row for part in parts for row in part.probes]
    lost = {row.identity for row in enrolled} - {row.identity for row in enrolled if row in kept}
    left_out = [f"{row.name}: cannot be read" for row in (*enrolled, *searched) if row not in kept]
    if left_out and protocol.pairs is not None:
        raise InputError(f"{left_out[0]}, and it is one of a pair")
    left_out += [
        f"{row.name}: no enrolled picture of {row.identity} can be read"
        for row in searched
        if row in kept and row.identity in lost
    ]
    test, calibration = (
        Enrolment(
            [row for row in part.gallery if row in kept],
            [row for row in part.probes if row in kept and row.identity not in lost],
        )
        for part in parts
    )
    left = replace(protocol, test=test, calibration=calibration)
    check_identities(left)
    return left, left_out
