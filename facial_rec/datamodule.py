"""Faces of a prepared set as a recogniser is shown them, augmented by (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.data import DataLoader, Dataset

from earface.core.errors import InputError, as_flags
from earface.data.augmentation import FaceAugmentation
from earface.data.face_dataset import FaceDataset, refuse_training_identities, training_faces, usable_faces, with_vlr
from earface.data.face_rows import FaceRow
from earface.data.face_sizes import HR, NONE
from earface.data.identity_split import identity_digests
from earface.data.images import Pixels, read_image
from earface.data.pixels import to_model_range
from earface.data.splits import in_seeded_order
from earface.nn.upsampler import Upsampler
from earface.training.datamodule import TrainingDataModule, print_once
from facial_rec.config import EdgeFaceTrainingConfig
from facial_rec.input_cache import VLRFaces, open_inputs

HELD_OUT = 0.1  # of an identity's pictures, if it has three or more
MAKING_BATCH = 32
UNSEEN = -1  # the label of who is not trained on


@dataclass(frozen=True)
class FaceTable:
    """N faces: their files, the class of each (UNSEEN for none), and their pictures by each upsampler but HR."""

    rows: Sequence[FaceRow]
    labels: NDArray[np.int64]  # (N,)
    inputs: Mapping[str, NDArray[np.uint8]]  # (N, 128, 128, 3) each

    def picture(self, upsampler: str, place: int) -> Pixels:
        return read_image(self.rows[place].path) if upsampler == HR else np.array(self.inputs[upsampler][place])


class TrainingInputs(Dataset[dict[str, Any]]):
    """Items by (epoch, index): `image`, what the recogniser is shown, and `hr`, where wanted, (128, 128, 3) uint8 and
    augmented alike; `label`, and `index`, the face's place in the table.

    places: of the faces to train on. balanced: an index stands for an identity, whose picture is drawn.
    """

    def __init__(self, faces: FaceTable, places: NDArray[np.int64], config: EdgeFaceTrainingConfig) -> None:
        self.faces, self.places, self.seed = faces, places, config.seed
        self.upsamplers, self.shares = list(config.mixture), np.array(list(config.mixture.values()))
        self.augmentation = FaceAugmentation("recognition") if config.augment != "none" else None
        self.with_hr = bool(config.lambda_align or config.keep_weight)
        labels = faces.labels[places]
        self.by_class = [places[labels == label] for label in np.unique(labels)] if config.balanced else []

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        generator = np.random.default_rng((self.seed, epoch, index))
        own = self.by_class[index % len(self.by_class)] if self.by_class else self.places[index : index + 1]
        place = int(generator.choice(own))
        upsampler = self.upsamplers[generator.choice(len(self.upsamplers), p=self.shares)]
        own = HR if upsampler == NONE else upsampler
        pictures = [self.faces.picture(each, place) for each in ([own, HR] if self.with_hr else [own])]
        if self.augmentation is not None:
            pictures = self.augmentation(pictures, (self.seed, epoch, index, 1))
        named = zip(("image", HR), map(torch.from_numpy, pictures), strict=False)
        return {**dict(named), "label": int(self.faces.labels[place]), "index": place}


class MeasuredInputs(Dataset[dict[str, Any]]):
    """Items by number: a face by every upsampler, (128, 128, 3) uint8, HR among them; `label`; `index`, the number.

    places: of the faces to measure on, held-out pictures of training identities and unseen people.
    """

    def __init__(self, faces: FaceTable, places: NDArray[np.int64]) -> None:
        self.faces, self.places = faces, places
        self.labels = faces.labels[places]
        self.identities = [faces.rows[place].identity for place in places]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        place = int(self.places[index])
        pictures = {upsampler: self.faces.picture(upsampler, place) for upsampler in (HR, *self.faces.inputs)}
        tensors = {upsampler: torch.from_numpy(pixels) for upsampler, pixels in pictures.items()}
        return {**tensors, "label": int(self.labels[index]), "index": index}


class EdgeFaceDataModule(TrainingDataModule):
    """Training and validation faces of a EdgeFaceTrainingConfig. upsamplers: those of its mixture but HR."""

    def __init__(self, config: EdgeFaceTrainingConfig, upsamplers: Sequence[Upsampler]) -> None:
        super().__init__(config)
        self.upsamplers = list(upsamplers)
        self.files = config.degradation == "files" and bool(upsamplers)
        train, self.unseen_rows = training_faces(config.dataset_root, need_vlr=self.files)
        dsr = {Path(config.dsr_checkpoint): upsampler.trained_on for upsampler in upsamplers if upsampler.name == "dsr"}
        refuse_training_identities(self.unseen_rows, "val", dsr)
        self.train_rows = with_enough_pictures(train, config.min_images, config.dataset_root)
        self.classes = sorted({row.identity for row in self.train_rows})

    def prepare_data(self) -> None:
        """On one process: make what is not in the cache."""
        self._open(self._usable())

    def setup(self, stage: str | None = None) -> None:
        rows = self._usable()
        number = {identity: place for place, identity in enumerate(self.classes)}
        labels = np.array([number.get(row.identity, UNSEEN) for row in rows])
        faces = FaceTable(rows, labels, self._open(rows))
        fitted = to_fit(rows, labels, self.config.seed)
        if fitted.sum() == (labels != UNSEEN).sum():
            raise InputError(
                f"`dataset_root` {self.config.dataset_root}: no training identity has three or more pictures, one of "
                "which could be held out to measure classification on"
            )
        self.train_set = TrainingInputs(faces, np.flatnonzero(fitted), self.config)
        self.val_set = MeasuredInputs(faces, np.flatnonzero(~fitted))

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Pictures become (B, 3, 128, 128), float32 in [-1, 1], on the device."""
        return {name: to_model_range(value) if value.ndim == 4 else value for name, value in batch.items()}

    @property
    def trained_on(self) -> list[str]:
        """Digests of the identities that are trained on, for whoever evaluates the model."""
        return identity_digests(self.classes)

    def train_name(self, index: int) -> str:
        return str(self.train_set.faces.rows[index].path)

    def _usable(self) -> list[FaceRow]:
        size = self.config.vlr if self.files else None
        return [
            *usable_faces(self.train_rows, size, print_once),
            *usable_faces(self.unseen_rows, size, print_once),
        ]

    def _open(self, rows: Sequence[FaceRow]) -> dict[str, NDArray[np.uint8]]:
        config = self.config
        faces = VLRFaces(rows, lambda: self._batches(rows), (config.vlr_size, config.degradation, config.seed))
        return {upsampler.name: open_inputs(config.cache_dir, upsampler, faces) for upsampler in self.upsamplers}

    def _batches(self, rows: Sequence[FaceRow]) -> Iterable[dict[str, Any]]:
        config = self.config
        for batch in DataLoader(FaceDataset(rows, seed=config.seed, files=self.files), MAKING_BATCH):
            yield with_vlr(batch, config.degradation, config.vlr)


