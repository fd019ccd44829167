"""Ears from NPY files to batches: decoded once, augmented by (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ear_teacher.config import EarVAETrainingConfig
from earface.core.errors import InputError
from earface.core.progress import progress, tracked
from earface.data.augmentation import Augmentation, Strength
from earface.data.data_digest import Picture, base_folder, ear_pictures
from earface.data.ear_contract import STRETCH, EarContract
from earface.data.image_cache import ImageCache, open_image_cache
from earface.data.images import Pixels
from earface.data.npy import TeacherData, read_teacher_npy
from earface.data.pixels import to_model_range
from earface.data.training_checks import DecodedPictures, check_decoded, row_names, warn_of_unused_boxes
from earface.training.datamodule import TrainingDataModule
from earface.training.workers import WorkerLoader

FIT_ROWS = 8192  # views in the fit of the linear path; in the demo 16,384, 8,192 and 4,096 gave 24.08, 24.09, 24.05 dB
MOST_FIT_ROWS = 16384  # where there are as many images: 800 MB at 64x64
FIT_VIEWS = 32  # of one image
FIT_BATCH = 128
FIT_EPOCH = 1_000_000  # views of these "epochs" are never trained on


class EarSample(TypedDict):
    """One ear of the data set."""

    pixels: Tensor  # (S, S, C) uint8
    source_pixels: NotRequired[Tensor]  # the degraded input, when denoising
    subject: int  # -1 if unknown
    index: int


class EarVAEPixelBatch(TypedDict):
    """B samples as they leave the loader."""

    pixels: Tensor  # (B, S, S, C) uint8
    source_pixels: NotRequired[Tensor]
    subject: Tensor  # (B,) int64
    index: Tensor  # (B,) int64


class EarVAEBatch(TypedDict):
    """The same on the device: what a training step gets."""

    image: Tensor  # (B, C, S, S) float32 in [-1, 1]: the target
    source: Tensor  # the input: `image` itself, or degraded when denoising
    subject: Tensor  # (B,) int64, -1 if unknown
    index: Tensor  # (B,) int64


class EarDataset(Dataset[EarSample]):
    """Samples by (epoch, index), augmented by both and the seed."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        subjects: NDArray[np.int64],
        augment: Strength = "none",
        denoise: bool = False,
        seed: int = 0,
        mirror: bool = True,
    ) -> None:
        """images: (N, S, S, C). subjects: (N,), -1 if unknown. mirror: whether views may be mirrored."""
        self.images, self.subjects = images, subjects
        self.augmentation = Augmentation(augment, denoise, mirror)
        self.denoise, self.seed = denoise, seed

    def __len__(self) -> int:
        return len(self.images)

    def view(self, epoch: int, index: int) -> tuple[Pixels, Pixels]:
        """Target and input."""
        return self.augmentation(np.asarray(self.images[index]), (self.seed, epoch, index))

    def __getitem__(self, key: tuple[int, int] | int) -> EarSample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        target, source = self.view(epoch, index)
        sample: EarSample = {
            "pixels": torch.from_numpy(np.array(target)),
            "subject": int(self.subjects[index]),
            "index": index,
        }
        if self.denoise:
            sample["source_pixels"] = torch.from_numpy(np.array(source))
        return sample


