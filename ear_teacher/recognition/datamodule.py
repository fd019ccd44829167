"""Ears with subjects to batches: every class is drawn equally often, and views follow from (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ear_teacher.ear_datamodule import EarFilesDataModule
from ear_teacher.ear_files import EarFile, check_several, people_of
from ear_teacher.recognition.config import EarRecognizerTrainingConfig
from earface.core.errors import InputError
from earface.data.augmentation import EarAugmentation
from earface.data.image_rows import in_a_row
from earface.data.npy import TeacherData
from earface.data.pixels import to_model_range
from earface.data.training_checks import warn_of_unused_boxes

MIN_CLASSES = 2


class EarIdentitySample(TypedDict):
    """One ear."""

    pixels: Tensor  # (S, S, 3) uint8
    label: int  # its class; of validation ears the number of the subject in its file
    index: int


class EarIdentityPixelBatch(TypedDict):
    """B samples as they leave the loader."""

    pixels: Tensor  # (B, S, S, 3) uint8
    label: Tensor  # (B,) int64
    index: Tensor  # (B,) int64


class EarIdentityBatch(TypedDict):
    """The same on the device."""

    image: Tensor  # (B, 3, S, S) float32 in [-1, 1]
    label: Tensor
    index: Tensor


class BalancedEars(Dataset[EarIdentitySample]):
    """`images_per_class` views of each class, by (epoch, index); of a class with fewer images they come again."""

    def __init__(
        self,
        files: Sequence[EarFile],
        labels: NDArray[np.int64],
        images_per_class: int,
        augment: Literal["none", "light", "strong"],
        seed: int,
    ) -> None:
        """labels: (N,) of all ears of the files, in a row; every class from 0 on occurs."""
        self.labels, self.seed = labels, seed
        self.per_class = images_per_class
        order = np.argsort(labels, kind="stable")
        self.members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
        self.images = in_a_row([file.images for file in files])
        self.augmentation = EarAugmentation(augment)

    def __len__(self) -> int:
        return len(self.members) * self.per_class

    def row(self, epoch: int, index: int) -> int:
        """Which ear of all it is. The rounds of a class go through all of its images before one comes again."""
        label, turn = divmod(index, self.per_class)
        own = self.members[label]
        round_, place = divmod(epoch * self.per_class + turn, len(own))
        order = np.random.default_rng((self.seed, label, round_)).permutation(len(own))
        return int(own[order[place]])

    def __getitem__(self, key: tuple[int, int] | int) -> EarIdentitySample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        row = self.row(epoch, index)
        view = self.augmentation(np.asarray(self.images[row]), (self.seed, epoch, index))
        return {"pixels": torch.from_numpy(np.array(view)), "label": int(self.labels[row]), "index": row}


class PlainEars(Dataset[EarIdentitySample]):
    """The ears of several files in a row, as they are."""

    def __init__(self, files: Sequence[EarFile]) -> None:
        self.files = list(files)
        self.places = [(file, row) for file in range(len(files)) for row in range(len(files[file]))]
        numbers = [{name: number for number, name in enumerate(sorted(set(file.subjects)))} for file in files]
        self.labels = [numbers[file][files[file].subjects[row]] for file, row in self.places]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> EarIdentitySample:
        file, row = self.places[index]
        pixels = torch.from_numpy(np.array(self.files[file].images[row]))
        return {"pixels": pixels, "label": self.labels[index], "index": index}


class EarRecognizerDataModule(EarFilesDataModule[EarRecognizerTrainingConfig]):
    """Training ears by class, and validation ears of other people, each file by itself."""

    least_val_batch = 64
    apart_by_folder = True

    def __init__(self, config: EarRecognizerTrainingConfig) -> None:
        super().__init__(config)
        self.image_size = config.image_size

    def check_data(self, data: TeacherData, path: str) -> None:
        if data.subjects is None:
            raise InputError(f"{path}: names no subjects; make it with earface ears prepare, one folder per person")
        if self.config.classes == "ear" and data.sides is None and path in self.config.train_npy:
            raise InputError(f"{path}: names no sides, which `classes` ear needs; earface ears prepare finds them")
        warn_of_unused_boxes(data, "make crops of them with earface ears prepare")

    @cached_property
    def classes(self) -> list[str]:
        """The people, or the ears, in the order of the head's rows.

        Raises InputError where there are fewer than two.
        """
        names = sorted(set(self._class_names()))
        if len(names) < MIN_CLASSES:
            raise InputError(f"{self.config.train_npy[0]}: {len(names)} class of ears; two people or more are needed")
        return names

    def setup(self, stage: str | None = None) -> None:
        config = self.config
        self.check_people()
        for file in self.val_files:
            check_several(file.subjects, file.source, "validation")
        number = {name: index for index, name in enumerate(self.classes)}
        labels = np.array([number[name] for name in self._class_names()], np.int64)
        self.train_set = BalancedEars(self.train_files, labels, config.images_per_class, config.augment, config.seed)
        self.val_set = PlainEars(self.val_files)

    def on_after_batch_transfer(self, batch: EarIdentityPixelBatch, dataloader_idx: int) -> EarIdentityBatch:
        """uint8 (B, S, S, 3) to float32 (B, 3, S, S) in [-1, 1], on the device."""
        return {"image": to_model_range(batch["pixels"]), "label": batch["label"], "index": batch["index"]}

    def _class_names(self) -> list[str]:
        """Of each training ear, in a row."""
        people = people_of(self.train_files)
        if self.config.classes == "person":
            return people
        sides = [side for file in self.train_files for side in file.sides]
        return [f"{person}/{side}" for person, side in zip(people, sides, strict=True)]
