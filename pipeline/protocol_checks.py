"""Whether a protocol can be evaluated: which pictures can be read, and whether they are enough."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import cast

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.data.face_dataset import usable_faces
from earface.data.face_rows import FaceRow
from earface.data.face_sizes import VLRSize
from earface.data.names import warn_of_lost_people
from earface.data.picture_rows import PictureRow
from pipeline.pairs import keep_pairs, refuse_too_many
from pipeline.protocol import AnyProtocol, Enrolment, Protocol


def check_identities(protocol: Protocol) -> None:
    """Raise InputError where there is nothing to measure."""
    if protocol.pairs is not None:
        if len({pair.same for pair in protocol.pairs}) < 2:
            raise InputError("`pairs`: pairs of one person and pairs of two people are needed")
        return
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
    So are pairs of which a picture cannot be read. Raises InputError where these are more than 5 %, and where there is
    nothing left to measure.
    """
    parts = (protocol.test, protocol.calibration)
    enrolled = [row for part in parts for row in part.gallery]
    searched = [row for part in parts for row in part.probes]
    lost = {row.identity for row in enrolled} - {row.identity for row in enrolled if row in kept}
    left_out = [f"{row.name}: cannot be read" for row in (*enrolled, *searched) if row not in kept]
    if protocol.pairs is not None:
        usable = [
            pair
            for pair in protocol.pairs
            if protocol.test.gallery[pair.first] in kept and protocol.test.probes[pair.second] in kept
        ]
        if missing := len(protocol.pairs) - len(usable):
            count, before = len(protocol.pairs), len(protocol.left_out)
            refuse_too_many(missing + before, count + before, [*left_out, *protocol.left_out], "`pairs`")
            warn(f"{missing} of {count} pairs are left out, whose pictures cannot be read ({left_out[0]})")
        left = keep_pairs(protocol, usable)
        check_identities(left)
        return left, left_out
    if left_out:
        warn(f"{len(left_out)} of {len(enrolled) + len(searched)} pictures cannot be read ({left_out[0]})")
    warn_of_lost_people(
        (row.identity for row in enrolled), (row.identity for row in enrolled if row in kept), "enrolled"
    )
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
