"""A repository that was cloned without Git LFS has pointers in place of its files: each reader says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from earface.core.errors import InputError
from earface.data.coco import read_coco
from earface.data.images import image_size, read_image
from earface.data.npy import read_teacher_npy
from earface.data.tables import read_csv
from earface.nn.checkpoint import read_checkpoint
from earface.nn.weights import read_weights_file

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1234567\n"
READERS: dict[str, Callable[[Path], object]] = {
    "a.png": read_image,
    "b.jpg": image_size,
    "train.npy": read_teacher_npy,
    "index.csv": read_csv,
    "ears.json": read_coco,
    "last.ckpt": read_checkpoint,
    "weights.pt": read_weights_file,
    "model.safetensors": read_weights_file,
}


@pytest.mark.parametrize("name", READERS)
def test_a_pointer_is_named_as_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(InputError, match="git lfs pull") as caught:
        READERS[name](tmp_path / name)
    assert name in str(caught.value)