class EarVAEDataModule(TrainingDataModule[EarVAETrainingConfig]):
    """Training and validation ears."""

    def prepare_data(self) -> None:
        """Decode every image into the cache, on one process."""
        _ = self.train_ears, self.val_ears

    @cached_property
    def train_data(self) -> TeacherData:
        return self._read(self.config.train_npy)

    @cached_property
    def val_data(self) -> TeacherData:
        return self._read(self.config.val_npy)

    @cached_property
    def train_ears(self) -> tuple[TeacherData, ImageCache]:
        return self._open(self.config.train_npy, self.train_data)

    @cached_property
    def val_ears(self) -> tuple[TeacherData, ImageCache]:
        return self._open(self.config.val_npy, self.val_data)

    def pictures(self) -> tuple[list[Picture], list[Picture]]:
        base = base_folder([self.config.train_npy, self.config.val_npy])
        return ear_pictures(self.train_data, base), ear_pictures(self.val_data, base)

    @property
    def contract(self) -> str:
        """EarContract.id of the ears. Raises InputError where training and validation ears are in different forms."""
        train, val = (data.contract or STRETCH for data in (self.train_data, self.val_data))
        if train != val:
            raise InputError(
                f"{self.config.val_npy}: its ears are in the form {val}, those of {self.config.train_npy} in {train}: "
                "prepare both alike"
            )
        return train

    def setup(self, stage: str | None = None) -> None:
        config = self.config
        train, self.train_cache = self.train_ears
        val, self.val_cache = self.val_ears
        self.train_cache.warn_of_skipped(train)
        self.val_cache.warn_of_skipped(val)
        names = sorted({*(train.subjects or ()), *(val.subjects or ())})
        shared = set(train.subjects or ()) & set(val.subjects or ())
        if shared:
            raise InputError(
                f"{config.val_npy}: {len(shared)} subjects are also in {config.train_npy} (such as {min(shared)}); "
                "split by subject, for example with earface ears prepare"
            )
        with progress("comparing training and validation ears", quiet=config.progress == "none"):
            check_decoded([_decoded(*self.train_ears)], [_decoded(*self.val_ears)])
        self.train_set = EarDataset(
            self.train_cache.images,
            _subject_ids(train, self.train_cache, names),
            config.augment,
            config.denoise,
            config.seed,
            mirror=EarContract.parse(self.contract).fit != "canonical",
        )
        self.val_set = EarDataset(self.val_cache.images, _subject_ids(val, self.val_cache, names))

    def on_after_batch_transfer(self, batch: EarVAEPixelBatch, dataloader_idx: int) -> EarVAEBatch:
        """uint8 (B, S, S, C) to float32 (B, C, S, S) in [-1, 1], on the device."""
        image = to_model_range(batch["pixels"])
        source = to_model_range(batch["source_pixels"]) if "source_pixels" in batch else image
        return {"image": image, "source": source, "subject": batch["subject"], "index": batch["index"]}

    def closed_form_rows(self, rows: Callable[[Tensor], Tensor]) -> Tensor:
        """About FIT_ROWS augmented training views, or one of each of more images, through `rows`: (N, P). The loader's workers make them."""
        count = len(self.train_set)
        wanted = FIT_BATCH if self.config.fast_dev_run else min(max(count, FIT_ROWS), MOST_FIT_ROWS)
        views = 1 if self.config.augment == "none" else min(max(1, round(wanted / count)), FIT_VIEWS)
        kept = np.random.default_rng(self.config.seed).permutation(count)[:wanted]
        keys = [(FIT_EPOCH + view, int(index)) for view in range(views) for index in kept]
        loader = WorkerLoader(
            self.train_set, batch_size=FIT_BATCH, sampler=keys, num_workers=min(self.config.num_workers, len(keys))
        )
        quiet = self.config.progress == "none"
        batches = tracked(loader, "views for the linear path, batches", quiet=quiet)
        return torch.cat([rows(to_model_range(batch["pixels"])) for batch in batches])

    def train_name(self, index: int) -> str:
        data, cache = self.train_ears
        return row_names(data)[int(cache.kept[index])]

    def _read(self, path: str) -> TeacherData:
        self.config.check_files()
        data = read_teacher_npy(path, self.config.data_root)
        if not self.config.crop_to_bbox:
            warn_of_unused_boxes(data, "add `crop_to_bbox` to train on what is in them")
        return data

    def _open(self, path: str, data: TeacherData) -> tuple[TeacherData, ImageCache]:
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


def _decoded(data: TeacherData, cache: ImageCache) -> DecodedPictures:
    names = row_names(data)
    kept = [names[row] for row in cache.kept.tolist()]
    return DecodedPictures(str(data.source), cache.images, kept, data.subjects is not None)


def _subject_ids(data: TeacherData, cache: ImageCache, names: list[str]) -> NDArray[np.int64]:
    if data.subjects is None:
        return np.full(len(cache), -1, np.int64)
    number = {name: index for index, name in enumerate(names)}
    return np.array([number[data.subjects[row]] for row in cache.kept], np.int64)
