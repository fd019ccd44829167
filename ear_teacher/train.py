"""Train an ear VAE: `earface ears train`, or `python -m ear_teacher.train`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    PATHS = "--(config|train|val|data|cache|checkpoint|log.dir|resume|init|.*weights)"
    if Path.cwd() == Path(__file__).resolve().parent and not any(re.match(PATHS, each) for each in sys.argv):
        sys.argv[0] = __file__  # absolute, since each further GPU's process starts it again
        os.chdir(sys.path[0])  # where the default paths start

from ear_teacher.config import ALIASES, HELP, PRESETS, EarVAETrainingConfig
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.first_imports import first_imports
from earface.core.stopping import EXIT_PAUSED, pausable
from earface.core.tool_options import next_step


@entry_point
@pausable
def main(argv: Sequence[str] | None = None) -> int:
    config = parse_options(
        EarVAETrainingConfig,
        argv,
        prog="earface ears train",
        aliases=ALIASES,
        preset_field="encoder",
        presets=PRESETS,
        layout=HELP,
    )
    return train(config)


def train(config: EarVAETrainingConfig) -> int:
    """Start, continue, or report as finished the run of this configuration. Returns the exit code."""
    config.check_checkpoints()
    if config.is_new:
        config.check_files()
    # after parsing: help, a mistyped flag and a missing file answer without Lightning
    with first_imports():
        import pytorch_lightning as pl

        from ear_teacher.datamodule import EarVAEDataModule
        from ear_teacher.module import EarVAELightning
        from earface.training.resume import open_run
        from earface.training.trainer import announce, build_trainer, fit, report

    run, config = open_run(config, "ear_vae")
    if run.finished:
        print(f"finished: {run.checkpoint} holds {run.epoch} of {config.epochs} epochs; more with --epochs")
        return 0
    datamodule = EarVAEDataModule(config)
    datamodule.check_files()
    pl.seed_everything(config.seed, workers=True, verbose=False)
    trainer = build_trainer(config, run, best={"ssim": "max"})
    module = EarVAELightning(config)
    if config.init_from:
        module.initialise_from(config.init_from)
    announce(config, run, module)
    if config.freeze_layers and config.encoder_weights == "none" and not (config.init_from or run.checkpoint):
        print(f"note: --freeze_layers {config.freeze_layers} keeps random weights as they are; 0 trains them")
    complete = fit(trainer, module, datamodule, run)
    last = Path(config.checkpoint_dir) / "last.ckpt"
    report(trainer, run, complete, next_step("ears evaluate", checkpoint=last))
    return 0 if complete else EXIT_PAUSED


if __name__ == "__main__":
    sys.exit(main())
