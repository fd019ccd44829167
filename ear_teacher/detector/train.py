"""Train an ear detector: `earface ears detector train`, or `python -m ear_teacher.detector.train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ear_teacher.detector.config import ALIASES, HELP, EarDetectorTrainingConfig
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.first_imports import first_imports
from earface.core.needed import Needed
from earface.core.stopping import pausable


@entry_point
@pausable
def main(argv: Sequence[str] | None = None) -> int:
    return train(parsed(argv))


def parsed(argv: Sequence[str] | None) -> EarDetectorTrainingConfig:
    """The options of a command line. Raises InputError."""
    return parse_options(
        EarDetectorTrainingConfig, argv, prog="earface ears detector train", aliases=ALIASES, layout=HELP
    )


def train(config: EarDetectorTrainingConfig) -> int:
    """Start, continue, or report as finished the run of this configuration. Returns the exit code."""
    config.check_paths()
    # after parsing: help, a mistyped flag and a missing file answer without Lightning
    with first_imports():
        from ear_teacher.detector.annotated_photographs import AnnotatedPhotographs
        from ear_teacher.detector.datamodule import EarDetectorDataModule
        from ear_teacher.detector.model import EarDetector, holds_encoders, vae_options
        from ear_teacher.detector.module import EarDetectorLightning
        from ear_teacher.encoders import require_backbone
        from earface.training.resume import Run
        from earface.training.run import run_training

    if config.is_new and config.resume in ("auto", "never") and not (config.vae_checkpoint or config.init_from):
        with Needed() as needed:
            instead = "--vae-checkpoint of an ear VAE, --encoder-weights FILE, or none to start from random ones"
            needed(lambda: require_backbone(config.backbone_config(), config.encoder_weights), instead)
    annotated = AnnotatedPhotographs.read(config)
    stored = vae_options(config.vae_checkpoint) if config.vae_checkpoint is not None else None
    config = config.resolved(annotated.num_landmarks, stored)

    def build(config: EarDetectorTrainingConfig, _: EarDetectorDataModule, run: Run) -> EarDetectorLightning:
        shape = config.model_config(*annotated.landmarks)
        start = config.init_from
        held = config.vae_checkpoint or run.checkpoint or (start and holds_encoders(start, shape))
        model = EarDetector(shape, "none" if held else config.encoder_weights)
        if config.vae_checkpoint:
            model.load_encoder(config.vae_checkpoint)
        return EarDetectorLightning(config, model)

    def note_untrained_boxes(_: EarDetectorLightning, fresh: bool) -> None:
        if not config.train_boxes and fresh:
            print("note: --train-boxes false keeps an untrained box detector; give a trained one by --init-from")

    code, _ = run_training(
        config,
        "ear_detector",
        data=lambda config: EarDetectorDataModule(config, annotated),
        module=build,
        best=lambda _, data: data.best(),
        starting=note_untrained_boxes,
        next_command="ears detector evaluate",
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
