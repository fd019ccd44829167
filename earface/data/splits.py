"""Which rows are validation, or of which fold: whole subjects, so that no one is on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError


def split_by_subject(subjects: Sequence[str], val_fraction: float, seed: int) -> NDArray[np.bool_]:
    """(N,) bool, True = validation, for `subjects` of N rows: subject-disjoint, whatever the order of the rows.

    val_fraction: in (0, 1), of the subjects rather than of the rows. Subjects are taken in the order of a hash of
    (seed, subject) until round(val_fraction * number of subjects) are reached, at least one: the order is the same on
    every machine, and a subject added later moves no more than one other subject.
    Raises InputError for a fraction out of range, fewer than two subjects, or none left for training.
    """
    if not 0.0 < val_fraction < 1.0:
        raise InputError(f"validation fraction {val_fraction} is out of range: it must be above 0 and below 1")
    unique = in_seeded_order(subjects, seed)
    num_val = max(1, round(val_fraction * len(unique)))
    if num_val >= len(unique):
        raise InputError(
            f"{len(unique)} subject(s) cannot be split with validation fraction {val_fraction}: "
            "each side needs at least one subject"
        )
    validation = set(unique[:num_val])
    return np.fromiter((subject in validation for subject in subjects), dtype=np.bool_, count=len(subjects))


def folds_by_subject(subjects: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """(N,) the fold 0 to folds - 1 of each of N rows, for cross-validation: subjects in turn, in the order of the hash.

    Raises InputError for fewer than two folds, or more folds than subjects.
    """
    unique = in_seeded_order(subjects, seed)
    if not 2 <= folds <= len(unique):
        raise InputError(
            f"{len(unique)} subject(s) cannot be split into {folds} folds: expected 2 to as many as there are subjects"
        )
    number = {subject: place % folds for place, subject in enumerate(unique)}
    return np.array([number[subject] for subject in subjects], np.int64)


def in_seeded_order(subjects: Iterable[str], seed: int) -> list[str]:
    """The different ones, in the order of a hash of (seed, subject): the same on every machine."""
    return sorted(set(subjects), key=lambda subject: (_seeded_hash(seed, subject), subject))


def _seeded_hash(seed: int, subject: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{subject}".encode("utf-8", "surrogatepass")).digest()
