"""Codes and reconstructions of a set of ears by the VAE and its baselines, with metrics per image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ear_teacher.losses import kl_divergence
from ear_teacher.model import EarVAE
from ear_teacher.posterior import ACTIVE_VARIANCE, LatentMoments
from earface.core.progress import tracked
from earface.data.image_rows import Images
from earface.data.pixels import to_model_range, to_unit
from earface.metrics.image_quality import IMAGE_METRICS


class Autoencoder(Protocol):
    """Images (B, C, S, S) in [-1, 1] to codes (B, D) and back: an EarVAE, its linear path, a PixelPCA."""

    def encode(self, images: Tensor) -> Tensor: ...

    def decode(self, latent: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Reconstruction:
    """The reconstructions of N images by one method."""

    method: Autoencoder
    codes: Tensor  # (N, D) float32, on the CPU
    quality: dict[str, NDArray[np.float64]]  # by the name of each of IMAGE_METRICS, (N,)

    @property
    def psnr(self) -> NDArray[np.float64]:
        """(N,) dB."""
        return self.quality["psnr"]


@dataclass(frozen=True)
class LatentUse:
    """How many nats the VAE's latents carry over N images, and in which dimensions."""

    kl_nats: NDArray[np.float64]  # (N,) KL from the prior, summed over dimensions
    kl_per_dimension: NDArray[np.float64]  # (D,) nats, mean over images
    active: NDArray[np.bool_]  # (D,) variance of mu over images above ACTIVE_VARIANCE
    moments: LatentMoments


@torch.no_grad()
def encode_all(encode: Callable[[Tensor], Tensor], images: Images, batch_size: int, device: str) -> Tensor:
    """(N, S, S, C) uint8 -> (N, D) float32 on the CPU."""
    parts = []
    for start in tracked(range(0, len(images), batch_size), "encoding, batches"):
        batch = torch.from_numpy(np.array(images[start : start + batch_size]))  # a memory map is read-only
        parts.append(encode(to_model_range(batch.to(device))).float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def decode_unit(method: Autoencoder, codes: Tensor, device: str) -> Tensor:
    """(B, D) -> (B, C, S, S) in [0, 1] on the CPU; values outside are clipped."""
    return to_unit(method.decode(codes.to(device))).clamp(0.0, 1.0).cpu()


def unit_images(images: NDArray[np.uint8]) -> Tensor:
    """(N, S, S, C) uint8 -> (N, C, S, S) float32 in [0, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().div(255.0).contiguous()


def measure(method: Autoencoder, codes: Tensor, images: Images, batch_size: int, device: str) -> Reconstruction:
    """The image metrics of the images decoded from their codes: float32, [0, 1], a batch at a time."""
    parts: dict[str, list[Tensor]] = {name: [] for name in IMAGE_METRICS}
    for start in tracked(range(0, len(images), batch_size), "decoding, batches"):
        batch = slice(start, start + batch_size)
        target, decoded = unit_images(images[batch]), decode_unit(method, codes[batch], device)
        for name, metric in IMAGE_METRICS.items():
            parts[name].append(metric(decoded, target))
    return Reconstruction(method, codes, {name: torch.cat(part).double().numpy() for name, part in parts.items()})


def encode_posteriors(model: EarVAE, images: Images, batch_size: int, device: str) -> tuple[Tensor, Tensor]:
    """mu and logvar, each (N, D), on the CPU."""
    both = encode_all(lambda batch: torch.cat(model.encode_posterior(batch), dim=1), images, batch_size, device)
    mu, logvar = both.chunk(2, dim=1)
    return mu.contiguous(), logvar.contiguous()


def latent_use(mu: Tensor, logvar: Tensor, appearance_dim: int = 0) -> LatentUse:
    """mu, logvar: (N, D), the last `appearance_dim` of which are measured and count as 0 nats."""
    moments = LatentMoments(mu.shape[1])
    moments.add(mu, logvar)
    shape_dim = mu.shape[1] - appearance_dim
    kl = moments.kl_per_dimension.numpy()
    kl[shape_dim:] = 0
    return LatentUse(
        kl_nats=kl_divergence(mu[:, :shape_dim], logvar[:, :shape_dim]).double().sum(dim=1).numpy(),
        kl_per_dimension=kl,
        active=(moments.covariance.diagonal() > ACTIVE_VARIANCE).numpy(),
        moments=moments,
    )
