"""One batch's loss and gradients: the GPU's float32 beside the CPU's, and half precision beside float32."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import workloads
from benchmarks.gpu.context import Context
from benchmarks.gpu.workloads import Workload, to_device

# Of the loss, and of all gradients as one vector. Batch normalisation over few elements enlarges a rounding of 2^-8
# (bfloat16) about a hundredfold, as measured, and so that of float16, 2^-11. Between two machines sums in another order
# leave float32 far below what TF32's 2^-11 would.
TOLERANCE = {"float32": (1e-5, 3e-3), "bfloat16": (3e-2, 6e-1), "float16": (5e-3, 1e-1)}
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
    made: list[tuple[Workload, Step]] = []

    def reference() -> dict[str, Any]:
        work = build()
        start.update({key: value.clone() for key, value in work.module.state_dict().items()})
        made.append((work, step(work, "cpu", None)))
        return {"loss": made[0][1].loss}

    start: dict[str, Tensor] = {}
    if not context.case(f"{name}: float32 on the CPU", reference)["ok"]:
        return
    work, expected = made[0]

    def against(dtype: torch.dtype | None, kind: str) -> dict[str, Any]:
        work.module.load_state_dict(start)  # batch statistics have moved
        return differences(expected, step(work, context.device, dtype), kind)

    context.case(f"{name}: float32 beside the CPU", lambda: against(None, "float32"))
    emulated = (torch.bfloat16,) if name in EMULATED else ()
    for dtype in (torch.bfloat16, torch.float16) if context.device == "cuda" else emulated:
        kind = str(dtype).removeprefix("torch.")
        context.case(f"{name}: {kind} beside float32", lambda: against(dtype, kind))  # noqa: B023


def step(work: Workload, device: str, dtype: torch.dtype | None) -> Step:
    module = work.module.to(device).train()
    batch = work.prepare(to_device(work.batch, device))
    module.zero_grad()
    with torch.autocast(device, dtype) if dtype is not None else contextlib.nullcontext():
        loss = work.losses(batch, work.forward(batch))
    scale = 2.0**10 if dtype is torch.float16 else 1.0  # small gradients underflow in float16
    (loss * scale).backward()
    named = module.named_parameters()
    gradients = {name: each.grad.float().cpu() / scale for name, each in named if each.grad is not None}
    return Step(float(loss.detach()), gradients)


def differences(expected: Step, found: Step, kind: str) -> dict[str, Any]:
    """Relative errors of the loss, of all gradients as one vector, and of the worst tensor that matters.

    A tensor matters whose gradient is a thousandth of the largest or more: what rounding alone leaves has no direction.
    """
    errors = {name: (found.gradients[name] - value).norm() for name, value in expected.gradients.items()}
    norms = {name: value.norm() for name, value in expected.gradients.items()}
    whole = torch.stack(list(norms.values())).norm()
    mattering = [name for name, norm in norms.items() if norm >= 1e-3 * max(norms.values())]
    worst = max(mattering, key=lambda name: errors[name] / norms[name])
    loss_error = abs(found.loss - expected.loss) / abs(expected.loss)
    gradient_error = float(torch.stack(list(errors.values())).norm() / whole)
    limits = TOLERANCE[kind]
    return {
        "ok": loss_error <= limits[0] and gradient_error <= limits[1],  # NaN is no match
        "loss": found.loss,
        "loss_error": loss_error,
        "gradient_error": gradient_error,
        "limits": f"{limits[0]:g}, {limits[1]:g}",
        "worst": worst,
        "worst_error": float(errors[worst] / norms[worst]),
    }
