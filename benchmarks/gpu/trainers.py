"""Every trainer and encoder for a few steps through its entry script, in each precision and with each option."""

from __future__ import annotations

import csv
import importlib
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.assets import Assets
from benchmarks.gpu.context import Context, call

PRECISIONS = ("32", "16-mixed", "bf16-mixed")
ENCODERS = {  # what makes each a short run of random weights
    "resnet50": "",
    "resnet18": "",
    "conv": "--image_size=128",
    "dinov2": "--freeze_layers=0 --backbone_lr_scale=1",
    "sam": "--freeze_layers=0 --backbone_lr_scale=1",
    "timm:edgenext_xx_small": "",
}
GRAPHS = "--compile=true --compile_mode=reduce-overhead --precision=bf16-mixed"
PAUSED = (0, 75)  # exit codes of a run that stops early as asked
EAR, DSR, EDGEFACE = "ear_teacher.train", "dsr.train_dsr", "facial_rec.finetune_edgeface"
DETECTOR, EAR_RECOGNIZER = "ear_teacher.detector.train", "ear_teacher.recognition.train"


@dataclass(frozen=True)
class Case:
    name: str
    entry: str
    flags: str = ""
    small: bool = True  # whether a smoke test has time for it


def _ears(precision: str) -> tuple[Case, ...]:
    return tuple(
        Case(
            f"{encoder} {precision}",
            EAR,
            f"--encoder={encoder} --precision={precision} {flags}",
            small=encoder == "conv" if precision == "bf16-mixed" else precision == "32" and encoder != "resnet50",
        )
        for encoder, flags in ENCODERS.items()
    )


def _compiled(*encoders: str) -> tuple[Case, ...]:
    return tuple(
        Case(
            f"{each} compile",
            EAR,
            f"--encoder={each} --compile=true --precision=bf16-mixed {ENCODERS[each]}",
            small=each == "conv",
        )
        for each in encoders
    )


def _faces() -> tuple[Case, ...]:
    return tuple(
        Case(f"{name} {precision}", entry, f"--precision={precision}")
        for name, entry in (("DSR", DSR), ("EdgeFace", EDGEFACE))
        for precision in PRECISIONS
    )


