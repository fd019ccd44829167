"""Super-resolution of faces, independent of the batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dsr.config import DSRConfig
from earface.core.errors import InputError
from earface.data.aligned_faces import LargeFaces, OtherSizes
from earface.data.degradation import bicubic
from earface.data.face_sizes import VLRRange, VLRSize
from earface.data.given import Pictures, each_picture, in_model_range, pixels_of_picture
from earface.data.images import Pixels
from earface.data.padded_faces import padded
from earface.data.pixels import to_model_range, to_uint8
from earface.nn.fixed_batches import in_fixed_batches
from earface.nn.inference import in_evaluation
from earface.nn.precision import autocast

ALIGN_FIRST = "align their faces first (earface faces prepare, or earface dsr upscale with `photographs`)"
KEEPS_DETAIL = "bicubic interpolation keeps more of these"
INFERENCE_BATCH = 8  # one shape for every call: kernels, and so the last bit, depend on it


def at_size(picture: Pixels, size: VLRSize | VLRRange) -> Pixels:
    """(H, W, 3) uint8 -> (size.height, size.width, 3): as VLR training faces are made, each axis by itself.

    Of a range: unchanged inside it, else the nearest size in it.
    Raises InputError for a picture that is neither square nor of the proportions of `size`: it would be stretched.
    """
    height, width, _ = picture.shape
    if isinstance(size, VLRRange):
        size = size.nearest(width, height)
    if (height, width) == (size.height, size.width):
        return picture
    alike = width == round(height * size.width / size.height) or height == round(width * size.height / size.width)
    if height != width and not alike:
        raise InputError(f"{width}x{height} is not square; an aligned face is (earface faces prepare)")
    resized = bicubic(to_model_range(torch.from_numpy(picture[None])), size)[0]
    return to_uint8(resized).numpy()


def model_input(faces: Sequence[Pixels], config: DSRConfig) -> Tensor:
    """Faces (h, w, 3) uint8, as `at_size` gives them -> (B, 3, h, w) float32 in [-1, 1], of a range padded."""
    if isinstance(config.vlr, VLRRange):
        return torch.stack([padded(torch.from_numpy(face), config.grid) for face in faces])
    return to_model_range(torch.from_numpy(np.stack(faces)))


@torch.no_grad()
def super_resolve(model: nn.Module, vlr: Tensor, precision: str = "32") -> Tensor:
    """(B, 3, h, w) in [-1, 1] -> (B, 3, 128, 128) float32 in [-1, 1], for a model in evaluation mode.

    The batch is cut and padded to INFERENCE_BATCH, so a face's pixels are the same bit for bit alone and in any batch,
    on one device. Raises InputError for pixels that are not finite.
    """
    with autocast(vlr.device.type, precision):
        (sr,) = in_fixed_batches(lambda part: (model(part).float(),), vlr, INFERENCE_BATCH)
    if not sr.isfinite().all():
        advice = "its weights are damaged" if precision == "32" else "use `precision` 32"
        raise InputError(f"the model gives pixels that are not finite: {advice}")
    return sr


@in_evaluation
def upscale_given(model: nn.Module, config: DSRConfig, given: Pictures) -> NDArray[np.uint8]:
    """DSR.upscale. config: of the model."""
    vlr = in_model_range(given)
    if vlr is None:
        faces, large, other_sizes = [], LargeFaces(), OtherSizes()
        for name, picture in each_picture(given):
            try:
                pixels = pixels_of_picture(picture, name)
                faces.append(at_size(pixels, config.vlr))
            except InputError as error:
                raise InputError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from None
            large.look(name, pixels)
            other_sizes.look(name, VLRSize(pixels.shape[1], pixels.shape[0]), config.vlr)
        large.warn(len(faces), ALIGN_FIRST)
        other_sizes.warn(len(faces), config.vlr, KEEPS_DETAIL)
        vlr = model_input(faces, config)
    return to_uint8(super_resolve(model, vlr.to(next(model.parameters()).device))).cpu().numpy()
