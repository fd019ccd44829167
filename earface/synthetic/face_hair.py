"""Hair of a head: a shell that stands off the skull, cut off along the hairline."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from earface.synthetic.curves import Array, smoothstep
from earface.synthetic.face_anatomy import Face, Sheet, Y, cross_section
from earface.synthetic.face_factors import FaceShape
from earface.synthetic.face_raster import grid_triangles
from earface.synthetic.noise import noise_tile, offsets

BALD, SHAVED = 0.05, 0.2  # hair_length below which there is no hair, and below which it has no body
_TOP, _STEP = -128.0, 8.0
_ROWS = np.arange(_TOP, 161, _STEP, dtype=np.float32)  # y of the shell's rows
_ANGLES = np.linspace(-np.pi, np.pi, 53, dtype=np.float32)  # of its columns, around the head
_ARC = 75 * 2 * np.pi / (len(_ANGLES) - 1)  # millimetres from column to column


@dataclass(frozen=True)
class Shell:
    """sheet: the hair's outer surface. line: (columns,) y down to which it grows. triangles: (3, T) within it."""

    sheet: Sheet
    line: Array
    triangles: NDArray[np.intp]


def _hairline(face: Face) -> Array:
    s, degrees = face.shape, np.degrees(np.abs(_ANGLES))
    front = -62.0 - 17.0 * s.hairline
    nape = np.interp(s.hair_length, (0.2, 0.45, 0.6, 0.75, 0.85), (38, 46, 84, 130, 170))
    over_ear = np.interp(s.hair_length, (0.2, 0.45, 0.6, 0.72), (-16, -8, 40, nape))
    burn = np.interp(s.hair_length, (0.45, 0.6, 0.72), (8 + 14 * s.beard + 10 * (s.hair_length - 0.3), 45, nape))
    knots = (
        (0, front), (30, front + 2), (48, front + 10), (60, -34), (68, -12), (73, burn), (79, burn), (84, over_ear),
        (104, over_ear), (112, nape), (180, nape),
    )  # fmt: skip
    line = np.interp(degrees, *np.array(knots).T) - 16 * s.temples * np.exp(-(((degrees - 32) / 12) ** 2))
    # A fringe falls from the parting to its far side.
    sweep = np.clip(0.75 - 0.9 * abs(s.parting) * np.sin(_ANGLES) * np.sign(s.parting), 0.1, 1.2)
    return (line + s.fringe * (-24 - front) * sweep * smoothstep(62 - degrees, 0, 18)).astype(np.float32)


@functools.lru_cache(maxsize=16)
def shell(shape: FaceShape) -> Shell | None:
    """The hair of a person, which no expression moves; None for a bald one."""
    s, face = shape, Face(shape)
    if s.hair_length < BALD:
        return None
    line, y = _hairline(face), _ROWS[:, None]
    width, front, middle = (np.interp(_ROWS, Y, values)[:, None] for values in face.loft)
    loose = np.interp(s.hair_length, (0.45, 0.62), (0, 1)) * (y > 0)  # below the eyes it hangs, or lies on the head
    low = np.clip(y / 60, 0, 1)
    width = width + loose * (face.half_width(0) * (1 + 0.04 * low) - width)
    front, middle = front + loose * (4 - 30 * low - front), middle + loose * (-87 - middle)
    across, ahead = cross_section(_ANGLES)
    skull = np.dstack([width * across, y + 0 * across, middle + (front - middle) * ahead]).astype(np.float32)
    outward = Sheet.through(skull).normals.copy()
    outward[:3] = outward[3]
    outward[:2, :, 1] = -1
    outward /= np.linalg.norm(outward, axis=2, keepdims=True)

    body = np.interp(s.hair_length, (BALD, SHAVED, 0.35, 1.0), (1.5, 3.0, 8.0, 10.0))
    body += 17 * s.hair_volume * (1 + 0.5 * s.hair_curl) * np.interp(s.hair_length, (SHAVED, 0.4), (0, 1))
    above = np.clip((line - y) / 55, 0, 1) ** 0.8
    thick = 1.5 + body * above * np.interp(y, (-128, -60, 0, 160), (1.0, 0.9, 0.62, 0.75))
    lumps = np.random.default_rng(s.hair_pattern).standard_normal(thick.shape).astype(np.float32)
    thick = thick * (1 + (0.15 + 0.48 * s.hair_curl) * cv2.GaussianBlur(lumps, (0, 0), 1.0))
    inside = (y < line + 14).ravel()
    triangles = grid_triangles(*thick.shape)
    return Shell(Sheet.through(skull + thick[..., None] * outward), line, triangles[:, inside[triangles].any(0)])


@dataclass(frozen=True)
class Strands:
    """What is seen of a shell at each pixel, (S, S): how far hair covers it, and its fine and coarse pattern."""

    cover: Array
    fine: Array
    coarse: Array


def strands(shape: FaceShape, line: Array, column: Array, row: Array) -> Strands:
    """column, row: (S, S) places on the shell."""
    s, y = shape, row * np.float32(_STEP) + np.float32(_TOP)
    arc = column * np.float32(_ARC)
    dx, dy, cx, cy = (np.float32(offset) for offset in offsets(s.hair_pattern, 4))

    def pattern(along: float, across: float, u: Array, v: Array) -> Array:
        return cv2.remap(noise_tile(along, across), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)

    aside = np.float32(7 * s.hair_curl) * np.sin(y * np.float32(0.11 + 0.2 * s.hair_curl) + np.float32(0.05) * arc)
    aside += 4 * pattern(24.0, 24.0, y + cx, arc + cy)
    along, across = np.float32(0.8) * y, np.float32(1.5) * (arc + aside)
    coarse = pattern(24.0, 3.0, along + cx, np.float32(0.7) * across + cy)
    if s.hair_curl > 0.7:  # coils have no direction
        fine = pattern(3.0, 3.0, np.float32(2.5) * along + dx, np.float32(1.6) * across + dy)
    else:
        fine = pattern(24.0, 0.8, along + dx, across + dy)
    ragged = np.float32(0.8 + 4 * s.fringe + 5 * max(s.hair_length - 0.5, 0)) * (0.7 * fine + 0.9 * coarse)
    soft = 7.0 if s.hair_length < SHAVED else 5 - 3 * s.fringe
    edge = cv2.remap(line[None], column, np.zeros_like(row), cv2.INTER_LINEAR)
    cover = smoothstep(edge - y + ragged, -soft, soft)
    if s.hair_length < SHAVED:
        cover = cover * np.clip((0.35 + 2.6 * s.hair_length) * (1 + 0.15 * fine), 0, 1)
    return Strands(cover, fine, coarse)