def with_enough_pictures(rows: Sequence[FaceRow], least: int, source: str) -> list[FaceRow]:
    """The faces of identities with `least` or more. Raises InputError if fewer than two identities remain."""
    count: dict[str, int] = {}
    for row in rows:
        count[row.identity] = count.get(row.identity, 0) + 1
    kept = [row for row in rows if count[row.identity] >= least]
    if len({row.identity for row in kept}) < 2:
        raise InputError(
            f"`dataset_root` {source}: fewer than two of its {len(count)} training identities have {least} or more "
            "pictures (`min_images`)"
        )
    _report_left_out(sum(number < least for number in count.values()), least)
    return kept


def to_fit(rows: Sequence[FaceRow], labels: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """(N,) which faces are trained on: of an identity with three or more pictures all but HELD_OUT, one at least."""
    fitted = labels >= 0
    for label in np.unique(labels[fitted]):
        own = {rows[int(place)].name: int(place) for place in np.flatnonzero(labels == label)}
        if len(own) > 2:
            held_out = in_seeded_order(own, seed)[: max(1, round(HELD_OUT * len(own)))]
            fitted[[own[name] for name in held_out]] = False
    return fitted


@rank_zero_only
def _report_left_out(identities: int, least: int) -> None:
    if identities:
        print(
            as_flags(
                f"{identities} training identities have fewer than {least} pictures and are left out (`min_images`)"
            )
        )
