"""Steps a second of each trainer: through Lightning's Trainer, and in a bare loop that is timed piece by piece."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import workloads
from benchmarks.gpu.context import Context
from benchmarks.gpu.machine import matrix_rate
from benchmarks.gpu.workloads import Workload, pinned, to_device
from earface.data.data_digest import DataDigest
from earface.training.resume import Run
from earface.training.trainer import build_trainer, fit

WARM, TIMED, SMOKE_TIMED = 10, 40, 3  # steps
PIECES = ("transfer", "forward", "losses", "backward", "optimiser")
TYPES = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
TOP_KERNELS = 40
GRAPHS = "--compile=true --compile_mode=reduce-overhead"
RESNET50 = "--encoder=resnet50 --precision=bf16-mixed"


@dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[Context, Sequence[str]], Workload]
    flags: str
    profiled: bool = False
    small: bool = True  # whether a smoke test has time for it


def _resnet50(extra: str = "", batches: Sequence[int] = (128, 8, 32)) -> tuple[Case, ...]:
    return tuple(
        Case(
            f"resnet50, {size}",
            workloads.ear,
            f"{RESNET50} --batch_size={size} {extra}",
            profiled=not extra,
            small=size == 8,
        )
        for size in batches
    )


PARTS: dict[str, tuple[Case, ...]] = {
    "resnet50": _resnet50(),
    "compile": _resnet50("--compile=true"),
    "graphs": _resnet50(GRAPHS, (128, 8)),
    "precisions": tuple(
        Case(f"resnet50, 32, {name}", workloads.ear, f"--encoder=resnet50 --batch_size=32 {flags}", small=name == "32")
        for name, flags in {
            "16-mixed": "--precision=16-mixed",
            "32": "--precision=32 --tf32=false",
            "32 with TF32": "--precision=32 --tf32=true",
        }.items()
    ),
    "others": (
        Case("DSR, 14", workloads.dsr, "--precision=bf16-mixed --batch_size=14", profiled=True),
        Case("EdgeFace, 28", workloads.edgeface, "--precision=bf16-mixed --batch_size=28", profiled=True),
        Case(
            "dinov2, 32",
            workloads.ear,
            "--encoder=dinov2 --precision=bf16-mixed --accumulate_grad_batches=1",
            small=False,
        ),
        Case("sam at 128, 4", workloads.ear, "--encoder=sam --precision=bf16-mixed", small=False),
        Case("sam at 1024, 4", workloads.ear, "--encoder=sam --sam_size=1024 --precision=bf16-mixed", small=False),
        Case("detector, 16", workloads.detector, "--encoder=resnet50 --precision=bf16-mixed"),
        Case("conv at 256, 32", workloads.ear, "--encoder=conv --precision=bf16-mixed", small=False),
        Case("DSR, 14, graphs", workloads.dsr, f"--precision=bf16-mixed --batch_size=14 {GRAPHS}", small=False),
        Case("EdgeFace, 28, graphs", workloads.edgeface, f"--precision=bf16-mixed {GRAPHS}", small=False),
    ),
}


def run(part: str, context: Context) -> None:
    for case in PARTS[part]:
        if case.small or not context.smoke:
            context.case(case.name, lambda case=case: measure(case, context))  # type: ignore[misc]


def measure(case: Case, context: Context) -> dict[str, Any]:
    """Steps a second by the Trainer on a batch that is on the device already, then the bare loop's pieces."""
    flags = case.flags.split()
    if context.smoke:
        flags += ["--precision=32", *(["--encoder=resnet18"] if "resnet50" in case.flags else [])]
    work = case.build(context, flags)
    flops = operations(work, context.device)
    timed = SMOKE_TIMED if context.smoke else TIMED
    probe = Probe(timed, lambda trainer: bare_loop(work, trainer, case, context))
    options = dataclasses.replace(work.config, fast_dev_run=WARM + timed + 1)  # no loggers, no checkpoints
    run = Run("speed", context.work / "speed")
    trainer: Any = build_trainer(options, run, best={})
    trainer.callbacks.append(probe)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    fit(trainer, work.module, Resident(work, context.device), run)
    steps = timed / probe.seconds
    found: dict[str, Any] = {
        "batch": work.size,
        "steps/s": steps,
        "images/s": steps * work.size,
        "warm_s": probe.warm_seconds,
        "trainer_mib": probe.peak_mib,
        **probe.found,
        "TFLOP/step": flops * work.size / 1e12,
    }
    rate = matrix_rate(context)
    if rate:
        found["share_of_matrix_rate"] = found["bare steps/s"] * flops * work.size / 1e12 / rate
    return found


def operations(work: Workload, device: str) -> float:
    """Floating-point operations of a step, for each image: products alone, forward and backward, not compiled."""
    few = {name: value[:2] for name, value in work.batch.items()}
    module = work.module.to(device).train()
    with FlopCounterMode(display=False) as counter:
        batch = work.prepare(to_device(few, device))
        work.losses(batch, work.forward(batch)).backward()
    module.zero_grad(set_to_none=True)
    return counter.get_total_flops() / 2


