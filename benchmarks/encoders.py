"""Encoders at equal training time, on unseen people: `python -m benchmarks.encoders --train-npy A --val-npy B`.

Each run's epochs are first measured (the second of two), so that its one-cycle schedule ends when its minutes are over.
Time is the process's own processor time, on one thread: what else the machine does hardly moves it. Finished runs are
not repeated. `--transfer` asks what each is worth as a start, too (benchmarks/transfer).
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.options import option

RECIPE = (
    "--image_size=128 --latent_dim=256 --base_channels=24 --batch_size=16 --lr=1e-3 --weight_decay=1e-3 "
    "--augment=full --denoise --schedule=onecycle --warmup_epochs=0 --precision=bf16-mixed --reconstruction=mse "
    "--focal_gamma=0 --perceptual_weight=0 --ssim_weight=0.02 --edge_weight=0 --contrastive_weight=0 --center_weight=0 "
    "--kl_weight=1e-5 --kl_reduction=mean --kl_anneal_strategy=none --ema_decay=0.99 --early_stop_patience=0 "
    "--accumulate_grad_batches=1 --num_workers=0 --progress=lines"
)
SCRATCH = "--encoder_weights=none --freeze_layers=0"
CONTENDERS = {
    "conv": f"--encoder=conv {SCRATCH}",
    "resnet18": f"--encoder=resnet18 {SCRATCH}",
    "dinov2": f"--encoder=dinov2 {SCRATCH} --backbone_lr_scale=0.3",  # a transformer from scratch fails at 1e-3
    "sam": f"--encoder=sam {SCRATCH} --backbone_lr_scale=0.3",
    "edgenext": f"--encoder=timm:edgenext_xx_small {SCRATCH}",
    "edgenext from EdgeFace": "--encoder=timm:edgenext_xx_small --encoder_weights={edgeface} --freeze_layers=2 "
    "--backbone_lr_scale=0.1",
}

LAST = Path("checkpoints", "last.ckpt")  # of a contender
COSTS = {"minutes": 1, "images_per_second": 0, "peak_memory_gb": 1}  # and how many decimals
UNTRAINED = {
    "linear path alone": "linear_path_",
    "pixel PCA + mirror images": "pca_mirror_",
    "pixel PCA": "pca_",
    "HOG": "hog_",
}


@dataclass(frozen=True)
class EncoderBenchmark:
    """Train each encoder for the same time on the same ears and evaluate it on identities it was not trained on."""

    train_npy: tuple[str, ...] = option(("runs/awe/train_teacher.npy",), "ears to train on; several files")
    val_npy: tuple[str, ...] = option(("runs/awe/val_teacher.npy",), "ears of other people; several files")
    edgeface: str = option("edgeface_xxs_q.pt", "EdgeFace's official file, for the transfer")
    out: str = option("runs/encoders", "a folder per run, and results.md")
    minutes: float = option(8.0, "training time of each", above=0)
    linear_path_size: int = option(64, "side of the linear path; 0: the networks alone", low=0)
    only: str = option("", "contenders, comma-separated; default: all")
    weights: tuple[str, ...] = option(
        (), "more contenders, with official weights: resnet50=FILE, dinov2=FILE, sam=FILE, timm:NAME=FILE"
    )
    transfer: str | None = option(
        None, "the table of benchmarks.transfer too, from these encoders and weights: its options after =, in quotes"
    )


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EncoderBenchmark, argv, prog="python -m benchmarks.encoders")
    contenders = contenders_of(options)
    unknown = [name for name in options.only.split(",") if name and name not in contenders]
    if unknown:
        raise InputError(f"--only {unknown[0]}: choose from {', '.join(contenders)}")
    out = Path(options.out)
    for name in options.only.split(",") if options.only else contenders:
        folder = out / name.replace(" ", "_")
        if not (folder / "result.json").exists():
            run(name, contenders[name], folder, options)
    results = [json.loads(path.read_text()) for path in sorted(out.glob("*/result.json"))]
    table = markdown(results)
    (out / "results.md").write_text(table)
    print(table)
    if options.transfer is None:
        return 0
    trained = [f"{result['name']}={out / result['name'].replace(' ', '_') / LAST}" for result in results]
    starts = [
        *(("--teacher", *trained) if trained else ()),
        *(("--weights", *options.weights) if options.weights else ()),
    ]
    given = [*starts, "--ears", options.val_npy[0], "--out", str(out / "transfer"), *shlex.split(options.transfer)]
    return subprocess.run([sys.executable, "-m", "benchmarks.transfer", *given], check=False).returncode


def contenders_of(options: EncoderBenchmark) -> dict[str, list[str]]:
    """The flags of each. Raises InputError for weights without an encoder or a file."""
    contenders = {name: flags.format(edgeface=options.edgeface).split() for name, flags in CONTENDERS.items()}
    for text in options.weights:
        encoder, equals, path = text.partition("=")
        if not equals or not Path(path).is_file():
            raise InputError(f"`weights` {text}: give the encoder and its file, such as resnet50=FILE")
        flags = [f"--encoder={encoder}", f"--encoder_weights={path}", "--freeze_layers=0", "--backbone_lr_scale=0.1"]
        contenders[f"{encoder.removeprefix('timm:')} with weights"] = flags
    return contenders


def run(name: str, own: Sequence[str], folder: Path, options: EncoderBenchmark) -> None:
    flags = [
        *RECIPE.split(),
        *own,
        *("--train_npy", *options.train_npy),
        *("--val_npy", *options.val_npy),
    ]
    trial = ["--resume=never", "--epochs=2", f"--checkpoint_dir={folder}/trial", f"--log_dir={folder}/trial"]
    (epoch_seconds,), _ = train([*flags, *trial, "--linear_path_size=0"], folder / "trial.log")
    epochs = max(2, round(options.minutes * 60 / epoch_seconds))
    kept = [f"--checkpoint_dir={folder}/checkpoints", f"--log_dir={folder}/logs"]
    durations, memory = train(
        [*flags, *kept, "--resume=never", f"--epochs={epochs}", f"--linear_path_size={options.linear_path_size}"],
        folder / "train.log",
    )
    evaluation = folder / "evaluation"
    checkpoint = folder / LAST
    command = ["ear_teacher.evaluate", "--checkpoint", str(checkpoint), "--out", str(evaluation), "--device", "cpu"]
    subprocess.run([sys.executable, "-m", *command], check=True)
    metrics = json.loads((evaluation / "metrics.json").read_text())
    result = {
        "name": name,
        "epochs": epochs,
        "minutes": statistics.mean(durations) * epochs / 60,
        "images_per_second": metrics["train_images"] / statistics.median(durations),
        "peak_memory_gb": memory,
        "metrics": metrics,
    }
    (folder / "result.json").write_text(json.dumps(result, indent=2))


def train(flags: list[str], log: Path) -> tuple[list[float], float]:
    """Processor seconds of each epoch but the first (views and validation included), and peak memory in GB."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "ear_teacher.train", *flags],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        clock: list[float] = []  # at the end of each epoch
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            clock += [sum(psutil.Process(process.pid).cpu_times()[:2])] * (log.read_text().count(" img/s") - len(clock))
            time.sleep(0.2)
        _, status, usage = os.wait4(process.pid, 0)
    clock += [usage.ru_utime + usage.ru_stime] * (
        log.read_text().count(" img/s") - len(clock)
    )  # ended between two looks
    if status != 0:
        raise InputError(f"{log}: training failed: {log.read_text().strip()[-200:]}")
    return [after - before for before, after in pairwise(clock)], usage.ru_maxrss / 2**20


