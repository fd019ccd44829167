"""Fine-tune EdgeFace in two stages: `earface faces finetune`, or `python -m facial_rec.finetune_edgeface`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.first_imports import first_imports
from earface.core.needed import Needed
from earface.core.stopping import EXIT_PAUSED, pausable
from earface.core.tool_options import next_step
from earface.data.face_folders import training_root
from facial_rec.config import ALIASES, HELP, EdgeFaceStageConfig, EdgeFaceTrainingConfig

if TYPE_CHECKING:
    from facial_rec.datamodule import EdgeFaceDataModule


@entry_point
@pausable
def main(argv: Sequence[str] | None = None) -> int:
    config = parse_options(EdgeFaceTrainingConfig, argv, prog="earface faces finetune", aliases=ALIASES, layout=HELP)
    return finetune(config)


def finetune(config: EdgeFaceTrainingConfig) -> int:
    """Start, continue, or report as finished. Stage 2 starts from the last epoch of stage 1, and its best becomes
    `tuned` in the checkpoint folder. Returns the exit code."""
    config.check_checkpoints()
    training_root(config.dataset_root)
    # after parsing: help, a mistyped flag and a missing file answer without Lightning
    with first_imports():
        from dsr.upsampler import enlarging
        from earface.nn.checkpoint import best_of_run
        from facial_rec.datamodule import EdgeFaceDataModule
        from facial_rec.model import load_finetuned, save_finetuned
        from facial_rec.recognizer import load_edgeface

    with Needed() as needed:
        routes = needed(lambda: enlarging(config.mixture, config.dsr_checkpoint, config.vlr_size))
        if config.of_stage(1 if config.stage1_epochs else 2).is_new:
            needed(lambda: load_edgeface(config.weights), f"--weights FILE (the authors' {config.weights}.pt)")
    datamodule = EdgeFaceDataModule(config, routes)
    for stage in (1, 2) if config.stage1_epochs else (2,):
        complete, threads = train_stage(config.of_stage(stage), datamodule)
        if not complete:
            return EXIT_PAUSED
        config = dataclasses.replace(config, num_threads=threads)  # both stages with one number, also after a pause
    folder = Path(config.checkpoint_dir)
    if not config.fast_dev_run:
        best = best_of_run(folder / "stage2" / "last.ckpt")
        save_finetuned(folder / "tuned", *load_finetuned(best))
        print(f"tuned recogniser, from {best.name}: {folder / 'tuned'}")
        print(
            next_step("faces evaluate", weights=folder / "tuned", dataset_root=config.dataset_root, vlr_size=config.vlr)
        )
    return 0


def train_stage(config: EdgeFaceStageConfig, datamodule: EdgeFaceDataModule) -> tuple[bool, int]:
    """Whether the stage is complete, not paused, and the number of threads that it took; 0: PyTorch's own."""
    import pytorch_lightning as pl

    from earface.training.resume import open_run
    from earface.training.trainer import announce, build_trainer, fit, report
    from facial_rec.module import EdgeFaceLightning
    from facial_rec.recognizer import load_edgeface

    run, config = open_run(config, f"edgeface_stage{config.stage}")
    if run.finished:
        print(f"stage {config.stage} finished: {run.checkpoint} holds {run.epoch} of {config.epochs} epochs")
        return True, config.num_threads
    pl.seed_everything(config.seed, workers=True, verbose=False)
    datamodule.config = config
    module = EdgeFaceLightning(config, load_edgeface(config.weights), datamodule.classes)
    if config.stage == 2 and config.stage1_epochs and run.checkpoint is None and not config.fast_dev_run:
        module.take_head(Path(config.checkpoint_dir).with_name("stage1") / "last.ckpt")
    trainer = build_trainer(config, run, best={})
    announce(config, run, module)
    complete = fit(trainer, module, datamodule, run)
    report(trainer, run, complete)
    return complete, config.num_threads


if __name__ == "__main__":
    sys.exit(main())
