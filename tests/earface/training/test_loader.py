"""The training loader: its order, and going on where a run was stopped."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from earface.core.errors import InputError, entry_point
from earface.training.config import RunOptions
from earface.training.datamodule import TrainingDataModule
from earface.training.loader import ResumableLoader, batches_per_epoch, epoch_order
from tests.conftest import only_line

LENGTH, BATCH, SEED = 23, 4, 7  # five full batches, three samples left over


class Keys:
    """Each item is the (epoch, index) that it was asked for."""

    def __init__(self, length: int = LENGTH) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        return torch.tensor(key)


def loader(length: int = LENGTH, batch: int = BATCH, **options: int) -> ResumableLoader:
    return ResumableLoader(Keys(length), batch, **{"seed": SEED, **options})


def epoch_of(loader: ResumableLoader, epoch: int) -> list[list[list[int]]]:
    loader.set_epoch(epoch)
    return [batch.tolist() for batch in loader]


def expected(epoch: int, first: int = 0) -> list[list[list[int]]]:
    order = epoch_order(SEED, epoch, LENGTH).tolist()
    return [
        [[epoch, index] for index in order[start : start + BATCH]]
        for start in range(first * BATCH, LENGTH - BATCH + 1, BATCH)
    ]


class Threads(Keys):
    """Each item is how many threads OpenCV takes where it is made."""

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        return torch.tensor(cv2.getNumThreads())


def test_a_worker_is_one_thread() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        alone = ResumableLoader(Threads(), BATCH, seed=SEED)
        assert [batch.tolist() for batch in alone] == [[2] * BATCH] * 5
        workers = ResumableLoader(Threads(), BATCH, seed=SEED, num_workers=2)
        assert [batch.tolist() for batch in workers] == [[1] * BATCH] * 5
    finally:
        cv2.setNumThreads(before)


def test_an_order_is_a_permutation() -> None:
    assert sorted(epoch_order(SEED, 3, 100)) == list(range(100))


def test_an_order_depends_on_seed_and_epoch_only() -> None:
    keys = [(seed, epoch) for seed in range(5) for epoch in range(5)]
    orders = {tuple(epoch_order(seed, epoch, 100)) for seed, epoch in keys}
    assert len(orders) == len(keys)
    np.random.seed(0)  # noqa: NPY002  # the global stream must not matter
    assert orders == {tuple(epoch_order(seed, epoch, 100)) for seed, epoch in keys}


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_the_epochs_order_with_any_number_of_workers(workers: int) -> None:
    batches = loader(num_workers=workers)
    assert len(batches) == 5
    assert [epoch_of(batches, epoch) for epoch in (0, 1, 5)] == [expected(epoch) for epoch in (0, 1, 5)]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_state_counts_batches_handed_out_and_not_those_prefetched(workers: int) -> None:
    batches = loader(num_workers=workers)
    batches.set_epoch(2)
    iterator = iter(batches)
    counts = []
    for _ in range(3):
        next(iterator)
        counts.append(batches.state_dict())
    assert counts == [{"epoch": 2, "handed_out": count} for count in (1, 2, 3)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loaded_state_goes_on_in_the_middle_and_the_next_epoch_is_whole(workers: int) -> None:
    stopped = loader(num_workers=2)
    stopped.set_epoch(3)
    taken = [batch.tolist() for batch in itertools.islice(stopped, 2)]
    resumed = loader(num_workers=workers)
    resumed.load_state_dict(stopped.state_dict())
    assert taken + epoch_of(resumed, 3) == expected(3)
    assert resumed.state_dict() == {"epoch": 3, "handed_out": 5}
    assert epoch_of(resumed, 4) == expected(4)


def test_a_state_at_the_end_of_an_epoch_has_nothing_left_of_it() -> None:
    batches = loader()
    batches.load_state_dict({"epoch": 3, "handed_out": 5})
    assert epoch_of(batches, 3) == []


def test_a_state_of_another_epoch_starts_at_the_beginning() -> None:
    batches = loader()
    batches.load_state_dict({"epoch": 3, "handed_out": 2})
    assert epoch_of(batches, 4) == expected(4)
    assert epoch_of(batches, 3) == expected(3)


def test_an_iteration_that_was_left_does_not_shorten_the_next() -> None:
    batches = loader(num_workers=1)
    next(iter(batches))
    assert epoch_of(batches, 0) == expected(0)


def test_an_iterator_reads_its_epoch_when_the_first_batch_is_asked_for() -> None:
    batches = loader()
    batches.load_state_dict({"epoch": 6, "handed_out": 1})
    iterator = iter(batches)
    batches.set_epoch(6)  # as Lightning does it: after iter
    assert [batch.tolist() for batch in iterator] == expected(6, first=1)


@pytest.mark.parametrize(("length", "world"), [(24, 3), (40, 4), (23, 2)])
def test_the_shares_of_the_processes_are_disjoint_and_equally_long(length: int, world: int) -> None:
    shares = [epoch_of(loader(length, 2, rank=rank, world_size=world), 1) for rank in range(world)]
    seen = [key[1] for share in shares for batch in share for key in batch]
    assert len(set(seen)) == len(seen)
    assert {len(share) for share in shares} == {batches_per_epoch(length, 2, world)}
    assert length - len(seen) < 2 * world  # nothing but an incomplete last step is left out


def test_a_set_shorter_than_a_batch_is_one_batch() -> None:
    batches = loader(length=3, batch=8)
    assert len(batches) == 1
    [only] = epoch_of(batches, 0)
    assert sorted(index for _, index in only) == [0, 1, 2]


def test_a_set_shorter_than_a_step_is_shared_evenly() -> None:
    shares = [epoch_of(loader(length=7, batch=8, rank=rank, world_size=2), 0) for rank in range(2)]
    assert [[len(batch) for batch in share] for share in shares] == [[3], [3]]


class Data(TrainingDataModule[RunOptions]):
    """Pictures to validate with, each its number, of one process of several."""

    def __init__(self, length: int, batch: int, rank: int, world: int) -> None:
        super().__init__(RunOptions(batch_size=batch, num_workers=0))
        self.val_set = range(length)
        self.place = rank, world

    @property
    def _rank(self) -> int:
        return self.place[0]

    @property
    def _world_size(self) -> int:
        return self.place[1]


@pytest.mark.parametrize(("length", "world"), [(100, 1), (100, 2), (65, 3), (33, 2), (10, 4), (9, 4), (3, 3)])
def test_the_processes_validate_with_the_batches_of_one(length: int, world: int) -> None:
    """Or with smaller ones, where a process would have none."""
    alone = [batch.tolist() for batch in Data(length, 16, 0, 1).val_dataloader()]
    shares = [[batch.tolist() for batch in Data(length, 16, rank, world).val_dataloader()] for rank in range(world)]
    assert all(shares)
    dealt = sorted(itertools.chain(*shares))
    assert [*itertools.chain(*dealt)] == [*range(length)]
    if length // world >= 16:
        assert dealt == alone


def test_fewer_pictures_than_processes_are_one_line() -> None:
    with pytest.raises(InputError, match=r"\A`devices`: 4 processes have 3 pictures to validate with: .*\Z"):
        Data(3, 16, 0, 4).val_dataloader()


def test_a_loader_that_is_dropped_goes_at_once() -> None:
    """Left to the cycle collector, torch would wait five seconds for each worker."""
    batches = loader()
    epoch_of(batches, 0)
    gone = weakref.ref(batches)
    del batches
    assert gone() is None


# Shared memory


class Pictures(Keys):
    """Items of a MiB."""

    def __getitem__(self, key: Any) -> dict[str, Any]:
        return {"pixels": torch.zeros(2**20, dtype=torch.uint8), "index": 0}


@pytest.mark.parametrize(
    ("workers", "length", "batch", "needed"),
    [
        (2, 100, 4, 20),  # two batches wait of each worker, and one is taken
        (2, 100, 1, 5),
        (1, 8, 4, 8),  # there are no more than two
    ],
)
def test_workers_whose_batches_do_not_fit_into_shared_memory_are_not_started(
    workers: int, length: int, batch: int, needed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ResumableLoader(Pictures(length), batch, seed=SEED, num_workers=workers)
    monkeypatch.setattr("earface.training.workers._free_shared_memory", lambda: needed * 2**20 - 1)
    with pytest.raises(InputError, match=rf"{workers} loader workers need {needed} MiB .*`num_workers` 0.*shm-size"):
        next(iter(given))
    monkeypatch.setattr("earface.training.workers._free_shared_memory", lambda: needed * 2**20)
    assert next(iter(given))["pixels"].shape[0] == batch


@pytest.mark.parametrize("free", [0, None])
def test_without_workers_or_where_there_is_no_such_memory_nothing_is_asked(
    free: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earface.training.workers._free_shared_memory", lambda: free)
    assert next(iter(ResumableLoader(Pictures(), 2, seed=SEED, num_workers=0 if free == 0 else 1))) is not None


@pytest.mark.parametrize(
    "said",
    [
        "Caught RuntimeError in DataLoader worker process 0.\nRuntimeError: unable to allocate shared memory(shm)",
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of",
    ],
)
def test_a_worker_that_finds_it_full_is_one_line(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    @entry_point
    def main(argv: Sequence[str] | None = None) -> int:
        raise RuntimeError(said)

    assert main() == 2
    assert "--num-workers 0" in only_line(capsys)
