"""How good a picture is, as far as it tells by itself, and several pictures of one person together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError
from pipeline.options import Fusion

Floats = NDArray[np.floating]
Quality = Mapping[str, Floats]  # by the names of MEASURES, (N,) each; NaN where it is not known
MEASURES = {  # higher is better
    "mirror": "agreement with the mirror image",
    "norm": "length of the embedding",
    "sharpness": "sharpness",
    "size": "size",
}
COMPUTED = ("norm", "mirror", "sharpness")  # by the recogniser's pass, in this order; the size is known from the file
LEAST_WEIGHT = 0.01  # of a picture that does not agree with its mirror image at all
# Of 600 tracks of one of LFW's calibration people 1.7 % at most are more different (HR, 16 px bicubic), 2.3 % under
# realistic degradation: docs/RESULTS.md
ROUNDS, LEAST_GROUP, ALIKE = 10, 2, 0.3


def weights_of(fusion: Fusion, quality: Quality | None, count: int) -> NDArray[np.float32]:
    """What each of `count` pictures weighs in a template, (N,), above 0.

    norm: the length of its embedding, so that the template is the mean of the embeddings as the network gives them;
    quality: how alike its embedding and its mirror image's are. Raises InputError where that is not known.
    """
    if fusion == "mean":
        return np.ones(count, np.float32)
    name = "norm" if fusion == "norm" else "mirror"
    found = np.full(count, np.nan) if quality is None else np.asarray(quality.get(name, np.full(count, np.nan)))
    if lacking := int((~np.isfinite(found)).sum()):
        raise InputError(
            f"`fusion` {fusion}: the quality of {lacking} of {count} pictures is not known: enrol them again, or fuse "
            "by their mean"
        )
    return np.maximum(found, LEAST_WEIGHT).astype(np.float32)


def fused(embeddings: Floats, weights: Floats) -> NDArray[np.float32]:
    """(N, D) of length 1 -> (D,), their weighted mean brought to length 1."""
    mean = np.asarray(weights, np.float64) @ np.asarray(embeddings, np.float64)
    return (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)


def two_groups(embeddings: Floats) -> NDArray[np.bool_]:
    """The pictures of a track in two groups, by spherical two-means: (N,) whether each is in the second.

    embeddings: (N, D) of length 1, N >= 2.
    """
    rows = np.asarray(embeddings, np.float64)
    alike = rows @ rows.T
    first, second = np.unravel_index(int(alike.argmin()), alike.shape)
    groups = alike[:, second] > alike[:, first]
    for _ in range(ROUNDS):
        if groups.all() or not groups.any():
            break
        means = [fused(rows[own], np.ones(int(own.sum()))).astype(np.float64) for own in (~groups, groups)]
        moved = rows @ means[1] > rows @ means[0]
        if (moved == groups).all():
            break
        groups = moved
    return groups


def two_people(embeddings: Floats) -> NDArray[np.bool_] | None:
    """The groups of a track of two people; None where it may be of one.

    Two people are two groups of LEAST_GROUP pictures or more, between which the mean cosine is less than ALIKE of that
    within them.
    """
    if len(embeddings) < 2 * LEAST_GROUP:
        return None
    groups = two_groups(embeddings)
    if min(int(groups.sum()), int((~groups).sum())) < LEAST_GROUP:
        return None
    rows = np.asarray(embeddings, np.float64)
    alike, same = rows @ rows.T, groups[:, None] == groups[None]
    within = alike[same & ~np.eye(len(rows), dtype=bool)].mean()
    return groups if alike[~same].mean() < ALIKE * within else None


def mean_quality(quality: Quality) -> dict[str, float]:
    """Of all pictures of a track, over what is known."""
    return {name: float(np.nanmean(own)) if np.isfinite(own).any() else float("nan") for name, own in quality.items()}


def of_row(quality: Quality, row: int) -> dict[str, float]:
    """Of one picture."""
    return {name: float(own[row]) for name, own in quality.items()}


def joined_quality(parts: Sequence[tuple[int, Quality | None]]) -> dict[str, NDArray[np.float32]]:
    """Of several tables, one after the other. parts: how many pictures, and their quality if it is known."""
    names = dict.fromkeys(name for _, quality in parts for name in quality or {})
    unknown = [(count, quality or {}) for count, quality in parts]
    return {
        name: np.concatenate([np.asarray(own.get(name, np.full(count, np.nan)), np.float32) for count, own in unknown])
        for name in names
    }
