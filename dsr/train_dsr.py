"""Train a face super-resolver: `earface dsr train`, or `python -m dsr.train_dsr`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from dsr.config import ALIASES, HELP, PRESETS, DSRTrainingConfig, monitored_metrics
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.first_imports import first_imports
from earface.core.needed import Needed
from earface.core.stopping import EXIT_PAUSED, pausable
from earface.core.tool_options import next_step
from earface.data.face_folders import training_root


@entry_point
@pausable
def main(argv: Sequence[str] | None = None) -> int:
    config = parse_options(
        DSRTrainingConfig,
        argv,
        prog="earface dsr train",
        aliases=ALIASES,
        preset_field="variant",
        presets=PRESETS,
        layout=HELP,
    )
    return train(config)


def train(config: DSRTrainingConfig) -> int:
    """Start, continue, or report as finished the run of this configuration. Returns the exit code."""
    config.check_checkpoints()
    if config.is_new:
        training_root(config.dataset_root)
    # after parsing: help, a mistyped flag and a missing file answer without Lightning
    with first_imports():
        import pytorch_lightning as pl

        from dsr.datamodule import DSRDataModule
        from dsr.losses import load_perceptual
        from dsr.module import DSRLightning
        from earface.training.resume import open_run
        from earface.training.trainer import announce, build_trainer, fit, report
        from facial_rec.recognizer import load_frozen_recognizers

    run, config = open_run(config, "dsr")
    if run.finished:
        print(f"finished: {run.checkpoint} holds {run.epoch} of {config.epochs} epochs; more with --epochs")
        return 0
    with Needed() as needed:
        recognizer, second = load_frozen_recognizers(
            config, needed, "none --lambda_identity 0 --lambda_feature_match 0"
        )
        perceptual = needed(lambda: load_perceptual(config))
    datamodule = DSRDataModule(config)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    trainer = build_trainer(config, run, best=monitored_metrics(config))
    module = DSRLightning(config, recognizer, second, perceptual)
    if config.init_from:
        module.initialise_from(config.init_from)
    announce(config, run, module)
    complete = fit(trainer, module, datamodule, run)
    last = Path(config.checkpoint_dir) / "last.ckpt"
    report(trainer, run, complete, next_step("dsr evaluate", checkpoint=last, dataset_root=config.dataset_root))
    return 0 if complete else EXIT_PAUSED


if __name__ == "__main__":
    sys.exit(main())
