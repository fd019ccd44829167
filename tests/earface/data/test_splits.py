"""The subject split."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from earface.core.errors import InputError
from earface.data.splits import folds_by_subject, split_by_subject

SUBJECTS = [f"p{row % 23}" for row in range(200)]


def test_no_subject_is_on_both_sides() -> None:
    is_val = split_by_subject(SUBJECTS, 0.3, 1)
    sides = {
        subject: {bool(side) for s, side in zip(SUBJECTS, is_val, strict=True) if s == subject} for subject in SUBJECTS
    }
    assert all(len(side) == 1 for side in sides.values())


@pytest.mark.parametrize(("fraction", "expected"), [(0.01, 1), (0.2, 5), (0.5, 12), (0.9, 21)])
def test_the_fraction_is_of_subjects_not_of_rows(fraction: float, expected: int) -> None:
    rows = SUBJECTS + ["p0"] * 1000
    is_val = split_by_subject(rows, fraction, 7)
    assert len({subject for subject, side in zip(rows, is_val, strict=True) if side}) == expected


def test_the_order_of_the_rows_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(len(SUBJECTS))
    shuffled = split_by_subject([SUBJECTS[row] for row in order], 0.25, 3)
    np.testing.assert_array_equal(shuffled, split_by_subject(SUBJECTS, 0.25, 3)[order])


def test_a_new_process_gives_the_same_split() -> None:
    code = f"from earface.data.splits import split_by_subject as s; print(s({SUBJECTS!r}, .2, 42).tolist())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(split_by_subject(SUBJECTS, 0.2, 42).tolist())


def test_another_seed_takes_other_subjects() -> None:
    assert any((split_by_subject(SUBJECTS, 0.2, 0) != split_by_subject(SUBJECTS, 0.2, seed)).any() for seed in (1, 2))


def test_a_new_subject_moves_at_most_one_other() -> None:
    before = split_by_subject(SUBJECTS, 0.3, 5)
    for name in ("new", "other", "third"):
        after = split_by_subject([*SUBJECTS, name], 0.3, 5)[:-1]
        moved = {subject for subject, a, b in zip(SUBJECTS, before, after, strict=True) if a != b}
        assert len(moved) <= 1


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="out of range"):
        split_by_subject(SUBJECTS, fraction, 0)


@pytest.mark.parametrize(
    ("subjects", "fraction"), [(["a"], 0.5), (["a", "a"], 0.2), (["a", "b", "c"], 0.99), ([], 0.2)]
)
def test_both_sides_need_a_subject(subjects: list[str], fraction: float) -> None:
    with pytest.raises(InputError, match="each side needs"):
        split_by_subject(subjects, fraction, 0)


def test_folds_hold_each_subject_once_and_evenly() -> None:
    subjects = [f"S{number % 11}" for number in range(50)]
    folds = folds_by_subject(subjects, 4, seed=7)
    dealt = {
        subject: {int(fold) for other, fold in zip(subjects, folds, strict=True) if other == subject}
        for subject in subjects
    }
    assert all(len(found) == 1 for found in dealt.values())
    sizes = np.bincount([next(iter(found)) for found in dealt.values()])
    assert len(sizes) == 4
    assert sizes.max() - sizes.min() <= 1
    shuffled = np.random.default_rng(0).permutation(50)
    assert np.array_equal(folds_by_subject([subjects[row] for row in shuffled], 4, seed=7), folds[shuffled])
    assert not np.array_equal(folds_by_subject(subjects, 4, seed=8), folds)


@pytest.mark.parametrize("folds", [-1, 1, 12])
def test_impossible_folds_are_refused(folds: int) -> None:
    with pytest.raises(InputError, match="11 subject"):
        folds_by_subject([f"S{number}" for number in range(11)], folds, seed=1)
