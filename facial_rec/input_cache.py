"""What a recogniser is shown of a face: its HR picture, or its VLR copy, interpolated or super-resolved.

The last two are made once and kept in a memory map, whose name is a digest of all that decides its content: another
super-resolver, size, degradation, seed or picture is another file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earface.core.errors import InputError
from earface.core.files import atomic_write, check_free_space, remove_abandoned
from earface.data.face_rows import FaceRow
from earface.data.face_sizes import FACE_SIZE
from earface.data.image_cache import ImageMap, file_identity, open_map
from earface.data.pixels import to_uint8
from earface.nn.upsampler import Upsampler

RULE = 1  # raise it when the same upsampler would make other pixels


@dataclass(frozen=True)
class VLRFaces:
    """Where VLR faces come from: batches with `vlr` in [-1, 1], in the order of `rows`, and what decides them."""

    rows: Sequence[FaceRow]
    batches: Callable[[], Iterable[dict[str, Any]]]
    origin: tuple[object, ...]  # size, degradation, seed


def cache_path(folder: str | Path, upsampler: Upsampler, faces: VLRFaces) -> Path:
    digest = hashlib.sha256(repr((RULE, upsampler.name, upsampler.origin, faces.origin)).encode())
    for row in faces.rows:
        for path in (row.path, row.vlr_path):
            digest.update(repr(path and file_identity(path)).encode())
    return Path(folder) / f"{upsampler.name}-{digest.hexdigest()[:32]}.bin"


def open_inputs(folder: str | Path, upsampler: Upsampler, faces: VLRFaces) -> ImageMap:
    """The faces by this upsampler, (N, 128, 128, 3) uint8 in a read-only memory map, made at the first call.

    It appears whole or not at all. Raises InputError where the disk has no room.
    """
    path, shape = cache_path(folder, upsampler, faces), (len(faces.rows), FACE_SIZE, FACE_SIZE, 3)
    size = int(np.prod(shape))
    if not path.is_file() or path.stat().st_size != size:
        check_free_space(path, size)
        remove_abandoned(path)
        with atomic_write(path) as temporary:
            _write(temporary, upsampler, faces)
            if temporary.stat().st_size != size:
                raise InputError(f"{path}: {len(faces.rows)} faces wanted, others came; are the pictures changing?")
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
    with path.open("wb") as stream:  # written, not mapped: a full disk under a map kills the process
        for batch in faces.batches():
            stream.write(to_uint8(upsampler.enlarge(batch["vlr"])).cpu().numpy().tobytes())
