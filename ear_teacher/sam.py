"""SAM's image encoder at any size: timm's ViT, with windows cropped at the image border."""

from __future__ import annotations

from functools import partial
from typing import Self

from timm.models.vision_transformer_sam import Attention, Block
from torch import Tensor, arange, cat, einsum
from torch.nn import functional as F

from ear_teacher.backbones import TransformerBackbone
from ear_teacher.config import EarVAEConfig

SAM = "samvit_base_patch16.sa1b"  # timm's name
PRETRAINED_GRID = 64  # 1024 / 16


class WindowBlock(Block):
    """A SAM block with windows cropped at the image border instead of padded.

    The same result as padding whose tokens are masked, without computing them: a 14x14 window of which h x w tokens lie
    in the image attends over h x w, with the central 2h - 1 and 2w - 1 rows of its relative position tables. A grid
    below 14 is one window. On the pretraining grid (64x64) the original's padding to 70x70 is kept, unmasked: the
    weights were trained with it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        height, width = x.shape[1:3]
        if (height, width) == (PRETRAINED_GRID, PRETRAINED_GRID):
            padded: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return padded
        window = self.window_size or max(height, width)
        attend = partial(_attend, self.attn, window=window, crop=self.window_size > 0)
        rows = _whole_and_rest(self.attn.qkv(self.norm1(x)), 1, window)
        attended = cat([cat([attend(part) for part in _whole_and_rest(row, 2, window)], 2) for row in rows], 1)
        x = x + self.drop_path1(self.ls1(self.attn.proj(attended)))
        refined: Tensor = x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        return refined


def _whole_and_rest(x: Tensor, dim: int, window: int) -> list[Tensor]:
    """The part of `x` that whole windows cover along `dim`, and the narrower remainder; either may be missing."""
    whole = x.shape[dim] // window * window
    return [part for part in x.split([whole, x.shape[dim] - whole], dim) if part.shape[dim]]


def _attend(attention: Attention, qkv: Tensor, window: int, crop: bool) -> Tensor:
    """Attention within windows of at most `window` x `window`: (B, H, W, 3C) -> (B, H, W, C).

    crop: the tables' central rows are used; else they are interpolated to the window, as global blocks do.
    """
    batch, height, width, _ = qkv.shape
    h, w = min(height, window), min(width, window)
    heads, dim = attention.num_heads, attention.head_dim
    windows = qkv.view(batch, height // h, h, width // w, w, 3, heads, dim).permute(5, 0, 1, 3, 6, 2, 4, 7)
    q, k, v = windows.reshape(3, -1, h * w, dim).unbind(0)
    tables: list[Tensor] = [attention.rel_pos_h, attention.rel_pos_w]
    if crop:
        tables = [_central(table, side) for table, side in zip(tables, (h, w), strict=True)]
    bias = _position_bias(q, _by_distance(tables[0], h), _by_distance(tables[1], w))
    # ONNX has no form of this for three dimensions
    out = F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=bias[None])[0]
    out = out.view(batch, height // h, width // w, heads, h, w, dim).permute(0, 1, 4, 2, 5, 3, 6)
    return out.reshape(batch, height, width, heads * dim)


def _position_bias(q: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, h w, C), (h, h, C) and (w, w, C) -> (B, h w, h w), as timm's get_decomposed_rel_pos_bias."""
    h, w = len(rows), len(columns)
    grid = q.unflatten(1, (h, w))
    down, across = einsum("bhwc,hkc->bhwk", grid, rows), einsum("bhwc,wkc->bhwk", grid, columns)
    return (down[..., :, None] + across[..., None, :]).reshape(-1, h * w, h * w)


def _by_distance(table: Tensor, side: int) -> Tensor:
    """Relative positions (L, C), interpolated to 2 side - 1, for each query and key: (side, side, C).

    timm's get_rel_pos, whose indices come from the CPU at every call.
    """
    if len(table) != 2 * side - 1:
        table = F.interpolate(table.T[None], size=2 * side - 1, mode="linear")[0].T
    place = arange(side, device=table.device)
    return table[place[:, None] - place + (side - 1)]


def _central(table: Tensor, side: int) -> Tensor:
    """Relative positions -(side - 1) ... side - 1 of a table that may have more."""
    middle = table.shape[0] // 2
    return table[middle - side + 1 : middle + side]


class SAMBackbone(TransformerBackbone):
    """SAM ViT-B/16 (Kirillov et al. 2023): maps of the global blocks 3, 6, 9 (768 wide), and of the neck (256).

    images (B, C, S, S) in [-1, 1], resampled to `size`, a multiple of 16; all maps have stride 16. The absolute
    positions and the global blocks' tables keep their pretraining form (64x64; 127 rows) and are interpolated in every
    call, so weights fit any size.
    """

    @classmethod
    def from_config(cls, config: EarVAEConfig, weights: str) -> Self:
        return cls(config.in_channels, config.sam_size or config.image_size, weights)

    @staticmethod
    def timm_name(config: EarVAEConfig) -> str:
        return SAM

    def __init__(self, in_channels: int, size: int, weights: str) -> None:
        super().__init__(SAM, in_channels, size, weights, block_fn=WindowBlock)
        self.taken = [index for index, block in enumerate(self.net.blocks) if block.window_size == 0][:-1]
        self.set_maps([self.net.embed_dim] * len(self.taken) + [self.net.num_features])

    def forward(self, images: Tensor) -> list[Tensor]:
        necked, taken = self.net.forward_intermediates(self.prepared(images), indices=self.taken)
        return [*taken, necked]
