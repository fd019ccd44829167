"""Landmarks of one ear in a square crop around it: heat maps, their expectation, and visibility."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ear_teacher.backbones import Backbone
from ear_teacher.detector.feature_pyramid import FeaturePyramid, SeparableBlock

STRIDES = (4, 8, 16, 32)
MARGIN = 0.4  # of the box's longer side, added on to make the crop, in case the box is slightly off


class Landmarker(nn.Module):
    """K heat maps at a quarter of the crop, read by soft-argmax (Sun et al. 2018), and K visibilities.

    A visibility is predicted from the features averaged with its landmark's heat map as weights.
    """

    cells: Tensor

    def __init__(self, backbone: Backbone, crop_size: int, width: int, num_landmarks: int, depth: int = 2) -> None:
        super().__init__()
        self.backbone = backbone
        grids = [crop_size // stride for stride in STRIDES]
        self.pyramid = FeaturePyramid(backbone.channels, backbone.grids, grids, width, outputs=1)
        self.tower = nn.Sequential(*[SeparableBlock(width) for _ in range(depth)])
        self.heat = nn.Conv2d(width, num_landmarks, 1)
        self.visibility = nn.Parameter(torch.zeros(num_landmarks, width))
        self.visibility_bias = nn.Parameter(torch.full((num_landmarks,), 2.0))  # most landmarks are visible
        self.register_buffer("cells", cell_centres(grids[0], crop_size / grids[0]), persistent=False)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, S, S) in [-1, 1] -> points (B, K, 2) in crop pixels, visibility logits (B, K), heat (B, K, S/4, S/4).

        heat: logits of the landmark's position. Points and logits are float32; whole coordinates are pixel centres.
        """
        maps = self.tower(self.pyramid(self.backbone(crops))[0])
        heat = self.heat(maps).float()
        with torch.autocast(heat.device.type, enabled=False):  # half precision is too coarse for pixels at 128
            weights = heat.flatten(2).softmax(dim=-1)
            seen = weights @ maps.float().flatten(2).transpose(1, 2)
            visibility = (seen * self.visibility).sum(dim=-1) + self.visibility_bias
            return weights @ self.cells, visibility, heat


def cell_centres(grid: int, stride: float, device: torch.device | None = None) -> Tensor:
    """(grid * grid, 2) x y of the centres of cells, row by row, whole coordinates at pixel centres."""
    line = (torch.arange(grid, device=device) + 0.5) * stride - 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1).view(-1, 2)
