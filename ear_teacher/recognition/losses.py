"""The loss of an ear recogniser: the margin loss over its classes. Plain PyTorch."""

from __future__ import annotations

from torch import Tensor

from earface.nn.losses import LossResult
from earface.nn.margin_head import margin_loss


class EarRecognizerLoss:
    """Cross entropy of the margin head's logits, with label smoothing."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, logits: Tensor, labels: Tensor) -> LossResult:
        """logits: (B, C); labels: (B,)."""
        loss = margin_loss(logits, labels, self.label_smoothing)
        return LossResult(loss, {"margin": loss})
