"""EDSR (Lim et al. 2017) at the size of the super-resolver, as a baseline."""

from __future__ import annotations

from torch import Tensor, nn

from dsr.config import HR_SIZE, DSRConfig
from earface.data.pixels import interpolate

CHANNELS = 64


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class EDSR(nn.Module):
    """(B, 3, h, w) in [-1, 1] -> (B, 3, 128, 128)."""

    def __init__(self, config: DSRConfig, blocks: int = 16) -> None:
        super().__init__()
        self.config = config
        self.head = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.body = nn.Sequential(*[Block() for _ in range(blocks)], nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1))
        doublings: list[nn.Module] = []
        side = config.grid
        while side < HR_SIZE:
            doublings += [nn.Conv2d(CHANNELS, 4 * CHANNELS, 3, padding=1), nn.PixelShuffle(2)]
            side *= 2
        self.tail = nn.Sequential(*doublings, nn.Conv2d(CHANNELS, 3, 3, padding=1))

    def forward(self, vlr: Tensor) -> Tensor:
        shallow = self.head(interpolate(vlr, self.config.grid))
        return self.tail(shallow + self.body(shallow)).float()
