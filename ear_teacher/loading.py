"""What the tools for a trained ear VAE start from: the model, the options of its run, and ears in its input format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ear_teacher.ear_files import EarFile, open_ear_file
from ear_teacher.model import EarVAE
from earface.core.errors import InputError
from earface.core.files import is_exported
from earface.data.ear_contract import STRETCH
from earface.data.image_rows import Images, in_a_row
from earface.data.npy import read_teacher_npy
from earface.nn.checkpoint import find_checkpoint, read_checkpoint
from earface.nn.inference import weights_digest


@dataclass(frozen=True)
class Ears:
    """N >= 2 ears in the model's input format: the rows of one or several files whose picture could be read."""

    source: str  # the files, by commas
    images: Images  # (N, S, S, C)
    names: list[str]  # paths, or rows of an image array
    subjects: list[str] | None  # of several files, with whose subjects they are
    skipped: int
    sides: list[str] | None = None  # l, r or empty for unknown
    mirrored: bool = False  # all to one side, whichever side they are of
    files: tuple[EarFile, ...] = ()

    @property
    def people(self) -> set[tuple[str, str]]:
        return {(file.place, subject) for file in self.files for subject in file.subjects}


def run_options(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The options of the run that wrote a checkpoint. Raises InputError for anything but an ear VAE's."""
    stored: dict[str, Any] = checkpoint.get("hyper_parameters", {}).get("options", {})
    if not {"train_npy", "val_npy", "data_root", "cache_dir", "crop_to_bbox", "latent_dim"} <= stored.keys():
        raise InputError(f"{path}: this checkpoint holds no ear VAE; give one written by earface ears train")
    return stored


def open_ears(
    paths: Sequence[str], flag: str, model: EarVAE, run: dict[str, Any], data_root: str | None, cache_dir: str | None
) -> Ears:
    """The ears of NPY or NPZ files, cropped and resized as in training.

    flag: the option that names the files. data_root, cache_dir: None means as in training. Raises InputError, also for
    fewer than two ears.
    """
    for path in paths:
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file; give the ears by {flag}")
    files, sides_known = [], False
    for path in paths:
        data = read_teacher_npy(path, data_root or run["data_root"])
        check_contract(path, data.contract, model.config.contract)
        sides_known |= data.sides is not None
        file = open_ear_file(
            data,
            image_size=model.config.image_size,
            channels=model.config.in_channels,
            crop_to_bbox=run["crop_to_bbox"],
            cache_dir=cache_dir or run["cache_dir"],
        )
        if len(file) < 2:
            raise InputError(f"{path}: {len(file)} usable pictures; two or more are needed to compare")
        files.append(file)
    known = all(file.subjects for file in files)
    several = len(files) > 1
    return Ears(
        source=", ".join(paths),
        images=in_a_row([file.images for file in files]),
        names=[name for file in files for name in file.names],
        subjects=[f"{file.place}/{subject}" if several else subject for file in files for subject in file.subjects]
        if known
        else None,
        skipped=sum(file.skipped for file in files),
        sides=[side for file in files for side in file.sides] if sides_known else None,
        mirrored=model.config.contract.startswith("canonical:"),
        files=tuple(files),
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
