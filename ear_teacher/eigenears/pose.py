"""How an ear lies towards the camera, as far as its landmarks or an index say it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ear_teacher.eigenears.appearance import r_squared
from ear_teacher.eigenears.factors import index_places
from ear_teacher.loading import Ears
from earface.core.errors import InputError
from earface.core.progress import tracked
from earface.data.ear_alignment import mean_ear, unwidened
from earface.data.ear_contract import EarAligner, LocatedEar
from earface.data.images import Pixels, read_ahead
from earface.data.tables import read_csv

POSES = ("pitch", "yaw", "roll")  # columns of an index
MOST = 1000  # ears whose landmarks are placed: 15 ms of processor time each
FEWEST = 20  # with fewer, three regressors explain anything

Floats = NDArray[np.float64]


def landmark_pose(points: Floats) -> Floats:
    """(3,): rotation, aspect and shear of a right ear's landmarks (K, 2), relative to the mean shape.

    The least-squares affine map from the mean shape to the points, A = R(rotation) [[a, k], [0, b]]: rotation in
    degrees, clockwise; aspect ln(a / b); shear k / b. A head turned by an angle towards the camera or away
    foreshortens the width, so that the aspect falls by -ln cos(angle); the in-plane turn of the head is the rotation.
    Narrow and slanted ears look the same: a proxy, which anatomy is part of.
    """
    mean = mean_ear(len(points))
    matrix = np.linalg.lstsq(np.column_stack([mean, np.ones(len(mean))]), points, rcond=None)[0][:2].T
    width = np.hypot(*matrix[:, 0])
    height = np.linalg.det(matrix) / width
    rotation = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    return np.array([rotation, np.log(width / max(height, 1e-9)), matrix[:, 0] @ matrix[:, 1] / width / height])


def pose_by_landmarks(scores: Floats, ears: Ears, aligner: EarAligner) -> tuple[Floats | None, int]:
    """(K,) R^2 of scores (N, K) on `landmark_pose`, and the number of ears it is of: at most MOST, evenly spread, and
    only where the landmarks form an ear. None for fewer than FEWEST."""
    chosen = np.unique(np.linspace(0, len(scores) - 1, min(MOST, len(scores))).round().astype(int))
    located = tracked(
        read_ahead(lambda row: aligner.locate(in_proportion(ears.images[row], ears.mirrored)), chosen.tolist()),
        "landmarks of ears",
        len(chosen),
    )
    found = [(row, pose) for row, ear in zip(chosen, located, strict=True) if (pose := _pose(ear)) is not None]
    if len(found) < FEWEST:
        return None, len(found)
    rows, poses = zip(*found, strict=True)
    return r_squared(scores[list(rows)], np.stack(poses)), len(found)


def _pose(ear: LocatedEar) -> Floats | None:
    if ear.fit is None or ear.landmarks is None or ear.problem:
        return None
    flip = np.array([-1.0 if ear.fit.side == "l" else 1.0, 1.0])
    return landmark_pose(ear.landmarks.points * flip)


def in_proportion(image: Pixels, canonical: bool) -> Pixels:
    """A picture (S, S, C) as a landmarker knows ears; nothing is known of the proportions of stretched ones."""
    return unwidened(image) if canonical else image


def pose_by_index(scores: Floats, ears: Ears) -> Floats | None:
    """(K,) R^2 of scores (N, K) on the columns of POSES, and their squares, of the index.csv beside the pictures.

    Classes or angles; of the pictures with a number in every such column. None where there are fewer than FEWEST.
    """
    files = [Path(name).resolve() for name in ears.names]
    for path in index_places(ears.source, ears.names):
        known = _poses(path)
        places = [place for place, file in enumerate(files) if file in known]
        if len(places) >= FEWEST:
            poses = np.array([known[files[place]] for place in places])
            return r_squared(scores[places], np.hstack([poses, np.square(poses)]))
    return None


def _poses(path: Path) -> dict[Path, list[float]]:
    """Of the pictures in an index; of none where it has no such columns."""
    try:
        table = read_csv(path)
    except InputError:
        return {}
    columns = [name for name in POSES if table and name in table[0]]
    found = {}
    for row in table if columns and "file" in table[0] else ():
        try:
            values = [float(row[name] or "nan") for name in columns]
        except ValueError:
            continue
        if row["file"] and np.isfinite(values).all():
            found[(path.parent / row["file"]).resolve()] = values
    return found
