"""Boxes from the places of a feature pyramid: their assignment to ears in training, and suppression.

A place is the centre of a cell. Boxes are corners, x1 y1 x2 y2 in pixels of the square image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_area, box_iou

from ear_teacher.backbones import Backbone
from ear_teacher.detector.feature_pyramid import FeaturePyramid, SeparableBlock

STRIDES = (4, 8, 16, 32, 64)
LEAST, MOST = 2.0, 8.0  # ear sides, in strides, that are assigned to a level: two levels for each ear
RADIUS = 1.5  # strides from an ear's centre to the places assigned to it
PRIOR = 0.01  # score of every place before training (Lin et al. 2017, focal loss)
CANDIDATES = 300  # per image, before suppression
MAX_DETECTIONS = 100  # per image, as in COCO's AP


@dataclass(frozen=True)
class Suppression:
    """Thresholds of `suppress`. Two ears hardly ever overlap at all."""

    iou: float = 0.4
    containment: float = 0.7


class BoxDetector(nn.Module):
    """A score and a box at every place of a feature pyramid, without anchors (after FCOS, Tian et al. 2019)."""

    places: Tensor
    strides: Tensor
    frozen = False

    def __init__(self, backbone: Backbone, image_size: int, width: int, depth: int = 3) -> None:
        super().__init__()
        self.backbone = backbone
        grids = [-(-image_size // stride) for stride in STRIDES]
        self.pyramid = FeaturePyramid(backbone.channels, backbone.grids, grids, width)
        self.tower = nn.Sequential(*[SeparableBlock(width) for _ in range(depth)])
        self.score = nn.Conv2d(width, 1, 1)
        self.distances = nn.Conv2d(width, 4, 1)
        self.scales = nn.Parameter(torch.full((len(grids),), 1.0))
        nn.init.constant_(self.score.bias, -torch.tensor(1 / PRIOR - 1).log().item())  # type: ignore[arg-type]
        nn.init.constant_(self.distances.bias, LEAST)  # type: ignore[arg-type]
        places, strides = places_of(image_size, grids)
        self.level_sizes = [grid * grid for grid in grids]
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("strides", strides, persistent=False)

    def freeze(self) -> None:
        """Freeze it with its encoder: no gradient, and always in evaluation mode."""
        self.frozen = True
        self.requires_grad_(False).train(self.training)

    def train(self, mode: bool = True) -> Self:
        return super().train(mode and not self.frozen)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, S, S) in [-1, 1] -> score logits (B, P) and boxes (B, P, 4) of all P places, in float32."""
        scores, distances = [], []
        for scale, level in zip(self.scales, self.pyramid(self.backbone(images)), strict=True):
            level = self.tower(level)
            scores.append(self.score(level).flatten(1))
            distances.append((self.distances(level) * scale).flatten(2).transpose(1, 2))
        sides = F.softplus(torch.cat(distances, 1).float()) * self.strides[:, None]
        boxes = torch.cat([self.places - sides[..., :2], self.places + sides[..., 2:]], dim=-1)
        return torch.cat(scores, 1).float(), boxes


def places_of(image_size: int, grids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The centres (P, 2) x y of all cells, level by level and row by row, and their strides (P,)."""
    places, strides = [], []
    for grid in grids:
        stride = image_size / grid
        line = (torch.arange(grid) + 0.5) * stride
        y, x = torch.meshgrid(line, line, indexing="ij")
        places.append(torch.stack([x, y], dim=-1).view(-1, 2))
        strides.append(torch.full((grid * grid,), stride))
    return torch.cat(places), torch.cat(strides)


def assign(boxes: Tensor, places: Tensor, strides: Tensor, level_sizes: Sequence[int]) -> Tensor:
    """The ear (0 to N - 1) of its image that each of P places is assigned to, (B, P) int64; -1 for none.

    boxes: (B, N, 4), N > 0, NaN where an image has fewer ears; level_sizes: the number of places on each level,
    finest first. An ear is assigned on the levels where its side, sqrt(width x height), is LEAST to MOST strides (the
    finest level also takes smaller ears, the coarsest larger ones): to the places inside it within RADIUS strides of
    its centre, and always to the nearest place. Of two ears the smaller gets the place.
    """
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    side = (high - low).prod(dim=-1).sqrt()
    clamped = side.clamp(strides[0] * LEAST, strides[-1] * MOST * (1 - 1e-4))
    on_level = (clamped >= LEAST * strides) & (clamped < MOST * strides)  # false for NaN
    offset = (places - (low + high) / 2).abs().amax(dim=-1)
    inside = ((places >= low) & (places <= high)).all(dim=-1)
    levels = offset.split(list(level_sizes), dim=-1)
    nearest = torch.cat([level == level.amin(dim=-1, keepdim=True) for level in levels], dim=-1)
    assigned = on_level & (nearest | (inside & (offset <= RADIUS * strides)))
    smallest, ear = side.expand_as(assigned).masked_fill(~assigned, torch.inf).min(dim=1)
    return ear.masked_fill(smallest.isinf(), -1)


def candidates(logits: Tensor, boxes: Tensor) -> Tensor:
    """The CANDIDATES best, at most, of logits (B, P) and boxes (B, P, 4) in each image: (B, C, 5), box and score."""
    scores, places = logits.sigmoid().topk(min(CANDIDATES, logits.shape[1]), dim=1)
    best = boxes.gather(1, places[..., None].expand(-1, -1, 4))
    return torch.cat([best, scores[..., None].to(best)], dim=-1)


def suppress(boxes: Tensor, scores: Tensor, iou: float, containment: float) -> Tensor:
    """Indices of the boxes that remain, best score first.

    boxes: (N, 4), scores: (N,). A box is dropped if a better one overlaps it by more than `iou`, or if more than
    `containment` of the smaller of the two lies inside the other: of nested boxes one remains. 1 disables a rule.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    area = box_area(boxes)
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1) / torch.minimum(area[:, None], area[None]).clamp(min=1e-9)
    clash = ((box_iou(boxes, boxes) > iou) | (shared > containment)).cpu()
    dropped = torch.zeros(len(boxes), dtype=torch.bool)
    for index in range(len(boxes)):
        if not dropped[index]:
            dropped[index + 1 :] |= clash[index, index + 1 :]
    return order[~dropped.to(order.device)]
