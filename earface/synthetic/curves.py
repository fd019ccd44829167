"""Smooth curves, the coordinates around them, and the profiles that are laid across them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # float32 unless said otherwise: OpenCV's stubs know no dtype


def smooth_curve(points: Array, steps: int = 6, closed: bool = False) -> Array:
    """Catmull-Rom spline through (N, 2) points -> (M, 2), `steps` points per segment."""
    if closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
    else:
        padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = (np.arange(steps, dtype=np.float32) / steps)[None, :, None]
    a, b, c, d = (padded[i : len(padded) - 3 + i, None] for i in range(4))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def curve_frame(curve: Array, x: Array, y: Array, closed: bool = False) -> tuple[Array, Array]:
    """Every point of a grid in the coordinates of a curve: (along in [0, 1], signed distance), each (H, W).

    curve: (M, 2). x: (W,), y: (H,). The distance is positive to the right of the curve's direction (y down).
    """
    following = np.roll(curve, -1, 0)
    tangent = following - np.roll(curve, 1, 0) if closed else np.gradient(curve, axis=0)
    tangent = tangent / np.linalg.norm(tangent, axis=1, keepdims=True)
    dx = x[None, :] - curve[:, :1]
    dy = y[None, :] - curve[:, 1:]
    nearest = np.argmin((dx * dx)[:, None, :] + (dy * dy)[:, :, None], axis=0)
    px, py = dx[nearest, np.arange(len(x))[None, :]], dy[nearest, np.arange(len(y))[:, None]]
    tx, ty = tangent[nearest, 0], tangent[nearest, 1]
    distance = tx * py - ty * px
    beyond = tx * px + ty * py
    segments = len(curve) if closed else len(curve) - 1
    spacing = np.hypot(*(following - curve)[:segments].T).mean()
    along = (nearest + np.clip(beyond / spacing, -0.5, 0.5)) / np.float32(segments)
    if not closed:
        past = np.where(nearest == 0, np.minimum(beyond, 0), np.where(nearest == segments, np.maximum(beyond, 0), 0))
        distance = np.copysign(np.hypot(distance, past), distance)
    return np.clip(along, 0, 1).astype(np.float32), distance.astype(np.float32)


def smoothstep(value: Array, low: float, high: float) -> Array:
    """0 up to `low`, 1 from `high` on, smooth between."""
    t = np.clip((value - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def bump(q: Array) -> Array:
    """A rounded ridge across a curve: 1 at 0, 0 from |q| = 1 on."""
    inside = np.clip(1 - q * q, 0, None)
    return inside * inside


def course(along: Array, *knots: tuple[float, float]) -> Array:
    """How a ridge changes along its curve: piecewise linear through (along, value) knots."""
    return np.interp(along, [k[0] for k in knots], [k[1] for k in knots]).astype(np.float32)
