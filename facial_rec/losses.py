"""The loss of a fine-tuning: the classes, and the pretrained network's embedding of the HR face. Plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from earface.nn.losses import LossResult
from earface.nn.margin_head import margin_loss
from facial_rec.model import unit


@dataclass(frozen=True)
class EdgeFaceLossWeights:
    """Weights of the terms; `align` and `keep` are not computed at 0."""

    arcface: float = 1.0
    align: float = 0.0
    keep: float = 0.0


class EdgeFaceLoss:
    """Margin loss over the classes, and 1 - cosine to the pretrained network's embedding of the HR face."""

    def __init__(self, weights: EdgeFaceLossWeights, label_smoothing: float = 0.0) -> None:
        self.weights, self.label_smoothing = weights, label_smoothing

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        embeddings: Tensor,
        pretrained: Tensor | None = None,
        of_hr: Tensor | None = None,
    ) -> LossResult:
        """logits: (B, C), of the margin head; labels: (B,); embeddings: (B, D), of the training faces.

        pretrained: (B, D) of length 1, of the HR faces by the pretrained network; None: without `align` and `keep`.
        of_hr: (B, D), of the HR faces by the trained network; None: without `keep`.
        """
        terms = {"arcface": margin_loss(logits, labels, self.label_smoothing)}
        total = self.weights.arcface * terms["arcface"]
        if pretrained is not None:
            terms["align"] = (1.0 - (unit(embeddings) * pretrained).sum(dim=1)).mean()
            total = total + self.weights.align * terms["align"]
            if of_hr is not None:
                terms["keep"] = (1.0 - (unit(of_hr) * pretrained).sum(dim=1)).mean()
                total = total + self.weights.keep * terms["keep"]
        return LossResult(total, terms)