PARTS: dict[str, tuple[Case, ...]] = {
    "ears_32": _ears("32"),
    "ears_mixed": _ears("bf16-mixed") + _ears("16-mixed"),
    "faces": (
        *_faces(),
        *(Case(f"detector {each}", DETECTOR, f"--precision={each}", small=each != "16-mixed") for each in PRECISIONS),
        Case("DSR realistic, full, workers", DSR, "--degradation=realistic --augment=full --num_workers=2"),
        Case("EdgeFace LoRA, align, keep", EDGEFACE, "--lora_rank=4 --lambda_align=1 --keep_weight=1 --ema_decay=0.9"),
        Case("EdgeFace AdaFace, balanced", EDGEFACE, "--head=adaface --balanced=true"),
        *(Case(f"ear recogniser {each}", EAR_RECOGNIZER, f"--precision={each}") for each in PRECISIONS),
        Case("ear recogniser conv, AdaFace, EMA", EAR_RECOGNIZER, "--backbone=conv --head=adaface --ema_decay=0.9"),
        Case("detector DINOv2", DETECTOR, "--encoder=dinov2 --image_size=224 --precision=bf16-mixed", small=False),
        Case("detector SAM", DETECTOR, "--encoder=sam --image_size=256 --precision=bf16-mixed", small=False),
    ),
    "compile_resnet50": (
        Case("resnet50 compile", EAR, "--encoder=resnet50 --compile=true --precision=bf16-mixed", small=False),
        Case("resnet18 compile 16-mixed", EAR, "--encoder=resnet18 --compile=true --precision=16-mixed"),
    ),
    "graphs_resnet50": (
        Case("resnet50 graphs", EAR, f"--encoder=resnet50 {GRAPHS}", small=False),
        Case(
            "resnet18 graphs, accumulation, EMA",
            EAR,
            f"--encoder=resnet18 {GRAPHS} --accumulate_grad_batches=2 --ema_decay=0.9",
        ),
    ),
    "graphs_others": (
        Case("DSR graphs", DSR, GRAPHS),
        Case("EdgeFace graphs", EDGEFACE, GRAPHS),
        Case("ear recogniser graphs", EAR_RECOGNIZER, GRAPHS),
    ),
    "compile_convolutions": _compiled("timm:edgenext_xx_small", "conv"),
    "compile_transformers": _compiled("dinov2", "sam"),
    "compile_faces": (
        Case("DSR compile", DSR, "--compile=true --precision=bf16-mixed"),
        Case("EdgeFace compile", EDGEFACE, "--compile=true --precision=bf16-mixed", small=False),
    ),
    "compile_detector": (Case("detector compile", DETECTOR, "--compile=true --precision=bf16-mixed"),),
    "options": (
        Case("EMA", EAR, "--ema_decay=0.9"),
        Case("accumulation", EAR, "--accumulate_grad_batches=2"),
        Case("16-mixed, EMA, accumulation", EAR, "--precision=16-mixed --ema_decay=0.9 --accumulate_grad_batches=2"),
        Case("16-mixed without clipping", EAR, "--precision=16-mixed --grad_clip=0", small=False),
        Case("TF32", EAR, "--precision=32 --tf32=true"),
        Case("no TF32", EAR, "--precision=32 --tf32=false", small=False),
        Case("full augmentation, denoising, workers", EAR, "--augment=full --denoise=true --num_workers=2"),
        Case("grey, MSE, sum", EAR, "--in_channels=1 --reconstruction=mse --kl_reduction=sum", small=False),
        Case("plateau, layer decay, focal", EAR, "--schedule=plateau --layer_decay=0.7 --focal_gamma=1", small=False),
        Case("gradient checkpointing", EAR, "--encoder=dinov2 --gradient_checkpointing=true --freeze_layers=2"),
        Case("--save_every_n_steps", EAR, "--save_every_n_steps=2", small=False),
        Case("fast_dev_run", EAR, "--fast_dev_run=true"),
    ),
    "fsdp": (
        Case("dinov2 FSDP", EAR, "--encoder=dinov2 --strategy=fsdp --devices=1 --precision=bf16-mixed", small=False),
        Case("sam FSDP", EAR, "--encoder=sam --strategy=fsdp --devices=1 --precision=bf16-mixed", small=False),
        Case("resnet18 DDP", EAR, "--strategy=ddp --devices=1 --precision=bf16-mixed", small=False),
    ),
}  # `resume` and `limits` compare several runs


def run(part: str, context: Context) -> None:
    if part in PARTS:
        for case in PARTS[part]:
            if case.small or not context.smoke:
                context.case(case.name, lambda case=case: train(case, context, keep=False))  # type: ignore[misc]
        return
    from benchmarks.gpu import resume

    resume.run(part, context)


def train(case: Case, context: Context, folder: Path | None = None, keep: bool = True) -> dict[str, Any]:
    """One run; its last losses, and how many graphs were compiled. Raises where a loss is missing or not finite."""
    folder = folder or context.work / "runs" / context.stage / "".join(c if c.isalnum() else "_" for c in case.name)
    main: Callable[[list[str]], int] = importlib.import_module(case.entry).main
    try:
        argv = [*base_flags(case.entry, case.flags, context), *folders(folder), *case.flags.split()]
        emulated = context.smoke and context.stage != "trainers_ears_mixed"  # half precision on most CPUs, and slow
        call(main, [*argv, "--precision=32"] if emulated else argv, PAUSED)
        found = {} if "fast_dev_run" in case.flags else last_losses(folder)
        return found | compiled(case, context.device)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def folders(folder: Path) -> list[str]:
    return [f"--checkpoint_dir={folder}/checkpoints", f"--log_dir={folder}/logs"]


