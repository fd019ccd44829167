"""Ears with subjects to batches: every class is drawn equally often, and views follow from (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ear_teacher.recognition.config import EarRecognizerTrainingConfig
from earface.core.errors import InputError
from earface.core.progress import progress
from earface.data.augmentation import EarAugmentation
from earface.data.data_digest import Picture, base_folder, ear_pictures
from earface.data.ear_contract import STRETCH
from earface.data.identity_split import person
from earface.data.image_cache import ImageMap, open_image_cache
from earface.data.npy import TeacherData, read_teacher_npy
from earface.data.pixels import to_model_range
from earface.data.training_checks import DecodedPictures, check_decoded, row_names, warn_of_unused_boxes
from earface.training.datamodule import TrainingDataModule

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


@dataclass(frozen=True)
class EarFile:
    """The ears of one teacher file that can be read."""

    source: str
    images: ImageMap  # (N, S, S, 3)
    names: list[str]
    subjects: list[str]
    sides: list[str]  # l, r or empty
    contract: str
    collection: str  # whose subjects they are, empty where it is unknown

    @property
    def people(self) -> set[str]:
        """The subjects by names that differ from those of other sets."""
        return {person(self.collection, subject) for subject in self.subjects}

    def __len__(self) -> int:
        return len(self.names)


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
        self.files, self.labels, self.seed = list(files), labels, seed
        self.per_class = images_per_class
        order = np.argsort(labels, kind="stable")
        self.members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
        self.starts = np.cumsum([0, *map(len, files)])
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

    def picture(self, row: int) -> NDArray[np.uint8]:
        file = int(np.searchsorted(self.starts, row, side="right")) - 1
        return np.asarray(self.files[file].images[row - self.starts[file]])

    def __getitem__(self, key: tuple[int, int] | int) -> EarIdentitySample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        row = self.row(epoch, index)
        view = self.augmentation(self.picture(row), (self.seed, epoch, index))
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


class EarRecognizerDataModule(TrainingDataModule[EarRecognizerTrainingConfig]):
    """Training ears by class, and validation ears of other people, each file by itself."""

    least_val_batch = 64

    def prepare_data(self) -> None:
        """Decode every image into the caches, on one process."""
        _ = self.train_files, self.val_files

    @cached_property
    def data(self) -> dict[str, TeacherData]:
        """Of each path, what its file says."""
        return {path: self._read(path) for path in (*self.config.train_npy, *self.config.val_npy)}

    @cached_property
    def train_files(self) -> list[EarFile]:
        return [self._open(path, self.data[path]) for path in self.config.train_npy]

    @cached_property
    def val_files(self) -> list[EarFile]:
        return [self._open(path, self.data[path]) for path in self.config.val_npy]

    def pictures(self) -> tuple[list[Picture], list[Picture]]:
        base = base_folder(self.data)
        train, val = (
            [picture for path in paths for picture in ear_pictures(self.data[path], base, apart_by_folder=True)]
            for paths in (self.config.train_npy, self.config.val_npy)
        )
        return train, val

    @property
    def contract(self) -> str:
        """EarContract.id of all ears. Raises InputError where they are in different forms."""
        first, *others = [*self.train_files, *self.val_files]
        for other in others:
            if other.contract != first.contract:
                raise InputError(
                    f"{other.source}: its ears are in the form {other.contract}, those of {first.source} in "
                    f"{first.contract}: prepare all alike"
                )
        return first.contract

    @cached_property
    def classes(self) -> list[str]:
        """The people, or the ears, in the order of the head's rows. A file is part of a name: 001 is one person a file.

        Raises InputError where there are fewer than two.
        """
        names = sorted(set(self._class_names()))
        if len(names) < MIN_CLASSES:
            raise InputError(f"{self.config.train_npy[0]}: {len(names)} class of ears; two people or more are needed")
        return names

    def setup(self, stage: str | None = None) -> None:
        config = self.config
        self._check_people()
        with progress("comparing training and validation ears", quiet=config.progress == "none"):
            check_decoded(*([_decoded(file) for file in files] for files in (self.train_files, self.val_files)))
        number = {name: index for index, name in enumerate(self.classes)}
        labels = np.array([number[name] for name in self._class_names()], np.int64)
        self.train_set = BalancedEars(self.train_files, labels, config.images_per_class, config.augment, config.seed)
        self.val_set = PlainEars(self.val_files)

    def on_after_batch_transfer(self, batch: EarIdentityPixelBatch, dataloader_idx: int) -> EarIdentityBatch:
        """uint8 (B, S, S, 3) to float32 (B, 3, S, S) in [-1, 1], on the device."""
        return {"image": to_model_range(batch["pixels"]), "label": batch["label"], "index": batch["index"]}

    def train_name(self, index: int) -> str:
        names = [name for file in self.train_files for name in file.names]
        return names[index]

    def _class_names(self) -> list[str]:
        """Of each training ear, in a row."""
        apart = self.config.classes == "ear"
        return [
            f"{number}/{subject}" + (f"/{side}" if apart else "")
            for number, file in enumerate(self.train_files)
            for subject, side in zip(file.subjects, file.sides, strict=True)
        ]

    def _check_people(self) -> None:
        """Of files of one set, or else in one folder, the same subject on both sides is the same person."""

        def place(file: EarFile) -> str:
            return file.collection or str(Path(file.source).parent.resolve())

        trained = {(place(file), name) for file in self.train_files for name in file.subjects}
        for file in self.val_files:
            shared = sorted(name for name in set(file.subjects) if (place(file), name) in trained)
            if shared:
                raise InputError(
                    f"{file.source}: {len(shared)} subjects are also trained on (such as {shared[0]}); split by "
                    "subject, for example with earface ears prepare"
                )
            counts = {name: file.subjects.count(name) for name in set(file.subjects)}
            if len(counts) < MIN_CLASSES or max(counts.values()) < 2:
                raise InputError(
                    f"{file.source}: two people are needed, one of them with two ears or more, to validate"
                )

    def _read(self, path: str) -> TeacherData:
        config = self.config
        data = read_teacher_npy(path, config.data_root)
        if data.subjects is None:
            raise InputError(f"{path}: names no subjects; make it with earface ears prepare, one folder per person")
        if config.classes == "ear" and data.sides is None and path in config.train_npy:
            raise InputError(f"{path}: names no sides, which `classes` ear needs; earface ears prepare finds them")
        warn_of_unused_boxes(data, "make crops of them with earface ears prepare")
        return data

    def _open(self, path: str, data: TeacherData) -> EarFile:
        config = self.config
        with progress(f"decoding {path}", quiet=config.progress == "none") as state:
            cache = open_image_cache(
                data,
                image_size=config.image_size,
                channels=3,
                cache_dir=config.cache_dir or Path(path).parent / ".cache",
                progress=state.update,
            )
        cache.warn_of_skipped(data)
        names, kept = row_names(data), cache.kept.tolist()
        sides = data.sides or [""] * len(data)
        subjects = data.subjects or []  # there are some: see _read
        return EarFile(
            path,
            cache.images,
            [names[row] for row in kept],
            [subjects[row] for row in kept],
            [sides[row] for row in kept],
            data.contract or STRETCH,
            data.collection,
        )


def _decoded(file: EarFile) -> DecodedPictures:
    return DecodedPictures(file.source, file.images, file.names, with_subjects=True)