def markdown(results: list[dict[str, Any]]) -> str:
    """One row a contender, best PSNR first, and below them what needs no training."""
    lines = [
        "| encoder | PSNR (dB) | SSIM | rank-1 (%) | of its maps (%) | epochs | minutes | images/s | memory (GB) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in sorted(results, key=lambda result: -result["metrics"]["psnr"]):
        metrics = quality(result["metrics"], "")
        cost = (f"{result[key]:.{digits}f}" for key, digits in COSTS.items())
        maps = f"{result['metrics']['maps_rank1'] * 100:.1f}"
        lines.append("| " + " | ".join([result["name"], *metrics, maps, str(result["epochs"]), *cost]) + " |")
    for name, prefix in UNTRAINED.items():
        if results and f"{prefix}rank1" in results[0]["metrics"]:
            lines.append("| " + " | ".join([name, *quality(results[0]["metrics"], prefix), "", "", "", "", ""]) + " |")
    return "\n".join(lines) + "\n"


def quality(metrics: dict[str, Any], prefix: str) -> list[str]:
    values = [metrics.get(f"{prefix}{name}") for name in ("psnr", "ssim", "rank1")]
    scaled = zip(values, (1, 1, 100), (2, 3, 1), strict=True)
    return ["-" if value is None else f"{value * scale:.{digits}f}" for value, scale, digits in scaled]


if __name__ == "__main__":
    sys.exit(main())
