"""Small real data and small real runs that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

# Before numpy and torch start their threads: tiny arrays gain nothing from two, and a run in a process of its own
# must add up its numbers in the same order. No GPU: the same numbers on every machine.
os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})

import pytest


@pytest.fixture(scope="session")
def ear_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train_teacher.npy (40 ears of 8 subjects) and val_teacher.npy (10 of 2), 64x64."""
    from data.synthetic.ears import EarSet, draw_dataset

    folder = tmp_path_factory.mktemp("ears")
    draw_dataset(folder, EarSet(10, 5, 64, seed=3), val_fraction=0.2, workers=1, overwrite=True)
    return folder


TINY = (
    *("--encoder", "conv", "--base-channels", "4", "--image-size", "64", "--latent-dim", "8"),
    *("--linear-path-size", "16", "--batch-size", "4", "--precision", "32", "--lr", "1e-3"),
    *("--log-every-n-steps", "2", "--num-workers", "0", "--progress", "none"),
)


@pytest.fixture
def tiny(ear_set: Path, tmp_path: Path) -> list[str]:
    """Arguments of `ear_teacher.train` for a run of a second an epoch, logging under tmp_path."""
    return [
        *("--train-npy", str(ear_set / "train_teacher.npy"), "--val-npy", str(ear_set / "val_teacher.npy")),
        *("--checkpoint-dir", str(tmp_path / "checkpoints"), "--log-dir", str(tmp_path / "logs")),
        *TINY,
    ]
