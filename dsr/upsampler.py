"""Upsamplers by name: what enlarges VLR faces before recognition."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from torch import Tensor

from earface.core.errors import InputError
from earface.data.face_sizes import FACE_SIZE, NONE, VLRRange, parse_vlr_sizes
from earface.data.padded_faces import padded
from earface.data.pixels import interpolate
from earface.data.vlr_rule import on_grid
from earface.nn.fixed_batches import in_fixed_batches
from earface.nn.inference import weights_digest
from earface.nn.precision import Precision
from earface.nn.upsampler import ENLARGING, NO_UPSAMPLER, Upsampler

INTERPOLATION_BATCH = 8  # faces at once


def build_upsampler(name: str, dsr_checkpoint: str, device: str = "cpu", precision: Precision = "32") -> Upsampler:
    """One of none, bicubic and dsr. Raises InputError if the super-resolver cannot be loaded."""
    return NO_UPSAMPLER if name == NONE else build_upsamplers([name], dsr_checkpoint, None, device, precision)[0]


def build_upsamplers(
    names: Iterable[str], dsr_checkpoint: str, vlr_size: str | None, device: str = "cpu", precision: str = "32"
) -> list[Upsampler]:
    """An Upsampler for each name but none. Raises InputError if the super-resolver cannot be loaded."""
    builders = {
        "bicubic": lambda: Upsampler("bicubic", bicubic_upsample, collated=partial(on_grid, side=FACE_SIZE)),
        "dsr": lambda: build_dsr_upsampler(dsr_checkpoint, device, precision, vlr_size),
    }
    return [builders[name]() for name in names if name in ENLARGING]


def bicubic_upsample(vlr: Tensor) -> Tensor:
    """(B, 3, h, w) -> (B, 3, 128, 128), bicubic. A face's pixels are the same alone and in any batch."""
    return in_fixed_batches(lambda part: (interpolate(part, FACE_SIZE),), vlr, INTERPOLATION_BATCH)[0]


def build_dsr_upsampler(
    checkpoint: str, device: str = "cpu", precision: str = "32", vlr_size: str | None = None
) -> Upsampler:
    """checkpoint: of a run, a pattern, or an exported folder. precision: 32, 16 or bf16, the last two with autocast.

    vlr_size: of the faces, or a range of sizes, which a model of a range must take all of.
    A face's pixels are the same alone and in any batch. Raises InputError if the model takes another size.
    """
    from dsr.inference import super_resolve
    from dsr.model import DSR

    model = DSR.load(checkpoint, device)
    if vlr_size is not None and not model.config.vlr.takes(parse_vlr_sizes(vlr_size)):
        raise InputError(
            f"{checkpoint}: takes {model.config.vlr_size} px, not {vlr_size}: give `vlr_size` "
            f"{model.config.vlr_size}, or another `dsr_checkpoint`"
        )
    return Upsampler(
        "dsr",
        lambda vlr: super_resolve(model, vlr, precision),
        origin=weights_digest(model, str(model.config.vlr)),
        trained_on=frozenset(model.provenance.trained_on),
        vlr=model.config.vlr,
        collated=partial(padded, side=model.config.grid) if isinstance(model.config.vlr, VLRRange) else None,
        source=checkpoint,
        degradation=model.provenance.degradation,
    )
