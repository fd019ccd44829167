"""Pictures to embeddings, a batch at a time, whatever is in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earface.core.errors import InputError
from earface.data.folders import pictures_at
from earface.data.image_cache import MAX_UNREADABLE
from earface.data.images import read_ahead
from earface.data.names import person_name, warn_of_odd_names


@dataclass(frozen=True)
class PictureFile:
    """A picture of a face or an ear."""

    path: Path
    identity: str  # as `person_name` writes it, whatever was given; empty where it is not known

    def __post_init__(self) -> None:
        object.__setattr__(self, "identity", person_name(self.identity))


@dataclass(frozen=True)
class Embedded:
    """The pictures that could be used, in their order."""

    kept: list[int]  # (N,) which
    embeddings: NDArray[np.float32]  # (N, D), each of length 1
    skipped: list[tuple[str, str]]  # path, reason


def pictures_of(given: str) -> list[PictureFile]:
    """The pictures of a folder, or the one, searched through; the first folder below it is the identity.

    Raises InputError for what is neither, and for a folder without pictures.
    """
    path = Path(given)
    images = pictures_at(path)
    below = [image.relative_to(path).parts[:-1] for image in images]
    names = [person_name(parts[0]) if parts else "" for parts in below]
    warn_of_odd_names(filter(None, names), path)
    return [PictureFile(image, name) for image, name in zip(images, names, strict=True)]


def embed_each(
    pictures: Sequence[PictureFile],
    read: Callable[[Path], Tensor],
    embed: Callable[[Tensor], Tensor],
    *,
    batch_size: int = 64,
    workers: int = 4,
    max_skipped: float = MAX_UNREADABLE,
    progress: Callable[[int], None] = lambda done: None,
) -> Embedded:
    """read: a file to a tensor, all of one shape, or InputError; embed: a stack of them to (B, D) of length 1.

    Memory holds a few pictures for each of the workers (threads), a batch, and 2 KB for each finished picture.
    progress: called with the number of finished pictures. Raises InputError when more than the share `max_skipped`, or
    all, cannot be used.
    """

    def attempt(picture: PictureFile) -> Tensor | InputError:
        try:
            return read(picture.path)
        except InputError as error:
            return error

    kept: list[int] = []
    batch: list[Tensor] = []
    parts: list[NDArray[np.float32]] = []
    skipped: list[tuple[str, str]] = []
    for index, crop in enumerate(read_ahead(attempt, pictures, workers)):
        if isinstance(crop, InputError):
            name = str(pictures[index].path)
            skipped.append((name, str(crop).removeprefix(f"{name}: ")))
            if len(skipped) > max_skipped * len(pictures) or len(skipped) == len(pictures):
                raise InputError(_too_many(skipped, len(pictures), max_skipped))
        else:
            kept.append(index)
            batch.append(crop)
        if batch and (len(batch) == batch_size or index + 1 == len(pictures)):
            parts.append(embed(torch.stack(batch)).cpu().numpy())
            batch = []
        progress(index + 1)
    return Embedded(kept, np.concatenate(parts), skipped)


def _too_many(skipped: list[tuple[str, str]], count: int, allowed: float) -> str:
    first = "; ".join(f"{name}: {reason}" for name, reason in skipped[:3])
    if count == 1:
        return first
    if len(skipped) == count:
        return f"none of {count} pictures can be used: {first}"
    return f"{len(skipped)} or more of {count} pictures cannot be used, over {allowed:.0%}: {first}"
