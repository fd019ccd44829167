"""Aligned faces to embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from earface.core.errors import InputError
from earface.data.aligned_faces import LargeFaces
from earface.data.images import read_image
from earface.data.pixels import to_model_range
from earface.nn.embedding import Embedded, PictureFile, embed_each
from earface.nn.fixed_batches import in_fixed_batches
from facial_rec.contract import FaceContract
from facial_rec.model import EdgeFace, unit

INFERENCE_BATCH = 16  # one shape for every call: kernels, and so the last bit, depend on it


def read_face(path: Path, contract: FaceContract, large: LargeFaces | None = None) -> Tensor:
    """A picture as the recogniser's input, (3, 112, 112) in [-1, 1], RGB. Raises InputError, also if not square."""
    picture = read_image(path)
    if large is not None:
        large.look(path, picture)
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


@torch.no_grad()
def embed_measured(
    model: EdgeFace, crops: Tensor, contract: FaceContract, *, mirrored: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """The same bits as `embed_faces`, and of each embedding, (B,): its length before it is brought to 1, and its cosine
    with that of the mirrored face; NaN without `mirrored`, which takes half of the time.
    """

    def embed(part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        faces = contract(part)
        raw = model(faces).float()
        own, norms = unit(raw), raw.norm(dim=1)
        alike = (own * model.embed(faces.flip(3))).sum(dim=1) if mirrored else torch.full_like(norms, torch.nan)
        return own, norms, alike

    embeddings, norms, alike = in_fixed_batches(embed, crops, INFERENCE_BATCH)
    return embeddings, norms, alike


def embed_pictures(
    model: EdgeFace,
    faces: Sequence[PictureFile],
    contract: FaceContract,
    *,
    flip: bool = False,
    batch_size: int = 64,
    device: str = "cpu",
    workers: int = 4,
    progress: Callable[[int], None] = lambda done: None,
) -> Embedded:
    """Read and embed aligned faces; the numbers do not depend on batch size, order or workers.

    Warns of pictures that look like photographs. Raises InputError when more than 5 % cannot be read.
    """
    large = LargeFaces()
    found = embed_each(
        faces,
        lambda path: read_face(path, contract, large),
        lambda crops: embed_faces(model, crops.to(device), contract, flip=flip),
        batch_size=batch_size,
        workers=workers,
        progress=progress,
    )
    large.warn(len(faces), "align them first (earface faces prepare), or use earface enroll, which does")
    return found
