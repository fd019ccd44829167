"""Smooth random textures: tiles of noise that wrap around, read at any offset."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from earface.synthetic.curves import Array

TILE = 512  # period of the noise tiles: the largest picture


@functools.lru_cache(maxsize=16)  # 4 MiB each; one image size needs five
def noise_tile(sigma_along: float, sigma_across: float) -> Array:
    """Smooth noise, mean 0 and standard deviation 1, (2 TILE, 2 TILE) with period TILE."""
    noise: Array = np.random.default_rng(0).standard_normal((TILE, TILE), dtype=np.float32)
    pad = 96
    noise = cv2.GaussianBlur(np.pad(noise, pad, mode="wrap"), (0, 0), sigmaX=sigma_along, sigmaY=sigma_across)[
        pad:-pad, pad:-pad
    ]
    return np.tile((noise - noise.mean()) / noise.std(), (2, 2))


def offsets(pattern: int, count: int) -> list[int]:
    """`count` whole numbers in [0, TILE) that belong to a pattern."""
    state = pattern * 2654435761 + 12345
    values = []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        values.append((state >> 33) % TILE)
    return values


def tile_window(pattern: int, size: int, sigma: float = 0.0) -> Array:
    """A (size, size) window of periodic noise that belongs to a pattern. sigma: smoothing in pixels."""
    dx, dy = offsets(pattern, 2)
    return noise_tile(max(sigma, 1e-3), max(sigma, 1e-3))[dy : dy + size, dx : dx + size]
