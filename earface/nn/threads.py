"""How many threads of a processor to compute with, which PyTorch counts without asking whether its cores are free."""

from __future__ import annotations

import os
import time

import torch
from torch.nn import functional as F

TRIAL_S = 0.1  # of each number of threads
MUCH_FASTER = 2.0  # fewer threads are taken for this factor only: a real network keeps more of them busy
_FIXED_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def automatic_threads() -> tuple[int, str]:
    """A number of threads for this process, and why: PyTorch's own, unless fewer are at once far faster.

    The threads of an operation wait for each other at its end. Where another process, or a container's limit, takes
    one's core away, all wait for the scheduler: on two cores beside one busy process, two threads trained 3 times
    slower than one, beside several 10 to 30 times.
    """
    everything = torch.get_num_threads()
    if named := next((name for name in _FIXED_BY if os.environ.get(name)), None):
        return everything, f"as {named} says"
    seconds = {count: _seconds_per_operation(count) for count in halves(everything)}
    torch.set_num_threads(everything)
    chosen = choose(seconds)
    return chosen, "all there are" if chosen == everything else f"other processes keep some of {everything} cores busy"


def halves(count: int) -> list[int]:
    """count, half of it, and so on down to 1."""
    return [count >> power for power in range(count.bit_length())]


def choose(seconds: dict[int, float]) -> int:
    """The most threads that are not slower by MUCH_FASTER than the fastest number. seconds: of the same work, by it."""
    limit = MUCH_FASTER * min(seconds.values())
    return max(count for count, taken in seconds.items() if taken <= limit)


def _seconds_per_operation(threads: int) -> float:
    """The mean over TRIAL_S of a small convolution, in which waiting shows."""
    torch.set_num_threads(threads)
    images, weight = torch.ones(4, 16, 32, 32), torch.ones(16, 16, 3, 3)
    F.conv2d(images, weight)  # starts the threads
    start, done = time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < TRIAL_S or not done:
        F.conv2d(images, weight)
        done += 1
    return taken / done
