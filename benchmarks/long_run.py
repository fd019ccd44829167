"""Memory, open files, threads and time of a step over a long training: `python -m benchmarks.long_run`.

A tiny ear VAE is trained on synthetic ears. Ten times an epoch the process and its workers are looked at; the
processor time of a step is that of the training process from the start of a step to the start of the next. The last
fifth of the epochs is compared with the first fifth after epoch 1: memory may be 3 % more, files and threads no more, a
step 3 % slower or faster. The exit code is 1 where it is otherwise. Writes epochs.csv and long_run.png.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.files import atomic_write
from earface.core.options import option

LOOKS = 10  # in an epoch
MOST_GROWTH = 0.03
PER_SUBJECT = 10
RECIPE = (
    *("--encoder", "conv", "--base-channels", "4", "--image-size", "64", "--latent-dim", "8", "--precision", "32"),
    *("--linear-path-size", "0", "--log-every-n-steps", "50", "--early-stop-patience", "0", "--progress", "lines"),
    *("--accumulate-grad-batches", "1"),
)


@dataclass(frozen=True)
class LongRun:
    """Train for long, and see whether anything grows."""

    out: str = option("runs/long_run", "the ears, the run, epochs.csv and long_run.png")
    epochs: int = option(30, "of training", low=2)
    samples: int = option(15_000, "training ears", low=80)
    steps: int = option(20_000, "of all epochs, at the least: decides the batch size", low=2)
    num_workers: int = option(2, "of the loader", low=0)
    num_threads: int = option(1, "of PyTorch", low=1)
    smoke: bool = option(False, "3 epochs of 80 ears, to see that it runs; nothing is judged")


@dataclass(frozen=True)
class Epoch:
    """Medians over one epoch."""

    epoch: int  # from 1 on
    memory_mb: float  # resident, of the process and its workers
    files: float  # open, sockets and pipes too
    threads: float
    step_ms: float  # processor time


class Watch:
    """Looks at this process and its workers at the start of steps."""

    def __init__(self, steps: int) -> None:
        self.process = psutil.Process()
        self.every = max(steps // LOOKS, 1)
        self.epochs: list[Epoch] = []
        self.looks: list[tuple[float, int, int]] = []
        self.times: list[float] = []
        self.clock: float | None = None

    def step(self, index: int) -> None:
        now = time.process_time()
        if not index and self.times:
            self.end_epoch()
        if index and self.clock is not None:
            self.times.append(now - self.clock)
        if index % self.every == 0:
            self.looks.append(self._look())
        self.clock = time.process_time()

    def _look(self) -> tuple[float, int, int]:
        memory, files, threads = 0.0, 0, 0
        for each in (self.process, *self.process.children(recursive=True)):
            with each.oneshot():
                memory += each.memory_info().rss / 2**20
                files += each.num_fds()
                threads += each.num_threads()
        return memory, files, threads

    def end_epoch(self) -> None:
        memory, files, threads = map(statistics.median, zip(*self.looks, strict=True))
        step_ms = 1000 * statistics.median(self.times)
        self.epochs.append(Epoch(len(self.epochs) + 1, memory, files, threads, step_ms))
        self.looks, self.times, self.clock = [], [], None


def watched(argv: Sequence[str], steps: int) -> list[Epoch]:
    """`ear_teacher.train` in this process, of about so many steps an epoch."""
    from earface.training.module import TrainingModule

    watch = Watch(steps)
    start = TrainingModule.on_train_batch_start

    def on_train_batch_start(module: TrainingModule, batch: Any, index: int) -> None:
        watch.step(index)
        start(module, batch, index)

    TrainingModule.on_train_batch_start = on_train_batch_start  # type: ignore[method-assign]
    try:
        code = importlib.import_module("ear_teacher.train").main(argv)
    finally:
        TrainingModule.on_train_batch_start = start  # type: ignore[method-assign]
    if code:
        raise RuntimeError(f"the training ended with {code}")
    watch.end_epoch()
    return watch.epochs


def growth(epochs: Sequence[Epoch]) -> dict[str, float]:
    """By how much, as a part of the first, the last fifth of the epochs is above the first fifth after epoch 1.

    Medians of memory and time, the largest of files and threads: a single one more is found.
    """
    fifth = max(len(epochs) // 5, 1)
    found = {}
    for name, typical in (
        ("memory_mb", statistics.median),
        ("files", max),
        ("threads", max),
        ("step_ms", statistics.median),
    ):
        first, last = (
            typical([getattr(each, name) for each in part]) for part in (epochs[1 : 1 + fifth], epochs[-fifth:])
        )
        found[name] = last / first - 1
    return found


def too_much(found: dict[str, float]) -> list[str]:
    """Names of what does not stay as it should."""
    bounds = {"memory_mb": MOST_GROWTH, "files": 0.0, "threads": 0.0, "step_ms": MOST_GROWTH}
    slower_or_faster = {**found, "step_ms": abs(found["step_ms"])}
    return [name for name, most in bounds.items() if slower_or_faster[name] > most]


def draw(path: Path, epochs: Sequence[Epoch]) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from earface.data.plots import FIRST, STYLE, THIRD, as_bytes

    numbers = [each.epoch for each in epochs]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 6.0), layout="constrained")
        memory, counts, step = figure.subplots(3, sharex=True)
        memory.plot(numbers, [each.memory_mb for each in epochs], **FIRST.curve())
        memory.set_ylabel("resident memory (MiB)")
        counts.plot(numbers, [each.files for each in epochs], label="open files", **FIRST.curve())
        counts.plot(numbers, [each.threads for each in epochs], label="threads", **THIRD.curve())
        counts.set_ylabel("count")
        counts.legend()
        step.plot(numbers, [each.step_ms for each in epochs], **FIRST.curve())
        step.set_ylabel("processor time, step (ms)")
        step.set_xlabel("epoch")
        step.xaxis.get_major_locator().set_params(integer=True)
        for axes in (memory, counts, step):
            axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        figure.align_ylabels()
    with atomic_write(path) as temporary:
        temporary.write_bytes(as_bytes(figure, "png"))


def make_ears(folder: Path, samples: int) -> None:
    """So many training ears and 80 of other people, if they are not there."""
    from earface.synthetic.ear_set import EarSet, write_ear_set

    subjects = -(-samples // PER_SUBJECT)
    if not (folder / "val_teacher.npy").is_file():
        ears = EarSet(subjects + 8, PER_SUBJECT, 64, seed=0)
        write_ear_set(folder, ears, val_fraction=8 / (subjects + 8), num_workers=1, overwrite=True)


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(LongRun, argv, prog="python -m benchmarks.long_run")
    if options.smoke:
        options = dataclasses.replace(options, epochs=3, samples=80, steps=15, num_workers=1)
    out = Path(options.out)
    make_ears(out / "ears", options.samples)
    batch_size = max(options.samples * options.epochs // options.steps, 1)
    files = [f"--train-npy={out}/ears/train_teacher.npy", f"--val-npy={out}/ears/val_teacher.npy"]
    places = [
        f"--checkpoint-dir={out}/checkpoints",
        f"--log-dir={out}/logs",
        f"--cache-dir={out}/cache",
        "--resume=never",
    ]
    size = [f"--epochs={options.epochs}", f"--batch-size={batch_size}", f"--num-workers={options.num_workers}"]
    size += [f"--num-threads={options.num_threads}"]
    epochs = watched([*RECIPE, *files, *places, *size], options.samples // batch_size)
    names = [field.name for field in dataclasses.fields(Epoch)]
    with atomic_write(out / "epochs.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([names, *(dataclasses.astuple(each) for each in epochs)])
    draw(out / "long_run.png", epochs)
    found = growth(epochs)
    for name, part in found.items():
        first, last = getattr(epochs[1], name), getattr(epochs[-1], name)
        print(f"{name:<10} epoch 2: {first:8.1f}   epoch {len(epochs)}: {last:8.1f}   growth {part:+.1%}")
    wrong = too_much(found)
    if options.smoke:
        return 0
    print(f"not as it should be: {', '.join(wrong)}" if wrong else "nothing grows")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
