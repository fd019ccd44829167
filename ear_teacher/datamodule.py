"""Ears from NPY files to batches: decoded once, augmented by (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ear_teacher.config import EarVAETrainingConfig
from ear_teacher.ear_datamodule import EarFilesDataModule
from ear_teacher.ear_files import check_several, people_of
from earface.core.errors import InputError
from earface.core.progress import tracked
from earface.data.augmentation import Augmentation, Strength
from earface.data.ear_contract import EarContract
from earface.data.image_rows import Images, in_a_row
from earface.data.images import Pixels
from earface.data.npy import TeacherData
from earface.data.pixels import to_model_range
from earface.data.training_checks import warn_of_unused_boxes
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
        images: Images,
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


class EarVAEDataModule(EarFilesDataModule[EarVAETrainingConfig]):
    """Training and validation ears."""

    def __init__(self, config: EarVAETrainingConfig) -> None:
        super().__init__(config)
        self.image_size, self.channels = config.image_size, config.in_channels
        self.crop_to_bbox = config.crop_to_bbox

    def check_data(self, data: TeacherData, path: str) -> None:
        if not self.config.crop_to_bbox:
            warn_of_unused_boxes(data, "add `crop_to_bbox` to train on what is in them")

    @property
    def classes(self) -> list[str]:
        """The people that are trained on, in the order of their numbers."""
        return sorted({*people_of(self.train_files)} - {""})

    def _check_identities(self) -> None:
        """Raise InputError for files in which no one can be recognised."""
        for file in (*self.train_files, *self.val_files):
            if not file.subjects:
                raise InputError(
                    f"{file.source}: names no subjects, which `identity_weight` needs; make it with earface ears "
                    "prepare, one folder per person"
                )
        check_several(people_of(self.train_files), self.config.train_npy[0], "`identity_weight`")
        for file in self.val_files:
            check_several(file.subjects, file.source, "`identity_weight`")

    def setup(self, stage: str | None = None) -> None:
        config = self.config
        mirror = EarContract.parse(self.contract).fit != "canonical"
        self.check_people()
        if config.identity_weight > 0:
            self._check_identities()
        sides = [(side, people_of(files)) for side, files in (("train", self.train_files), ("val", self.val_files))]
        people = [f"{side}/{name}" if name else "" for side, names in sides for name in names]
        number = {name: index for index, name in enumerate(sorted({*people} - {""}))} | {"": -1}  # as `classes` first
        subjects = np.array([number[name] for name in people], np.int64)
        train, val = (in_a_row([file.images for file in files]) for files in (self.train_files, self.val_files))
        self.train_set = EarDataset(
            train, subjects[: len(train)], config.augment, config.denoise, config.seed, mirror=mirror
        )
        self.val_set = EarDataset(val, subjects[len(train) :])

    def on_after_batch_transfer(self, batch: EarVAEPixelBatch, dataloader_idx: int) -> EarVAEBatch:
        """uint8 (B, S, S, C) to float32 (B, C, S, S) in [-1, 1], on the device."""
        image = to_model_range(batch["pixels"])
        source = to_model_range(batch["source_pixels"]) if "source_pixels" in batch else image
        return {"image": image, "source": source, "subject": batch["subject"], "index": batch["index"]}

    def closed_form_rows(self, rows: Callable[[Tensor], Tensor]) -> Tensor:
        """Augmented training views through `rows`: (N, P). N is about FIT_ROWS, or one view of each of more images.

        The loader's workers make them.
        """
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
