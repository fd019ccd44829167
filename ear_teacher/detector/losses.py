"""Losses of boxes and landmarks, in float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ear_teacher.detector.box_detector import assign
from ear_teacher.detector.landmarker import cell_centres
from earface.nn.losses import LossResult, shared_count

HEAT_SIGMA = 1.0  # cells
ABSENT = -1  # of landmarks, beside COCO's visibility: the crop shows no ear


@dataclass(frozen=True)
class EarDetectorLossWeights:
    """Factors of the terms of `box_losses` and `landmark_losses`."""

    box: float
    heatmap: float
    landmark: float
    visibility: float
    score: float = 1.0


class EarDetectorLoss:
    """The weighted sum of the terms given: of boxes, of landmarks, or of both."""

    def __init__(self, weights: EarDetectorLossWeights) -> None:
        self.weights = weights

    def __call__(self, terms: dict[str, Tensor]) -> LossResult:
        """terms: scalars, one or more."""
        first, *others = (getattr(self.weights, name) * term for name, term in terms.items())
        return LossResult(sum(others, first), terms)


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
    level_sizes: Sequence[int],
    ears: Tensor,
    unclear: Tensor,
    complete: Tensor,
) -> dict[str, Tensor]:
    """The scalars `score` and `box` of the output of a BoxDetector for B images.

    logits: (B, P); boxes: (B, P, 4); places: (P, 2); strides: (P,); level_sizes: see `assign`; ears: (B, N, 4), N > 0;
    unclear: (B, M, 4), regions that are neither ear nor background; both NaN where an image has fewer; complete: (B,)
    bool, whether all ears of an image are annotated. If not, only places inside an annotated ear can be background. The
    quality is the IoU of the predicted box.
    """
    logits, boxes = logits.float(), boxes.float()
    assigned = assign(ears, places, strides, level_sizes)
    positive = assigned >= 0
    counted = positive | (~_inside(places, unclear) & (complete[:, None] | _inside(places, ears)))
    # unassigned places compare a box with itself, which is finite, and do not count
    same = torch.cat([places - strides[:, None], places + strides[:, None]], dim=-1)
    found = torch.where(positive[..., None], boxes, same)
    marked = ears.gather(1, assigned.clamp(min=0)[..., None].expand(-1, -1, 4))
    wanted = torch.where(positive[..., None], marked, same)
    quality = _paired_iou(found.detach(), wanted).masked_fill(~positive, 0.0)
    number = shared_count(positive.sum())
    score = (quality_focal_loss(logits, quality) * counted).sum() / number
    box = complete_iou_loss(found, wanted).masked_fill(~positive, 0.0).sum() / number
    return {"score": score, "box": box}


def complete_iou_loss(found: Tensor, wanted: Tensor, eps: float = 1e-7) -> Tensor:
    """1 - IoU, plus penalties for the distance of the centres and different proportions: (..., 4), (..., 4) -> (...).

    Zheng et al. 2020; torchvision's `complete_box_iou_loss` without its boolean indexing, which synchronises a GPU.
    """
    (x1, y1, x2, y2), (u1, v1, u2, v2) = found.unbind(-1), wanted.unbind(-1)
    left, top, right, bottom = x1.maximum(u1), y1.maximum(v1), x2.minimum(u2), y2.minimum(v2)
    apart = (bottom <= top) | (right <= left)
    shared = ((right - left) * (bottom - top)).masked_fill(apart, 0.0)
    iou = shared / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared + eps)
    diagonal = (x2.maximum(u2) - x1.minimum(u1)).square() + (y2.maximum(v2) - y1.minimum(v1)).square() + eps
    offset = ((x2 + x1) / 2 - (u1 + u2) / 2).square() + ((y2 + y1) / 2 - (v1 + v2) / 2).square()
    shape = (4 / math.pi**2) * (((u2 - u1) / (v2 - v1)).atan() - ((x2 - x1) / (y2 - y1)).atan()).square()
    with torch.no_grad():
        weight = shape / (1 - iou + shape + eps)
    return 1 - iou + offset / diagonal + weight * shape


def landmark_losses(
    points: Tensor, visibility: Tensor, heat: Tensor, keypoints: Tensor, crop_size: int
) -> dict[str, Tensor]:
    """The scalars `heatmap`, `landmark` and `visibility` of the output of a Landmarker for B crops, B >= 0.

    points: (B, K, 2) and keypoints: (B, K, 3) in crop pixels; visibility: (B, K) logits; heat: (B, K, G, G) logits.
    heatmap: cross-entropy with a Gaussian of HEAT_SIGMA cells around the landmark, minus its entropy; landmark: mean
    distance in crop sides. Landmarks that are not labelled, 0, do not count; hidden ones, 1, do. Those of a crop
    without an ear, ABSENT, count as not visible and have no place.
    """
    labelled = keypoints[..., 2] > 0
    judged = labelled | (keypoints[..., 2] == ABSENT)
    target = gaussian_heat(keypoints[..., :2], heat.shape[-1], crop_size)
    entropy = F.kl_div(heat.float().flatten(2).log_softmax(dim=-1), target, reduction="none").sum(dim=-1)
    distance = torch.linalg.vector_norm(points.float() - keypoints[..., :2], dim=-1) / crop_size
    seen = F.binary_cross_entropy_with_logits(visibility.float(), (keypoints[..., 2] == 2).float(), reduction="none")
    places, verdicts = shared_count(torch.stack([labelled.sum(), judged.sum()]))
    return {
        "heatmap": (entropy * labelled).sum() / places,
        "landmark": (distance * labelled).sum() / places,
        "visibility": (seen * judged).sum() / verdicts,
    }


def gaussian_heat(points: Tensor, grid: int, crop_size: int) -> Tensor:
    """(B, K, 2) in crop pixels -> (B, K, grid * grid), each summing to 1."""
    stride = crop_size / grid
    cells = cell_centres(grid, stride, points.device)
    squared = (points[:, :, None] - cells).square().sum(dim=-1) / (2 * (HEAT_SIGMA * stride) ** 2)
    return (-squared).softmax(dim=-1)


def _inside(places: Tensor, boxes: Tensor) -> Tensor:
    """(B, P) whether a place lies in any box of its image, (B, N, 4); NaN boxes contain none."""
    return ((places >= boxes[..., None, :2]) & (places <= boxes[..., None, 2:])).all(dim=-1).any(dim=1)


def _paired_iou(first: Tensor, second: Tensor) -> Tensor:
    """(...) IoU of boxes (..., 4), pair by pair."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1) for boxes in (first, second)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-9)
