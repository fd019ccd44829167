"""DSR: a face of 8 to 64 pixels a side to 128x128. Plain PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dsr.config import HR_SIZE, DSRConfig
from dsr.hub import FORMAT, MODEL_CARD, Provenance, read_provenance
from earface.core.errors import InputError
from earface.data.face_sizes import VLRRange, VLRSize
from earface.data.padded_faces import interpolate_each, interpolation_table, pad_batch, padded_sizes, within
from earface.data.pixels import interpolate
from earface.nn.precision import float32_island
from earface.nn.trained_model import TrainedModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from earface.data.given import Pictures

BLOCK_SCALE = 0.3  # of the initial weights of a block, so that sixteen blocks preserve the scale of their input
TAIL_SCALE = 0.1  # of the initial weights of the last layer, so that training starts close to bicubic interpolation
SLOPE = 0.1  # negative slope of the leaky ReLU
OWN_PIXELS = "own_pixels"  # of a checkpoint: whether the blocks of a range's network saw each face's own pixels
to_output = float32_island(interpolate_each)


class ResidualBlock(nn.Module):
    """(B, C, H, W) -> the same, x + act(conv(x)): without normalisation (Lim et al. 2017), with one convolution.

    At equal multiply-adds, twice as many of these blocks gave better faces than blocks of two: docs/RESULTS.md.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.LeakyReLU(SLOPE)
        with torch.no_grad():
            self.conv.weight.mul_(BLOCK_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.conv(x))


class PixelShuffleUpsample(nn.Module):
    """(B, C, H, W) -> (B, 3, factor H, factor W) by one convolution (Shi et al. 2016).

    ICNR initialisation (Aitken et al. 2017): the pixels of a cell start equal, so that there is no checkerboard.
    """

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 3 * factor**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(factor)
        with torch.no_grad():
            weight = self.conv.weight.view(3, factor**2, channels, 3, 3)
            weight.copy_(weight[:, :1].expand_as(weight).clone() * TAIL_SCALE)
            assert self.conv.bias is not None
            self.conv.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.conv(x))


class DSR(
    TrainedModel[DSRConfig],
    library_name="earface",
    pipeline_tag="image-to-image",
    tags=["face-super-resolution"],
    model_card_template=MODEL_CARD,
):
    """Faces (B, 3, h, w) in [-1, 1], RGB, of `config.vlr` -> (B, 3, 128, 128): bicubic interpolation, corrected.

    All blocks work at the low resolution; one pixel shuffle goes to 128. A size that is not 128 / 2^n is brought to the
    next that is, `config.grid`, by bicubic interpolation first. Of a range the blocks see each face's own pixels: faces
    of several sizes are a batch padded to the grid (`earface.data.padded_faces`), convolutions see zeros beyond a face
    as beyond the border of a picture, and what the shuffle gives is interpolated to 128.
    """

    format, command, old_key = FORMAT, "dsr train", "dsr"

    def __init__(self, config: DSRConfig) -> None:
        config.check()
        super().__init__()
        self.config = config
        self.provenance = Provenance()
        width = config.base_channels
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*[ResidualBlock(width) for _ in range(config.residual_blocks)])
        self.tail = PixelShuffleUpsample(width, factor := HR_SIZE // config.grid)
        if isinstance(config.vlr, VLRRange):
            for name, step in (("of_pixels", 1), ("of_cells", factor)):
                self.register_buffer(name, interpolation_table(HR_SIZE, config.grid, step), persistent=False)

    def forward(self, vlr: Tensor) -> Tensor:
        """Clipped to [-1, 1] in evaluation mode; in training values outside keep their gradient.

        Of a range, faces of one size, or padded to the grid. Raises ValueError for faces of another size.
        """
        sizes, grid = self.config.vlr, self.config.grid
        if vlr.ndim != 4 or vlr.shape[1] != 3 or not vlr.is_floating_point() or not self._takes(*vlr.shape[2:]):
            found = f"{vlr.dtype} {tuple(vlr.shape)}"
            if isinstance(sizes, VLRRange):
                wanted = f"h, w), h and w in {sizes}, or padded to {grid},"
            else:
                wanted = f"{sizes.height}, {sizes.width})"
            raise ValueError(f"float faces (B, 3, {wanted} in [-1, 1] wanted, not {found}")
        if isinstance(sizes, VLRRange):
            sr = self._of_padded(pad_batch(vlr, grid))
        else:
            shallow = self.head(interpolate(vlr, grid))
            sr = interpolate(vlr, HR_SIZE) + self.tail(shallow + self.body(shallow)).float()
        return sr if self.training else sr.clamp(-1.0, 1.0)

    def _of_padded(self, vlr: Tensor) -> Tensor:
        sizes = padded_sizes(vlr)
        inside = within(sizes, self.config.grid)
        vlr = vlr.where(inside, 0.0)  # and a NaN in a face stays one, to be found in the result
        maps = shallow = self.head(vlr) * inside
        for block in self.body:
            maps = block(maps) * inside
        cells = self.tail(shallow + maps)
        return to_output(vlr, sizes, self.of_pixels) + to_output(cells, sizes, self.of_cells)

    def _takes(self, height: int, width: int) -> bool:
        sizes = self.config.vlr
        on_grid = isinstance(sizes, VLRRange) and height == width == self.config.grid
        return on_grid or sizes.takes(VLRSize(width, height))

    def upscale(self, pictures: Pictures) -> NDArray[np.uint8]:
        """(N, 128, 128, 3) uint8 RGB of small faces in any form that Python code has them in.

        pictures: one or several, as `earface.data.given` takes them, of `config.vlr` or resized to it (of a range, to
        the nearest size in it); a float tensor (B, 3, h, w) of that size. Raises InputError, also for a face of other
        proportions.
        """
        from dsr.inference import upscale_given  # on first use: it needs OpenCV

        return upscale_given(self, self.config, pictures)

    def load_weights(self, checkpoint: Mapping[str, Any], path: str | Path, weights: str = "averaged") -> None:
        check_own_pixels(checkpoint, path)
        super().load_weights(checkpoint, path, weights)

    def load_extras(self, checkpoint: Mapping[str, Any]) -> None:
        options = checkpoint["hyper_parameters"].get("options", {})
        self.provenance = Provenance(tuple(checkpoint.get("trained_on", ())), options.get("degradation", ""))

    def saved_provenance(self) -> dict[str, Any]:
        return asdict(self.provenance)

    def load_folder(self, folder: Path, tensors: dict[str, Tensor]) -> None:
        super().load_folder(folder, tensors)
        self.provenance = read_provenance(folder)


def check_own_pixels(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Raise InputError for a range's network that was trained on faces interpolated to one size, as they once were."""
    stored = checkpoint.get("hyper_parameters", {}).get("model") or {}
    if "-" in str(stored.get("vlr_size", "")) and not checkpoint.get(OWN_PIXELS, False):
        raise InputError(
            f"{path}: was trained on faces of several sizes interpolated to one; such networks see each face's own "
            "pixels now: train it again"
        )
