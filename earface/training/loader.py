"""A training loader whose order is a function of (seed, epoch) and which goes on in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import Any, Protocol

import numpy as np
from torch.utils.data import Dataset, Sampler

from earface.training.workers import WorkerLoader


class EpochDataset(Sized, Protocol):
    """A dataset whose items are asked for by (epoch, index), so that augmentation can depend on both."""

    def __getitem__(self, key: tuple[int, int]) -> Any: ...


def epoch_order(seed: int, epoch: int, length: int) -> np.ndarray:
    """The permutation of `length` samples that (seed, epoch) stands for."""
    return np.random.default_rng((seed, epoch)).permutation(length)


def batches_per_epoch(length: int, batch_size: int, world_size: int = 1) -> int:
    """Full batches of one process; a last, smaller batch is left for another epoch, unless it is the only one."""
    return max(length // world_size // batch_size, 1)


class _EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) keys of one epoch from batch `start` on, this rank's share."""

    def __init__(self, length: int, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return batches_per_epoch(self.length, self.batch_size, self.world_size)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        shared = self.length - self.length % self.world_size  # losses are averaged over batches of one size
        order = epoch_order(self.seed, epoch, self.length)[:shared][self.rank :: self.world_size]
        for batch in range(self.start, len(self)):
            part = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(epoch, int(index)) for index in part]


class ResumableLoader:
    """Shuffled batches for Lightning that resume exactly, with any number of workers.

    Lightning makes the train iterator before it says which epoch it is, so the iterator is lazy: order and starting
    batch are read when the first batch is asked for. `state_dict` counts the batches handed out, not those that
    workers have prepared.
    """

    def __init__(
        self,
        dataset: EpochDataset,
        batch_size: int,
        *,
        seed: int,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
        collate: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        self.batches = _EpochBatches(len(dataset), batch_size, seed, rank, world_size)
        typed: Dataset[Any] = dataset  # type: ignore[assignment]
        self.loader = WorkerLoader(
            typed,
            batch_sampler=self.batches,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            collate_fn=collate,
        )
        # Lightning calls loader.sampler.set_epoch. Not `self`: collected as a cycle, torch waits 5 s for each worker
        self.sampler = self.batches
        self.handed_out = 0
        self._resume_at: tuple[int, int] | None = None

    @property
    def dataset(self) -> EpochDataset:
        return self.loader.dataset  # type: ignore[return-value]

    @property
    def epoch(self) -> int:
        return self.batches.epoch

    def set_epoch(self, epoch: int) -> None:
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        start = 0
        if self._resume_at is not None and self._resume_at[0] == self.epoch:
            start = self._resume_at[1]
        self._resume_at = None
        self.batches.start = start
        self.handed_out = start
        for batch in self.loader:
            self.handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "handed_out": self.handed_out}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._resume_at = (state["epoch"], state["handed_out"])
