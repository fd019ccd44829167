"""What the tools for a trained ear VAE start from: the model, the options of its run, and ears in its input format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ear_teacher.model import EarVAE
from earface.core.errors import InputError
from earface.core.files import is_exported
from earface.data.ear_contract import STRETCH
from earface.data.image_cache import open_image_cache
from earface.data.npy import read_teacher_npy
from earface.nn.checkpoint import find_checkpoint, read_checkpoint
from earface.nn.inference import weights_digest


@dataclass(frozen=True)
class Ears:
    """N >= 2 ears in the model's input format: the rows whose picture could be read."""

    source: str
    images: NDArray[np.uint8]  # (N, S, S, C)
    names: list[str]  # paths, or rows of an image array
    subjects: list[str] | None
    skipped: int
    sides: list[str] | None = None  # l, r or empty for unknown
    mirrored: bool = False  # all to one side, whichever side they are of


def run_options(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The options of the run that wrote a checkpoint. Raises InputError for anything but an ear VAE's."""
    stored: dict[str, Any] = checkpoint.get("hyper_parameters", {}).get("options", {})
    if not {"train_npy", "val_npy", "data_root", "cache_dir", "crop_to_bbox", "latent_dim"} <= stored.keys():
        raise InputError(f"{path}: this checkpoint holds no ear VAE; give one written by earface ears train")
    return stored


def open_ears(
    npy: str, flag: str, model: EarVAE, run: dict[str, Any], data_root: str | None, cache_dir: str | None
) -> Ears:
    """The ears of an NPY or NPZ, cropped and resized as in training; data_root, cache_dir: None means as in training.

    flag: the option that names the file. Raises InputError, also for fewer than two ears.
    """
    if not Path(npy).is_file():
        raise InputError(f"{npy}: no such file; give the ears by {flag}")
    root = data_root or run["data_root"]
    data = read_teacher_npy(npy, root)
    check_contract(npy, data.contract, model.config.contract)
    cache = open_image_cache(
        data,
        image_size=model.config.image_size,
        channels=model.config.in_channels,
        crop_to_bbox=run["crop_to_bbox"],
        cache_dir=cache_dir or run["cache_dir"] or Path(npy).parent / ".cache",
    )
    if len(cache) < 2:
        raise InputError(f"{npy}: {len(cache)} usable pictures; two or more are needed to compare")
    names: Sequence[object] = data.image_paths or [f"{npy} row {row}" for row in range(len(data))]
    return Ears(
        source=npy,
        images=cache.images,
        names=[str(names[row]) for row in cache.kept],
        subjects=None if data.subjects is None else [data.subjects[row] for row in cache.kept],
        skipped=len(cache.skipped),
        sides=None if data.sides is None else [data.sides[row] for row in cache.kept],
        mirrored=model.config.contract.startswith("canonical:"),
    )


def check_contract(source: str, found: str, wanted: str) -> None:
    """Raise InputError where ears of `source` are in another form than those that a model was trained on."""
    if (found or STRETCH) != wanted:
        raise InputError(
            f"{source}: its ears are in the form {found or STRETCH}, the model was trained on {wanted}: prepare them "
            f"with earface ears prepare --fit {wanted.partition(':')[0]} and the same landmarker, or give the pictures"
        )


@dataclass(frozen=True)
class TrainedEarVAE:
    """A model in evaluation mode and where it comes from."""

    model: EarVAE
    source: Path  # the checkpoint, or the folder
    weights: str  # averaged or raw; of a folder: exported
    run: dict[str, Any] | None  # the options it was trained with; None for a folder
    data: Mapping[str, Any] | None = None  # DataDigest.stored of its training, if the checkpoint has one

    @cached_property
    def digest(self) -> str:
        return weights_digest(self.model, str(self.model.config.image_size))


def load_trained(path: str, device: str, weights: str) -> TrainedEarVAE:
    """path: a checkpoint, a pattern (the newest match), a run's folder (its best), or one that `save_pretrained` wrote.

    Raises InputError for anything else.
    """
    if is_exported(path):
        model = EarVAE.from_pretrained(path, map_location=device)
        return TrainedEarVAE(model, Path(path), "exported", None)
    checkpoint = find_checkpoint(path)
    if Path(path).is_dir():
        print(f"{path}: its best checkpoint by val/loss, {checkpoint.name}")
    content = read_checkpoint(checkpoint)
    run = run_options(content, checkpoint)
    model = EarVAE.from_checkpoint(content, checkpoint, device, weights)
    return TrainedEarVAE(model, checkpoint, weights, run, content.get("data"))


def load_run(path: str, device: str, weights: str) -> tuple[TrainedEarVAE, dict[str, Any]]:
    """A checkpoint, and the options of its run. Raises InputError, also for a folder."""
    trained = load_trained(path, device, weights)
    if trained.run is None:
        raise InputError(f"{path}: an exported folder does not name its training data; give the run's .ckpt file")
    return trained, trained.run
