"""Rank-1 with one gallery picture a person, against loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from earface.metrics import identification
from earface.metrics.identification import (
    identify,
    nearest_other,
    one_gallery_picture,
    pair_scores,
    rank_one_hits,
    unit_rows,
)
from earface.metrics.verification import equal_error_rate


def directions(count: int, seed: int) -> Tensor:
    rows = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("seed", range(5))
def test_the_first_picture_of_several_is_the_gallery_and_the_others_are_probes(seed: int) -> None:
    identities = np.random.default_rng(seed).integers(0, 12, 30).tolist()
    gallery, probes = one_gallery_picture(identities)
    count = Counter(identities)
    first = {identity: identities.index(identity) for identity in identities}
    several = [place for place, identity in enumerate(identities) if count[identity] > 1]
    assert sorted(gallery) == [place for place in several if place == first[identities[place]]]
    assert sorted(probes) == [place for place in several if place != first[identities[place]]]


def test_identities_with_a_single_picture_are_in_neither() -> None:
    assert one_gallery_picture(["a", "b", "c"]) == ([], [])
    assert one_gallery_picture([]) == ([], [])


@pytest.mark.parametrize("chunk", [3, 1024])
@pytest.mark.parametrize("seed", range(5))
def test_hits_are_those_of_a_loop_over_probe_and_gallery(
    seed: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People with several gallery entries, and probes of people who have none."""
    monkeypatch.setattr(identification, "CHUNK", chunk)
    rng = np.random.default_rng(seed)
    owners, wanted = (rng.choice(list("abcdefg"), count).tolist() for count in (15, 20))
    gallery, probes = directions(15, seed), directions(20, seed + 100)
    expected = []
    for probe, identity in zip(probes, wanted, strict=True):
        scores = [float(probe @ entry) for entry in gallery]
        expected.append(owners[scores.index(max(scores))] == identity)
    hits = rank_one_hits(probes, wanted, gallery, owners)
    assert hits.tolist() == expected
    assert 0 < sum(expected) < 20


def test_of_equal_scores_the_wrong_one_counts_first() -> None:
    """A constant embedding, the same for everybody, identifies nobody."""
    same = torch.ones(3, 4) / 2
    assert rank_one_hits(same, ["a", "b", "c"], same, ["a", "b", "c"]).tolist() == [False] * 3
    assert rank_one_hits(same[:1], ["a"], same[:1], ["a"]).tolist() == [True]


def test_identities_outside_the_gallery_are_never_identified() -> None:
    assert rank_one_hits(directions(2, 0), ["x", "y"], directions(3, 1), ["a", "b", "c"]).tolist() == [False, False]


def test_identities_may_be_numbers_or_names() -> None:
    probes, gallery = directions(4, 0), directions(4, 0)
    for people in ([7, 3, 9, 1], ["g", "c", "i", "a"]):
        assert rank_one_hits(probes, people, gallery, people).tolist() == [True] * 4
        assert rank_one_hits(probes, people, gallery, people[::-1]).tolist() == [False] * 4


def test_no_probes_give_no_hits() -> None:
    assert rank_one_hits(torch.empty(0, 4), [], directions(2, 0), ["a", "b"]).tolist() == []


def clustered(subjects=12, images=5, dim=8, spread=1.0, seed=0):
    """Embeddings of `subjects` people around a center far from 0, in shuffled order, and their subjects."""
    rng = np.random.default_rng(seed)
    names = np.repeat([f"S{i}" for i in range(subjects)], images)
    rows = rng.normal(size=(subjects, dim)).repeat(images, axis=0) + spread * rng.normal(size=(len(names), dim)) + 3.0
    order = rng.permutation(len(names))
    return rows[order], names[order].tolist()


def slow_rank1(rows, subjects):
    hits = []
    for probe, row in enumerate(rows):
        others = [i for i in range(len(rows)) if i != probe]
        if not any(subjects[i] == subjects[probe] for i in others):
            continue
        cosines = [row @ rows[i] / np.linalg.norm(row) / np.linalg.norm(rows[i]) for i in others]
        hits.append(subjects[others[int(np.argmax(cosines))]] == subjects[probe])
    return np.mean(hits), len(hits)


@pytest.mark.parametrize("block", [7, 512])
@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_rank1_is_that_of_a_slow_loop(spread, block, monkeypatch):
    monkeypatch.setattr(identification, "BLOCK_ROWS", block)
    rows, subjects = clustered(spread=spread)
    found = identify(unit_rows(rows), subjects)
    rate, probes = slow_rank1(rows, subjects)
    assert found.rank1 == pytest.approx(rate, abs=1e-12)
    assert found.probes == probes == 60


def test_subjects_with_one_image_are_no_probes_but_can_be_mistaken_for_others():
    rows = np.array([[1.0, 0.0], [0.8, 0.6], [0.96, 0.28], [0.0, -1.0]])
    found = identify(unit_rows(rows), ["a", "a", "b", "c"])
    assert (found.probes, found.single_image_subjects) == (2, 2)
    assert found.rank1 == 0.0  # b lies between the two images of a
    assert (found.genuine_pairs, found.impostor_pairs) == (1, 5)
    assert identify(unit_rows(rows[[0, 1, 3]]), ["a", "a", "c"]).rank1 == 1.0


@pytest.mark.parametrize("subjects", [["a", "b", "c", "d"], ["a", "a", "a", "a"]])
def test_without_two_subjects_and_two_images_of_one_there_is_no_metric(subjects):
    found = identify(unit_rows(clustered(2, 2)[0]), subjects)
    assert found.rank1 is None
    assert found.eer is None


def test_an_image_is_never_its_own_neighbor_and_the_first_of_equals_is_taken():
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert nearest_other(unit_rows(rows)).tolist() == [1, 0, 0, 0]


def test_the_center_is_taken_off_before_the_cosine():
    rows, subjects = clustered(spread=0.5)
    moved = rows + 100.0
    expected = identify(unit_rows(rows - rows.mean(0)), subjects)
    assert identify(unit_rows(moved, moved.mean(0)), subjects) == expected
    assert identify(unit_rows(moved), subjects) != expected
    np.testing.assert_allclose(np.linalg.norm(unit_rows(moved, moved.mean(0)), axis=1), 1.0)


@pytest.mark.parametrize("block", [7, 512])
def test_each_unordered_pair_is_scored_once(block, monkeypatch):
    monkeypatch.setattr(identification, "BLOCK_ROWS", block)
    rows, subjects = clustered()
    units, owner = unit_rows(rows), np.unique(subjects, return_inverse=True)[1]
    pairs = [(i, j) for i in range(len(rows)) for j in range(i)]
    expected = [
        sorted(units[i] @ units[j] for i, j in pairs if (owner[i] == owner[j]) == same) for same in (True, False)
    ]
    for scores, wanted in zip(pair_scores(units, owner), expected, strict=True):
        np.testing.assert_allclose(np.sort(scores), wanted, atol=1e-6)


def test_of_many_impostors_an_even_share_is_scored_and_every_genuine_pair():
    rows, subjects = clustered(30, 10)
    units, owner = unit_rows(rows), np.unique(subjects, return_inverse=True)[1]
    every, share = pair_scores(units, owner), pair_scores(units, owner, max_impostors=5000)
    np.testing.assert_array_equal(every[0], share[0])
    assert 4000 < len(share[1]) <= 5000
    assert equal_error_rate(*share) == pytest.approx(equal_error_rate(*every), abs=0.02)
