"""The reference recipe against the clock: 12,023 ears, ResNet-50, 1024 latents, the seven losses, 60 epochs.

The whole run at a large batch, which is stopped after a few epochs where the time left does not suffice; pixel PCA of
the same ears; and a sixteenth of the ears for a few epochs at batch 8, whose epochs are extrapolated. No ImageNet
weights are at hand: encoder and VGG16 start from random ones, which costs the same.
"""

from __future__ import annotations

import csv
import os
import re
import selectors
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.assets import Assets
from benchmarks.gpu.context import Context

EARS, VAL_EARS = 12_023, 1_000  # as many as the documents trained on
EPOCHS = 60
WORKERS = 14
SHARED = "--encoder=resnet50 --encoder_weights=none --progress=lines --early_stop_patience=0 --log_every_n_steps=200"
REFERENCE = "--batch_size=8 --lr=3e-4 --precision=bf16-mixed"  # what the documents give two to four hours
CANDIDATE = "--batch_size=128 --lr=1.2e-3 --precision=bf16-mixed"  # the rate times the root of the batches' ratio
SMALL = "--image_size=64 --base_channels=4 --latent_dim=8 --linear_path_size=16 --encoder=resnet18 --precision=32"
TRIAL_SHARE, TRIAL_EPOCHS = 16, 3  # of the ears one in so many; the first epoch does not count
PCA_COMPONENTS = (256, 1024)
DECIDING_EPOCHS = 4  # after which a run goes on only if it fits
SPARE_SECONDS = 10.0  # to write the rows
GRACE_SECONDS = 20.0  # until a run that was asked to stop is killed
MAIN = """
import atexit, sys, time, torch
from collections import Counter
import pytorch_lightning.loops as loops
from ear_teacher.module import EarVAELightning
from ear_teacher.train import main
from earface.training.checkpoint_io import AtomicCheckpointIO

spent = Counter()

def timed(owner, name, label):
    inner = getattr(owner, name)
    def outer(*args, **options):
        start = time.perf_counter()
        try:
            return inner(*args, **options)
        finally:
            spent[label] += time.perf_counter() - start
    setattr(owner, name, outer)

timed(AtomicCheckpointIO, "save_checkpoint", "checkpoints")
timed(loops._EvaluationLoop, "run", "validation")
timed(EarVAELightning, "_draw_image_grids", "pictures")

@atexit.register  # also of a run that was paused
def report():
    for label, seconds in spent.items():
        print("spent", label, seconds)
    print("peak", torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0, flush=True)

sys.exit(main(sys.argv[1:]))
"""
GRAPHS = "--compile=true --compile_mode=reduce-overhead"


@dataclass(frozen=True)
class Race:
    """What a run did: when the model's table and each epoch's line came, in seconds since its start.

    spent: of the host, on what; pictures and checkpoints of best models are part of validation.
    """

    announced: float
    ends: list[float]
    peak_mib: float
    code: int
    seconds: float
    spent: dict[str, float]

    @property
    def epoch_seconds(self) -> float:
        """Median of those after the first, which warms up."""
        return statistics.median(np.diff(self.ends)) if len(self.ends) > 1 else float("nan")

    def whole(self, epochs: int) -> float:
        """Seconds that all epochs would take."""
        return self.ends[0] + self.epoch_seconds * (epochs - 1)


def run(part: str, context: Context) -> None:
    if part in ("whole", "graphs"):
        own = f"{CANDIDATE} {GRAPHS}" if part == "graphs" else CANDIDATE
        context.case("the race", lambda: candidate(context, own))
    elif part == "reference":
        context.case("batch 8, a sixteenth of the ears", lambda: reference(context))
    for count in PCA_COMPONENTS if part == "pca" else ():
        context.case(f"pixel PCA, {count} components", lambda count=count: pixel_pca(count, context))  # type: ignore[misc]


