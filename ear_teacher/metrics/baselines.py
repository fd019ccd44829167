"""Baselines: pixel PCA for reconstruction, histograms of oriented gradients for identification."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.feature import hog
from torch import Tensor

from ear_teacher.appearance_code import AppearanceCode
from ear_teacher.linear_path import LinearPath
from earface.data.image_rows import Images
from earface.data.images import Pixels
from earface.data.pixels import float64_device

STRIP_BYTES = 256 * 1024**2  # of pixels held as float64 at once
BLOCK_ROWS = 256  # images held as float32 at once
EXACT_ROWS = 4096  # the Gram matrix of more costs more than the subspace iteration
POWER_PASSES = 4  # Halko et al. 2011: the decaying spectrum of images needs no more
EXTRA_DIRECTIONS = 10  # of the subspace iteration, beyond those kept

HOG_CELLS = 8  # per side, so that the features do not depend on the image size
HOG_ORIENTATIONS = 9


@dataclass
class PixelPCA:
    """The best linear autoencoder of its size: projection to principal components of whole images, and back.

    Images are (B, C, S, S) in [-1, 1], codes (B, k) are not whitened, as in scikit-learn's PCA.
    """

    mean: Tensor  # (S * S * C,), pixels in the order of an image (S, S, C)
    components: Tensor  # (k, S * S * C), orthonormal
    channels: int

    @classmethod
    def fit(
        cls,
        images: Images,
        count: int,
        *,
        mirror: bool = False,
        device: str = "cpu",
        exact_rows: int = EXACT_ROWS,
    ) -> Self:
        """The first `count` components of (N, S, S, C) images, with `mirror` of these and their mirror images.

        Fewer where fewer carry variance: at most rows - 1, rows being N or 2 N. Up to `exact_rows` rows they are exact
        (eigenvectors of the rows' Gram matrix in float64: the result of scikit-learn's full SVD, without its copies of
        all pixels); beyond, by subspace iteration with a fixed seed. On the CPU for a device without float64.
        """
        rows = _Rows(images, mirror, float64_device(device))
        count = min(count, len(rows) - 1, rows.mean.numel())
        found = _by_gram(rows, count) if len(rows) <= exact_rows else _by_subspace(rows, count)
        return cls(rows.mean.float().to(device), found.to(device), images.shape[3])

    def encode(self, images: Tensor) -> Tensor:
        return (images.permute(0, 2, 3, 1).flatten(1) - self.mean) @ self.components.T

    def decode(self, codes: Tensor) -> Tensor:
        """(B, k) -> (B, C, S, S), not clipped."""
        side = round((self.mean.numel() / self.channels) ** 0.5)
        pixels = codes @ self.components + self.mean
        return pixels.view(-1, side, side, self.channels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class LinearOnly:
    """The closed-form part of an EarVAE: its linear path and, where it has one, its appearance code."""

    path: LinearPath
    appearance: AppearanceCode | None

    def encode(self, images: Tensor) -> Tensor:
        if self.appearance is None:
            return self.path.encode(images)
        canonical, code = self.appearance.split(images)
        return torch.cat([self.path.encode(canonical), code], dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        if self.appearance is None:
            return self.path.decode(codes)
        shape = codes.shape[1] - self.appearance.size
        return self.appearance.restore(self.path.decode(codes[:, :shape]), codes[:, shape:])


class _Rows:
    """(N, S, S, C) uint8 images, possibly followed by their mirror images, as centred rows of pixels in [-1, 1]."""

    def __init__(self, images: Images, mirror: bool, device: torch.device) -> None:
        self.images, self.mirror, self.device = images, mirror, device
        parts = (images[start : start + BLOCK_ROWS] for start in range(0, len(images), BLOCK_ROWS))
        mean = sum(part.sum(axis=0, dtype=np.float64) for part in parts) / len(images) / 127.5 - 1.0
        mean = (mean + mean[:, ::-1]) / 2 if mirror else mean
        self.mean = torch.from_numpy(mean.ravel()).to(device)

    def __len__(self) -> int:
        return len(self.images) * (2 if self.mirror else 1)

    def _pixels(self, part: NDArray[np.uint8], dtype: torch.dtype) -> Tensor:
        part = np.concatenate([part, part[:, :, ::-1]]) if self.mirror else np.array(part)  # a map is read-only
        return torch.from_numpy(part).to(self.device).to(dtype).flatten(1).div_(127.5).sub_(1.0)

    def strips(self) -> Iterator[tuple[slice, Tensor]]:
        """All rows, a horizontal strip of pixels at a time: the columns it is, and float64 (rows, columns)."""
        _, side, width, channels = self.images.shape
        lines = max(1, STRIP_BYTES // (8 * len(self) * width * channels))
        for top in range(0, side, lines):
            pixels = self._pixels(self.images[:, top : top + lines], torch.float64)
            columns = slice(top * width * channels, top * width * channels + pixels.shape[1])
            yield columns, pixels - self.mean[columns]

    def blocks(self) -> Iterator[Tensor]:
        """All pixels, some rows at a time: float32 (rows, S * S * C)."""
        for start in range(0, len(self.images), BLOCK_ROWS):
            yield self._pixels(self.images[start : start + BLOCK_ROWS], torch.float32) - self.mean.float()


def _by_gram(rows: _Rows, count: int) -> Tensor:
    """(k, P) float32: X' v / sqrt(w) for the largest eigenvalues w and their eigenvectors v of X X'."""
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for _, pixels in rows.strips():
        gram += pixels @ pixels.T
    eigenvalues, eigenvectors = torch.linalg.eigh(gram)
    chosen = [i for i in range(len(rows) - 1, len(rows) - 1 - count, -1) if eigenvalues[i] > 1e-12 * eigenvalues[-1]]
    weights = (eigenvectors[:, chosen] / eigenvalues[chosen].sqrt()).T
    components = torch.empty(len(chosen), rows.mean.numel(), device=rows.device)
    for columns, pixels in rows.strips():
        components[:, columns] = (weights @ pixels).float()
    return components


def _by_subspace(rows: _Rows, count: int) -> Tensor:
    """(count, P) float32: power iteration on a block of directions, then PCA inside the space they span."""
    directions = min(count + EXTRA_DIRECTIONS, rows.mean.numel())
    basis = torch.randn(rows.mean.numel(), directions, generator=torch.Generator().manual_seed(0)).to(rows.device)
    for _ in range(POWER_PASSES):
        image = torch.zeros_like(basis)
        for pixels in rows.blocks():
            image += pixels.T @ (pixels @ basis)
        basis = torch.linalg.qr(image).Q
    inside = torch.zeros(directions, directions, dtype=torch.float64, device=rows.device)
    for pixels in rows.blocks():
        codes = (pixels @ basis).double()
        inside += codes.T @ codes
    eigenvectors: Tensor = torch.linalg.eigh(inside).eigenvectors.flip(1)[:, :count].float()
    components: Tensor = (basis @ eigenvectors).T.contiguous()
    return components


def hog_features(images: Images) -> NDArray[np.float32]:
    """(N, S, S, C) RGB or grey -> (N, 1764), S a multiple of 8: histograms of oriented gradients (Dalal & Triggs 2005).

    scikit-image's hog: 9 unsigned orientations of each pixel's strongest channel, 8x8 cells over the image, blocks of
    2x2 cells, L2-Hys normalisation.
    """
    return np.stack([_hog(np.asarray(images[row])) for row in range(len(images))])


def _hog(image: Pixels) -> NDArray[np.float32]:
    cell = image.shape[0] // HOG_CELLS
    features: NDArray[np.float32] = hog(
        image,
        orientations=HOG_ORIENTATIONS,
        pixels_per_cell=(cell, cell),
        cells_per_block=(2, 2),
        block_norm="L2-Hys",
        channel_axis=2,
    ).astype(np.float32)
    return features
