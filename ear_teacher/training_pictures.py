"""What a training of an ear VAE draws each epoch: reconstructions of fixed validation ears, and samples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ear_teacher.model import EarVAE
from earface.data.image_grid import absolute_error
from earface.data.pixels import to_unit

SAMPLE_SEED = 7  # the same latents every epoch, so that the image grids can be compared


def rows_of_grids(model: EarVAE, images: Tensor) -> dict[str, tuple[Mapping[str, Tensor], Mapping[str, Tensor] | None]]:
    """By the grid's name its rows, (N, C, S, S) in [0, 1], and its maps of errors. images: (N, C, S, S) in [-1, 1]."""
    shown = {"input": to_unit(images), "reconstruction": to_unit(model.reconstruct(images))}
    errors = {"error": absolute_error(shown["reconstruction"], shown["input"])}
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    samples = {"prior": to_unit(model.sample(len(images), generator=generator))}
    if model.posterior is not None:
        samples["aggregate\nposterior"] = to_unit(model.sample(len(images), "posterior", generator))
    return {"reconstructions": (shown, errors), "samples": (samples, None)}
