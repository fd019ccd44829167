"""Train an ear detector: `earface ears detector train`, or `python -m ear_teacher.detector.train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from ear_teacher.detector.config import ALIASES, HELP, EarDetectorTrainingConfig
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.files import require_checkpoint, require_file
from earface.core.first_imports import first_imports
from earface.core.needed import Needed
from earface.core.stopping import EXIT_PAUSED, pausable
from earface.core.tool_options import next_step


@entry_point
@pausable
def main(argv: Sequence[str] | None = None) -> int:
    config = parse_options(
        EarDetectorTrainingConfig, argv, prog="earface ears detector train", aliases=ALIASES, layout=HELP
    )
    return train(config)


def train(config: EarDetectorTrainingConfig) -> int:
    """Start, continue, or report as finished the run of this configuration. Returns the exit code."""
    config.check_checkpoints()
    for path in (*config.train_json, *config.val_json):
        require_file(path, "make it from your annotations with earface ears annotations")
    if config.vae_checkpoint is not None:
        require_checkpoint(config.vae_checkpoint)
    # after parsing: help, a mistyped flag and a missing file answer without Lightning
    with first_imports():
        import pytorch_lightning as pl

        from ear_teacher.detector.datamodule import EarDetectorDataModule
        from ear_teacher.detector.model import EarDetector, vae_options
        from ear_teacher.detector.module import EarDetectorLightning
        from ear_teacher.encoders import require_backbone
        from earface.training.resume import open_run
        from earface.training.trainer import announce, build_trainer, fit, report

    if config.is_new and config.vae_checkpoint is None:
        with Needed() as needed:
            instead = "--vae_checkpoint of an ear VAE, --encoder_weights FILE, or none to start from random ones"
            needed(lambda: require_backbone(config.backbone_config(), config.encoder_weights), instead)
    datamodule = EarDetectorDataModule(config)
    stored = vae_options(config.vae_checkpoint) if config.vae_checkpoint is not None else None
    datamodule.config = config = config.resolved(datamodule.num_landmarks, stored)
    run, config = open_run(config, "ear_detector")
    if run.finished:
        print(f"finished: {run.checkpoint} holds {run.epoch} of {config.epochs} epochs; more with --epochs")
        return 0
    pl.seed_everything(config.seed, workers=True, verbose=False)
    trainer = build_trainer(config, run, best=datamodule.best())
    weights = "none" if config.vae_checkpoint else config.encoder_weights
    model = EarDetector(config.model_config(*datamodule.landmarks), weights)
    if config.vae_checkpoint:
        model.load_encoder(config.vae_checkpoint)
    if config.init_from:
        print(model.initialise_from(config.init_from))
    module = EarDetectorLightning(config, model)
    announce(config, run, module)
    if not config.train_boxes and not (config.init_from or run.checkpoint):
        print("note: --train_boxes false keeps a box detector that nothing has taught; give one with --init_from")
    complete = fit(trainer, module, datamodule, run)
    last = Path(config.checkpoint_dir) / "last.ckpt"
    report(trainer, run, complete, next_step("ears detector evaluate", checkpoint=last))
    return 0 if complete else EXIT_PAUSED


if __name__ == "__main__":
    sys.exit(main())
