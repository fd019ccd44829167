"""One batch's loss and gradients: the GPU's float32 beside the CPU's, and half precision beside float32."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import workloads
from benchmarks.gpu.context import Context
from benchmarks.gpu.workloads import Workload, to_device

# Of the loss, and of a rounding. How much a network enlarges roundings on the way to its gradients is measured, by
# NOISE on its input on the CPU: batch normalisation over few elements of an untrained network does so ten thousandfold.
TOLERANCE = {"float32": (1e-5, 2.0**-22), "bfloat16": (3e-2, 2.0**-8), "float16": (5e-3, 2.0**-11)}
NOISE = 2.0**-16  # of the input's range; what it changes is far above float32's own rounding
SPREAD = 16.0  # the roundings of many layers add up; TF32 would still be 2^10 times a rounding of float32
EAR_CASES = {
    "EarVAE resnet50": ["--encoder=resnet50"],
    "EarVAE resnet18": ["--encoder=resnet18"],
    "EarVAE conv": ["--encoder=conv", "--image_size=128"],
    "EarVAE dinov2": ["--encoder=dinov2", "--freeze_layers=0"],
    "EarVAE sam": ["--encoder=sam", "--freeze_layers=0"],
    "EarVAE timm:edgenext_xx_small": ["--encoder=timm:edgenext_xx_small"],
}
BATCH = "--batch_size=8"
LARGE = ("EarVAE resnet50", "EarVAE dinov2", "DSR")  # a smoke test does without
EMULATED = ("EarVAE conv", "EdgeFace")  # and with these alone in half precision, which most CPUs emulate


@dataclass(frozen=True)
class Step:
    """What one batch gives: the loss, and each parameter's gradient on the CPU."""

    loss: float
    gradients: dict[str, Tensor]


def run(part: str, context: Context) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    cases: dict[str, Callable[[], Workload]] = {
        name: lambda flags=flags: workloads.ear(context, [*flags, BATCH], noise=True)  # type: ignore[misc]
        for name, flags in EAR_CASES.items()
    }
    if part == "others":
        cases = {
            "DSR": lambda: workloads.dsr(context, [BATCH, "--recognizer_jitter=0"]),
            "DSR 16x16": lambda: workloads.dsr(context, [BATCH, "--recognizer_jitter=0", "--vlr_size=16"]),
            "EdgeFace": lambda: workloads.edgeface(context, [BATCH]),
            "EarDetector resnet18": lambda: workloads.detector(context, ["--encoder=resnet18", BATCH]),
        }
    for name, build in cases.items():
        if context.smoke and name in LARGE:
            continue
        compare(name, build, context)


def compare(name: str, build: Callable[[], Workload], context: Context) -> None:
    """A row each for float32 on the device beside the CPU, and for autocast in both half precisions beside float32."""
    made: list[tuple[Workload, Step, float]] = []

    def reference() -> dict[str, Any]:
        work = build()
        start.update({key: value.clone() for key, value in work.module.state_dict().items()})
        expected = step(work, "cpu", None)
        work.module.load_state_dict(start)
        enlarging = gradient_error(expected, step(work, "cpu", None, NOISE)) / NOISE
        made.append((work, expected, enlarging))
        return {"loss": expected.loss, "enlarging": enlarging}

    start: dict[str, Tensor] = {}
    if not context.case(f"{name}: float32 on the CPU", reference)["ok"]:
        return
    work, expected, enlarging = made[0]

    def against(dtype: torch.dtype | None, kind: str) -> dict[str, Any]:
        work.module.load_state_dict(start)  # batch statistics have moved
        return differences(expected, step(work, context.device, dtype), kind, enlarging)

    context.case(f"{name}: float32 beside the CPU", lambda: against(None, "float32"))
    emulated = (torch.bfloat16,) if name in EMULATED else ()
    for dtype in (torch.bfloat16, torch.float16) if context.device == "cuda" else emulated:
        kind = str(dtype).removeprefix("torch.")
        context.case(f"{name}: {kind} beside float32", lambda: against(dtype, kind))  # noqa: B023


def step(work: Workload, device: str, dtype: torch.dtype | None, noise: float = 0.0) -> Step:
    """noise: added to the images, which are in [-1, 1]."""
    module = work.module.to(device).train()
    batch = work.prepare(to_device(work.batch, device))
    torch.manual_seed(0)
    if noise:
        images = {name: value for name, value in batch.items() if value.ndim == 4 and value.is_floating_point()}
        batch = {**batch, **{name: value + noise * torch.randn_like(value) for name, value in images.items()}}
    torch.manual_seed(0)
    with torch.autocast(device, dtype) if dtype is not None else contextlib.nullcontext():
        loss = work.losses(batch, work.forward(batch))
    scale = 2.0**10 if dtype is torch.float16 else 1.0  # in float16 small gradients underflow, large ones overflow
    while True:
        module.zero_grad()
        (loss * scale).backward(retain_graph=dtype is torch.float16)
        found = {name: each.grad for name, each in module.named_parameters() if each.grad is not None}
        finite = all(bool(each.isfinite().all()) for each in found.values())
        if finite or dtype is not torch.float16 or scale < 2.0**-10:
            break
        scale /= 4.0
    return Step(float(loss.detach()), {name: each.float().cpu() / scale for name, each in found.items()})


def gradient_error(expected: Step, found: Step) -> float:
    """Relative, of all gradients as one vector."""
    errors = [(found.gradients[name] - value).norm() for name, value in expected.gradients.items()]
    norms = [value.norm() for value in expected.gradients.values()]
    return float(torch.stack(errors).norm() / torch.stack(norms).norm())


def differences(expected: Step, found: Step, kind: str, enlarging: float) -> dict[str, Any]:
    """Relative errors of the loss, of all gradients as one vector, and of the worst tensor that matters.

    enlarging: of the gradients' error over that of the input; where a rounding of this kind, so enlarged, is as large
    as the gradients, only the loss is judged. A tensor matters whose gradient is a thousandth of the largest or more.
    """
    errors = {name: (found.gradients[name] - value).norm() for name, value in expected.gradients.items()}
    norms = {name: value.norm() for name, value in expected.gradients.items()}
    mattering = [name for name, norm in norms.items() if norm >= 1e-3 * max(norms.values())]
    worst = max(mattering, key=lambda name: errors[name] / norms[name])
    loss_error = abs(found.loss - expected.loss) / abs(expected.loss)
    error = gradient_error(expected, found)
    rounding = TOLERANCE[kind][1]
    limit = max(SPREAD * enlarging, 64.0) * rounding
    return {
        "ok": loss_error <= TOLERANCE[kind][0] and (error <= limit or limit >= 1.0) and math.isfinite(error),
        "loss": found.loss,
        "loss_error": loss_error,
        "gradient_error": error,
        "limits": f"{TOLERANCE[kind][0]:g}, {limit:.2g}",
        "worst": worst,
        "worst_error": float(errors[worst] / norms[worst]),
    }
