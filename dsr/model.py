"""DSR: a face of 8 to 64 pixels a side to 128x128. Plain PyTorch."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn

from dsr.config import HR_SIZE, DSRConfig
from dsr.hub import FORMAT, MODEL_CARD, Provenance, read_provenance
from earface.core.errors import InputError
from earface.core.files import is_exported
from earface.data.pixels import interpolate
from earface.nn.checkpoint import load_fitting, network_state, read_checkpoint
from earface.nn.pretrained_folder import find_pretrained

BLOCK_SCALE = 0.3  # of a block's weights at the start: sixteen of them then keep the size of what passes through
TAIL_SCALE = 0.1  # of the last weights at the start, which is nearly bicubic interpolation then
SLOPE = 0.1  # of the leaky rectifier


class ResidualBlock(nn.Module):
    """(B, C, H, W) -> the same, x + act(conv(x)): without normalisation (Lim et al. 2017), with one convolution.

    Twice as many blocks of one as of two, at equal multiply-adds, gave better faces: docs/RESULTS.md.
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

    At the start the pixels of a cell are equal (ICNR, Aitken et al. 2017), so nothing repeats with its period.
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
    nn.Module, ModelHubMixin, library_name="earface", tags=["face-super-resolution"], model_card_template=MODEL_CARD
):
    """Faces (B, 3, h, w) in [-1, 1], RGB, of `config.vlr` -> (B, 3, 128, 128): bicubic interpolation, corrected.

    All blocks work at the low resolution; one pixel shuffle goes to 128. A size that is not 128 / 2^n is brought to the
    next that is by bicubic interpolation first.
    `save_pretrained(folder)`, `from_pretrained(folder or name)` and `push_to_hub(name)` are the Hugging Face hub's.
    """

    def __init__(self, config: DSRConfig) -> None:
        config.check()
        super().__init__()
        self.config = config
        self.provenance = Provenance()
        width = config.base_channels
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*[ResidualBlock(width) for _ in range(config.residual_blocks)])
        self.tail = PixelShuffleUpsample(width, HR_SIZE // config.grid)

    def forward(self, vlr: Tensor) -> Tensor:
        """In training what overshoots [-1, 1] keeps its gradient; in evaluation mode it is clipped.

        Raises ValueError for faces of another size.
        """
        size = self.config.vlr
        if vlr.ndim != 4 or vlr.shape[1:] != (3, size.height, size.width) or not vlr.is_floating_point():
            found = f"{vlr.dtype} {tuple(vlr.shape)}"
            raise ValueError(f"float faces (B, 3, {size.height}, {size.width}) in [-1, 1] wanted, not {found}")
        shallow = self.head(interpolate(vlr, self.config.grid))
        sr = interpolate(vlr, HR_SIZE) + self.tail(shallow + self.body(shallow)).float()
        return sr if self.training else sr.clamp(-1.0, 1.0)

    @classmethod
    def load_from_checkpoint(cls, path: str | Path, map_location: str = "cpu", weights: str = "averaged") -> Self:
        """A trained model in evaluation mode from a training checkpoint (a path, or a glob: the newest match).

        weights: `averaged` (the EMA if the run kept one) or `raw`. Raises InputError for any other file.
        """
        checkpoint = read_checkpoint(path, map_location)
        stored = checkpoint.get("hyper_parameters", {}).get("dsr") or {}
        if "residual_blocks" not in stored or not stored.keys() <= {field.name for field in fields(DSRConfig)}:
            raise InputError(f"{path}: this checkpoint holds no DSR; give one written by earface dsr train")
        model = cls(DSRConfig(**stored))
        model.load_weights(checkpoint, path, weights)
        options = checkpoint["hyper_parameters"].get("options", {})
        model.provenance = Provenance(tuple(checkpoint.get("trained_on", ())), options.get("degradation", ""))
        return model.to(map_location).eval()

    def load_weights(self, checkpoint: dict[str, Any], path: str | Path, weights: str = "averaged") -> None:
        """The weights of a training checkpoint into this model. Raises InputError when shapes or names differ."""
        stored = checkpoint.get("hyper_parameters", {}).get("dsr") or {}
        load_fitting(self, network_state(checkpoint, weights), path, stored)

    def _save_pretrained(self, save_directory: Path) -> None:
        FORMAT.write(save_directory, self.config, self.state_dict(), asdict(self.provenance))

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, map_location: str = "cpu", **download: Any
    ) -> Self:
        """A trained model in evaluation mode from what `save_pretrained` or `push_to_hub` wrote: a folder, or a name.

        A folder needs no network. download: `revision`, `token`, `cache_dir`, `force_download`, `local_files_only`.
        Raises InputError for anything else; the mixin's own reader would trust config.json.
        """
        folder = find_pretrained(str(pretrained_model_name_or_path), **download)
        config, tensors = FORMAT.read(folder)
        model = cls(config)
        load_fitting(model, tensors, folder)
        model.provenance = read_provenance(folder)
        return model.to(map_location).eval()


def load_dsr(path: str, device: str = "cpu", weights: str = "averaged") -> DSR:
    """Of a checkpoint, a pattern (the newest match), or a folder that `save_pretrained` wrote, in evaluation mode.

    weights: of a checkpoint, `averaged` or `raw`. Raises InputError for anything else.
    """
    if is_exported(path):
        return DSR.from_pretrained(path, map_location=device)
    return DSR.load_from_checkpoint(path, device, weights)
