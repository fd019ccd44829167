"""What a component represents: the known factors of synthetic ears, and the person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from earface.core.errors import InputError
from earface.data.tables import read_csv, require_columns
from earface.synthetic.ear_factors import FACTOR_GROUPS

PERIODS = {"light_azimuth": 360.0, "background_hue": 1.0}  # an angle becomes its sine and cosine
SIDE = "side"  # of the head: it mirrors nearly everything, so it is a group of its own, and a regressor of every other
COLUMNS = {
    group: tuple(name for name in names if name != SIDE and not name.endswith("_pattern"))  # patterns are seeds
    for group, names in FACTOR_GROUPS.items()
}
NAMES = (SIDE, *COLUMNS)
WANTED = ("file", SIDE, *(name for names in COLUMNS.values() for name in names))  # columns of index.csv
ALPHAS = (0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)  # of the ridge, on unit-variance features
CURVATURE = 0.3  # scale of squares and products relative to linear terms, so that the penalty shrinks them first
FOLDS, INNER_FOLDS = 5, 3

Floats = NDArray[np.float64]


def default_index(npy: str, names: Sequence[str]) -> str | None:
    """The index.csv with columns of factors beside the NPY, in the images' folder or its parent, if any."""
    for path in index_places(npy, names):
        if path.is_file() and _has_factors(path):
            return str(path)
    return None


def index_places(npy: str, names: Sequence[str]) -> list[Path]:
    """Where an index.csv of pictures is looked for."""
    folders = (Path(npy).parent, Path(names[0]).parent, Path(names[0]).parent.parent)
    return [folder / "index.csv" for folder in dict.fromkeys(folders)]


def read_factors(path: str, names: Sequence[str]) -> dict[str, Floats]:
    """(N,) values of `side` (-1 left, 1 right) and of every other factor, for the pictures `names`.

    path: CSV with a column `file`, relative to its folder or absolute. Raises InputError for missing columns or rows.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; `factors` takes the index.csv of synthetic ears")
    table = read_csv(Path(path))
    require_columns(table, WANTED, Path(path), "; `factors` takes the index.csv of synthetic ears")
    rows = {(Path(path).parent / row["file"]).resolve(): row for row in table if row["file"]}
    unknown = [name for name in names if Path(name).resolve() not in rows]
    if unknown:
        raise InputError(f"{path}: has no row for {len(unknown)} of the {len(names)} ears, such as {unknown[0]}")
    chosen = [rows[Path(name).resolve()] for name in names]
    return {
        column: np.array([_number(path, column, row[column]) for row in chosen])
        for column in (SIDE, *(name for columns in COLUMNS.values() for name in columns))
    }


def _has_factors(path: Path) -> bool:
    try:
        require_columns(read_csv(path), WANTED, path)
    except InputError:
        return False
    return True


def _number(path: str, column: str, text: str | None) -> float:
    if column == SIDE and text in ("l", "r"):
        return 1.0 if text == "r" else -1.0
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise InputError(f"{path}: {column} {text!r} is not {'l or r' if column == SIDE else 'a number'}")
    return value


def explained_by_group(scores: Floats, factors: Mapping[str, Floats], owners: NDArray[np.integer]) -> dict[str, Floats]:
    """Cross-validated R^2 (K,) of scores (N, K) on each of NAMES; below 0 when the prediction is worse than the mean.

    `side` alone; every other group together with the side, minus what the side explains. owners: (N,) number of the
    subject; the ears of a subject are in one fold, since they share all factors of shape. At least 3 subjects.
    """
    side = factors[SIDE][:, None]
    by_side = cross_validated_r2(_features(side), scores, owners)
    found = {SIDE: by_side}
    for group, columns in COLUMNS.items():
        inputs = np.column_stack([side, *(_unrolled(name, factors[name]) for name in columns)])
        found[group] = cross_validated_r2(_features(inputs), scores, owners) - by_side.clip(min=0.0)
    return found


def _unrolled(name: str, values: Floats) -> Floats:
    if name not in PERIODS:
        return values
    angle = values / PERIODS[name] * 2 * np.pi
    return np.column_stack([np.sin(angle), np.cos(angle)])


def _features(inputs: Floats) -> Floats:
    """(N, P), the side first, -> standardised products of degree 1 and 2; degree 2 without the side is scaled."""
    products = PolynomialFeatures(2, include_bias=False)
    features = StandardScaler().fit_transform(products.fit_transform(StandardScaler().fit_transform(inputs)))
    curved = (products.powers_.sum(axis=1) == 2) & (products.powers_[:, 0] != 1)
    scaled: Floats = features * np.where(curved, CURVATURE, 1.0)
    return scaled


def cross_validated_r2(features: Floats, scores: Floats, owners: NDArray[np.integer]) -> Floats:
    """(K,) 1 - residual / total sum of squares of predictions of a ridge regression for held-out owners.

    The penalty is selected for each score among ALPHAS by cross-validation inside the fitted part.
    """
    residual = np.zeros(scores.shape[1])
    for fitted, held_out in _folds(owners, FOLDS):
        inner = np.zeros((len(ALPHAS), scores.shape[1]))
        for part, rest in _folds(owners[fitted], INNER_FOLDS):
            predicted = ridge_path(features[fitted[part]], scores[fitted[part]], features[fitted[rest]])
            inner += np.square(predicted - scores[fitted[rest]]).sum(axis=1)
        predicted = ridge_path(features[fitted], scores[fitted], features[held_out])
        best = np.take_along_axis(predicted, inner.argmin(axis=0)[None, None, :], axis=0)[0]
        residual += np.square(best - scores[held_out]).sum(axis=0)
    total: Floats = np.square(scores - scores.mean(axis=0)).sum(axis=0)
    return 1.0 - residual / total


def _folds(owners: NDArray[np.integer], count: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    count = min(count, len(np.unique(owners)))
    return list(GroupKFold(count).split(owners[:, None], groups=owners))


def ridge_path(features: Floats, targets: Floats, unseen: Floats) -> Floats:
    """Predictions (len(ALPHAS), M, K) for unseen (M, P), of ridge regressions with intercept of (N, K) on (N, P)."""
    center, mean = features.mean(axis=0), targets.mean(axis=0)
    left, singular, right = np.linalg.svd(features - center, full_matrices=False)
    projected, inputs = left.T @ (targets - mean), (unseen - center) @ right.T
    shrunk = [(singular / (np.square(singular) + alpha))[:, None] * projected for alpha in ALPHAS]
    return np.stack([inputs @ weights + mean for weights in shrunk])


def subject_share(scores: Floats, owners: NDArray[np.integer]) -> Floats | None:
    """(K,) the share of each score's variance that lies between subjects: the intraclass correlation ICC(1).

    From one-way analysis of variance (Shrout & Fleiss 1979), at least 0. owners: (N,) number of the subject. None
    unless there are two subjects, one with two ears.
    """
    _, places, sizes = np.unique(owners, return_inverse=True, return_counts=True)
    subjects, count = len(sizes), len(owners)
    if subjects < 2 or subjects == count:
        return None
    means = np.stack([np.bincount(places, column) / sizes for column in scores.T], axis=1)
    within = np.square(scores - means[places]).sum(axis=0) / (count - subjects)
    between = (sizes[:, None] * np.square(means - scores.mean(axis=0))).sum(axis=0) / (subjects - 1)
    size = (count - np.square(sizes).sum() / count) / (subjects - 1)
    variance: Floats = (between - within).clip(min=0.0) / size
    share: Floats = variance / np.maximum(variance + within, 1e-12)
    return share
