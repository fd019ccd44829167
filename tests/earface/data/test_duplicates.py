"""Exact and near duplicates."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

import earface.data.duplicates as duplicates
from earface.data.duplicates import (
    COARSE,
    FINE,
    DuplicatePair,
    Signatures,
    aligned_correlation,
    collect_signatures,
    find_duplicates,
    picture_signature,
)
from earface.data.images import Pixels

Draw = Callable[..., Pixels]
NUM_PICTURES = 40


@pytest.fixture
def pictures(draw: Draw) -> list[Pixels]:
    return [draw(seed, 90 + seed, 70) for seed in range(NUM_PICTURES)]


def signatures(pictures: list[Pixels]) -> Signatures:
    return collect_signatures(picture_signature(picture) for picture in pictures)


def jpeg(picture: Pixels, quality: int) -> Pixels:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1), np.uint8)


def scaled(picture: Pixels, factor: float) -> Pixels:
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)


def trimmed(picture: Pixels) -> Pixels:
    height, width = picture.shape[:2]
    return np.ascontiguousarray(picture[height // 20 :, width // 20 : -width // 25])


ALTERATIONS: dict[str, Callable[[Pixels], Pixels]] = {
    "recompressed": lambda picture: jpeg(picture, 40),
    "half size": lambda picture: scaled(picture, 0.5),
    "stretched": lambda picture: np.asarray(cv2.resize(picture, (128, 128)), np.uint8),
    "brighter": lambda picture: np.clip(picture * 0.8 + 50.0, 0, 255).astype(np.uint8),
    "mirrored": lambda picture: np.ascontiguousarray(picture[:, ::-1]),
    "trimmed": trimmed,
    "grey": lambda picture: np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)[..., None],
    "all of it": lambda picture: np.ascontiguousarray(jpeg(scaled(trimmed(picture), 0.8), 70)[:, ::-1]),
}


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_altered_copies_are_found_and_nothing_else(pictures: list[Pixels], alteration: str) -> None:
    chosen = list(range(5, NUM_PICTURES, 6))
    copies = [ALTERATIONS[alteration](pictures[index]) for index in chosen]
    pairs = find_duplicates(signatures(copies), signatures(pictures))
    assert {(pair.first, pair.second) for pair in pairs} == set(enumerate(chosen))
    assert {pair.kind for pair in pairs} == {"near"}


def test_the_same_pixels_are_exact(pictures: list[Pixels]) -> None:
    pairs = find_duplicates(signatures([pictures[3].copy(), pictures[9]]), signatures(pictures))
    assert pairs == [DuplicatePair(0, 3, 1.0, "exact"), DuplicatePair(1, 9, 1.0, "exact")]


def test_different_pictures_are_no_duplicates(pictures: list[Pixels]) -> None:
    assert find_duplicates(signatures(pictures)) == []


def test_within_one_set_each_pair_is_named_once(pictures: list[Pixels]) -> None:
    mirrored = np.ascontiguousarray(pictures[2][:, ::-1])
    pairs = find_duplicates(signatures([*pictures, pictures[0], jpeg(pictures[1], 60), mirrored]))
    found = sorted((pair.first, pair.second, pair.kind) for pair in pairs)
    assert found == [(0, NUM_PICTURES, "exact"), (1, NUM_PICTURES + 1, "near"), (2, NUM_PICTURES + 2, "near")]


def test_the_same_bytes_in_another_shape_are_not_exact() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert picture_signature(picture)[0] != picture_signature(picture.reshape(30, 20, 3))[0]


def test_flat_pictures_match_only_exactly() -> None:
    flat = [np.full((30, 30, 3), value, np.uint8) for value in (0, 128, 128, 255)]
    assert find_duplicates(signatures(flat)) == [DuplicatePair(1, 2, 1.0, "exact")]


def test_an_empty_set_has_no_pairs(pictures: list[Pixels]) -> None:
    assert find_duplicates(signatures([]), signatures(pictures)) == []
    assert find_duplicates(signatures(pictures), signatures([])) == []
    assert find_duplicates(signatures([])) == []


def test_rows_of_signatures_can_be_chosen(pictures: list[Pixels]) -> None:
    chosen = signatures(pictures)[np.array([4, 2])]
    assert chosen.digests == [picture_signature(pictures[index])[0] for index in (4, 2)]
    np.testing.assert_array_equal(chosen.thumbnails[1], picture_signature(pictures[2])[1])


@pytest.mark.parametrize("chunk_rows", [1, 7, 1024])
def test_candidates_are_those_of_a_slow_loop(
    pictures: list[Pixels], chunk_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "CHUNK_ROWS", chunk_rows)
    first, second = signatures(pictures[:15]), signatures([ALTERATIONS["trimmed"](picture) for picture in pictures[5:]])

    def coarse(thumbnail: Pixels) -> np.ndarray:
        block = FINE // COARSE
        grid = [
            [thumbnail[y : y + block, x : x + block].mean() for x in range(0, FINE, block)]
            for y in range(0, FINE, block)
        ]
        return np.array(grid)

    expected = set()
    for row in range(len(first)):
        scores = []
        for other in range(len(second)):
            a, b = coarse(first.thumbnails[row]).ravel(), coarse(second.thumbnails[other])
            plain, mirrored = np.corrcoef(a, b.ravel())[0, 1], np.corrcoef(a, b[:, ::-1].ravel())[0, 1]
            scores.append((max(plain, mirrored), other, bool(mirrored > plain)))
        best = sorted(scores, reverse=True)[: duplicates.CANDIDATES]
        expected |= {(row, other, mirrored) for score, other, mirrored in best if score >= duplicates.MIN_COARSE}
    assert set(duplicates._candidates(first, second)) == expected


def test_alignment_undoes_a_trim_but_not_a_rotation(draw: Draw) -> None:
    picture = draw(3, 120, 120)
    turn = cv2.getRotationMatrix2D((60, 60), 25, 1.0)
    turned = np.asarray(cv2.warpAffine(picture, turn, (120, 120), borderMode=cv2.BORDER_REFLECT), np.uint8)
    reference, trim, rotation = (picture_signature(image)[1] for image in (picture, picture[8:, 6:], turned))
    unaligned = np.corrcoef(reference.ravel(), trim.ravel())[0, 1]
    assert aligned_correlation(reference, trim) > 0.97 > unaligned
    assert aligned_correlation(reference, rotation) < 0.8
