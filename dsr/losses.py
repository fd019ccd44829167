"""The loss of a super-resolver: pixels, identity, feature matching, perceptual, total variation. Plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dsr.config import DSRTrainingConfig
from earface.core.errors import InputError
from earface.core.needed import MissingWeightsError
from earface.data.pixels import to_unit
from earface.nn.frozen import FrozenRecognizer
from earface.nn.losses import LossResult, feature_matching_loss
from earface.nn.perceptual import PerceptualLoss
from earface.nn.precision import float32_island


class Perceptual(Protocol):
    """`earface.nn.perceptual.PerceptualLoss`: [0, 1] images twice -> (B,)."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor: ...

    def to(self, device: torch.device) -> object: ...


@dataclass(frozen=True)
class DSRLossWeights:
    """Of the terms beside L1, whose weight is 1; a term of weight 0 is not computed."""

    perceptual: float = 0.0
    identity: float = 0.0
    feature_match: float = 0.0
    tv: float = 0.0


@dataclass(frozen=True)
class DSRLossResult(LossResult):
    """With the recogniser's embedding of the super-resolved faces."""

    embedding: Tensor | None  # (B, D) of length 1; None without a recogniser


class DSRLoss:
    """L1 + perceptual + identity + feature matching + total variation, each with its weight, on [0, 1] pixels.

    Raises ValueError if a weight above 0 lacks its network.
    """

    def __init__(
        self, weights: DSRLossWeights, recognizer: FrozenRecognizer | None = None, perceptual: Perceptual | None = None
    ) -> None:
        if (weights.identity or weights.feature_match) and recognizer is None:
            raise ValueError("identity and feature matching need a recogniser")
        if weights.perceptual and perceptual is None:
            raise ValueError("the perceptual term needs a network")
        self.weights, self.recognizer, self.perceptual = weights, recognizer, perceptual

    def __call__(self, sr: Tensor, hr: Tensor, jitter: float = 0.0) -> DSRLossResult:
        """sr, hr: (B, 3, 128, 128) in [-1, 1]. Without gradients identity is computed even at weight 0.

        jitter: the recogniser sees each pair moved by `random_similarity` of this amount, so that the super-resolver
        cannot fit it at one alignment only.
        """
        weights, embedding = self.weights, None
        terms = {"l1": l1_loss(sr, hr)}
        total = terms["l1"]
        recognizing = bool(weights.identity or weights.feature_match)
        if self.recognizer is not None and (recognizing or not torch.is_grad_enabled()):
            grid = random_similarity(sr, jitter) if jitter else None
            with torch.no_grad():
                hr_maps, hr_embedding = self.recognizer(moved(hr, grid))
            sr_maps, embedding = self.recognizer(moved(sr, grid))
            terms["identity"] = identity_loss(embedding, hr_embedding)
            terms["feature_match"] = feature_matching_loss(sr_maps, hr_maps)
            total = total + weights.identity * terms["identity"] + weights.feature_match * terms["feature_match"]
        if self.perceptual is not None and weights.perceptual:
            terms["perceptual"] = self.perceptual(to_unit(sr), to_unit(hr)).mean()
            total = total + weights.perceptual * terms["perceptual"]
        if weights.tv:
            terms["tv"] = total_variation(sr)
            total = total + weights.tv * terms["tv"]
        return DSRLossResult(total, terms, embedding)


@float32_island
def random_similarity(faces: Tensor, amount: float) -> Tensor:
    """A sampling grid (B, H, W, 2), float32, for each of the faces (B, C, H, W), from their device's own generator.

    Uniformly rotated by up to `amount` radians either way, zoomed by 1 +/- amount, shifted by `amount` half sides.
    """
    angle, zoom, right, down = (torch.rand(4, len(faces), device=faces.device) * 2.0 - 1.0) * amount
    cos, sin = (1.0 + zoom) * angle.cos(), (1.0 + zoom) * angle.sin()
    matrix = torch.stack([torch.stack([cos, -sin, right], 1), torch.stack([sin, cos, down], 1)], 1)
    return F.affine_grid(matrix, list(faces.shape), align_corners=False)


@float32_island
def moved(faces: Tensor, grid: Tensor | None) -> Tensor:
    """Faces sampled at the grid, bilinear, reflected at the border; None: unchanged."""
    if grid is None:
        return faces
    return F.grid_sample(faces, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


@float32_island
def l1_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """(B, 3, H, W) in [-1, 1] twice -> the mean absolute difference of [0, 1] pixels."""
    return (sr - hr).abs().mean() * 0.5


@float32_island
def identity_loss(first: Tensor, second: Tensor) -> Tensor:
    """Embeddings (B, D) twice -> the mean of 1 - cosine, 0 to 2."""
    return (1.0 - F.cosine_similarity(first, second, dim=1)).mean()


@float32_island
def total_variation(images: Tensor) -> Tensor:
    """(B, C, H, W) in [-1, 1] -> absolute differences of neighbours in [0, 1] pixels, summed over an image (Rudin et
    al. 1992, anisotropic), mean over the batch."""
    down = (images[:, :, 1:] - images[:, :, :-1]).abs().sum(dim=(1, 2, 3))
    across = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().sum(dim=(1, 2, 3))
    return (down + across).mean() * 0.5


def load_perceptual(config: DSRTrainingConfig) -> PerceptualLoss | None:
    """None where its weight is 0. Raises InputError if its network is not available."""
    if config.lambda_perceptual == 0:
        return None
    try:
        return PerceptualLoss(config.perceptual_backbone, config.perceptual_weights, off="`lambda_perceptual` 0")
    except MissingWeightsError:
        raise
    except InputError as error:
        raise InputError(str(error) if str(error).startswith("`") else f"`perceptual_weights`: {error}") from None
