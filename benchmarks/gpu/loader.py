"""Images a second of the real loader alone, in each strength of augmentation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.gpu.assets import Assets
from benchmarks.gpu.context import Context

WORKERS = 14
SECONDS, SMOKE_SECONDS = 4.0, 1.0  # of each


def run(part: str, context: Context) -> None:
    from ear_teacher.config import ALIASES, PRESETS, EarVAETrainingConfig
    from ear_teacher.datamodule import EarVAEDataModule
    from earface.core.command_line import parse_options

    assets = Assets.of(context)
    workers = 2 if context.smoke else WORKERS

    def rate(flags: Sequence[str]) -> dict[str, Any]:
        argv = [
            *assets.many_ears,
            f"--num_workers={workers}",
            "--batch_size=8" if context.smoke else "--batch_size=128",
        ]
        argv += ["--image_size=64"] if context.smoke else []
        config = parse_options(
            EarVAETrainingConfig,
            [*argv, *flags],
            prog="speed",
            aliases=ALIASES,
            preset_field="encoder",
            presets=PRESETS,
        )
        data = EarVAEDataModule(config)
        data.setup()
        loader, images, epoch = data.train_dataloader(), 0, 0
        limit = SMOKE_SECONDS if context.smoke else SECONDS
        iterator = endless(loader)
        for _ in range(workers):
            next(iterator)  # what the workers make while they start
        start = time.perf_counter()
        while (taken := time.perf_counter() - start) < limit:
            images += len(next(iterator)["index"])
            epoch = loader.epoch
        return {"workers": workers, "images/s": images / taken, "epochs": epoch + 1}

    for name, flags in (("full", []), ("light", ["--augment=light"]), ("none", ["--augment=none"])):
        context.case(f"augmentation {name}", lambda flags=flags: rate(flags))  # type: ignore[misc]
    context.case("augmentation full, denoising", lambda: rate(["--denoise=true"]))


def endless(loader: Any) -> Iterator[Any]:
    """Epoch after epoch."""
    epoch = 0
    while True:
        loader.set_epoch(epoch)
        yield from loader
        epoch += 1
