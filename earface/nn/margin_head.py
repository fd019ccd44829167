"""Margin heads over unit embeddings: ArcFace, CosFace, AdaFace. Plain PyTorch, float32 whatever autocast says."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earface.nn.losses import shared_count
from earface.nn.precision import float32_island

Margin = Literal["arcface", "cosface", "adaface"]
NORM_CONCENTRATION = 0.333  # AdaFace's h: a norm of h deviations above the mean has the whole margin
NORM_MOMENTUM = 0.01  # AdaFace's moving mean and deviation of the norms


class MarginHead(nn.Module):
    """Embeddings (B, D) and their classes (B,) -> the scaled logits (B, C) that `margin_loss` takes.

    A logit is scale x cos(theta) of an embedding and a class centre; that of the face's own class is made harder by
    the margin. Without labels no logit is.

    arcface: cos(theta + margin). Deng et al. 2019. Beyond theta = pi - margin, where that would rise again, it goes on
        as a line of slope 1 in the cosine: continuous and falling in theta all the way.
    cosface: cos(theta) - margin. Wang et al. 2018.
    adaface: cos(theta - margin z) - margin (1 + z), where z in [-1, 1] is how long the embedding is for its batch, so
        that faces of poor quality, whose embeddings are short, are not pressed. Kim et al. 2022, equations 5 to 9; its
        moving mean and deviation are buffers.

    sub_centers: a class has so many centres, of which the nearest counts, so that noisy labels gather around one of
    their own. Deng et al. 2020.
    """

    norm_mean: Tensor
    norm_std: Tensor

    def __init__(
        self,
        embedding_dim: int,
        classes: int,
        kind: Margin = "arcface",
        margin: float = 0.45,
        scale: float = 64.0,
        sub_centers: int = 1,
    ) -> None:
        super().__init__()
        self.kind, self.margin, self.scale, self.sub_centers = kind, margin, scale, sub_centers
        # class centres, those of a class in a row; their lengths do not matter
        self.weight = nn.Parameter(torch.empty(classes * sub_centers, embedding_dim))
        nn.init.normal_(self.weight, std=0.01)
        if kind == "adaface":
            self.register_buffer("norm_mean", torch.tensor(20.0))  # the authors' start
            self.register_buffer("norm_std", torch.tensor(100.0))

    @float32_island
    def forward(self, embeddings: Tensor, labels: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """Half precision is lifted to float32; float64 stays.

        known: (B,) bool, the embeddings whose label counts, if not all: AdaFace's statistics are of these alone.
        A label that is no class raises ValueError on the CPU. On a GPU, where reading labels would stall each step, and
        where this is compiled, it is `gather` that fails: on CUDA by a device-side assertion.
        """
        weight = self.weight.to(embeddings.dtype)
        cosine = F.linear(F.normalize(embeddings, dim=1), F.normalize(weight, dim=1))
        if self.sub_centers > 1:
            cosine = cosine.view(len(cosine), -1, self.sub_centers).max(dim=2).values
        if labels is None:
            return self.scale * cosine
        if labels.device.type == "cpu" and not torch.compiler.is_compiling():
            _check_labels(labels, cosine.shape[1])
        own = self._harder(cosine.gather(1, labels[:, None]), embeddings, known)
        return self.scale * cosine.scatter(1, labels[:, None], own)

    def _harder(self, cosine: Tensor, embeddings: Tensor, known: Tensor | None) -> Tensor:
        """(B, 1), of each face and its own class."""
        if self.kind == "cosface":
            return cosine - self.margin
        if self.kind == "arcface":
            return added_angle(cosine, self.margin)
        quality = self._relative_norm(embeddings, known)
        end = 1.0 - torch.finfo(cosine.dtype).eps  # at 1 the derivative is infinite
        angle = torch.acos(cosine.clamp(-end, end))
        return torch.cos((angle - self.margin * quality).clamp(0.0, math.pi)) - self.margin * (1.0 + quality)

    @torch.no_grad()
    def _relative_norm(self, embeddings: Tensor, known: Tensor | None) -> Tensor:
        """(B, 1) in [-1, 1]. In training mode the moving statistics take this batch in first, as the authors' do."""
        norms = embeddings.norm(dim=1, keepdim=True).clamp(0.001, 100.0)
        if self.training and known is not None:
            self._update_by(norms[:, 0], known)
        elif self.training and len(norms) > 1:
            self.norm_mean.lerp_(norms.mean().to(self.norm_mean), NORM_MOMENTUM)
            self.norm_std.lerp_(norms.std().to(self.norm_std), NORM_MOMENTUM)
        return ((norms - self.norm_mean) / (self.norm_std + 1e-3) * NORM_CONCENTRATION).clamp(-1.0, 1.0)

    def _update_by(self, norms: Tensor, known: Tensor) -> None:
        """The moving statistics, by those of the norms (B,) that are known, where these are two or more."""
        count = known.sum()
        mean = torch.where(known, norms, 0.0).sum() / count.clamp_min(1)
        variance = torch.where(known, (norms - mean).square(), 0.0).sum() / (count - 1).clamp_min(1)
        momentum = NORM_MOMENTUM * (count > 1).to(self.norm_mean)
        self.norm_mean.lerp_(mean.to(self.norm_mean), momentum)
        self.norm_std.lerp_(variance.sqrt().to(self.norm_std), momentum)


def _check_labels(labels: Tensor, classes: int) -> None:
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"labels from {int(labels.min())} to {int(labels.max())} for {classes} classes")


def added_angle(cosine: Tensor, angle: float) -> Tensor:
    """cos(theta + angle) of cos(theta); beyond theta = pi - angle the line cos(theta) + cos(angle) - 1.

    Falls in theta from 0 to pi, and continuous: both are -1 at pi - angle.
    """
    sine = (1.0 - cosine.square()).clamp_min(torch.finfo(cosine.dtype).tiny).sqrt()  # at 0 its derivative is infinite
    turned = cosine * math.cos(angle) - sine * math.sin(angle)
    return torch.where(cosine > -math.cos(angle), turned, cosine + (math.cos(angle) - 1.0))


@float32_island
def margin_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, ignored: int | None = None) -> Tensor:
    """Cross entropy of `MarginHead`'s logits (B, C), in nats, mean over the batch.

    The smoothed target is (1 - s) on the label and s / C on every class (Szegedy et al. 2016), and it meets the logits
    as they are, scale and margin included. ignored: the label of rows that do not count; 0 where no row does.
    """
    if ignored is not None:
        summed = F.cross_entropy(logits, labels, ignore_index=ignored, reduction="sum", label_smoothing=label_smoothing)
        return summed / shared_count((labels != ignored).sum())
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def margin_at(step: int, steps: int, margin: float) -> float:
    """The margin after `step` steps: it rises from 0 in a straight line over `steps`.

    From the first step on, ArcFace at .3 collapses on noisy sets: all embeddings become one.
    """
    return margin if steps <= 0 else margin * min(step / steps, 1.0)
