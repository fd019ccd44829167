"""A linear autoencoder beside the networks, so that training starts at pixel PCA's quality instead of at noise."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional as F


def principal_components(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean (P,), components (count, P), standard deviations (count,), float32, and the residual variance per pixel.

    rows: (N, P). At most N - 1 components carry variance; the rest are zero. By scikit-learn: exact for few rows,
    randomized (Halko et al. 2011) for many, with a fixed seed.
    """
    found = min(count, len(rows) - 1, rows.shape[1])
    components = np.zeros((count, rows.shape[1]), np.float32)
    stds = np.zeros(count, np.float32)
    if found < 1:
        return rows.mean(0), components, stds, 0.0
    pca = PCA(found, random_state=0).fit(rows)
    components[:found], stds[:found] = pca.components_, np.sqrt(np.maximum(pca.explained_variance_, 0))
    noise = stds < stds[0] * 1e-4  # float32 directions below that are rounding
    components[noise], stds[noise] = 0, 0
    return pca.mean_, components, stds, float(pca.noise_variance_)


def share(network: nn.Module, name: str, part: nn.Module) -> None:
    """Let an encoder or a decoder use a part of the VAE without registering it, so that a checkpoint stores it once."""
    network.__dict__[name] = part


def bicubic_matrix(size: int, side: int) -> Tensor:
    """W (side, size): W @ image @ W.T is the image (size, size) enlarged bicubically to (side, side)."""
    return F.interpolate(torch.eye(size)[None, None], (side, size), mode="bicubic", align_corners=False)[0, 0]


class LinearPath(nn.Module):
    """PCA of the training images at `size` x `size` as whitened projection and its inverse.

    Not trained: the networks learn the residual. Before `fit` it contributes nothing.
    """

    mean: Tensor
    components: Tensor
    stds: Tensor
    enlarging: Tensor

    def __init__(self, latent_dim: int, channels: int, size: int, image_size: int) -> None:
        super().__init__()
        self.shape = (channels, size, size)
        self.image_size = image_size
        pixels = channels * size * size
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("components", torch.zeros(latent_dim, pixels))
        self.register_buffer("stds", torch.zeros(latent_dim))
        self.register_buffer("enlarging", bicubic_matrix(size, image_size), persistent=False)

    def downsample(self, images: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, C * size * size), by area averaging."""
        return F.interpolate(images.float(), self.shape[1:], mode="area").flatten(1)

    @torch.no_grad()
    def fit(self, rows: Tensor) -> Tensor:
        """rows: (N, C * size * size), training images through `downsample`.

        Returns the log variance (D,) of the whitened latents given an image in probabilistic PCA,
        log(s2 / (lambda_d + s2)), s2 the variance per pixel outside the components (Tipping & Bishop 1999).
        """
        mean, components, stds, residual = principal_components(rows.numpy(), len(self.stds))
        for buffer, value in ((self.mean, mean), (self.components, components), (self.stds, stds)):
            buffer.copy_(torch.from_numpy(value))
        residual = max(residual, 1e-6)
        return torch.log(residual / (self.stds.square() + residual))

    def encode(self, images: Tensor) -> Tensor:
        """(B, C, S, S) in [-1, 1] -> (B, D), unit variance over the images it was fitted on. In float32."""
        with torch.autocast(images.device.type, enabled=False):
            inverse = torch.where(self.stds > 0, 1.0 / self.stds.clamp_min(1e-12), 0.0)
            return (self.downsample(images) - self.mean) @ self.components.T * inverse

    def decode(self, latent: Tensor) -> Tensor:
        """(B, D or more) -> (B, C, S, S), of the first D latents. In float32, enlarged bicubically."""
        with torch.autocast(latent.device.type, enabled=False):
            rows = (latent[:, : len(self.stds)].float() * self.stds) @ self.components + self.mean
            small: Tensor = rows.unflatten(1, self.shape)
            if latent.device.type == "cuda":  # whose kernel sums gradients in no fixed order
                return self.enlarging @ small @ self.enlarging.T
            return F.interpolate(small, (self.image_size, self.image_size), mode="bicubic", align_corners=False)
