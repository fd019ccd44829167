"""Ears and neck, and the one surface that the skin of a head makes with them."""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from earface.synthetic.curves import Array, smoothstep
from earface.synthetic.face_anatomy import STEP, Face, S, Sheet, Y
from earface.synthetic.face_factors import FaceShape
from earface.synthetic.face_raster import grid_triangles

_RINGS, _SPOKES = 9, 25  # of an ear, which is a dish
_NECK = (13, 33)
_GAP = 2  # rows of the atlas between two sheets
# Rows at which the sheets start in the atlas: face, left ear, right ear, neck, end. Columns as the face has.
STARTS = tuple(np.cumsum([0, len(Y) + _GAP, _RINGS + _GAP, _RINGS + _GAP, _NECK[0] + _GAP]).tolist())
# The face's sheet has fewer points where it is smooth.
_COLUMNS = np.r_[0:56:4, 56:62:2, 62:83, 84:90:2, 90:145:4, 144]
_ROWS = np.r_[0:52:4, 52:74:3, 74:80:2, 80:93, 94:129:2]
_RING = np.linspace(0, 1, _RINGS, dtype=np.float32)[:, None]
_ANGLE = np.linspace(0, 2 * np.pi, _SPOKES, dtype=np.float32)[None]


@functools.lru_cache(maxsize=16)
def ears(shape: FaceShape) -> tuple[Sheet, Sheet]:
    """The ears at the picture's left and right, (rings, spokes) points each."""
    return _ear(Face(shape), -1), _ear(Face(shape), 1)


def _ear(face: Face, sign: int) -> Sheet:
    s, back, down = face.shape, np.cos(_ANGLE), np.sin(_ANGLE)
    helix = np.exp(-(((_RING - 0.92) / 0.09) ** 2)) * smoothstep(0.75 - down, 0, 0.6) * smoothstep(back, -0.9, -0.2)
    antihelix = np.exp(-(((_RING - 0.60) / 0.13) ** 2)) * smoothstep(back, -0.2, 0.5)
    relief = (
        0.055 * helix + 0.05 * antihelix - 0.10 * np.exp(-((_RING / 0.42) ** 2)) + 0.03 * np.clip(down, 0, 1) * _RING
    )
    stand = math.radians(14 + 30 * s.ear_stand)
    backward = np.array([sign * math.sin(stand), 0.10, -math.cos(stand)])
    outward = np.array([sign * math.cos(stand), 0, math.sin(stand)])
    root = np.array([sign * (face.half_width(20) - 3.0), face.personal(22.0), -84.0])
    along = [
        (0.30 * back * (1 - 0.22 * down) * _RING + 0.24)[..., None] * backward,
        (0.5 * down * _RING)[..., None] * np.array([0, 1, 0.12]),
        relief[..., None] * outward,
    ]
    dish = Sheet.through((root + 60.0 * (1 + 0.14 * s.ear_size) * sum(along))[:, ::-sign])
    dish.normals[0] = dish.normals[1]  # the innermost ring is one point
    return dish


def _ear_openness() -> Array:
    """(rings, spokes): 1 on the rim, less in the hollows."""
    fossa = np.exp(-(((_RING - 0.78) / 0.07) ** 2)) * smoothstep(np.cos(_ANGLE), -0.3, 0.3)
    return 1 - 0.52 * np.exp(-((_RING / 0.42) ** 2)) - 0.25 * fossa


def neck(face: Face) -> Sheet:
    y = np.linspace(50, 170, _NECK[0], dtype=np.float32)[:, None]
    angle = np.linspace(-1.9, 1.9, _NECK[1], dtype=np.float32)[None]
    wide = 0.82 * face.half_width(70) * (1 + 0.25 * smoothstep(y, 120, 190))
    down = y + 0.3 * face.expression.jaw_drop + 0 * angle
    return Sheet.through(np.dstack([wide * np.sin(angle), down, -84 + 46 * np.cos(angle) + 0 * y]))


def openness(relief: Array) -> Array:
    """(H, W): how little a point is sunk below its surroundings, near and wide; 1 open."""
    near = cv2.GaussianBlur(relief, (0, 0), 2.5) - relief
    wide = cv2.GaussianBlur(relief, (0, 0), 7.0) - relief
    return np.clip(1 - 0.45 * np.clip(near / 2.5, 0, 1) - 0.45 * np.clip(wide / 8, 0, 1), 0.1, 1)


class Skin:
    """Face, ears and neck as one mesh on one atlas, whose unit is a step of the face's sheet.

    points: (V, 3) in the head frame. places: (2, V) column and row in the atlas. triangles: (3, T).
    surface: (H, W, 4) normals and openness.
    """

    def __init__(self, face: Face) -> None:
        sheets = (face.sheet, *ears(face.shape), neck(face))
        self.points = np.concatenate(
            [sheets[0].points[np.ix_(_ROWS, _COLUMNS)].reshape(-1, 3)]
            + [sheet.points.reshape(-1, 3) for sheet in sheets[1:]]
        )
        self.places, self.triangles = _mesh()
        self.surface = np.zeros((STARTS[-1], len(S), 4), np.float32)
        shades = (openness(face.relief), _ear_openness(), _ear_openness(), 0.5)
        for sheet, shade, start in zip(sheets, shades, STARTS, strict=False):
            rows, columns = sheet.normals.shape[:2]
            self.surface[start : start + rows, :columns, :3] = sheet.normals
            self.surface[start : start + rows, :columns, 3] = shade


@functools.lru_cache(maxsize=1)
def _mesh() -> tuple[Array, NDArray[np.intp]]:
    """Where each vertex of a skin lies in the atlas, and the triangles between them."""
    grids = [(_ROWS, _COLUMNS)] + [
        (start + np.arange(rows), np.arange(columns))
        for start, (rows, columns) in zip(STARTS[1:], ((_RINGS, _SPOKES), (_RINGS, _SPOKES), _NECK), strict=False)
    ]
    places = [np.stack(np.meshgrid(columns, rows)).reshape(2, -1) for rows, columns in grids]
    counts = np.cumsum([0] + [place.shape[1] for place in places])
    triangles = [
        grid_triangles(len(rows), len(columns)) + count for (rows, columns), count in zip(grids, counts, strict=False)
    ]
    return np.concatenate(places, axis=1).astype(np.float32), np.concatenate(triangles, axis=1)


def atlas_rows(density: float) -> int:
    """Rows of the atlas in texels."""
    return round(STARTS[-1] * STEP * density) + 1
