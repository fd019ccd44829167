"""What the DataModules of an ear VAE and of an ear recogniser do alike: ears of several teacher files on each side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TypeVar

from ear_teacher.config import EarFilesOptions
from ear_teacher.ear_files import EarFile, check_people, common_contract, open_ear_file
from earface.core.progress import progress
from earface.data.data_digest import Picture, base_folder, ear_pictures
from earface.data.npy import TeacherData, read_teacher_npy
from earface.training.datamodule import TrainingDataModule

Config = TypeVar("Config", bound=EarFilesOptions)


class EarFilesDataModule(TrainingDataModule[Config]):
    """Training ears, and validation ears of other people."""

    image_size: int  # set by a subclass, as these are
    channels = 3
    crop_to_bbox = False
    apart_by_folder = False  # whether people of one file a side are told apart by its folder in the digest, too

    def prepare_data(self) -> None:
        """Decode every image into the caches, on one process."""
        _ = self.train_files, self.val_files

    def check_data(self, data: TeacherData, path: str) -> None:
        """Raise InputError for a file that does not serve. Of each subclass."""

    @cached_property
    def data(self) -> dict[str, TeacherData]:
        """Of each path, what its file says."""
        self.config.check_files()
        found = {}
        for path in (*self.config.train_npy, *self.config.val_npy):
            found[path] = read_teacher_npy(path, self.config.data_root)
            self.check_data(found[path], path)
        return found

    @cached_property
    def train_files(self) -> list[EarFile]:
        return self._open(self.config.train_npy)

    @cached_property
    def val_files(self) -> list[EarFile]:
        return self._open(self.config.val_npy)

    def pictures(self) -> tuple[list[Picture], list[Picture]]:
        base = base_folder(self.data)
        apart = self.apart_by_folder or len(self.data) > 2
        train, val = (
            [picture for path in paths for picture in ear_pictures(self.data[path], base, apart)]
            for paths in (self.config.train_npy, self.config.val_npy)
        )
        return train, val

    @property
    def contract(self) -> str:
        """EarContract.id of all ears. Raises InputError where they are in different forms."""
        return common_contract(self.data.values())

    def check_people(self) -> None:
        """Raise InputError for a person, or where no subjects are known a picture, that is on both sides."""
        with progress("comparing training and validation ears", quiet=self.config.progress == "none"):
            check_people(self.train_files, self.val_files)

    def train_name(self, index: int) -> str:
        for file in self.train_files:
            if index < len(file):
                return file.names[index]
            index -= len(file)
        raise IndexError(index)

    def _open(self, paths: Sequence[str]) -> list[EarFile]:
        return [
            open_ear_file(
                self.data[path],
                image_size=self.image_size,
                channels=self.channels,
                crop_to_bbox=self.crop_to_bbox,
                cache_dir=self.config.cache_dir,
                quiet=self.config.progress == "none",
            )
            for path in paths
        ]
