"""Finding aligned faces and embedding them, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earface.core.errors import InputError
from earface.data.image_cache import MAX_UNREADABLE
from earface.data.images import EXTENSIONS, list_images, read_ahead, read_image
from earface.data.pixels import to_model_range
from earface.nn.fixed_batches import in_fixed_batches
from facial_rec.contract import FaceContract
from facial_rec.model import EdgeFace, unit

INFERENCE_BATCH = 16  # one shape for every call: kernels, and so the last bit, depend on it


@dataclass(frozen=True)
class FaceFile:
    """A picture of one aligned face."""

    path: Path
    identity: str  # empty where it is not known


@dataclass(frozen=True)
class Embedded:
    """The faces that could be read, in their order."""

    kept: list[int]  # (N,) which
    embeddings: NDArray[np.float32]  # (N, 512), each of length 1
    skipped: list[tuple[str, str]]  # path, reason


def faces_of(given: str) -> list[FaceFile]:
    """The faces of a picture or a folder, searched through; the first folder below it is the identity.

    Raises InputError for what is neither, and for a folder without pictures.
    """
    path = Path(given)
    if path.is_dir():
        images = list_images(path)
        if not images:
            raise InputError(f"{path}: holds no pictures ({', '.join(EXTENSIONS)})")
        below = [image.relative_to(path).parts[:-1] for image in images]
        return [FaceFile(image, parts[0] if parts else "") for image, parts in zip(images, below, strict=True)]
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix.lower() not in EXTENSIONS:
        raise InputError(f"{path}: neither a folder nor a picture ({', '.join(EXTENSIONS)})")
    return [FaceFile(path, "")]


def read_face(path: Path, contract: FaceContract) -> Tensor:
    """A picture as the recogniser's input, (3, 112, 112) in [-1, 1], RGB. Raises InputError, also if not square."""
    picture = read_image(path)
    height, width, _ = picture.shape
    if height != width:
        raise InputError(f"{path}: {width}x{height} is not square; an aligned face is (earface faces prepare)")
    return contract(to_model_range(torch.from_numpy(picture[None])))[0]


@torch.no_grad()
def embed_faces(model: EdgeFace, crops: Tensor, contract: FaceContract, *, flip: bool = False) -> Tensor:
    """(B, 3, S, S) in [-1, 1] -> (B, 512) of length 1, float32, without gradient.

    model: in evaluation mode. flip: average with the embedding of the mirrored face.
    The batch is cut and padded to INFERENCE_BATCH before anything is computed, so a face's embedding is the same bit
    for bit alone and in any batch, on one device.
    """

    def embed(part: Tensor) -> tuple[Tensor]:
        found = model.embed(contract(part))
        return (unit(found + model.embed(contract(part).flip(3))) if flip else found,)

    return in_fixed_batches(embed, crops, INFERENCE_BATCH)[0]


def embed_pictures(
    model: EdgeFace,
    faces: Sequence[FaceFile],
    contract: FaceContract,
    *,
    flip: bool = False,
    batch_size: int = 64,
    device: str = "cpu",
    workers: int = 4,
    progress: Callable[[int], None] = lambda done: None,
) -> Embedded:
    """Read and embed aligned faces; the numbers do not depend on batch size, order or workers.

    Raises InputError when more than 5 % cannot be read.
    """
    return embed_each(
        faces,
        lambda path: read_face(path, contract),
        lambda crops: embed_faces(model, crops.to(device), contract, flip=flip),
        batch_size=batch_size,
        workers=workers,
        progress=progress,
    )


def embed_each(
    faces: Sequence[FaceFile],
    read: Callable[[Path], Tensor],
    embed: Callable[[Tensor], Tensor],
    *,
    batch_size: int = 64,
    workers: int = 4,
    max_skipped: float = MAX_UNREADABLE,
    progress: Callable[[int], None] = lambda done: None,
) -> Embedded:
    """read: a file to a tensor, all of one shape, or InputError; embed: a stack of them to (B, D) of length 1.

    Memory holds a few faces for each of the workers (threads), a batch, and 2 KB for each finished face.
    progress: called with the number of finished faces. Raises InputError when more than the share `max_skipped`, or
    all, cannot be used.
    """

    def attempt(face: FaceFile) -> Tensor | InputError:
        try:
            return read(face.path)
        except InputError as error:
            return error

    kept: list[int] = []
    batch: list[Tensor] = []
    parts: list[NDArray[np.float32]] = []
    skipped: list[tuple[str, str]] = []
    for index, crop in enumerate(read_ahead(attempt, faces, workers)):
        if isinstance(crop, InputError):
            name = str(faces[index].path)
            skipped.append((name, str(crop).removeprefix(f"{name}: ")))
            if len(skipped) > max_skipped * len(faces) or len(skipped) == len(faces):
                raise InputError(_too_many(skipped, len(faces), max_skipped))
        else:
            kept.append(index)
            batch.append(crop)
        if batch and (len(batch) == batch_size or index + 1 == len(faces)):
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
