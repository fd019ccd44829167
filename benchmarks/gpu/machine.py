"""What the machine is and what it can do at most: matrix products and copies on random data."""

from __future__ import annotations

import functools
import importlib.metadata
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.gpu.context import Context

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "timm", "albumentations", "numpy", "opencv-python-headless")
TURNS = 10


def run(part: str, context: Context) -> None:
    device = context.device
    if device == "cpu" and not context.smoke:
        raise SystemExit("PyTorch sees no GPU; --smoke runs on a CPU")
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    versions = ", ".join(f"{each} {importlib.metadata.version(each)}" for each in PACKAGES)
    context.row(measured="device", value=name, unit="")
    context.row(measured="versions", value=versions, unit="")
    side = 8192 if device == "cuda" else 256
    torch.backends.cuda.matmul.allow_tf32 = True
    for precision, dtype in (("bf16", torch.bfloat16), ("TF32", torch.float32)):
        factor = torch.randn(side, side, device=device).to(dtype)
        taken = median_seconds(functools.partial(torch.mm, factor, factor.T), device)
        context.row(measured=f"{precision} matrix product", value=2 * side**3 / taken / 1e12, unit="TFLOP/s")
    source = torch.randn(2**30 // 4 if device == "cuda" else 2**20, device=device)
    target = torch.empty_like(source)
    taken = median_seconds(lambda: target.copy_(source), device)
    context.row(measured="copy, read and written", value=2 * source.nbytes / taken / 1e9, unit="GB/s")
    host = torch.randn(2**26 // 4, pin_memory=device == "cuda")
    taken = median_seconds(lambda: host.to(device, non_blocking=True), device)
    context.row(measured="copy from pinned memory", value=host.nbytes / taken / 1e9, unit="GB/s")


def median_seconds(function: Callable[[], object], device: str, turns: int = TURNS) -> float:
    """Of one call, after three to warm up."""
    times = []
    for turn in range(turns + 3):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        if turn >= 3:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def matrix_rate(context: Context) -> float | None:
    """TFLOP/s of this run's bf16 product, if it was measured."""
    rows = context.rows("machine")
    return next((float(row["value"]) for row in rows if row["measured"] == "bf16 matrix product"), None)
