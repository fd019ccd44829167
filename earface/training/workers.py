"""Loader workers that leave signals to the process that started them, and are never left behind."""

from __future__ import annotations

import atexit
import os
import signal
import weakref
from functools import partial
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader
from torch.utils.data import _utils as worker_settings

from earface.core.errors import SHARED_MEMORY_ADVICE, InputError
from earface.core.stopping import PAUSING, current_requests

NICENESS = 10  # of workers beside a network on the same processor
PATIENCE_S = 0.5  # for a worker to end by itself; PyTorch waits 10 for each

SHARED_MEMORY = "/dev/shm"  # where a worker puts the tensors of a batch, on Linux

_iterators: weakref.WeakSet[Any] = weakref.WeakSet()  # those that have started workers


class WorkerLoader(DataLoader[Any]):
    """A DataLoader whose workers ignore what pauses a run: a signal to the whole process group must not end them.

    Without a GPU they let the network's threads go first, which wait for each other: each is one that all wait for.
    """

    def __init__(self, dataset: Any, **options: Any) -> None:
        begin = partial(_begin, niceness=0 if torch.cuda.is_available() else NICENESS)
        super().__init__(dataset, worker_init_fn=begin, **options)

    def __iter__(self) -> Any:
        """Raises InputError where the workers' batches do not fit into the shared memory that is free."""
        if self.num_workers and self._iterator is None:
            self._check_shared_memory()
        with current_requests().hold():
            iterator = super().__iter__()
            if self.num_workers:
                _iterators.add(iterator)
        return iterator

    def _check_shared_memory(self) -> None:
        keys: Any = next(iter(self.batch_sampler or ()), None)
        free = _free_shared_memory()
        if free is None or not keys:
            return
        waiting = self.num_workers * (self.prefetch_factor or 0) + 1
        needed = _bytes_of(self.dataset[keys[0]]) * len(keys) * min(waiting, len(self))
        if needed > free:
            raise InputError(
                f"{self.num_workers} loader workers need {needed / 2**20:.0f} MiB of shared memory, and "
                f"{SHARED_MEMORY} has {free / 2**20:.0f}: {SHARED_MEMORY_ADVICE}"
            )


def _free_shared_memory() -> int | None:
    """Bytes; None where there is no such place."""
    try:
        status = os.statvfs(SHARED_MEMORY)
    except (AttributeError, OSError):  # Windows; macOS
        return None
    return status.f_bavail * status.f_frsize


def _bytes_of(item: Any) -> int:
    """Of the tensors in it."""
    if isinstance(item, torch.Tensor):
        return item.nbytes
    parts = item.values() if isinstance(item, dict) else item if isinstance(item, (list, tuple)) else ()
    return sum(map(_bytes_of, parts))


def end_workers() -> None:
    """Ask all workers to end, and kill those that do not: SIGTERM, which PyTorch would send, is ignored."""
    waits = worker_settings.MP_STATUS_CHECK_INTERVAL
    worker_settings.MP_STATUS_CHECK_INTERVAL = PATIENCE_S
    try:
        for iterator in list(_iterators):
            iterator._shutdown_workers()
            for worker in iterator._workers:
                if worker.is_alive():
                    worker.kill()
                    worker.join()
            _iterators.discard(iterator)
    finally:
        worker_settings.MP_STATUS_CHECK_INTERVAL = waits


atexit.register(end_workers)  # after PyTorch's import, so before multiprocessing waits for its children


def _begin(worker: int, niceness: int) -> None:
    cv2.setNumThreads(0)  # a worker is one thread: with one per core in each, they wait for each other
    if hasattr(os, "nice"):  # not on Windows
        os.nice(niceness)
    for number in PAUSING:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PAUSING)
