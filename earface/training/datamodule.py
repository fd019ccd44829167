"""What every DataModule of this project does alike: loaders that resume exactly, each process's share, and names."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import Subset

from earface.data.data_digest import DataDigest, Picture
from earface.training.config import RunOptions
from earface.training.loader import ResumableLoader
from earface.training.workers import WorkerLoader

NAMED = 8  # files of a batch that an error message lists
print_once = rank_zero_only(print)  # by the first process alone


Config = TypeVar("Config", bound=RunOptions)


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
        mine = range(self._rank, len(self.val_set), self._world_size)
        return WorkerLoader(
            Subset(self.val_set, mine),
            batch_size=max(self.config.batch_size, self.least_val_batch),
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
