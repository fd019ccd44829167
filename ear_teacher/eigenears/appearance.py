"""How much of a component is brightness, colour, or a gradient; the rest is structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earface.data.image_rows import Images

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as everywhere in this project
BLOCK_ROWS = 256  # images held as float64 at once
PARTS = ("brightness", "colour", "gradient", "structure")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Appearance:
    """Brightness, colour and gradient of N pictures, pixels in [0, 1]."""

    brightness: Floats  # (N, 1) mean luma
    colour: Floats  # (N, 3) mean red, green, blue; a grey picture's three are equal
    slopes: Floats  # (N, 2) of the least-squares plane through luma: to the right, down; per half side


def appearance(images: Images) -> Appearance:
    """Of (N, S, S, C) images, C = 1 or 3 (RGB)."""
    places = (np.arange(images.shape[1]) + 0.5) / images.shape[1] * 2.0 - 1.0
    weights = places / np.square(places).sum() / len(places)  # sum(x y) / sum(x^2): the places' mean is 0
    colours, slopes = [], []
    for start in range(0, len(images), BLOCK_ROWS):
        pixels = images[start : start + BLOCK_ROWS] / 255.0
        pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
        luma = pixels @ np.array(LUMA)
        colours.append(pixels.mean(axis=(1, 2)))
        slopes.append(np.stack([(luma @ weights).sum(axis=1), (weights @ luma).sum(axis=1)], axis=1))
    colour = np.concatenate(colours)
    return Appearance(colour @ np.array(LUMA)[:, None], colour, np.concatenate(slopes))


def r_squared(scores: Floats, regressors: Floats) -> Floats:
    """(K,) coefficients of determination, 1 - residual / total sum of squares, of scores (N, K) on (N, P) and 1.

    Ordinary least squares on these very rows: with noise alone it is (rank of the regressors) / (N - 1) on average.
    0 for a constant score.
    """
    centered = scores - scores.mean(axis=0)
    inputs = regressors - regressors.mean(axis=0)
    left, singular, _ = np.linalg.svd(inputs, full_matrices=False)
    basis = left[:, singular > 1e-9 * max(float(singular[0]), 1e-9)]
    total = np.square(centered).sum(axis=0)
    explained: Floats = np.square(basis.T @ centered).sum(axis=0) / np.where(total > 0, total, 1.0)
    return explained


def laterality_share(scores: Floats, sides: Sequence[str]) -> Floats | None:
    """(K,) R^2 of each score (N, K) on which ear it is, over those of a known side; None if all are of one."""
    labels = np.array(sides)
    known = labels != ""
    if len(set(labels[known].tolist())) < 2:
        return None
    return r_squared(scores[known], (labels[known] == "l").astype(np.float64)[:, None])


def parts(scores: Floats, look: Appearance) -> dict[str, Floats]:
    """Shares of each score's variance, (K,) for each of PARTS, that add up to 1: the increase with each regressor.

    brightness: R^2 on mean luma; colour: what mean red, green and blue add; gradient: what the slopes of luma add;
    structure: the rest.
    """
    nested = (
        look.brightness,
        np.hstack([look.brightness, look.colour]),
        np.hstack([look.brightness, look.colour, look.slopes]),
    )
    levels = [np.zeros(scores.shape[1]), *(r_squared(scores, regressors) for regressors in nested)]
    levels.append(np.ones(scores.shape[1]))
    return {
        name: np.maximum(after - before, 0.0)
        for name, before, after in zip(PARTS, levels[:-1], levels[1:], strict=True)
    }
