"""Losses of boxes and landmarks, in float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import complete_box_iou_loss

from ear_teacher.detector.boxes import assign
from ear_teacher.detector.landmarks import cell_centres

HEAT_SIGMA = 1.0  # cells


def quality_focal_loss(logits: Tensor, quality: Tensor) -> Tensor:
    """|q - s|^2 times the binary cross-entropy of score s with quality q in [0, 1], per element.

    Li et al. 2020, generalized focal loss, equation 5 with beta = 2.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return (quality - logits.sigmoid()).square() * entropy


def box_losses(
    logits: Tensor,
    boxes: Tensor,
    places: Tensor,
    strides: Tensor,
    ears: Sequence[Tensor],
    unclear: Sequence[Tensor],
    complete: Tensor,
) -> dict[str, Tensor]:
    """`score` and `box`, scalars, of what a BoxDetector says of B pictures.

    logits: (B, P); boxes: (B, P, 4); places: (P, 2); strides: (P,); ears: B of (N, 4); unclear: B of (M, 4), regions
    that are neither ear nor background; complete: (B,) bool, whether all ears of a picture are marked. Where they are
    not, only places inside a marked ear can be background. Quality is the IoU of what the place predicts.
    """
    logits, boxes = logits.float(), boxes.float()
    answers = torch.stack([assign(each, places, strides) for each in ears])
    positive = answers >= 0
    counted = positive | torch.stack(
        [
            ~_inside(places, around) & (whole | _inside(places, marked))
            for around, marked, whole in zip(unclear, ears, complete, strict=True)
        ]
    )
    wanted = torch.cat([each[index[index >= 0]] for each, index in zip(ears, answers, strict=True)])
    found = boxes[positive]
    quality = torch.zeros_like(logits)
    quality[positive] = _paired_iou(found.detach(), wanted)
    number = positive.sum().clamp(min=1)
    score = (quality_focal_loss(logits, quality) * counted).sum() / number
    box = (complete_box_iou_loss(found, wanted, reduction="none").sum() if len(found) else boxes.sum() * 0.0) / number
    return {"score": score, "box": box}


def landmark_losses(
    points: Tensor, visibility: Tensor, heat: Tensor, keypoints: Tensor, crop_size: int
) -> dict[str, Tensor]:
    """`heatmap`, `landmark` and `visibility`, scalars, of what a Landmarker says of B crops.

    points: (B, K, 2) and keypoints: (B, K, 3) in crop pixels; visibility: (B, K) logits; heat: (B, K, G, G) logits.
    heatmap: cross-entropy with a Gaussian of HEAT_SIGMA cells around the landmark, less its own entropy; landmark: mean
    distance in crop sides. Landmarks that are not labelled, 0, do not count; hidden ones, 1, do.
    """
    labelled = keypoints[..., 2] > 0
    number = labelled.sum().clamp(min=1)
    target = gaussian_heat(keypoints[..., :2], heat.shape[-1], crop_size)
    entropy = F.kl_div(heat.float().flatten(2).log_softmax(dim=-1), target, reduction="none").sum(dim=-1)
    distance = torch.linalg.vector_norm(points.float() - keypoints[..., :2], dim=-1) / crop_size
    seen = F.binary_cross_entropy_with_logits(visibility.float(), (keypoints[..., 2] == 2).float(), reduction="none")
    terms = {"heatmap": entropy, "landmark": distance, "visibility": seen}
    return {name: (term * labelled).sum() / number for name, term in terms.items()}


def gaussian_heat(points: Tensor, grid: int, crop_size: int) -> Tensor:
    """(B, K, 2) in crop pixels -> (B, K, grid * grid), each summing to 1."""
    stride = crop_size / grid
    cells = cell_centres(grid, stride).to(points)
    squared = (points[:, :, None] - cells).square().sum(dim=-1) / (2 * (HEAT_SIGMA * stride) ** 2)
    return (-squared).softmax(dim=-1)


def _inside(places: Tensor, boxes: Tensor) -> Tensor:
    """(P,) whether a place lies in any of the boxes (N, 4)."""
    return ((places[:, None] >= boxes[:, :2]) & (places[:, None] <= boxes[:, 2:])).all(dim=-1).any(dim=1)


def _paired_iou(first: Tensor, second: Tensor) -> Tensor:
    """(N,) IoU of two lists of N boxes, pair by pair."""
    low = torch.maximum(first[:, :2], second[:, :2])
    high = torch.minimum(first[:, 2:], second[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=-1) for boxes in (first, second)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-9)
