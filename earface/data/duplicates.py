"""Copies of one picture: the same pixels, or the same photograph re-encoded, resized, recoloured, trimmed or mirrored.

Measured on 699 ear crops of AWE (70 people, 18 to 1000 px, median 63x122), each altered and sought among all of them:

| alteration | found at NEAR_DUPLICATE |
|---|---|
| PNG again, doubled, 128x128, mirrored, grey, JPEG quality 50, up to 5 % off each side | 100 % |
| brightness, contrast and gamma, +-30 % | 99.6 % |
| up to 10 % off each side | 98.6 % |
| JPEG quality 20; half size | 98.1; 97.6 %, the missed ones nearly all below 40 px |
| up to 5 % off each side, recoloured, 70 % size, JPEG 60, mirrored, all at once | 93.6 % |

No pair of two people reaches .85. Of one person three pairs pass, by eye one photograph or one burst each; the next are
.908 (a burst) and .881 (other photographs). Of 1,200 synthetic ears, smoother than real ones, no pair passes .89.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from earface.core.progress import tracked
from earface.data.images import Pixels, read_ahead, resize_image

ALIGNED_COARSE = 0.9  # of 300 copies that were turned, scaled, recoloured, compressed or mirrored, none is below .96

FINE = 48  # side of the thumbnail that is aligned and compared
COARSE = 12  # side of the one that finds candidates: still correlates after a trim of 10 % a side
CANDIDATES = 8  # per picture, by coarse correlation
MIN_COARSE = 0.4
DETAIL_SIGMA = 4.0  # pixels of FINE; broader shading is taken out: any two ears under one lamp share it
MAX_SHEAR = 0.1  # a trimmed copy is scaled and shifted, never turned
MAX_LOG_SCALE = 0.3  # trimmed by a quarter of the side
MIN_OVERLAP = 0.5  # of the area
NEAR_DUPLICATE = 0.91
CHUNK_ROWS = 1024


@dataclass(frozen=True)
class Signatures:
    """What is kept of N pictures to compare them."""

    digests: list[bytes]  # of the decoded pixels
    thumbnails: Pixels  # (N, FINE, FINE) grey

    def __len__(self) -> int:
        return len(self.digests)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Signatures:
        indices = np.arange(len(self))[rows]
        return Signatures([self.digests[index] for index in indices], self.thumbnails[indices])


@dataclass(frozen=True)
class DuplicatePair:
    """Row `first` of the one set and row `second` of the other show the same photograph."""

    first: int
    second: int
    score: float  # 1 for the same pixels, else the correlation after alignment
    kind: Literal["exact", "near"]


def picture_signature(image: Pixels) -> tuple[bytes, Pixels]:
    """Digest and (FINE, FINE) thumbnail of one (H, W, C) uint8 picture, C = 1 or 3."""
    digest = hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).digest()
    grey = image if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    return digest, resize_image(np.asarray(grey, np.uint8), FINE)[..., 0]


def collect_signatures(signatures: Iterable[tuple[bytes, Pixels]]) -> Signatures:
    """The signatures of a set, from `picture_signature` of each of its pictures."""
    pairs = list(signatures)
    thumbnails = np.stack([thumbnail for _, thumbnail in pairs]) if pairs else np.empty((0, FINE, FINE), np.uint8)
    return Signatures([digest for digest, _ in pairs], thumbnails)


def find_duplicates(
    first: Signatures,
    second: Signatures | None = None,
    threshold: float = NEAR_DUPLICATE,
    min_coarse: float = MIN_COARSE,
) -> list[DuplicatePair]:
    """Pairs of the same photograph, one of each set, best first; with one set, pairs within it (first < second).

    Candidates are the CANDIDATES best of each picture of `first` (pass the smaller set there) by the correlation of
    coarse thumbnails, mirrored ones too. A candidate is aligned by scale and shift (Evangelidis & Psarakis 2008), and
    the correlation of what is left without broad shading is the score. Flat pictures match only exactly.
    min_coarse: of a candidate. Higher saves time where all pictures are alike and no copy is trimmed: aligned faces.
    """
    exact = set(_exact_pairs(first, second))
    candidates = [pair for pair in _candidates(first, second, min_coarse) if pair[:2] not in exact]
    others = first if second is None else second

    def score(pair: tuple[int, int, bool]) -> float:
        row, other, mirrored = pair
        thumbnail = others.thumbnails[other]
        return aligned_correlation(first.thumbnails[row], thumbnail[:, ::-1] if mirrored else thumbnail)

    scores = tracked(read_ahead(score, candidates), "comparing likely duplicates", len(candidates))
    scored = zip(candidates, scores, strict=True)
    pairs = [DuplicatePair(row, other, 1.0, "exact") for row, other in exact]
    pairs += [DuplicatePair(row, other, value, "near") for (row, other, _), value in scored if value >= threshold]
    return sorted(pairs, key=lambda pair: (-pair.score, pair.first, pair.second))


def aligned_correlation(reference: Pixels, other: Pixels) -> float:
    """Correlation in [-1, 1] of two (FINE, FINE) grey thumbnails after `other` is scaled and shifted onto `reference`.

    The better of the aligned and the unaligned correlation; 0 where neither overlaps enough or has any detail.
    """
    a, b = reference.astype(np.float32), np.ascontiguousarray(other, np.float32)
    identity = np.eye(2, 3, dtype=np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
    scores = [_overlap_correlation(a, b, identity)]
    try:
        everywhere = np.ones(a.shape, np.uint8)
        warp = cv2.findTransformECC(a, b, identity.copy(), cv2.MOTION_AFFINE, criteria, everywhere, 5)[1]
    except cv2.error:  # it did not converge: no scale and shift maps one onto the other
        return max(scores)
    shear, scale = np.abs([warp[0, 1], warp[1, 0]]), np.diag(warp[:, :2])
    if shear.max() <= MAX_SHEAR and scale.min() > 0 and np.abs(np.log(scale)).max() <= MAX_LOG_SCALE:
        scores.append(_overlap_correlation(a, b, np.asarray(warp, np.float32)))
    return max(scores)


def _overlap_correlation(a: NDArray[np.float32], b: NDArray[np.float32], warp: NDArray[np.float32]) -> float:
    def warped(image: NDArray[np.float32], method: int) -> NDArray[np.float32]:
        return np.asarray(cv2.warpAffine(image, warp, (FINE, FINE), flags=method | cv2.WARP_INVERSE_MAP), np.float32)

    inside = cv2.erode(warped(np.ones_like(b), cv2.INTER_NEAREST), np.ones((3, 3), np.uint8), borderValue=1)
    overlap = np.asarray(inside) > 0.5
    if overlap.mean() < MIN_OVERLAP:
        return 0.0
    weight = overlap.astype(np.float32)
    spread = cv2.GaussianBlur(weight, (0, 0), DETAIL_SIGMA) + 1e-3

    def detail(image: NDArray[np.float32]) -> NDArray[np.float32]:
        shading = cv2.GaussianBlur(image * weight, (0, 0), DETAIL_SIGMA) / spread
        values = (image - shading)[overlap]
        return values - values.mean()

    u, v = detail(a), detail(warped(b, cv2.INTER_LINEAR))
    norms = float(np.linalg.norm(u) * np.linalg.norm(v))
    return float(u @ v) / norms if norms > 1e-3 else 0.0


def _exact_pairs(first: Signatures, second: Signatures | None) -> Iterator[tuple[int, int]]:
    rows_of: dict[bytes, list[int]] = {}
    for index, digest in enumerate((first if second is None else second).digests):
        rows_of.setdefault(digest, []).append(index)
    for row, digest in enumerate(first.digests):
        for other in rows_of.get(digest, []):
            if second is not None or row < other:
                yield row, other


def _candidates(
    first: Signatures, second: Signatures | None, min_coarse: float = MIN_COARSE
) -> list[tuple[int, int, bool]]:
    """(row, other row, mirrored) of the pictures that look alike at COARSE size."""
    others = first if second is None else second
    if not len(first) or not len(others):
        return []
    queries, keys = _coarse(first.thumbnails), _coarse(others.thumbnails)
    mirrored_keys = _coarse(others.thumbnails[:, :, ::-1])
    found: set[tuple[int, int, bool]] = set()
    for start in range(0, len(queries), CHUNK_ROWS):
        plain = queries[start : start + CHUNK_ROWS] @ keys.T
        mirrored = queries[start : start + CHUNK_ROWS] @ mirrored_keys.T
        best = np.maximum(plain, mirrored)
        if second is None:
            best[np.arange(len(best)), np.arange(start, start + len(best))] = -1.0
        top = np.argsort(-best, axis=1)[:, :CANDIDATES]
        for row, other in zip(*_pairs(top), strict=True):
            if best[row, other] >= min_coarse:
                pair = (start + int(row), int(other))
                low, high = (min(pair), max(pair)) if second is None else pair
                found.add((low, high, bool(mirrored[row, other] > plain[row, other])))
    return sorted(found)


def _pairs(top: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.repeat(np.arange(len(top)), top.shape[1]), top.ravel()


def _coarse(thumbnails: Pixels) -> NDArray[np.float32]:
    """(N, FINE, FINE) -> (N, COARSE^2) of zero mean and unit length; zero for flat pictures."""
    block = FINE // COARSE
    means = thumbnails.reshape(len(thumbnails), COARSE, block, COARSE, block).mean(axis=(2, 4), dtype=np.float32)
    vectors = means.reshape(len(thumbnails), COARSE * COARSE)
    vectors = vectors - vectors.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.where(lengths > 1e-3, vectors / np.maximum(lengths, 1e-3), 0.0), np.float32)


def joined_subjects(subjects: Sequence[str], pairs: Sequence[DuplicatePair]) -> list[str]:
    """One name per row, shared by all subjects that duplicates connect: the first of them in the alphabet."""
    leader = {subject: subject for subject in subjects}

    def find(subject: str) -> str:
        while leader[subject] != subject:
            subject = leader[subject]
        return subject

    for pair in pairs:
        low, high = sorted((find(subjects[pair.first]), find(subjects[pair.second])))
        leader[high] = low
    return [find(subject) for subject in subjects]
