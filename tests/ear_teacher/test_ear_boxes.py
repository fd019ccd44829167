"""Corners in a teacher file are refused by all that reads its boxes, and not only by a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ear_teacher.ear_reader import sources_of
from earface.core.errors import InputError
from earface.data.npy import write_teacher_npy
from pipeline.ear_protocol import ears_of_set


def listed(path: Path) -> object:
    return sources_of(str(path), data_root=None, crop_to_bbox=True, folder_subjects=False)


@pytest.mark.parametrize("read", [listed, lambda path: ears_of_set(str(path))])
def test_corners_in_a_teacher_file_are_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for path in paths:
        Image.new("RGB", (60, 40)).save(path)
    boxes = np.array([[10, 5, 30, 25], [28, 10, 48, 36]] * 6, np.float32)
    subjects = [f"s{number}" for number in range(12)]
    write_teacher_npy(tmp_path / "t.npy", image_paths=paths, bboxes=boxes, subjects=subjects)
    with pytest.raises(InputError, match=r"t\.npy: the boxes look like corners"):
        read(tmp_path / "t.npy")
    boxes[:, 2:] -= boxes[:, :2]
    write_teacher_npy(tmp_path / "t.npy", image_paths=paths, bboxes=boxes, subjects=subjects)
    read(tmp_path / "t.npy")
