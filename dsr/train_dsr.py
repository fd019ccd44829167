"""Train a face super-resolver: `earface dsr train`, or `python -m dsr.train_dsr`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dsr.config import ALIASES, HELP, PRESETS, DSRTrainingConfig, monitored_metrics
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.first_imports import first_imports
from earface.core.needed import Needed
from earface.core.stopping import pausable

if TYPE_CHECKING:
    from earface.nn.frozen import FrozenRecognizer
    from earface.nn.perceptual import PerceptualLoss


@entry_point
@pausable
def main(argv: Sequence[str] | None = None) -> int:
    return train(parsed(argv))


def parsed(argv: Sequence[str] | None) -> DSRTrainingConfig:
    """The options of a command line. Raises InputError."""
    return parse_options(
        DSRTrainingConfig,
        argv,
        prog="earface dsr train",
        aliases=ALIASES,
        preset_field="variant",
        presets=PRESETS,
        layout=HELP,
    )


def train(config: DSRTrainingConfig) -> int:
    """Start, continue, or report as finished the run of this configuration. Returns the exit code."""
    config.check_paths()
    # after parsing: help, a mistyped flag and a missing file answer without Lightning
    with first_imports():
        from dsr.datamodule import DSRDataModule
        from dsr.losses import load_perceptual
        from dsr.module import DSRLightning
        from earface.training.resume import Run
        from earface.training.run import run_training
        from facial_rec.recognizer import load_frozen_recognizers

    recognizers: tuple[FrozenRecognizer | None, FrozenRecognizer | None] = None, None
    perceptual: PerceptualLoss | None = None

    def build(config: DSRTrainingConfig, data: DSRDataModule, run: Run) -> DSRLightning:
        return DSRLightning(config, *recognizers, perceptual)

    def load(config: DSRTrainingConfig) -> DSRDataModule:
        nonlocal recognizers, perceptual
        without = "none --lambda-identity 0 --lambda-feature-match 0"
        with Needed() as needed:
            recognizers = load_frozen_recognizers(config, needed, without)
            perceptual = needed(lambda: load_perceptual(config))
        return DSRDataModule(config)

    code, _ = run_training(
        config,
        "dsr",
        data=load,
        module=build,
        best=lambda config, _: monitored_metrics(config),
        next_command="dsr evaluate",
        dataset_root=config.dataset_root,
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
