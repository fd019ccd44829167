"""EDSR-baseline (Lim et al. 2017: 64 channels, 16 blocks, L1) as what DSR is compared with, on the same faces.

    python -m benchmarks.edsr train [flags of dsr.train_dsr] [--edsr_blocks 16]
    python -m benchmarks.edsr evaluate --checkpoint CKPT [flags of dsr.evaluate]

The network is the published one: blocks of two convolutions, a convolution and pixel shuffle by 2 for each doubling,
no bicubic skip. It runs in DSR's own module, loader and schedule, so that nothing but network and loss differs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.edsr_model import EDSR
from dsr.config import ALIASES, DSRConfig, DSRTrainingConfig, monitored_metrics
from dsr.evaluation import DSREvaluationOptions, EvaluationFaces, evaluate, report
from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.needed import Needed
from earface.core.options import option
from earface.data.face_dataset import evaluation_faces
from earface.nn.checkpoint import find_checkpoint, model_state, read_checkpoint
from earface.training.resume import open_run
from earface.training.trainer import announce, build_trainer, fit
from earface.training.trainer import report as report_run
from facial_rec.recognizer import load_frozen_recognizers


@dataclass(frozen=True)
class EDSROptions(DSRTrainingConfig):
    """Train EDSR-baseline. Flags of the DSR network have no effect; the loss is L1 unless a weight is given."""

    edsr_blocks: int = option(16, "residual blocks", low=1)
    lambda_perceptual: float = option(0.0, "as of dsr.train_dsr", low=0)
    lambda_identity: float = option(0.0, "as of dsr.train_dsr", low=0)
    lambda_feature_match: float = option(0.0, "as of dsr.train_dsr", low=0)
    lambda_tv: float = option(0.0, "as of dsr.train_dsr", low=0)


def train(argv: Sequence[str]) -> None:
    import pytorch_lightning as pl

    from dsr.datamodule import DSRDataModule
    from dsr.module import DSRLightning

    config = parse_options(EDSROptions, argv, prog="python -m benchmarks.edsr train", aliases=ALIASES)
    run, config = open_run(config, "edsr")
    datamodule = DSRDataModule(config)
    with Needed() as needed:
        recognizer, second = load_frozen_recognizers(config, needed)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    trainer = build_trainer(config, run, best=monitored_metrics(config))
    module = DSRLightning(config, recognizer, second, model=EDSR(config, config.edsr_blocks))
    announce(config, run, module)
    report_run(trainer, run, fit(trainer, module, datamodule, run))


def load(path: Path) -> tuple[EDSR, str, frozenset[str]]:
    """The network, how its faces were degraded, and whom it was trained on."""
    checkpoint = read_checkpoint(path)
    stored = checkpoint["hyper_parameters"]
    if "edsr_blocks" not in stored["options"]:
        raise InputError(f"{path}: holds no EDSR; python -m benchmarks.edsr train writes one")
    model = EDSR(DSRConfig(**stored["dsr"]), stored["options"]["edsr_blocks"])
    model.load_state_dict({name.removeprefix("model."): value for name, value in model_state(checkpoint).items()})
    return model.eval(), stored["options"]["degradation"], frozenset(checkpoint["trained_on"])


def score(argv: Sequence[str]) -> None:
    options = parse_options(DSREvaluationOptions, argv, prog="python -m benchmarks.edsr evaluate")
    path = find_checkpoint(options.checkpoint[0])
    model, degradation, trained_on = load(path)
    rows = evaluation_faces(options.dataset_root, options.split, {path: trained_on})
    Path(options.out).mkdir(parents=True, exist_ok=True)
    faces = EvaluationFaces(rows, model.config, options.degradation or degradation, options)
    with torch.no_grad():
        with Needed() as needed:
            pair = load_frozen_recognizers(options, needed)
        recognizers = [each for each in pair if each is not None]
        found = evaluate({"EDSR-baseline": model.to(faces.device)}, faces, recognizers, Path(options.out))
    report(found, faces, {"EDSR-baseline": str(path)}, options.out)


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    command, *rest = sys.argv[1:] if argv is None else argv or [""]
    if command not in ("train", "evaluate"):
        raise InputError("say train or evaluate first (see the top of benchmarks/edsr.py)")
    (train if command == "train" else score)(rest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
