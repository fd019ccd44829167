"""A feature pyramid over the maps of any encoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class SeparableBlock(nn.Module):
    """Depthwise 3x3, pointwise, group norm, SiLU: (B, C, H, W) -> (B, C, H, W). Group norm: one head, many levels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.norm = nn.GroupNorm(8, width)

    def forward(self, maps: Tensor) -> Tensor:
        return F.silu(self.norm(self.pointwise(self.depthwise(maps))))


class FeaturePyramid(nn.Module):
    """Maps of an encoder -> one map of `width` channels for each of `grids`, finest first (Lin et al. 2017).

    outputs: how many of these are returned, from the finest on; default: all.

    A level is taken from the map whose grid is nearest; of several of one grid (a vision transformer's) finer levels
    take earlier ones, and the coarsest the last. A level that is much coarser than every map is made from the level
    before it by a stride of 2.
    """

    def __init__(
        self,
        channels: Sequence[int],
        map_grids: Sequence[int],
        grids: Sequence[int],
        width: int,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.grids = list(grids)
        self.sources = _sources(map_grids, grids)
        self.lateral = nn.ModuleList(
            nn.Conv2d(width, width, 3, 2, 1) if source is None else nn.Conv2d(channels[source], width, 1)
            for source in self.sources
        )
        self.smooth = nn.ModuleList(SeparableBlock(width) for _ in grids[:outputs])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        levels: list[Tensor] = []
        for source, lateral, grid in zip(self.sources, self.lateral, self.grids, strict=True):
            level = lateral(levels[-1] if source is None else maps[source])
            levels.append(_resized(level, grid))
        for index in range(len(levels) - 2, -1, -1):
            levels[index] = levels[index] + _resized(levels[index + 1], self.grids[index])
        return [smooth(level) for smooth, level in zip(self.smooth, levels, strict=False)]


def _sources(map_grids: Sequence[int], grids: Sequence[int]) -> list[int | None]:
    """The map that each level is taken from; None for the level before it."""
    taken = [grid for level, grid in enumerate(grids) if level == 0 or min(map_grids) <= 1.5 * grid]
    sources: list[int | None] = []
    for before_last, grid in zip(reversed(range(len(taken))), taken, strict=True):
        ratios = [max(each / grid, grid / each) for each in map_grids]
        tied = [index for index, ratio in enumerate(ratios) if ratio == min(ratios)]
        sources.append(tied[len(tied) - 1 - before_last * (len(tied) - 1) // max(len(taken) - 1, 1)])
    return sources + [None] * (len(grids) - len(taken))


def _resized(maps: Tensor, grid: int) -> Tensor:
    """(B, C, G, G) -> (B, C, grid, grid): averaged when shrunk, repeated to a multiple, else bilinear."""
    if maps.shape[-1] == grid:
        return maps
    if maps.shape[-1] > grid:
        return F.adaptive_avg_pool2d(maps, grid)
    if grid % maps.shape[-1] == 0:
        # by a factor: OpenCV 4 does not read a size that a free batch is part of
        return F.interpolate(maps, scale_factor=grid // maps.shape[-1], mode="nearest")
    return F.interpolate(maps, (grid, grid), mode="bilinear")
