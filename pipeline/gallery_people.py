"""Who is in a gallery, and taking somebody out of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earface.core.errors import InputError
from earface.data.identity_embeddings import IdentityEmbeddings
from earface.data.names import person_name


@dataclass(frozen=True)
class Enrolled:
    """A person of a gallery."""

    name: str
    pictures: int
    left: int  # of the pictures, ears of the left side
    right: int


def people_of(table: IdentityEmbeddings) -> list[Enrolled]:
    """Everybody in a gallery, by name."""
    sides = table.sides or [""] * len(table)
    rows: dict[str, list[str]] = {}
    for name, side in zip(table.identities, sides, strict=True):
        rows.setdefault(name, []).append(side)
    return [Enrolled(name, len(own), own.count("l"), own.count("r")) for name, own in sorted(rows.items())]


def without(
    table: IdentityEmbeddings, names: Sequence[str], source: Path
) -> tuple[IdentityEmbeddings | None, list[str]]:
    """The gallery without these people, None if nobody is left; and the paths of the pictures that they had.

    What a gallery keeps of pictures that were left out when it was made, and its warnings, goes too where it names one
    of them. Raises InputError for somebody who is not in it.
    """
    wanted = {person_name(name) for name in names}
    if unknown := sorted(wanted - set(table.identities)):
        raise InputError(f"{source}: {unknown[0]!r} is not in it; earface gallery show lists who is")
    kept = [row for row, name in enumerate(table.identities) if name not in wanted]
    removed = [path for path, name in zip(table.paths, table.identities, strict=True) if name in wanted]
    if not kept:
        return None, removed
    about = {
        name: [entry for entry in entries if not _names_one_of(entry, wanted)]
        for name in ("skipped", "warnings")
        if isinstance(entries := table.metadata.get(name), list)
    }
    return (
        dataclasses.replace(
            table,
            embeddings=np.ascontiguousarray(table.embeddings[kept]),
            paths=[table.paths[row] for row in kept],
            identities=[table.identities[row] for row in kept],
            sides=None if table.sides is None else [table.sides[row] for row in kept],
            quality=None if table.quality is None else {name: own[kept] for name, own in table.quality.items()},
            metadata=table.metadata | about,
        ),
        removed,
    )


def _names_one_of(entry: object, names: set[str]) -> bool:
    text = person_name(str(entry[0] if isinstance(entry, list) else entry))
    return any(name in text for name in names)
