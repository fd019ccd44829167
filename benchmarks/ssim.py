"""Time of earface.metrics.image_quality.ssim beside torchmetrics': python benchmarks/ssim.py [cuda]."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

sys.path.insert(0, str(Path(__file__).parent.parent))

from earface.metrics.image_quality import ssim

REPEATS = 5


def seconds(measure: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...], device: str, backward: bool) -> float:
    """The fastest of REPEATS runs: what other processes do to the machine only slows a run."""
    times = []
    for _ in range(REPEATS + 1):
        prediction, target = torch.rand(2, *shape, device=device).unbind()
        prediction.requires_grad_(backward)
        start = time.perf_counter()
        value = measure(prediction, target).mean()
        if backward:
            value.backward()
        value.item()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def torchmetrics_ssim(prediction: Tensor, target: Tensor) -> Tensor:
    values = structural_similarity_index_measure(prediction, target, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values


def main() -> None:
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads; fastest of {REPEATS}")
    for shape in ((8, 3, 128, 128), (32, 3, 256, 256)):
        for backward in (False, True):
            ours = seconds(ssim, shape, device, backward)
            theirs = seconds(torchmetrics_ssim, shape, device, backward)
            what = "forward and backward" if backward else "forward"
            sizes = "x".join(map(str, shape))
            print(f"{sizes} {what}: {1e3 * ours:.1f} ms, torchmetrics {1e3 * theirs:.1f} ms, ratio {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
