"""Train an ear recogniser: `earface ears recognize train`, or `python -m ear_teacher.recognition.train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ear_teacher.recognition.config import ALIASES, HELP, EarRecognizerTrainingConfig
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.first_imports import first_imports
from earface.core.needed import Needed
from earface.core.stopping import pausable


@entry_point
@pausable
def main(argv: Sequence[str] | None = None) -> int:
    return train(parsed(argv))


def parsed(argv: Sequence[str] | None) -> EarRecognizerTrainingConfig:
    """The options of a command line. Raises InputError."""
    return parse_options(
        EarRecognizerTrainingConfig, argv, prog="earface ears recognize train", aliases=ALIASES, layout=HELP
    )


def train(config: EarRecognizerTrainingConfig) -> int:
    """Start, continue, or report as finished the run of this configuration. Returns the exit code."""
    config.check_paths()
    # after parsing: help, a mistyped flag and a missing file answer without Lightning
    with first_imports():
        from ear_teacher.recognition.datamodule import EarRecognizerDataModule
        from ear_teacher.recognition.model import EarRecognizer
        from ear_teacher.recognition.module import EarRecognizerLightning
        from earface.training.resume import Run
        from earface.training.run import run_training

    def build(config: EarRecognizerTrainingConfig, data: EarRecognizerDataModule, run: Run) -> EarRecognizerLightning:
        held = run.checkpoint or config.init_from or config.vae_checkpoint
        with Needed() as needed:
            model = needed(
                lambda: EarRecognizer(config.model_config(), "none" if held else config.backbone_weights),
                "--backbone-weights FILE, or none to start from random ones",
            )
        if config.vae_checkpoint and not (run.checkpoint or config.init_from):
            model.load_encoder(config.vae_checkpoint)
        return EarRecognizerLightning(config, model, data.classes)

    code, _ = run_training(
        config,
        "ear_recognizer",
        data=EarRecognizerDataModule,
        module=build,
        best=lambda *_: {},
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
