"""Which rows are validation: whole subjects, so that no one is on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.errors import InputError


def split_by_subject(subjects: Sequence[str], val_fraction: float, seed: int) -> NDArray[np.bool_]:
    """(N,) bool, True = validation, for `subjects` of N rows: subject-disjoint, whatever the order of the rows.

    val_fraction: in (0, 1), of the subjects rather than of the rows. Subjects are taken in the order of a hash of
    (seed, subject) until round(val_fraction * number of subjects) are reached, at least one: the order is the same on
    every machine, and a subject added later moves no more than one other subject.
    Raises InputError for a fraction out of range, fewer than two subjects, or none left for training.
    """
    if not 0.0 < val_fraction < 1.0:
        raise InputError(f"validation fraction {val_fraction} is out of range: it must be above 0 and below 1")
    unique = sorted(set(subjects), key=lambda subject: (_seeded_hash(seed, subject), subject))
    num_val = max(1, round(val_fraction * len(unique)))
    if num_val >= len(unique):
        raise InputError(
            f"{len(unique)} subject(s) cannot be split with validation fraction {val_fraction}: "
            "each side needs at least one subject"
        )
    validation = set(unique[:num_val])
    return np.fromiter((subject in validation for subject in subjects), dtype=np.bool_, count=len(subjects))


def _seeded_hash(seed: int, subject: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{subject}".encode("utf-8", "surrogatepass")).digest()
