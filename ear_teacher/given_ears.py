"""Ears as Python code gives them, to what a model makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ear_teacher.ear_reader import EarForm, EarReader, NoEarError, image_sources
from earface.core.errors import InputError
from earface.core.notices import warn
from earface.data.given import Picture, Pictures, each_picture, in_model_range, pixels_of_picture, stacked
from earface.data.images import Pixels, read_ahead
from earface.data.pixels import to_model_range
from earface.nn.inference import in_evaluation

Misfits = Literal["refuse", "nan"]  # what becomes of a picture without a usable ear


@torch.no_grad()
@in_evaluation
def encode_given(
    model: nn.Module,
    form: EarForm,
    encode: Callable[[Tensor], Tensor],
    given: Pictures,
    batch_size: int,
    misfits: Misfits = "refuse",
) -> Tensor:
    """(N, D) float32 on the CPU, of N ears, on the model's device.

    Float tensors are taken as they are; any other picture is brought into the model's form first, unless its path leads
    to prepared ears that have it. misfits: "nan" makes the rows of pictures without a usable ear NaN, and warns.
    Raises InputError, and NoEarError for such a picture where it is "refuse".
    """
    if misfits not in get_args(Misfits):
        raise InputError(f'misfits={misfits!r}: is "refuse" or "nan"')
    device = next(model.parameters()).device
    images = in_model_range(given)
    if images is not None:
        parts = [encode(part.to(device)).float().cpu() for part in images.split(batch_size)]
        return torch.cat(parts)
    reader = EarReader(form)

    def read(entry: tuple[str, Picture]) -> Pixels | NoEarError:
        name, picture = entry
        try:
            if isinstance(picture, str | Path):
                return reader(image_sources([Path(picture)], Path(picture))[0])
            return reader.formed(pixels_of_picture(picture, name, form.in_channels), name)[0]
        except NoEarError as error:
            if misfits == "refuse":
                raise NoEarError(f'{error}; misfits="nan" goes on and makes its row NaN') from None
            return error

    parts, batch = [], []
    entries = each_picture(given)
    without: dict[int, str] = {}  # rows, and why
    for row, ear in enumerate(read_ahead(read, entries)):
        if isinstance(ear, NoEarError):
            without[row] = str(ear)
            ear = np.zeros((form.image_size, form.image_size, form.in_channels), np.uint8)  # its row is replaced
        batch.append(ear)
        if len(batch) == batch_size or row + 1 == len(entries):
            parts.append(encode(to_model_range(stacked(batch).to(device))).float().cpu())
            batch = []
    embeddings = torch.cat(parts)
    if without:
        embeddings[list(without)] = torch.nan
        reasons = list(without.values())
        warn(f"{len(without)} of {len(entries)} pictures have no usable ear, their rows are NaN: {reasons[0]}", reasons)
    return embeddings
