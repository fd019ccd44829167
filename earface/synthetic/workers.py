"""Making pictures in several processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TypeVar

import cv2

from earface.core.progress import progress

# Run lengths suit noisy pictures: smaller and faster than the default.
PNG_FLAGS = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)

Result = TypeVar("Result")


def num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_processes(
    work: Callable[[int], Result], items: Sequence[int], num_workers: int, done: Callable[[], None]
) -> list[Result]:
    """work(item) of each item, in their order, by `num_workers` processes. done: called after each item."""
    results: dict[int, Result] = {}
    if num_workers == 1:
        for item in items:
            results[item] = work(item)
            done()
    else:
        spawn = multiprocessing.get_context("spawn")  # a fork would copy the locks of the progress bar's thread
        pool = ProcessPoolExecutor(min(num_workers, len(items)), mp_context=spawn, initializer=_start_worker)
        try:
            started = {pool.submit(work, item): item for item in items}
            for future in as_completed(started):
                results[started[future]] = future.result()
                done()
        finally:
            pool.shutdown(cancel_futures=True)
    return [results[item] for item in items]


def _start_worker() -> None:
    cv2.setNumThreads(0)  # one process per core already


@contextmanager
def picture_progress(total: int) -> Iterator[Callable[[int], None]]:
    """The function it yields takes the number of pictures made since its last call."""
    with progress("making synthetic pictures", total) as state:
        yield state.advance
