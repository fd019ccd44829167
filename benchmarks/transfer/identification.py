"""Who is who from a few pictures of each person, by frozen features and one classifier for all of them.

The classifier is the nearest class mean after whitening with the covariance within classes, shrunk towards a multiple
of the identity (regularised discriminant analysis). Depth and shrinkage are chosen by cross-validation inside the
training pictures, never on the probes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from earface.core.errors import InputError

Floats = NDArray[np.floating[Any]]
Rows = NDArray[np.int64]
PROBES = 2  # of each person; the same, however many pictures are in the gallery
SHRINKAGES = (0.1, 0.3, 0.6, 0.9, 1.0)  # 1: the plain nearest class mean
FOLDS, REPEATS = 4, 2


def draw(subjects: Sequence[str], shots: int, seed: Sequence[int]) -> tuple[Rows, Rows]:
    """Rows of the gallery, `shots` of each person or as many as there are, and of the probes, PROBES of each.

    With one seed the probes are the same for any `shots`, and a smaller gallery lies inside a larger one.
    Raises InputError where someone has too few pictures for two of each.
    """
    gallery, probes = [], []
    names = np.asarray(subjects)
    rng = np.random.default_rng(seed)
    for name in sorted(set(subjects)):
        rows = rng.permutation(np.flatnonzero(names == name))
        if len(rows) < PROBES + 2:
            raise InputError(f"{name} has {len(rows)} pictures: identification needs {PROBES + 2} of each person")
        probes.append(rows[:PROBES])
        gallery.append(rows[PROBES : PROBES + shots])
    return np.concatenate(gallery), np.concatenate(probes)


def identify(
    features: Mapping[str, Floats], subjects: Sequence[str], shots: int, seed: int, draws: int
) -> dict[str, Any]:
    """features: (N, D) of each depth. Rank-1 over the draws, of the depth that each chose and of every depth alone."""
    labels = np.unique(np.asarray(subjects), return_inverse=True)[1]
    found: list[float] = []
    taken: Counter[str] = Counter()
    alone: dict[str, list[float]] = {depth: [] for depth in features}
    for number in range(draws):
        gallery, probes = draw(subjects, shots, (seed, number))
        validated, reached = {}, {}
        for depth, values in features.items():
            train, test = in_span(values[gallery], values[probes])
            expected = validation(train, labels[gallery], number)
            best = int(expected.argmax())
            named = nearest_class(train, labels[gallery], test, SHRINKAGES[best : best + 1])[0]
            validated[depth], reached[depth] = float(expected[best]), float((named == labels[probes]).mean())
            alone[depth].append(reached[depth])
        depth = max(validated, key=lambda each: validated[each])
        taken[depth] += 1
        found.append(reached[depth])
    return {
        "rank1": float(np.mean(found)),
        "spread": float(np.std(found)),
        "depth": taken.most_common(1)[0][0],
        "depths": {depth: float(np.mean(values)) for depth, values in alone.items()},
    }


def in_span(train: Floats, test: Floats) -> tuple[Floats, Floats]:
    """Rows of length 1 about the mean of the training rows, in coordinates of the space that the latter span."""
    mean = train.mean(axis=0, dtype=np.float64)
    units = [each - mean for each in (train, test)]
    units = [each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-12) for each in units]
    _, sizes, axes = np.linalg.svd(units[0], full_matrices=False)
    axes = axes[sizes > 1e-6 * sizes[0]]
    return units[0] @ axes.T, units[1] @ axes.T


def validation(train: Floats, labels: Rows, seed: int) -> Floats:
    """(S,) the share of right answers with each of SHRINKAGES, cross-validated inside the training rows."""
    count = min(FOLDS, int(np.bincount(labels).min()))
    right = []
    for repeat in range(REPEATS):
        for inside, outside in StratifiedKFold(count, shuffle=True, random_state=seed * REPEATS + repeat).split(
            train, labels
        ):
            named = nearest_class(train[inside], labels[inside], train[outside], SHRINKAGES)
            right.append((named == labels[outside]).mean(axis=1))
    return np.mean(right, axis=0)


def nearest_class(train: Floats, labels: Rows, test: Floats, shrinkages: Sequence[float]) -> Rows:
    """(S, M) the class of M test rows with each of S shrinkages."""
    classes = np.unique(labels)
    means = np.stack([train[labels == each].mean(axis=0) for each in classes])
    apart = train - means[np.searchsorted(classes, labels)]
    variances, axes = np.linalg.eigh(apart.T @ apart / len(train))
    means, test = means @ axes, test @ axes
    named = []
    for shrinkage in shrinkages:
        weights = 1 / np.maximum((1 - shrinkage) * variances + shrinkage * variances.mean(), 1e-12)
        scores = test @ (weights * means).T - 0.5 * (weights * means**2).sum(axis=1)
        named.append(classes[scores.argmax(axis=1)])
    return np.stack(named)
