"""Runs that are stopped and go on, checkpoints that change the device, and what must end in one line."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
from pathlib import Path
from typing import Any

from benchmarks.gpu.context import Context, call
from benchmarks.gpu.trainers import DETECTOR, DSR, EAR, EDGEFACE, Case, base_flags, folders, train

RESUMED = (
    Case("resnet18 32", EAR, "--precision=32 --augment=light --epochs=2 --ema_decay=0.9"),
    Case("resnet18 bf16-mixed, accumulation", EAR, "--precision=bf16-mixed --epochs=2 --accumulate_grad_batches=2"),
    Case("resnet18 16-mixed", EAR, "--precision=16-mixed --epochs=2", small=False),
    Case("conv 32, plateau", EAR, "--encoder=conv --image_size=128 --precision=32 --epochs=2", small=False),
    Case("DSR", DSR, "--precision=32 --epochs=2"),
    Case("EdgeFace", EDGEFACE, "--precision=32 --stage1_epochs=0 --stage2_epochs=2", small=False),
    Case("detector", DETECTOR, "--precision=32 --epochs=2", small=False),
)
GIVEN_UP = (  # what must end with exit code 2 and one line: name, flags, and a word of the line
    ("--devices 0,1 on one GPU", "--devices=0,1", "devices"),
    ("--devices 7", "--devices=7", "devices"),
)
LARGE = "--encoder=resnet18 --latent_dim=16 --base_channels=16 --image_size=512"
OUT_OF_MEMORY = (  # what a run may take, in GiB: the GPU's other users keep theirs
    ("step", 1.5, f"{LARGE} --batch_size=48"),
    ("compiled step", 1.5, f"{LARGE} --batch_size=48 --compile=true"),
    ("validation", 2.0, f"{LARGE} --batch_size=1"),
)


def run(part: str, context: Context) -> None:
    if part == "resume":
        for case in RESUMED:
            if case.small or not context.smoke:
                context.case(case.name, lambda case=case: resumed(case, context))  # type: ignore[misc]
        return
    context.case("CUDA checkpoint on the CPU and back", lambda: moved(context))
    for name, flags, word in GIVEN_UP:
        context.case(name, lambda flags=flags, word=word: given_up(flags, word, context))  # type: ignore[misc]
    for name, gibibytes, flags in OUT_OF_MEMORY if context.device == "cuda" else ():
        context.case(
            f"out of memory: {name}",
            lambda flags=flags, share=gibibytes: out_of_memory(flags, share, context),  # type: ignore[misc]
        )


def resumed(case: Case, context: Context) -> dict[str, Any]:
    """Whether a run that was stopped after its first epoch ends with the same weights as one that was not."""
    case = dataclasses.replace(case, flags=case.flags + " --deterministic=true")
    root = context.work / "runs" / context.stage / "".join(c if c.isalnum() else "_" for c in case.name)
    shutil.rmtree(root, ignore_errors=True)
    found = train(case, context, root / "whole")
    stopped = dataclasses.replace(case, flags=case.flags + " --stop_after_epoch=1")
    train(stopped, context, root / "stopped")
    train(case, context, root / "stopped")
    pairs = [
        (path, root / "stopped" / path.relative_to(root / "whole")) for path in (root / "whole").rglob("last.ckpt")
    ]
    differing = [name for whole, again in pairs for name in differences(whole, again)]
    if not pairs or differing:
        raise RuntimeError(f"{len(differing)} tensors differ, such as {differing[:2]}")
    return found


def differences(first: Path, second: Path) -> list[str]:
    """Names of weights that are not the same bit for bit."""
    from earface.nn.checkpoint import model_state, read_checkpoint

    one, other = (model_state(read_checkpoint(path)) for path in (first, second))
    return [name for name, value in one.items() if not value.equal(other[name])]


def moved(context: Context) -> dict[str, Any]:
    """Train an epoch on the device, one on the CPU, one on the device; then reconstruct with it on both."""
    import torch

    from ear_teacher import EarVAE

    case = Case("moved", EAR, "--precision=32 --base_channels=8 --epochs=3")
    folder = context.work / "runs" / context.stage / "moved"
    for epoch, accelerator in ((1, "auto"), (2, "cpu"), (3, "auto")):
        flags = f"{case.flags} --accelerator={accelerator} --stop_after_epoch={epoch}"
        train(dataclasses.replace(case, flags=flags), context, folder)
    model = EarVAE.load_from_checkpoint(str(folder / "checkpoints" / "last.ckpt"))
    side = model.config.image_size
    images = torch.rand(2, 3, side, side) * 2 - 1
    expected = model.reconstruct(images)
    on_device = EarVAE.load_from_checkpoint(str(folder / "checkpoints" / "last.ckpt"), map_location=context.device)
    found = on_device.reconstruct(images.to(context.device)).cpu()
    return {"difference": float((found - expected).abs().max())}


def given_up(flags: str, word: str, context: Context) -> dict[str, Any]:
    """The one line that the run ends with. Raises where it is something else."""
    argv = [*base_flags(EAR, flags, context), *folders(context.work / "runs" / context.stage / "given_up")]
    text = call(importlib.import_module(EAR).main, [*argv, *flags.split(), "--resume=never"], wanted=(2,))
    errors = [line for line in text.splitlines() if line.startswith("error:")]
    if len(errors) != 1 or "Traceback" in text or word not in errors[0]:
        raise RuntimeError(f"one line with {word!r} wanted: {text[-300:]}")
    return {"line": errors[0]}


def out_of_memory(flags: str, gibibytes: float, context: Context) -> dict[str, Any]:
    """As given_up, with so little memory."""
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(gibibytes * 2**30 / total)
    try:
        return given_up(flags, "memory", context)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
