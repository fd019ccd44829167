"""Ears from NPY files to batches: decoded once, augmented by (seed, epoch, index)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import Dataset

from ear_teacher.config import EarVAETrainingConfig
from earface.core.errors import InputError
from earface.core.progress import progress, tracked
from earface.data.augmentation import Augmentation, Strength
from earface.data.image_cache import ImageCache, open_image_cache
from earface.data.npy import TeacherData, read_teacher_npy
from earface.data.pixels import to_model_range
from earface.training.datamodule import TrainingDataModule
from earface.training.workers import WorkerLoader

FIT_ROWS = 8192  # views of the linear path's fit; after the demo 16,384, 8,192 and 4,096 gave 24.08, 24.09, 24.05 dB
FIT_VIEWS = 32  # of one image
FIT_BATCH = 128
FIT_EPOCH = 1_000_000  # views of these "epochs" are never trained on


class EarDataset(Dataset[dict[str, Any]]):
    """Items by (epoch, index): `image` and, when denoising, `source`, both uint8 (S, S, C); `subject` and `index`.

    `subject` is an integer, -1 where none is known.
    """

    def __init__(
        self, images: np.ndarray, subjects: np.ndarray, augment: Strength = "none", denoise: bool = False, seed: int = 0
    ) -> None:
        self.images, self.subjects = images, subjects
        self.augmentation = Augmentation(augment, denoise)
        self.denoise, self.seed = denoise, seed

    def __len__(self) -> int:
        return len(self.images)

    def view(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.augmentation(np.asarray(self.images[index]), (self.seed, epoch, index))

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, Any]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        image, source = self.view(epoch, index)
        item = {"image": torch.from_numpy(np.array(image)), "subject": int(self.subjects[index]), "index": index}
        if self.denoise:
            item["source"] = torch.from_numpy(np.array(source))
        return item


class EarVAEDataModule(TrainingDataModule):
    """Train and validation ears of an EarVAETrainingConfig."""

    def __init__(self, config: EarVAETrainingConfig) -> None:
        super().__init__(config)

    def check_files(self) -> None:
        """Raise InputError for a missing file, before a model is built for it."""
        self.config.check_files()

    def prepare_data(self) -> None:
        """Decode every image into the cache, on one process."""
        for path in (self.config.train_npy, self.config.val_npy):
            self._open(path)

    def setup(self, stage: str | None = None) -> None:
        config = self.config
        train, self.train_cache = self._open(config.train_npy)
        val, self.val_cache = self._open(config.val_npy)
        for path, cache in ((config.train_npy, self.train_cache), (config.val_npy, self.val_cache)):
            _report_skipped(path, cache)
        names = sorted({*(train.subjects or ()), *(val.subjects or ())})
        shared = set(train.subjects or ()) & set(val.subjects or ())
        if shared:
            raise InputError(
                f"{config.val_npy}: {len(shared)} subjects are also in {config.train_npy} (such as {min(shared)}); "
                "split by subject, for example with earface ears prepare"
            )
        self.train_set = EarDataset(
            self.train_cache.images,
            _subject_ids(train, self.train_cache, names),
            config.augment,
            config.denoise,
            config.seed,
        )
        self.val_set = EarDataset(self.val_cache.images, _subject_ids(val, self.val_cache, names))

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """uint8 (B, S, S, C) to float32 (B, C, S, S) in [-1, 1], on the device."""
        image = to_model_range(batch["image"])
        source = to_model_range(batch["source"]) if "source" in batch else image
        return {**batch, "image": image, "source": source}

    def linear_path_rows(self, shrink: Any) -> Tensor:
        """Augmented training views through `shrink`, about FIT_ROWS of them: (N, P). The loader's workers make them."""
        count = len(self.train_set)
        wanted = FIT_BATCH if self.config.fast_dev_run else FIT_ROWS
        views = 1 if self.config.augment == "none" else min(max(1, round(wanted / count)), FIT_VIEWS)
        kept = np.random.default_rng(self.config.seed).permutation(count)[:wanted]
        keys = [(FIT_EPOCH + view, int(index)) for view in range(views) for index in kept]
        loader = WorkerLoader(
            self.train_set, batch_size=FIT_BATCH, sampler=keys, num_workers=min(self.config.num_workers, len(keys))
        )
        quiet = self.config.progress == "none"
        batches = tracked(loader, "drawing views for the linear path, batches", quiet=quiet)
        return torch.cat([shrink(to_model_range(batch["image"])) for batch in batches])

    def train_name(self, index: int) -> str:
        data = self._read(self.config.train_npy)
        row = int(self.train_cache.kept[index])
        return str(data.image_paths[row]) if data.image_paths else f"{self.config.train_npy} row {row}"

    def _read(self, path: str) -> TeacherData:
        self.config.check_files()
        return read_teacher_npy(path, self.config.data_root)

    def _open(self, path: str) -> tuple[TeacherData, ImageCache]:
        data = self._read(path)
        config = self.config
        with progress(f"decoding {path}", quiet=config.progress == "none") as state:
            cache = open_image_cache(
                data,
                image_size=config.image_size,
                channels=config.in_channels,
                crop_to_bbox=config.crop_to_bbox,
                cache_dir=config.cache_dir or Path(path).parent / ".cache",
                progress=state.update,
            )
        return data, cache


@rank_zero_only
def _report_skipped(path: str, cache: ImageCache) -> None:
    if cache.skipped:
        first = "; ".join(f"{name}: {reason}" for name, reason in cache.skipped[:3])
        print(f"{path}: {len(cache.skipped)} images cannot be read and are left out ({first})")


def _subject_ids(data: TeacherData, cache: ImageCache, names: list[str]) -> np.ndarray:
    if data.subjects is None:
        return np.full(len(cache), -1)
    number = {name: index for index, name in enumerate(names)}
    return np.array([number[data.subjects[row]] for row in cache.kept])
