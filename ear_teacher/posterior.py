"""Statistics of the latents of a set of images: moments, active units, KL per dimension."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ear_teacher.losses import kl_divergence
from earface.data.pixels import to_float64

ACTIVE_VARIANCE = 0.01  # Burda et al. 2016: a unit is active when Var_x(E[z|x]) exceeds this


class LatentMoments:
    """Sums over images of mu, mu mu^T, posterior variance and KL; sums of several processes add up.

    They stay on the device until `reduce`.
    """

    def __init__(self, latent_dim: int, device: torch.device | str = "cpu") -> None:
        """device: of mu and logvar."""
        self.device = torch.device(device)
        self.sums = to_float64(torch.zeros(1 + 3 * latent_dim + latent_dim**2, device=device))
        self.latent_dim = latent_dim

    def add(self, mu: Tensor, logvar: Tensor) -> None:
        """mu, logvar: (B, D)."""
        kl = kl_divergence(mu, logvar)
        kl, mu, logvar = (to_float64(each) for each in (kl, mu, logvar))
        count = self.sums.new_full((1,), len(mu))
        self.sums += torch.cat([count, mu.sum(0), logvar.exp().sum(0), kl.sum(0), (mu.T @ mu).flatten()])

    def reduce(self, total: Callable[[Tensor], Tensor] = lambda sums: sums) -> None:
        """Move the sums over all processes to the CPU, where they are read."""
        self.sums = total(self.sums).cpu()

    @property
    def count(self) -> float:
        return float(self.sums[0])

    def _part(self, index: int) -> Tensor:
        return self.sums[1 + index * self.latent_dim :][: self.latent_dim] / self.sums[0]

    @property
    def mean(self) -> Tensor:
        """(D,), the mean of mu."""
        return self._part(0)

    @property
    def mean_variance(self) -> Tensor:
        """(D,), the mean of exp(logvar)."""
        return self._part(1)

    @property
    def kl_per_dimension(self) -> Tensor:
        """(D,) in nats, mean over images."""
        return self._part(2)

    @property
    def covariance(self) -> Tensor:
        """(D, D) of mu, population."""
        second = self.sums[1 + 3 * self.latent_dim :].view(self.latent_dim, -1) / self.sums[0]
        return second - torch.outer(self.mean, self.mean)

    @property
    def active_units(self) -> int:
        return int((self.covariance.diagonal() > ACTIVE_VARIANCE).sum())

    def collapse_warning(self) -> str | None:
        """One sentence if hardly any latent is active, else None."""
        needed = max(2, self.latent_dim // 100)
        if self.count < 2 or self.active_units >= needed:
            return None
        return (
            f"posterior collapse: {self.active_units} of {self.latent_dim} latents are active "
            f"({self.kl_per_dimension.sum():.2f} nats in all): lower `kl_weight`, or anneal it later or longer"
        )


@dataclass
class AggregatePosterior:
    """A Gaussian fitted to the posteriors of many images, to sample from where the KL term is weak."""

    mean: Tensor  # (D,)
    factor: Tensor  # (D, D), lower triangular

    @classmethod
    def fit(cls, moments: LatentMoments) -> Self:
        """Covariance of mu plus the mean posterior variance, so it is never singular."""
        covariance = moments.covariance + torch.diag(moments.mean_variance + 1e-6)
        return cls(moments.mean.float(), torch.linalg.cholesky(covariance).float().contiguous())

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Latents (count, D), sampled on the CPU, so that a seed gives the same ones on every device."""
        noise = torch.randn(count, len(self.mean), generator=generator)
        return self.mean + noise @ self.factor.T
