"""Principal components of the latents, in the metric of the decoded pictures or the Euclidean one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

from ear_teacher.metrics.reconstruction import Autoencoder, decode_unit
from earface.core.errors import InputError
from earface.data.image_rows import Images

METRIC_EARS = (
    4  # the decoder's derivative is averaged over; on 518 real ears 1 and 8 find the same components (r > .97)
)
NEGLIGIBLE = 1e-9  # of the first component's variance: rounding
BLOCK_ROWS = 256  # images held as float64 at once

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Components:
    """K principal components of the latents of N ears, largest first."""

    mean: Floats  # (D,) of mu
    directions: Floats  # (K, D) the change of mu per standard deviation of a score
    scores: Floats  # (N, K) mean 0, standard deviation 1, uncorrelated
    variance: Floats  # (K,) share of the variance in the metric of the PCA
    latent_variance: Floats  # (K,) share of the variance of mu, latents unscaled


def picture_metric(model: Autoencoder, mu: Floats, batch_size: int, device: str) -> Floats:
    """G (D, D): a small step dz from latents (N, D) changes the decoded picture by dz' G dz, squared, over all pixels.

    The mean of J'J over some of the ears, J the decoder's derivative by central differences of one standard deviation
    of each latent; pictures in [0, 1]. The entries of a constant latent are 0.
    """
    stds = mu.std(axis=0)
    varying = np.flatnonzero(stds > 0)
    metric = np.zeros((mu.shape[1], mu.shape[1]))
    if len(varying) == 0:
        return metric
    chosen = np.unique(np.linspace(0, len(mu) - 1, METRIC_EARS).round().astype(int))
    for ear in mu[chosen]:
        derivative = np.concatenate(
            [
                _differences(model, ear, latents, stds, device)
                for latents in np.array_split(varying, -(-len(varying) // batch_size))
            ]
        )
        metric[np.ix_(varying, varying)] += derivative @ derivative.T / len(chosen)
    return metric


def _differences(model: Autoencoder, ear: Floats, latents: NDArray[np.intp], stds: Floats, device: str) -> Floats:
    """(len(latents), pixels): the change of the picture of `ear` (D,) per unit of each of the latents."""
    steps = np.zeros((len(latents), len(ear)))
    steps[np.arange(len(latents)), latents] = stds[latents]
    sides = [decode_unit(model, torch.from_numpy(ear + sign * steps).float(), device) for sign in (1, -1)]
    return ((sides[0] - sides[1]).flatten(1).double().numpy()) / (2 * stds[latents, None])


def principal_components(mu: Tensor, count: int, brightness: Floats, metric: Floats | None = None) -> Components:
    """The first `count` components of latents (N, D), fewer where fewer carry variance.

    metric: G (D, D), symmetric, positive semidefinite; None is the identity. The PCA is that of mu G^(1/2), so with the
    metric of the pictures it is, to first order, PCA of the decoded pictures, and it does not depend on how the latents
    are scaled or mixed. A direction is the regression of mu on its score, cov(mu, s) / sd(s): with the identity the
    usual eigenvector, times its standard deviation.
    brightness: (N,) of the ears; a component's positive end is the brighter one.
    Raises InputError if the latents do not vary.
    """
    latents = mu.double().numpy()
    mean = latents.mean(axis=0)
    centered = latents - mean
    total = float(centered.var(axis=0).sum())
    rows = centered if metric is None else centered @ _root(metric)
    if total <= 0 or float(rows.var(axis=0).sum()) <= 0:
        raise InputError("the latents of these ears do not differ, so they have no components: the model collapsed")
    pca = PCA(svd_solver="full").fit(rows)
    kept = min(count, int((pca.explained_variance_ > NEGLIGIBLE * pca.explained_variance_[0]).sum()))
    scores = (rows - pca.mean_) @ pca.components_[:kept].T
    scores /= np.sqrt(pca.explained_variance_[:kept])
    scores *= np.where((scores * (brightness - brightness.mean())[:, None]).sum(axis=0) < 0, -1.0, 1.0)
    directions = scores.T @ centered / (len(mu) - 1)
    return Components(
        mean=mean,
        directions=directions,
        scores=scores,
        variance=pca.explained_variance_ratio_[:kept],
        latent_variance=np.square(directions).sum(axis=1) * (len(mu) - 1) / len(mu) / total,
    )


def _root(metric: Floats) -> Floats:
    """R (D, D) with R R' = metric."""
    eigenvalues, eigenvectors = np.linalg.eigh(metric)
    root: Floats = eigenvectors * np.sqrt(eigenvalues.clip(min=0))
    return root


def share_of_pictures(scores: Floats, images: Images) -> Floats:
    """(K,) the share of the variance of all pixels of N images that each of K uncorrelated scores (N, K) predicts.

    R^2 of the least-squares prediction of every pixel from a score, weighted by the pixels' variances; the scores being
    uncorrelated, the shares add up.
    """
    units = scores - scores.mean(axis=0)
    units /= np.linalg.norm(units, axis=0)
    pixels = int(np.prod(images.shape[1:]))
    products, total, squares = np.zeros((scores.shape[1], pixels)), np.zeros(pixels), 0.0
    for start in range(0, len(images), BLOCK_ROWS):
        block = images[start : start + BLOCK_ROWS].reshape(-1, pixels).astype(np.float64)
        products += units[start : start + BLOCK_ROWS].T @ block
        total += block.sum(axis=0)
        squares += float(np.square(block).sum())
    variance = squares - float(np.square(total).sum()) / len(images)
    return np.square(products).sum(axis=1) / variance if variance > 0 else np.zeros(scores.shape[1])
