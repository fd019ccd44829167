"""Enlarged VLR faces that a recogniser is trained on, computed once and kept in a memory map.

The name of a map is a digest of everything that decides its content: another super-resolver, size, degradation, seed or
set of pictures is another file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from earface.core.errors import InputError
from earface.core.files import atomic_write, check_free_space, remove_abandoned
from earface.data.face_dataset import FaceBatch
from earface.data.face_rows import FaceRow
from earface.data.face_sizes import FACE_SIZE
from earface.data.image_cache import ImageMap, file_identity, open_map
from earface.data.pixels import to_uint8
from earface.nn.upsampler import Upsampler

RULE = 1  # increase it when the same upsampler would give other pixels


@dataclass(frozen=True)
class VLRFaces:
    """VLR faces, in the order of `rows`, and what decides them."""

    rows: Sequence[FaceRow]
    batches: Callable[[], Iterable[FaceBatch]]
    origin: tuple[object, ...]  # size, degradation, seed


def cache_path(folder: str | Path, upsampler: Upsampler, faces: VLRFaces) -> Path:
    digest = hashlib.sha256(repr((RULE, upsampler.name, upsampler.origin, faces.origin)).encode())
    for row in faces.rows:
        for path in (row.path, row.vlr_path):
            digest.update(repr(path and file_identity(path)).encode())
    return Path(folder) / f"{upsampler.name}-{digest.hexdigest()[:32]}.bin"


def open_inputs(folder: str | Path, upsampler: Upsampler, faces: VLRFaces) -> ImageMap:
    """The enlarged faces, (N, 128, 128, 3) uint8 in a read-only memory map, which the first call writes.

    It appears whole or not at all. Raises InputError if the disk has no room.
    """
    path, shape = cache_path(folder, upsampler, faces), (len(faces.rows), FACE_SIZE, FACE_SIZE, 3)
    size = int(np.prod(shape))
    remove_abandoned(path.parent)
    if not path.is_file() or path.stat().st_size != size:
        check_free_space(path, size)
        with atomic_write(path) as temporary:
            _write(temporary, upsampler, faces)
            if temporary.stat().st_size != size:
                raise InputError(
                    f"{path}: {len(faces.rows)} faces expected, not as many came; are the pictures changing?"
                )
        about = {
            "upsampler": upsampler.name,
            "origin": [upsampler.origin, *map(str, faces.origin)],
            "faces": len(faces.rows),
        }
        with atomic_write(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return open_map(path, shape)


@torch.no_grad()
def _write(path: Path, upsampler: Upsampler, faces: VLRFaces) -> None:
    with path.open("wb") as stream:  # not through a map: a full disk would kill the process
        for batch in faces.batches():
            stream.write(to_uint8(upsampler.enlarge(batch["vlr"])).cpu().numpy().tobytes())
