"""Train a face super-resolver: `earface dsr train`, or `python -m dsr.train_dsr`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from dsr.config import ALIASES, PRESETS, DSRTrainingConfig, monitored_metrics
from earface.core.command_line import parse_options
from earface.core.errors import entry_point


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    config = parse_options(
        DSRTrainingConfig,
        argv,
        prog="earface dsr train",
        aliases=ALIASES,
        preset_field="variant",
        presets=PRESETS,
    )
    train(config)
    return 0


def train(config: DSRTrainingConfig) -> None:
    """Start, continue, or report as finished the run of this configuration."""
    # imported here: Lightning takes seconds, and --help and a mistyped flag should not wait for it
    import pytorch_lightning as pl

    from dsr.datamodule import FaceDataModule
    from dsr.losses import load_perceptual
    from dsr.module import DSRLightning
    from earface.training.resume import open_run
    from earface.training.trainer import announce, build_trainer, fit, report
    from facial_rec.recognizer import load_frozen_recognizers

    run = open_run(config, "dsr")
    if run.finished:
        print(f"finished: {run.checkpoint} holds {run.epoch} of {config.epochs} epochs; more with --epochs")
        return
    datamodule = FaceDataModule(config)
    recognizer, second = load_frozen_recognizers(config)
    perceptual = load_perceptual(config)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    trainer = build_trainer(config, run, best=monitored_metrics(config))
    module = DSRLightning(config, recognizer, second, perceptual)
    if config.init_from:
        module.initialise_from(config.init_from)
    announce(config, run, module)
    complete = fit(trainer, module, datamodule, run)
    report(trainer, run, complete)


if __name__ == "__main__":
    sys.exit(main())
