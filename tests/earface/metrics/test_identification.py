"""Rank-1 with one gallery picture a person, against loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from earface.metrics import identification
from earface.metrics.identification import one_gallery_picture, rank_one_hits


def directions(count: int, seed: int) -> Tensor:
    rows = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("seed", range(5))
def test_the_first_picture_of_who_has_several_is_the_gallery_and_the_others_are_probes(seed: int) -> None:
    identities = np.random.default_rng(seed).integers(0, 12, 30).tolist()
    gallery, probes = one_gallery_picture(identities)
    count = Counter(identities)
    first = {identity: identities.index(identity) for identity in identities}
    several = [place for place, identity in enumerate(identities) if count[identity] > 1]
    assert sorted(gallery) == [place for place in several if place == first[identities[place]]]
    assert sorted(probes) == [place for place in several if place != first[identities[place]]]


def test_pictures_of_one_each_are_neither() -> None:
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
    """A constant embedding, which tells nobody apart, identifies nobody."""
    same = torch.ones(3, 4) / 2
    assert rank_one_hits(same, ["a", "b", "c"], same, ["a", "b", "c"]).tolist() == [False] * 3
    assert rank_one_hits(same[:1], ["a"], same[:1], ["a"]).tolist() == [True]


def test_who_is_not_in_the_gallery_is_never_identified() -> None:
    assert rank_one_hits(directions(2, 0), ["x", "y"], directions(3, 1), ["a", "b", "c"]).tolist() == [False, False]


def test_identities_may_be_numbers_or_names() -> None:
    probes, gallery = directions(4, 0), directions(4, 0)
    for people in ([7, 3, 9, 1], ["g", "c", "i", "a"]):
        assert rank_one_hits(probes, people, gallery, people).tolist() == [True] * 4
        assert rank_one_hits(probes, people, gallery, people[::-1]).tolist() == [False] * 4


def test_no_probes_give_no_hits() -> None:
    assert rank_one_hits(torch.empty(0, 4), [], directions(2, 0), ["a", "b"]).tolist() == []
