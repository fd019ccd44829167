"""Train a face super-resolver: `python -m dsr.train_dsr`, or `python dsr/train_dsr.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from dsr.config import ALIASES, PRESETS, DSRTrainingConfig
from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point

if TYPE_CHECKING:
    from dsr.losses import Recognizer
    from earface.nn.perceptual import PerceptualLoss


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    config = parse_options(
        DSRTrainingConfig,
        argv,
        prog="python -m dsr.train_dsr",
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
    from dsr.module import DSRLightning
    from earface.training.resume import open_run
    from earface.training.trainer import announce, build_trainer, fit, report

    run = open_run(config, "dsr")
    if run.finished:
        print(f"finished: {run.checkpoint} holds {run.epoch} of {config.epochs} epochs; more with --epochs")
        return
    datamodule = FaceDataModule(config)
    recognizer = load_recognizer("--recognizer", config.recognizer, config.face_crop)
    second = load_recognizer("--second_recognizer", config.second_recognizer, config.face_crop)
    perceptual = load_perceptual(config)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    trainer = build_trainer(config, run, best=best_figures(config))
    module = DSRLightning(config, recognizer, second, perceptual)
    if config.init_from:
        module.initialise_from(config.init_from)
    announce(config, run, module)
    complete = fit(trainer, module, datamodule, run)
    report(trainer, run, complete)


def best_figures(config: DSRTrainingConfig) -> dict[str, Literal["min", "max"]]:
    """The figures beside val/loss whose best checkpoints are kept: PSNR and likeness, by the second if there is one."""
    best: dict[str, Literal["min", "max"]] = {"psnr": "max"}
    if config.second_recognizer != "none":
        best["cosine_second"] = "max"
    elif config.recognizer != "none":
        best["cosine"] = "max"
    return best


def load_recognizer(flag: str, name: str, crop: Literal["arcface", "center"]) -> Recognizer | None:
    """name: a published EdgeFace variant, a file of its weights, or `none`. Raises InputError."""
    if name == "none":
        return None
    from dsr.losses import Recognizer
    from facial_rec.contract import FaceContract
    from facial_rec.model import load_edgeface

    try:
        network = load_edgeface(name)
    except InputError as error:
        raise InputError(f"{flag}: {error}") from None
    return Recognizer(network, FaceContract(crop), network.variant)


def load_perceptual(config: DSRTrainingConfig) -> PerceptualLoss | None:
    """None where its weight is 0. Raises InputError where its network cannot be had."""
    if config.lambda_perceptual == 0:
        return None
    from earface.nn.perceptual import PerceptualLoss

    try:
        return PerceptualLoss(config.perceptual_backbone, config.perceptual_weights)
    except InputError as error:
        advice = str(error).replace("--perceptual-weight 0", "--lambda-perceptual 0")
        raise InputError(advice if advice.startswith("--") else f"--perceptual_weights: {advice}") from None


if __name__ == "__main__":
    sys.exit(main())