class Batches:
    """The same batch again and again; not a list, which Lightning would take for several loaders."""

    def __init__(self, batch: dict[str, Any], count: int) -> None:
        self.batch, self.count = batch, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter([self.batch] * self.count)


class Resident(pl.LightningDataModule):
    """One batch on the device, as a trainer's datamodule."""

    def __init__(self, work: Workload, device: str) -> None:
        super().__init__()
        self.work = work
        self.batch = to_device(work.batch, device)
        self.train_set = range(work.size * 100)
        self.val_set: list[Any] = []
        self.trained_on: list[str] = []
        self.digest = DataDigest.of([], [])
        self.contract = work.module.model.config.contract if hasattr(work.module.model.config, "contract") else ""

    def train_dataloader(self) -> Batches:
        return Batches(self.batch, 100)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        return self.work.prepare(batch)

    def closed_form_rows(self, rows: Any) -> torch.Tensor:
        return workloads.linear_rows(self.work.module)

    def describe(self, indices: torch.Tensor) -> str:
        return "the resident batch"


class Probe(pl.Callback):
    """Times `timed` steps after WARM ones, then has `then` run while module and optimiser are on the device."""

    def __init__(self, timed: int, then: Callable[[pl.Trainer], dict[str, Any]]) -> None:
        self.timed, self.then = timed, then
        self.begun = time.perf_counter()
        self.start = self.seconds = self.warm_seconds = 0.0
        self.peak_mib = 0
        self.found: dict[str, Any] = {}

    def on_train_start(self, *args: Any) -> None:
        self.begun = time.perf_counter()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == WARM:
            synchronize()
            self.start = time.perf_counter()
            self.warm_seconds = self.start - self.begun
        elif batch_idx == WARM + self.timed:
            synchronize()
            self.seconds = time.perf_counter() - self.start
            if torch.cuda.is_available():
                self.peak_mib = round(torch.cuda.max_memory_allocated() / 2**20)
            self.found = self.then(trainer)


def bare_loop(work: Workload, trainer: pl.Trainer, case: Case, context: Context) -> dict[str, Any]:
    """The same step without Trainer: steps a second, the host's milliseconds a step, and those of each piece."""
    optimizer, config = trainer.optimizers[0], work.config
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    host = pinned(work.batch) if context.device == "cuda" else work.batch
    dtype = TYPES.get(config.precision)
    autocast = torch.autocast(context.device, dtype) if dtype and not context.smoke else contextlib.nullcontext()

    def step(mark: Callable[[], None] = lambda: None) -> None:
        if context.device == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        mark()
        batch = work.prepare(to_device(host, context.device))
        mark()
        with autocast:
            outputs = work.forward(batch)
            mark()
            loss = work.losses(batch, outputs)
        mark()
        loss.backward()
        mark()
        torch.nn.utils.clip_grad_norm_(parameters, config.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        mark()

    count = SMOKE_TIMED if context.smoke else TIMED
    for _ in range(3):
        step()
    synchronize()
    start = time.perf_counter()
    for _ in range(count):
        step()
    issued = time.perf_counter() - start
    synchronize()
    seconds = time.perf_counter() - start
    pieces = split(step, count)
    if case.profiled:
        profile(step, case.name, context)
    return {
        "bare steps/s": count / seconds,
        "host_ms": issued / count * 1000,
        **{f"{name}_ms": value for name, value in zip(PIECES, pieces, strict=True)},
    }


def split(step: Callable[[Callable[[], None]], None], count: int) -> list[float]:
    """Median milliseconds of each piece, on the GPU's own clock where there is one."""
    times: list[list[Any]] = []
    for _ in range(count):
        marks: list[Any] = []
        step(lambda marks=marks: marks.append(now()))  # type: ignore[misc]
        times.append(marks)
    synchronize()
    return [
        statistics.median(between(marks[piece], marks[piece + 1]) for marks in times) for piece in range(len(PIECES))
    ]


def now() -> Any:
    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def between(first: Any, second: Any) -> float:
    """Milliseconds."""
    return (second - first) * 1000 if isinstance(first, float) else first.elapsed_time(second)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def profile(step: Callable[[], None], name: str, context: Context) -> None:
    """Append the kernels that take most to profile.txt."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if context.device == "cuda" else []
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(3):
            step()
        synchronize()
    key = "self_device_time_total" if context.device == "cuda" else "self_cpu_time_total"
    text = profiler.key_averages().table(sort_by=key, row_limit=TOP_KERNELS, max_name_column_width=70)
    with (context.out / "profile.txt").open("a") as stream:
        stream.write(f"\n===== {name}, three steps\n{text}\n")
