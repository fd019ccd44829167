"""The ears of the test people, and identification among them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.transfer.identification import identify
from benchmarks.transfer.options import Cell, TransferBenchmark
from benchmarks.transfer.starts import Start
from ear_teacher.metrics.baselines import hog_features
from earface.core.errors import InputError
from earface.data.image_cache import open_image_cache
from earface.data.images import resize_image
from earface.data.npy import TeacherData, read_teacher_npy

PIXELS = 32  # the side at which pixel PCA sees an ear


@dataclass(frozen=True)
class TestPeople:
    """Prepared ears that name subjects."""

    data: TeacherData
    subjects: list[str]

    @classmethod
    def read(cls, path: str) -> Self:
        """Raises InputError for ears without names."""
        data = read_teacher_npy(path)
        if data.subjects is None:
            raise InputError(f"{path}: names no subjects; make it with earface ears prepare, one folder per person")
        return cls(data, data.subjects)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.subjects)

    def identified(self, cell: Cell, start: Start | None, options: TransferBenchmark) -> dict[str, Any]:
        """Rank-1 by the frozen features of a start, or by a baseline where there is none."""
        side = options.ear_size if start is None else start.image_size or options.ear_size
        channels = 3 if start is None else start.network.get("in_channels", 3)
        cache = open_image_cache(self.data, image_size=side, channels=channels, cache_dir=Path(options.out) / "cache")
        images = np.asarray(cache.images)
        features = start.features(images, cell.seed) if start else {cell.start: baseline(cell.start, images)}
        subjects = [self.subjects[row] for row in cache.kept]
        return identify(features, subjects, cell.shots or 0, cell.seed, options.draws)


def baseline(name: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """HOG of the ears, or their pixels, of which the classifier takes the principal components."""
    if name == "HOG":
        return hog_features(images)
    small = [resize_image(np.asarray(image), PIXELS) for image in images]
    return np.stack(small).reshape(len(images), -1).astype(np.float32)
