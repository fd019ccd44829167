"""Fine-tune EdgeFace in two stages: `earface faces finetune`, or `python -m facial_rec.finetune_edgeface`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.first_imports import first_imports
from earface.core.needed import Needed
from earface.core.stopping import is_first_process, pausable
from earface.core.tool_options import next_step
from earface.data.face_sizes import VLRRange
from facial_rec.config import ALIASES, HELP, EdgeFaceStageConfig, EdgeFaceTrainingConfig


@entry_point
@pausable
def main(argv: Sequence[str] | None = None) -> int:
    return train(parsed(argv))


def parsed(argv: Sequence[str] | None) -> EdgeFaceTrainingConfig:
    """The options of a command line. Raises InputError."""
    return parse_options(EdgeFaceTrainingConfig, argv, prog="earface faces finetune", aliases=ALIASES, layout=HELP)


def train(config: EdgeFaceTrainingConfig) -> int:
    """Start, continue, or report as finished. Returns the exit code.

    Stage 2 starts from the last epoch of stage 1; its best checkpoint becomes the folder `tuned`.
    """
    config.check_paths()
    # after parsing: help, a mistyped flag and a missing file answer without Lightning
    with first_imports():
        from dsr.upsampler import build_upsamplers
        from earface.nn.checkpoint import best_of_run, read_checkpoint
        from earface.training.resume import Run
        from earface.training.run import run_training
        from facial_rec.datamodule import EdgeFaceDataModule
        from facial_rec.model import EdgeFace
        from facial_rec.module import EdgeFaceLightning
        from facial_rec.recognizer import load_edgeface

    with Needed() as needed:
        upsamplers = needed(lambda: build_upsamplers(config.mixture, config.dsr_checkpoint, config.vlr_size))
        if config.of_stage(1 if config.stage1_epochs else 2).is_new:
            needed(lambda: load_edgeface(config.recognizer), f"--recognizer FILE (the authors' {config.recognizer}.pt)")
    datamodule = EdgeFaceDataModule(config, upsamplers)
    folder = Path(config.checkpoint_dir)

    def with_options(config: EdgeFaceStageConfig) -> EdgeFaceDataModule:
        datamodule.begin_stage(config)
        return datamodule

    def build(config: EdgeFaceStageConfig, data: EdgeFaceDataModule, run: Run) -> EdgeFaceLightning:
        module = EdgeFaceLightning(config, load_edgeface(config.recognizer), data.classes)
        if config.stage == 2 and config.stage1_epochs and run.checkpoint is None and not config.fast_dev_run:
            module.start_from_stage1(folder / "stage1" / "last.ckpt")
        return module

    resume = {1: config.resume, 2: config.resume}
    if config.resume not in ("auto", "never"):  # a path is of one stage; the other goes on by itself
        name = read_checkpoint(config.resume).get("run", {}).get("name")
        resume |= {stage: "auto" for stage in (1, 2) if name == f"edgeface_stage{3 - stage}"}
    for stage in (1, 2) if config.stage1_epochs else (2,):
        options = dataclasses.replace(config.of_stage(stage), resume=resume[stage])
        code, options = run_training(options, f"edgeface_stage{stage}", data=with_options, module=build)
        if code:
            return code
        config = dataclasses.replace(config, num_threads=options.num_threads)  # also after a pause between the stages
    if not config.fast_dev_run and is_first_process():
        best = best_of_run(folder / "stage2" / "last.ckpt")
        EdgeFace.load(best).save_pretrained(folder / "tuned")
        print(f"fine-tuned recogniser, from {best.name}: {folder / 'tuned'}")
        size = config.vlr.examples[0] if isinstance(config.vlr, VLRRange) else config.vlr
        print(next_step("faces evaluate", recognizer=folder / "tuned", dataset_root=config.dataset_root, vlr_size=size))
    return 0


if __name__ == "__main__":
    sys.exit(main())
