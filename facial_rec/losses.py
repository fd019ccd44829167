"""The loss of a fine-tuning: the classes, and what the pretrained network makes of the HR face. Plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from earface.nn.losses import LossResult, feature_matching_loss
from earface.nn.margin_head import margin_loss
from facial_rec.model import unit


@dataclass(frozen=True)
class EdgeFaceLossWeights:
    """Weights of the terms; those but `arcface` are not computed at 0."""

    arcface: float = 1.0
    align: float = 0.0
    keep: float = 0.0
    feature_match: float = 0.0


class EdgeFaceLoss:
    """Margin loss over the classes; 1 - cosine to the pretrained network's embedding of the HR face; distance of maps.

    All but the first compare a face with itself, so that faces without a class take part in them.
    """

    def __init__(
        self, weights: EdgeFaceLossWeights, label_smoothing: float = 0.0, unlabelled: int | None = None
    ) -> None:
        """unlabelled: the label of faces without a class; None: all have one."""
        self.weights, self.label_smoothing, self.unlabelled = weights, label_smoothing, unlabelled

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        embeddings: Tensor,
        pretrained: Tensor | None = None,
        of_hr: Tensor | None = None,
        maps: list[Tensor] | None = None,
        pretrained_maps: list[Tensor] | None = None,
    ) -> LossResult:
        """logits: (B, C), of the margin head; labels: (B,); embeddings: (B, D), of the training faces.

        The margin loss is the mean over the faces with a class, 0 where none has one.

        pretrained: (B, D) of length 1, of the HR faces by the pretrained network; None: without `align` and `keep`.
        of_hr: (B, D), of the HR faces by the trained network; None: without `keep`.
        maps, pretrained_maps: of the training faces by the trained network, and of the HR faces by the pretrained one:
        n stages of (B, C, h, w); None: without `feature_match`.
        """
        terms = {"arcface": margin_loss(logits, labels, self.label_smoothing, self.unlabelled)}
        total = self.weights.arcface * terms["arcface"]
        if pretrained is not None:
            terms["align"] = (1.0 - (unit(embeddings) * pretrained).sum(dim=1)).mean()
            total = total + self.weights.align * terms["align"]
            if of_hr is not None:
                terms["keep"] = (1.0 - (unit(of_hr) * pretrained).sum(dim=1)).mean()
                total = total + self.weights.keep * terms["keep"]
        if maps is not None and pretrained_maps is not None:
            terms["feature_match"] = feature_matching_loss(maps, pretrained_maps)
            total = total + self.weights.feature_match * terms["feature_match"]
        return LossResult(total, terms)
