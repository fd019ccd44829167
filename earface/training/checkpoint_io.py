"""Checkpoints that survive a kill and a full disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from torch.serialization import get_crc32_options, set_crc32_options

from earface.core.errors import InputError
from earface.core.files import atomic_write
from earface.nn.checkpoint import read_checkpoint

_FAILED_WRITES = ("PytorchStreamWriter", "unexpected pos", "cannot be opened", "Parent directory")


class AtomicCheckpointIO(CheckpointIO):
    """Writes beside the target, syncs, then renames; reads with `weights_only=True`.

    A kill or a full disk leaves the previous file as it was.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_write(path) as temporary, without_checksums():
                temporary.touch()  # an OSError says why it cannot be, torch's error does not
                torch.save(checkpoint, temporary)
        except RuntimeError as error:  # torch's zip writer reports a failed write as a RuntimeError
            if not any(sign in str(error) for sign in _FAILED_WRITES):
                raise
            free = shutil.disk_usage(path.parent).free / 2**20
            raise InputError(
                f"{path}: could not be written ({free:.0f} MiB free): make room or choose another `checkpoint_dir`, "
                "then run the same command; it continues from the last complete checkpoint"
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(path, map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


@contextmanager
def without_checksums() -> Iterator[None]:
    """torch.save takes three quarters of its time for checksums that torch.load never looks at."""
    before = get_crc32_options()
    set_crc32_options(False)
    try:
        yield
    finally:
        set_crc32_options(before)
