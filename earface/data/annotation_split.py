"""Annotated photographs checked, and divided without a photograph or person on both sides."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.core.progress import tracked
from earface.data.annotations import Annotations, Photograph
from earface.data.duplicates import DuplicatePair, joined_subjects, picture_signature
from earface.data.image_cache import MAX_UNREADABLE
from earface.data.images import Pixels, read_ahead, read_image


def inspect_photographs(annotations: Annotations) -> tuple[Annotations, list[tuple[bytes, Pixels]], list[str]]:
    """Decode every photograph: those that can be read, their signatures, and why the others failed."""

    def read(photograph: Photograph) -> tuple[bytes, Pixels] | str:
        try:
            return picture_signature(read_image(photograph.path))
        except InputError as error:
            return str(error)

    photographs = annotations.photographs
    results = tracked(read_ahead(read, photographs), "reading photographs", len(photographs))
    kept, signatures, rejects = [], [], []
    for photograph, result in zip(photographs, results, strict=True):
        if isinstance(result, str):
            rejects.append(result)
        else:
            kept.append(photograph)
            signatures.append(result)
    if len(rejects) > MAX_UNREADABLE * len(photographs):
        raise InputError(
            f"{annotations.source}: {len(rejects)} of {len(photographs)} photographs cannot be read, over "
            f"{MAX_UNREADABLE:.0%}: {'; '.join(rejects[:3])}"
        )
    return dataclasses.replace(annotations, photographs=kept), signatures, rejects


def kept_whole(
    annotations: Annotations, pairs: Sequence[DuplicatePair], *, by: str, together: bool
) -> tuple[list[str], list[str]]:
    """Of each photograph, its name, and the group that the split keeps whole: its file or its subject.

    pairs: pictures of one photograph; with `together` they stay on one side.
    """
    photographs = annotations.photographs
    names = _names(annotations)
    if by == "subject":
        nameless = [name for name, photograph in zip(names, photographs, strict=True) if not photograph.subject]
        if nameless:
            raise InputError(
                f"{annotations.source}: {len(nameless)} of {len(names)} photographs have no subject ({nameless[0]}): "
                "add them, or use `split_by` photograph"
            )
    groups = [photograph.subject for photograph in photographs] if by == "subject" else names
    return names, joined_subjects(groups, pairs) if together else groups


def divide(
    annotations: Annotations, names: Sequence[str], pairs: Sequence[DuplicatePair], is_val: NDArray[np.bool_]
) -> tuple[Annotations, Annotations]:
    """Training and validation part. Raises InputError for a pair of pictures of one photograph that is divided."""
    across = [pair for pair in pairs if is_val[pair.first] != is_val[pair.second]]
    if across:
        first = "; ".join(f"{names[pair.first]} = {names[pair.second]} ({pair.score:.2f})" for pair in across[:3])
        raise InputError(
            f"{len(across)} pair(s) of pictures show one photograph on both sides of the split: {first}; "
            "use `duplicates` keep-together"
        )
    train, val = (
        dataclasses.replace(annotations, photographs=[annotations.photographs[row] for row in np.flatnonzero(side)])
        for side in (~is_val, is_val)
    )
    return train, val


def described(annotations: Annotations) -> str:
    """Its contents, in words."""
    photographs = annotations.photographs
    marked = sum(photograph.has_landmarks for photograph in photographs)
    empty = sum(not len(photograph.boxes) for photograph in photographs)
    text = f"{len(photographs)} photographs, {annotations.num_ears} ears"
    if annotations.landmark_names:
        text += f", {len(annotations.landmark_names)} landmarks in {marked} of them"
    return text + (f", {empty} without ears" if empty else "")


def _names(annotations: Annotations) -> list[str]:
    """Paths below the photographs' common folder, so that the split does not depend on where that lies."""
    paths = [photograph.path.absolute() for photograph in annotations.photographs]
    common = set(paths[0].parents).intersection(*(path.parents for path in paths)) if paths else set()
    base = max(common, key=lambda folder: len(folder.parts), default=Path())
    return [path.relative_to(base).as_posix() for path in paths]
