"""Ear recognisers at full scale, on the ears that were carried; what they learned comes back in half precision."""

from __future__ import annotations

import importlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.assets import Assets
from benchmarks.gpu.context import Context, call

# An epoch goes through 240 views of each class, so that validation, which few kernels fill, takes little of it.
SHARED = (
    "--precision=bf16-mixed --batch_size=128 --lr=8.5e-4 --head_lr=5.6e-3 --images_per_class=240 --epochs=6 "
    "--margin_epochs=3 --ema_decay=0.995 --num_workers=2 --progress=lines --early_stop_patience=0 "
    "--log_every_n_steps=200"
)
XXS = "--backbone=edgeface_xxs --backbone_weights={xxs}"  # in braces: what was carried
XS = "--backbone=edgeface_xs_q --backbone_weights={xs}"
PARTS = {
    "xs": XS,
    "xs_ears": f"{XS} --classes=ear",
    "xs_centers": f"{XS} --sub_centers=3",
    "xxs": XXS,
    "scratch": f"{XS} --backbone_weights=none --lr=2e-3",
    "seed_1": f"{XS} --seed=1",
    "seed_2": f"{XS} --seed=2",
}
SMALL = "--classes=person --epochs=1 --images_per_class=2 --batch_size=8 --precision=32 --num_workers=0"
SPARE_SECONDS = 30.0  # to evaluate in
DROPPED = ("current_model_state", "optimizer_states", "lr_schedulers", "loops", "callbacks")


def run(part: str, context: Context) -> None:
    context.case(part, lambda: trained(part, context))


def trained(part: str, context: Context) -> dict[str, Any]:
    """Train, measure on people who were not trained on, and keep the weights."""
    train, evaluate = (
        importlib.import_module(f"ear_teacher.recognition.{name}").main for name in ("train", "evaluate")
    )
    assets = Assets.of(context)
    folder = context.work / "recognizers" / part
    files = {name: assets.published(f"edgeface_{name}_q.pt") or "none" for name in ("xxs", "xs")}
    argv = [flag.format(**files) for flag in (*SHARED.split(), *PARTS[part].split())]
    for role in ("train", "val"):
        argv += [f"--{role}_npy", *(str(each / f"{role}_teacher.npy") for each in assets.ear_folders)]
    argv += [f"--checkpoint_dir={folder}/checkpoints", f"--log_dir={folder}/logs", f"--cache_dir={folder}/cache"]
    argv += SMALL.split() if context.smoke else [f"--max_time={duration(context.left - SPARE_SECONDS)}"]
    start = time.monotonic()
    call(train, argv, wanted=(0, 75))
    seconds = time.monotonic() - start
    checkpoint = folder / "checkpoints" / "last.ckpt"
    kept = keep(checkpoint, context.out, part)
    flags = [f"--checkpoint={checkpoint}", "--per_subject=20", f"--device={context.device}", "--replicates=200"]
    call(evaluate, [*flags, f"--out={folder}/evaluation", f"--cache_dir={folder}/cache"])
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return {"train_s": round(seconds), **kept, **measured(folder / "evaluation" / "metrics.json")}


def duration(seconds: float) -> str:
    """Lightning's DD:HH:MM:SS."""
    whole = max(1, int(seconds))
    return f"00:{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def keep(checkpoint: Path, out: Path, name: str) -> dict[str, Any]:
    """The averaged weights in half precision, without what only a resumed training needs: NAME.ckpt in `out`."""
    import torch

    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    kept = {key: value for key, value in content.items() if key not in DROPPED}
    torch.save(halved(kept), out / f"{name}.ckpt")
    return {"epoch": content["epoch"], "steps": content["global_step"]}


def halved(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return value.half() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return type(value)((key, halved(each)) for key, each in value.items())
    return value


def measured(path: Path) -> dict[str, float]:
    """Of metrics.json, by the folder of the ears."""
    found = {}
    for source, result in json.loads(path.read_text())["files"].items():
        own = result.get("recognizer", result)
        for name in ("rank1", "eer", "tar_at_far_0.001"):
            found[f"{Path(source).parent.name} {name}"] = own[name]["value"]
    return found
