"""Nearest neighbours and clusters of embeddings."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from earface.core.errors import InputError

KMEANS_STARTS = 10
KMEANS_SEED = 0


@dataclass(frozen=True)
class Clusters:
    """Numbered by size, the largest 0; among equals the one whose first row is earlier."""

    label: NDArray[np.int32]  # (N,)
    similarity: NDArray[np.float64]  # (N,) dot product with the own centre


def most_similar(
    units: NDArray[np.float64], query: NDArray[np.float64], count: int, left_out: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The `count` rows of units (N, D) with the largest cosine to query (D,), and these, largest first.

    left_out: (N,) rows that are no candidates. Among equals the earlier row comes first.
    """
    candidates = np.flatnonzero(~left_out)
    similarity = units[candidates] @ query
    order = np.argsort(-similarity, kind="stable")[:count]
    return candidates[order], similarity[order]


def cluster(units: NDArray[np.float64], count: int) -> Clusters:
    """k-means of (N, D) unit rows, so by cosine, with a fixed seed.

    Raises InputError if fewer than `count` of the rows differ.
    """
    kmeans = KMeans(count, n_init=KMEANS_STARTS, random_state=KMEANS_SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = kmeans.fit_predict(units)
    sizes = np.bincount(found, minlength=count)
    if not sizes.all():
        raise InputError(f"`clusters` {count}: only {np.count_nonzero(sizes)} different ears")
    first = np.array([np.argmax(found == label) for label in range(count)])
    number = np.empty(count, np.int32)
    number[np.lexsort((first, -sizes))] = np.arange(count)
    return Clusters(number[found], (units * kmeans.cluster_centers_[found]).sum(axis=1))