def flags_of(context: Context, own: str, name: str) -> list[str]:
    assets = Assets.of(context)
    folder = context.work / "race" / name
    paths = [f"--checkpoint_dir={folder}/checkpoints", f"--log_dir={folder}/logs"]
    workers = [f"--num_workers={1 if context.smoke else WORKERS}"]
    small = SMALL.split() if context.smoke else []
    return [*files_of(context), *SHARED.split(), *assets.perceptual, *paths, *workers, *own.split(), *small]


def files_of(context: Context) -> list[str]:
    """Flags of the race's ears: the documents' number of those that there are."""
    flags = []
    for flag, count in zip(Assets.of(context).many_ears, (EARS, VAL_EARS), strict=True):
        name, _, source = flag.partition("=")
        target = context.work / "race" / Path(source).name
        evenly(source, count, target)
        flags.append(f"{name}={target}")
    return flags


def reference(context: Context) -> dict[str, Any]:
    share = 2 if context.smoke else TRIAL_SHARE
    argv = flags_of(context, REFERENCE, "reference")
    part = context.work / "race" / "part.npy"
    whole_file = next(flag.partition("=")[2] for flag in argv if flag.startswith("--train_npy="))
    ears = evenly(whole_file, EARS // share, part)
    begun = [*argv, f"--train_npy={part}", f"--epochs={EPOCHS}", f"--stop_after_epoch={TRIAL_EPOCHS}"]
    found = raced(begun, context.left - SPARE_SECONDS)
    shutil.rmtree(context.work / "race" / "reference", ignore_errors=True)
    if len(found.ends) < 2:
        raise RuntimeError(f"exit code {found.code} after {len(found.ends)} epochs and {found.seconds:.0f} s")
    whole = found.epoch_seconds * EARS / ears
    return {
        "ears": EARS,
        "epoch_s": whole,
        "images/s": ears / found.epoch_seconds,
        "to_first_epoch_s": found.ends[0],
        "60_epochs_min": whole * EPOCHS / 60,
        "extrapolated": True,
        "peak_mib": found.peak_mib,
    }


def candidate(context: Context, own: str) -> dict[str, Any]:
    """The whole run, or as many epochs as there is time for; rows of its quality over time follow."""
    epochs = 2 if context.smoke else EPOCHS
    argv = [*flags_of(context, own, context.stage), f"--epochs={epochs}"]
    found = raced(argv, context.left - SPARE_SECONDS, epochs)
    tables = list((context.work / "race" / context.stage).rglob("metrics.csv"))
    if len(found.ends) < 2 or not tables:
        raise RuntimeError(f"exit code {found.code} after {len(found.ends)} epochs and {found.seconds:.0f} s")
    shutil.copy(tables[0], context.out / "race_metrics.csv")
    quality = validation_rows(tables[0])
    for place in shown(len(found.ends)):
        minutes = found.ends[place] / 60
        context.row(case=f"after epoch {place + 1}", minutes=minutes, **quality[place])
    return {
        "flags": own,
        "epoch_s": found.epoch_seconds,
        "to_model_s": found.announced,
        "to_first_epoch_s": found.ends[0],
        "epochs": len(found.ends),
        "60_epochs_min": (found.seconds if len(found.ends) == epochs else found.whole(epochs)) / 60,
        "extrapolated": len(found.ends) < epochs,
        "peak_mib": found.peak_mib,
        **{name: seconds / len(found.ends) for name, seconds in found.spent.items()},
        **quality[len(found.ends) - 1],
    }


def raced(argv: Sequence[str], seconds: float, epochs: int = 0) -> Race:
    """Run the entry script in a process of its own, and stop it as a user would when `seconds` have passed.

    epochs: of the whole run; where that will not fit, it is stopped after DECIDING_EPOCHS.
    """
    start = time.monotonic()
    command = [sys.executable, "-c", MAIN, *argv]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    announced, asked, peak = 0.0, 0.0, 0.0
    ends: list[float] = []
    spent: dict[str, float] = {}
    for line in lines_of(process):
        passed = time.monotonic() - start
        if line is not None:
            print(line, flush=True)
            announced = passed if line.split()[:1] == ["total"] else announced
            ends += [passed] if re.match(r"epoch \d+/", line) else []
            peak = float(line.split()[1]) / 2**20 if line.startswith("peak ") else peak
            if line.startswith("spent "):
                spent[f"{line.split()[1]}_s"] = float(line.split()[2])
        race = Race(announced, ends, round(peak), 0, passed, spent)
        hopeless = epochs > 0 and len(ends) == DECIDING_EPOCHS and race.whole(epochs) > seconds
        if not asked and (passed > seconds or hopeless):
            asked = passed
            process.send_signal(signal.SIGTERM)
        elif asked and passed > asked + GRACE_SECONDS:
            process.kill()
    return Race(announced, ends, round(peak), process.wait(), time.monotonic() - start, spent)


def lines_of(process: subprocess.Popen[str]) -> Iterator[str | None]:
    """What it writes, line by line as it comes, and None twice a second meanwhile."""
    assert process.stdout is not None, "it is a pipe"
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ)
    rest = ""
    while True:
        yield None
        if selector.select(timeout=0.5):
            content = os.read(process.stdout.fileno(), 65536).decode(errors="replace")
            if not content:
                return
            *lines, rest = (rest + content).split("\n")
            yield from lines


