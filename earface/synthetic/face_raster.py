"""Triangles to pixels in plain numpy: which point of a surface each pixel shows."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from earface.synthetic.curves import Array

EMPTY = -1e6  # depth where nothing is
_SIDES = np.array(
    [3, 4, 5, 6, 8, 11, 16, 24, 40, 80, 160, 320, 640, 1280]
)  # triangles are rasterised with others of their size


@functools.lru_cache(maxsize=64)
def grid_triangles(rows: int, columns: int) -> NDArray[np.intp]:
    """(3, T) corners of a grid's cells, two triangles each, clockwise in the picture where its front is seen."""
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    right, below, across = corner + 1, corner + columns, corner + columns + 1
    return np.stack([np.tile(corner, 2), np.concatenate([right, across]), np.concatenate([across, below])])


def rasterise(
    vertices: Array, triangles: NDArray[np.intp], size: int, *, front: bool = True
) -> tuple[Array, Array, Array]:
    """(depth, u, v), each (size, size), of the nearest triangle on each pixel; depth is EMPTY where there is none.

    vertices: (5, V) float32 of x and y in pixels, depth toward the camera, and the attributes u and v, which are
    interpolated over a triangle without perspective. triangles: (3, T). front: only those which turn their front to
    the camera, else those which turn their back. They are painted from far to near, by the middle of each.
    """
    (x0, y0), (x1, y1), (x2, y2) = (vertices[:2].take(corner, axis=1) for corner in triangles)
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    left, top = (np.ceil(np.minimum(np.minimum(a, b), c)) for a, b, c in ((x0, x1, x2), (y0, y1, y2)))
    right, bottom = (np.floor(np.maximum(np.maximum(a, b), c)) for a, b, c in ((x0, x1, x2), (y0, y1, y2)))
    np.maximum(left, 0, out=left)  # what lies beside the picture is cut off
    np.maximum(top, 0, out=top)
    extent = np.maximum(np.minimum(right, size - 1) - left, np.minimum(bottom, size - 1) - top) + 1
    seen = (area > 1e-6) if front else (area < -1e-6)
    seen &= (right >= left) & (bottom >= top) & (left < size) & (top < size)
    chosen = np.flatnonzero(seen)
    depths = vertices[2].take(triangles.take(chosen, axis=1)).sum(0)
    chosen = chosen[np.argsort(depths, kind="stable")]

    zero, one, two = (vertices.take(corner.take(chosen), axis=1) for corner in triangles)  # (5, T) each
    one, two = one - zero, two - zero
    # Weights of corners 1 and 2, and every attribute, are planes over the pixels.
    weights = np.stack([two[1], -two[0], -one[1], one[0]]) / area[chosen]
    across = one[2:] * weights[0] + two[2:] * weights[2]
    down = one[2:] * weights[1] + two[2:] * weights[3]
    planes = np.concatenate([zero[2:] - across * zero[0] - down * zero[1], across, down]).T.copy()  # (T, 9)

    left, top = left[chosen], top[chosen]
    group = np.searchsorted(_SIDES, extent[chosen])
    width = size + int(_SIDES[group.max(initial=0)])  # the square around a triangle may extend beyond the picture
    corners = np.stack([left - zero[0], top - zero[1]])
    first_pixels = top.astype(np.intp) * width + left.astype(np.intp)
    pixels, owners = [], []
    for number in np.unique(group):
        members = np.flatnonzero(group == number)
        which, cells = _inside(corners.take(members, axis=1), weights.take(members, axis=1), int(_SIDES[number]), width)
        owners.append(members.take(which))
        pixels.append(first_pixels.take(owners[-1]) + cells)
    owner = np.full(width * width, -1, np.intp)
    if owners:
        numbers, at = np.concatenate(owners), np.concatenate(pixels)
        order = np.argsort(numbers.astype(np.uint16 if len(chosen) < 2**16 else np.intp), kind="stable")
        owner[at.take(order)] = numbers.take(order)  # of several on one pixel the last stays: the nearest
    return _attributes(owner.reshape(width, width)[:size, :size].ravel(), planes, size)


def _inside(corners: Array, weights: Array, side: int, width: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which triangles of up to side x side pixels hold which pixels of their squares: number, and offset in an image.

    corners: (2, T) from each triangle's first corner to its square's. weights: (4, T).
    """
    steps = np.arange(side, dtype=np.float32)
    dx, dy = (at[:, None] + steps for at in corners)
    first = (weights[0, :, None] * dx)[:, None, :] + (weights[1, :, None] * dy)[:, :, None]
    second = (weights[2, :, None] * dx)[:, None, :] + (weights[3, :, None] * dy)[:, :, None]
    slack = np.float32(1e-4)  # neighbours share their edge: no gap between them
    inside = np.flatnonzero((np.minimum(first, second) >= -slack) & (first + second <= 1 + slack))
    which = inside // (side * side)
    offsets = (np.arange(side)[:, None] * width + np.arange(side)).ravel()
    return which, offsets.take(inside - which * (side * side))


def _attributes(owner: NDArray[np.intp], planes: Array, size: int) -> tuple[Array, Array, Array]:
    found = np.flatnonzero(owner >= 0)
    plane = planes.take(owner.take(found), axis=0)
    row, column = np.divmod(found.astype(np.int32), np.int32(size))
    row, column = row.astype(np.float32), column.astype(np.float32)
    maps = np.zeros((3, size * size), np.float32)
    maps[0] = EMPTY
    for k in range(3):
        maps[k, found] = plane[:, k] + plane[:, 3 + k] * column + plane[:, 6 + k] * row
    depth, u, v = maps.reshape(3, size, size)
    return depth, u, v
