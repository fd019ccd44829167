"""What pictures weigh, tracks of two people, and several pictures of a person, beside loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.data.face_rows import FaceRow
from earface.data.identity_embeddings import IdentityEmbeddings
from facial_rec.contract import FaceContract
from pipeline.gallery import Gallery
from pipeline.picture_quality import people_of, picture_sets, sets_measured
from pipeline.protocol import Enrolment
from pipeline.quality import fused, joined_quality, mean_quality, two_groups, two_people, weights_of


def directions(count: int, seed: int, size: int = 512) -> NDArray[np.float64]:
    rows = np.random.default_rng(seed).normal(size=(count, size))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pictures_of(person: NDArray[np.float64], count: int, noise: float, seed: int) -> NDArray[np.float64]:
    """Of one person, each so far from them."""
    rows = person + noise * directions(count, seed)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_weights_are_lengths_or_agreement_and_never_below_a_least() -> None:
    quality = {"norm": np.array([2.0, 0.5], np.float32), "mirror": np.array([0.9, -0.2], np.float32)}
    assert weights_of("mean", None, 2).tolist() == [1, 1]
    assert weights_of("norm", quality, 2).tolist() == [2, 0.5]
    assert weights_of("quality", quality, 2) == pytest.approx([0.9, 0.01])
    unknown = joined_quality([(1, None), (2, quality)])
    with pytest.raises(InputError, match="the quality of 1 of 3 pictures is not known"):
        weights_of("norm", unknown, 3)
    assert mean_quality(unknown)["norm"] == pytest.approx(1.25)


@pytest.mark.parametrize(("fusion", "measure"), [("norm", "norm"), ("quality", "mirror")])
def test_a_gallery_s_templates_weigh_its_pictures(fusion: str, measure: str) -> None:
    rows, owners = directions(5, 0).astype(np.float32), ["al", "bo", "al", "al", "bo"]
    quality = {measure: np.array([0.9, 0.2, 0.4, 0.1, 0.8], np.float32)}
    paths = [f"{row}.png" for row in range(5)]
    table = IdentityEmbeddings(rows, paths, owners, FaceContract().id, "0", {"fusion": fusion}, None, quality)
    for name, template in zip(*((found := Gallery.of(table)).identities, found.templates), strict=True):
        mean = sum(quality[measure][row] * rows[row] for row in range(5) if owners[row] == name)
        np.testing.assert_allclose(template.numpy(), mean / np.linalg.norm(mean), atol=1e-6)
        own = [row for row in range(5) if owners[row] == name]
        np.testing.assert_allclose(fused(rows[own], quality[measure][own]), template.numpy(), atol=1e-6)


@pytest.mark.parametrize("noise", [0.5, 1.0])  # cosines of about .8 and .5 among pictures of one person
def test_two_people_are_told_from_one(noise: float) -> None:
    for seed in range(20):
        one, other = directions(2, seed)
        both = np.concatenate([pictures_of(one, 5, noise, seed + 100), pictures_of(other, 4, noise, seed + 200)])
        order = np.random.default_rng(seed).permutation(9)
        groups = two_people(both[order])
        assert groups is not None
        assert groups.tolist() in ((order < 5).tolist(), (order >= 5).tolist())
        assert two_people(pictures_of(one, 9, noise, seed + 300)) is None
        assert (
            two_people(np.concatenate([pictures_of(one, 5, noise, seed + 100), other[None]])) is None
        )  # one stray picture
    assert two_people(directions(3, 0)) is None


def test_equal_pictures_are_one_group() -> None:
    assert not two_groups(np.tile(directions(1, 0), (4, 1))).any()


def row(name: str, picture: int) -> FaceRow:
    return FaceRow(Path(f"{name}_{picture}.png"), f"{name}_{picture}.png", name)


def enrolment() -> Enrolment:
    """Five people with 1, 2, 4, 5 and 9 probes, and a stranger with six."""
    counts = {"a": 1, "b": 2, "c": 4, "d": 5, "e": 9}
    probes = [row(name, 1 + picture) for name, count in counts.items() for picture in range(count)]
    return Enrolment([row(name, 0) for name in counts], [*probes, *(row("x", picture) for picture in range(6))])


def test_sets_are_of_one_enrolled_person_and_equally_many_of_each() -> None:
    own = enrolment()
    sets = picture_sets(own, 8, "joined", 0)
    assert {size: len(set(people_of(each, own.probes))) for size, each in sets.items()} == {1: 5, 2: 4, 4: 3}
    for size, each in sets.items():  # eight pictures: one person alone
        people = people_of(each, own.probes)
        assert {people.count(name) for name in people} == {20}
        for places in each:
            assert len(set(places.tolist())) == size
            assert len({own.probes[place].identity for place in places}) == 1
    assert picture_sets(own, 1, "joined", 0) == {}
    again = picture_sets(own, 8, "joined", 0)
    assert all(np.array_equal(one, other) for size in sets for one, other in zip(sets[size], again[size], strict=True))


def test_several_pictures_are_compared_with_one_of_the_same_people() -> None:
    ranks = {
        1: (["a"] * 2 + ["b"] * 2 + ["c"] * 2, np.array([1, 1, 1, 2, 3, 1])),
        2: (["b"] * 2 + ["c"] * 2, np.array([1, 1, 1, 2])),
    }
    one, two = sets_measured(ranks, 200, 0)
    assert (one.pictures, one.people, one.rank1.value, one.gain.value) == (1, 3, pytest.approx(4 / 6), 0)
    assert (two.people, two.rank1.value, two.single.value, two.gain.value) == (2, 0.75, 0.5, 0.25)
    assert one.gain.interval() is None  # exactly none in every replicate


def test_sharpness_falls_with_blur_and_not_with_brightness() -> None:
    from earface.metrics.image_quality import sharpness

    sharp = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)) - 0.5
    blurred = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1)
    assert (sharpness(blurred) < 0.5 * sharpness(sharp)).all()
    torch.testing.assert_close(sharpness(sharp + 0.3), sharpness(sharp), atol=1e-5, rtol=0)
    assert sharpness(torch.full((1, 3, 128, 128), 0.2)).item() == pytest.approx(0, abs=1e-5)
    grey = sharp[0].mean(dim=0).double()
    laplacian = [
        float(grey[y - 1, x] + grey[y + 1, x] + grey[y, x - 1] + grey[y, x + 1] - 4 * grey[y, x])
        for y in range(1, 111)
        for x in range(1, 111)
    ]
    assert sharpness(sharp)[0].item() == pytest.approx(np.std(laplacian), rel=1e-4)
