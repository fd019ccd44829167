"""What every DataModule of this project does alike: loaders that resume exactly, each process's share, and names."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from earface.core.errors import InputError
from earface.data.data_digest import DataDigest, Picture
from earface.training.config import RunOptions
from earface.training.loader import ResumableLoader
from earface.training.workers import WorkerLoader

NAMED = 8  # files of a batch that an error message lists
print_once = rank_zero_only(print)  # by the first process alone
Config = TypeVar("Config", bound=RunOptions)


def check_enough(pictures: int, processes: int, purpose: str) -> None:
    """Raise InputError where not each process has one; what is none at all is reported where it is read."""
    if processes > 1 and pictures < processes:
        raise InputError(f"`devices`: {processes} processes have {pictures} pictures to {purpose}: give fewer devices")


class TrainingDataModule(pl.LightningDataModule, Generic[Config]):
    """A subclass sets `train_set` and `val_set` in `setup`, whose items hold their `index`, and has `train_name`."""

    config: Config

    train_set: Any
    val_set: Any
    collate: Callable[[list[Any]], Any] | None = None
    least_val_batch = 16  # small training batches would make validation slow

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def pictures(self) -> tuple[list[Picture], list[Picture]]:
        """Those that are trained and validated on, for the digest that checkpoints keep."""
        raise NotImplementedError

    def extra_pictures(self) -> list[Picture]:
        """Those that are trained on beside them, of nobody in particular."""
        return []

    @cached_property
    def digest(self) -> DataDigest:
        """Of the data, and of whom a run that goes on has trained on before."""
        return DataDigest.of(*self.pictures(), self.extra_pictures())

    def train_name(self, index: int) -> str:
        """The file of a training sample."""
        raise NotImplementedError

    def train_dataloader(self) -> ResumableLoader:
        check_enough(len(self.train_set), self._world_size, "train on")
        return ResumableLoader(
            self.train_set,
            self.config.batch_size,
            seed=self.config.seed,
            num_workers=self.config.num_workers,
            rank=self._rank,
            world_size=self._world_size,
            pin_memory=torch.cuda.is_available(),
            collate=self.collate,
        )

    def val_dataloader(self) -> WorkerLoader:
        """The batches of one process, dealt out in turn, so that each picture counts once and metrics are the same.

        They are smaller where there would not be one for each process. Raises InputError for fewer pictures.
        """
        length = len(self.val_set)
        check_enough(length, self._world_size, "validate with")
        size = min(max(self.config.batch_size, self.least_val_batch), max(length // self._world_size, 1))
        batches = [range(start, min(start + size, length)) for start in range(0, length, size)]
        return WorkerLoader(
            self.val_set,
            batch_sampler=batches[self._rank :: self._world_size],
            num_workers=(workers := min(self.config.num_workers, 2)),
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=self.collate,
        )

    def describe(self, indices: Tensor) -> str:
        """The files of some training samples, for an error message."""
        names = [self.train_name(int(index)) for index in indices]
        return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1