def evenly(source: str, count: int, target: Path) -> int:
    """Write so many rows of a teacher file, evenly over it, or all; how many there are."""
    from earface.data.npy import read_teacher_npy, write_teacher_npy

    data = read_teacher_npy(source)
    assert data.image_paths is not None, "as the assets are"
    assert data.subjects is not None, "as the assets are"
    rows = sorted({int(row) for row in np.linspace(0, len(data) - 1, min(count, len(data))).round()})
    target.parent.mkdir(parents=True, exist_ok=True)
    write_teacher_npy(
        target,
        image_paths=[data.image_paths[row].absolute() for row in rows],
        subjects=[data.subjects[row] for row in rows],
        contract=data.contract,
    )
    return len(rows)


def validation_rows(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("val/psnr")]
    return [{"psnr": float(row["val/psnr"]), "ssim": float(row["val/ssim"])} for row in rows]


def shown(epochs: int) -> list[int]:
    """The first, every tenth and the last."""
    return sorted({0, *range(9, epochs, 10), epochs - 1})


def pixel_pca(count: int, context: Context) -> dict[str, Any]:
    """PSNR and SSIM of the validation ears through components of the training ears, by subspace iteration."""
    import torch

    from ear_teacher.config import EarVAETrainingConfig
    from ear_teacher.datamodule import EarVAEDataModule
    from earface.data.pixels import to_model_range, to_unit
    from earface.metrics.image_quality import psnr, ssim

    argv = {name: (path,) for name, path in (flag[2:].split("=", 1) for flag in files_of(context))}
    data = EarVAEDataModule(EarVAETrainingConfig(**argv, image_size=64 if context.smoke else 128))  # type: ignore[arg-type]
    data.setup()

    def pixels(images: Any) -> torch.Tensor:
        return to_model_range(torch.from_numpy(np.array(images)).to(context.device))

    train, val = pixels(data.train_set.images), pixels(data.val_set.images)
    rows = train.flatten(1)
    mean = rows.mean(dim=0)
    count = min(count, len(rows) - 1)
    torch.manual_seed(0)
    _, _, components = torch.svd_lowrank(rows.sub_(mean), q=min(count + 64, len(rows)), niter=4)
    components = components[:, :count]
    made = ((val.flatten(1) - mean) @ components @ components.T + mean).view_as(val).clamp(-1, 1)
    pairs = list(zip(to_unit(made).split(64), to_unit(val).split(64), strict=True))
    quality = {"psnr": torch.cat([psnr(*pair) for pair in pairs]), "ssim": torch.cat([ssim(*pair) for pair in pairs])}
    return {"ears": len(train), **{name: float(values.mean()) for name, values in quality.items()}}
