"""Ears as Python code gives them, to what a model makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ear_teacher.ear_reader import EarForm, EarReader, image_sources
from earface.data.given import Picture, Pictures, each_picture, in_model_range, pixels_of_picture, stacked
from earface.data.images import Pixels, read_ahead
from earface.data.pixels import to_model_range
from earface.nn.inference import in_evaluation


@torch.no_grad()
@in_evaluation
def encode_given(
    model: nn.Module, form: EarForm, encode: Callable[[Tensor], Tensor], given: Pictures, batch_size: int
) -> Tensor:
    """(N, D) float32 on the CPU, of N ears, on the model's device.

    Float tensors are taken as they are; any other picture is brought into the model's form first, unless its path leads
    to prepared ears that have it. Raises InputError, and NoEarError for a picture without a usable ear.
    """
    device = next(model.parameters()).device
    images = in_model_range(given)
    if images is not None:
        parts = [encode(part.to(device)).float().cpu() for part in images.split(batch_size)]
        return torch.cat(parts)
    reader = EarReader(form)

    def read(entry: tuple[str, Picture]) -> Pixels:
        name, picture = entry
        if isinstance(picture, str | Path):
            return reader(image_sources([Path(picture)], Path(picture))[0])
        return reader.formed(pixels_of_picture(picture, name, form.in_channels), name)[0]

    parts, batch = [], []
    entries = each_picture(given)
    for number, ear in enumerate(read_ahead(read, entries), 1):
        batch.append(ear)
        if len(batch) == batch_size or number == len(entries):
            parts.append(encode(to_model_range(stacked(batch).to(device))).float().cpu())
            batch = []
    return torch.cat(parts)