def base_flags(entry: str, flags: str, context: Context) -> list[str]:
    """Of a run of a few steps on the stages' own data; later flags win."""
    assets = Assets.of(context)
    shared = ["--num_workers=0", "--progress=none", "--log_every_n_steps=2", "--grid_images=2", "--batch_size=8"]
    if entry == EAR:
        perceptual = assets.dinov2_perceptual if "dinov2" in flags else assets.perceptual
        encoder = [] if "--encoder" in flags else ["--encoder=resnet18"]
        own = [*assets.ears, "--encoder_weights=none", "--freeze_layers=0", "--augment=none", *perceptual, *encoder]
        small = ["--image_size=64", "--base_channels=4", "--latent_dim=8", "--linear_path_size=16", "--batch_size=4"]
        own += ["--epochs=1", "--warmup_epochs=0", "--accumulate_grad_batches=1", *(small if context.smoke else [])]
    elif entry == DSR:
        weights = [f"--recognizer={assets.edgeface}", f"--second_recognizer={assets.edgeface}"]
        small = ["--variant=small", "--base_channels=8", "--residual_blocks=1", "--lambda_perceptual=0"]
        own = [f"--dataset_root={assets.faces}", "--vlr_size=16", "--epochs=1", *weights, *assets.perceptual]
        own += small if context.smoke else []
    elif entry == EDGEFACE:
        shared.remove("--grid_images=2")
        own = [f"--dataset_root={assets.faces}", "--upsampler=bicubic", "--vlr_size=16", "--min_images=1"]
        own += [f"--recognizer={assets.edgeface}", f"--cache_dir={context.work}/cache/{context.stage}"]
        own += ["--stage1_epochs=1", "--stage2_epochs=1"]
    elif entry == EAR_RECOGNIZER:
        small = ["--backbone=conv", "--image_size=64", "--base_channels=4", "--embedding_dim=16", "--batch_size=4"]
        own = [*assets.ears, f"--backbone_weights={'none' if 'conv' in flags else assets.edgeface}"]
        own += [
            "--epochs=1",
            "--images_per_class=4",
            "--margin_epochs=1",
            f"--cache_dir={context.work}/cache/{context.stage}",
        ]
        own += [*small, "--backbone_weights=none"] if context.smoke else []
    else:
        own = [*assets.scenes, "--encoder_weights=none", "--epochs=1"]
        own += [] if "--encoder" in flags else ["--encoder=resnet18"]
        own += ["--image_size=64", "--crop_size=32", "--pyramid_width=16", "--batch_size=4"] if context.smoke else []
    return shared + own


def last_losses(folder: Path) -> dict[str, float]:
    """train/loss and val/loss as last written. Raises where one is missing or not finite."""
    found: dict[str, float] = {}
    for path in sorted(folder.rglob("metrics.csv"), key=lambda each: each.stat().st_mtime):
        with path.open(newline="") as stream:
            for row in csv.DictReader(stream):
                found |= {name: float(row[name]) for name in ("train/loss", "val/loss") if row.get(name)}
    if len(found) < 2 or not all(map(math.isfinite, found.values())):
        raise RuntimeError(f"losses wanted, found {found}")
    return found


def compiled(case: Case, device: str) -> dict[str, int]:
    """What torch.compile made of a case that asks for it: on a GPU one graph at least."""
    if "--compile=true" not in case.flags:
        return {}
    from torch._dynamo.utils import counters

    found = {"graphs": counters["stats"]["unique_graphs"], "breaks": sum(counters["graph_break"].values())}
    if "reduce-overhead" in case.flags:
        found["cudagraph_skips"] = counters["inductor"]["cudagraph_skips"]
    counters.clear()
    if device == "cuda" and not found["graphs"]:
        raise RuntimeError("nothing was compiled")
    return found
