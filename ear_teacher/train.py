"""Train an ear VAE: `earface ears train`, or `python -m ear_teacher.train`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

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
from earface.core.needed import Needed
from earface.core.stopping import pausable


@entry_point
@pausable
def main(argv: Sequence[str] | None = None) -> int:
    return train(parsed(argv))


def parsed(argv: Sequence[str] | None) -> EarVAETrainingConfig:
    """The options of a command line. Raises InputError."""
    return parse_options(
        EarVAETrainingConfig,
        argv,
        prog="earface ears train",
        aliases=ALIASES,
        preset_field="encoder",
        presets=PRESETS,
        layout=HELP,
    )


def train(config: EarVAETrainingConfig) -> int:
    """Start, continue, or report as finished the run of this configuration. Returns the exit code."""
    config.check_paths()
    # after parsing: help, a mistyped flag and a missing file answer without Lightning
    with first_imports():
        from ear_teacher.datamodule import EarVAEDataModule
        from ear_teacher.losses import build_loss
        from ear_teacher.model import EarVAE
        from ear_teacher.module import EarVAELightning
        from earface.training.resume import Run
        from earface.training.run import run_training

    def build(config: EarVAETrainingConfig, data: EarVAEDataModule, run: Run) -> EarVAELightning:
        weights = "none" if run.checkpoint or config.init_from else config.encoder_weights
        with Needed() as needed:
            model = needed(lambda: EarVAE(config.model_config(), encoder_weights=weights))
            loss = needed(lambda: build_loss(config))
        return EarVAELightning(config, model, loss, data.classes if config.identity_weight > 0 else ())

    def best(config: EarVAETrainingConfig, _: EarVAEDataModule) -> dict[str, Literal["min", "max"]]:
        return {"ssim": "max", "identity_eer": "min"} if config.identity_weight > 0 else {"ssim": "max"}

    def note_random_layers(module: EarVAELightning, fresh: bool) -> None:
        if config.freeze_layers and config.encoder_weights == "none" and fresh:
            print(f"note: --freeze-layers {config.freeze_layers} keeps random weights as they are; 0 trains them")

    code, _ = run_training(
        config,
        "ear_vae",
        data=EarVAEDataModule,
        module=build,
        best=best,
        starting=note_random_layers,
        next_command="ears evaluate",
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
