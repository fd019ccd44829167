"""The faces of a prepared set that a recogniser is trained on, augmented by (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict, final

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from earface.core.errors import InputError
from earface.core.notices import as_flags
from earface.data.augmentation import FaceAugmentation
from earface.data.data_digest import Picture, face_pictures
from earface.data.extra_faces import extra_faces, extra_pictures
from earface.data.face_dataset import (
    FaceBatch,
    FaceDataset,
    refuse_training_identities,
    training_faces,
    usable_faces,
    with_vlr,
)
from earface.data.face_folders import training_root
from earface.data.face_rows import FaceRow
from earface.data.face_sizes import FILES, HR, NONE, VLRRange, parse_vlr_size
from earface.data.identity_split import identity_digests
from earface.data.images import Pixels, read_image
from earface.data.pixels import to_model_range
from earface.data.splits import in_seeded_order
from earface.data.vlr_rule import VLRRule
from earface.nn.upsampler import Upsampler
from earface.training.datamodule import TrainingDataModule
from facial_rec.config import EdgeFaceStageConfig, EdgeFaceTrainingConfig
from facial_rec.input_cache import VLRFaces, open_inputs

HELD_OUT = 0.1  # of an identity's images, if it has three or more
UPSAMPLING_BATCH = 32
UNSEEN = -1  # the label of validation identities, and of faces without identity


@dataclass(frozen=True)
class FaceTable:
    """N faces: their files, the class of each (UNSEEN for none), and their images enlarged by each upsampler.

    Those of training identities come first, then those without identity, then those of validation identities.
    """

    rows: Sequence[FaceRow]
    labels: NDArray[np.int64]  # (N,)
    enlarged: Mapping[str, Sequence[NDArray[np.uint8]]]  # upsampler -> draws of (N, 128, 128, 3); from the second on
    # without the last of the faces, which are validated on

    def image(self, name: str, place: int, draw: int = 0) -> Pixels:
        """(128, 128, 3) of the face at `place`. name: an upsampler, or HR."""
        return read_image(self.rows[place].path) if name == HR else np.array(self.enlarged[name][draw][place])


class TrainingItem(TypedDict):
    """One face to train on. Both images are augmented alike."""

    pixels: Tensor  # (128, 128, 3) uint8, of an upsampler chosen from the mixture
    hr_pixels: NotRequired[Tensor]  # the same of HR, where the loss needs it
    label: int
    index: int  # place in the FaceTable


@final
class TrainingPixels(TypedDict):
    """A batch of TrainingItems, as the loader collates them."""

    pixels: Tensor  # (B, 128, 128, 3) uint8
    hr_pixels: NotRequired[Tensor]
    label: Tensor  # (B,) int64
    index: Tensor  # (B,) int64


class TrainingBatch(TypedDict):
    """The same on its device: float32 in [-1, 1]."""

    image: Tensor  # (B, 3, 128, 128)
    hr: NotRequired[Tensor]  # (B, 3, 128, 128)
    label: Tensor  # (B,)
    index: Tensor  # (B,)


class ValidationItem(TypedDict):
    """One face to validate on."""

    all_pixels: dict[str, Tensor]  # upsampler or HR -> (128, 128, 3) uint8
    label: int
    index: int  # place in the validation set


@final
class ValidationPixels(TypedDict):
    """A batch of ValidationItems, as the loader collates them."""

    all_pixels: dict[str, Tensor]  # (B, 128, 128, 3) uint8 each
    label: Tensor  # (B,) int64
    index: Tensor  # (B,) int64


class ValidationBatch(TypedDict):
    """The same on its device: float32 in [-1, 1]."""

    images: dict[str, Tensor]  # upsampler or HR -> (B, 3, 128, 128)
    label: Tensor  # (B,)
    index: Tensor  # (B,)


class TrainingInputs(Dataset[TrainingItem]):
    """Items by (epoch, index).

    places: of the faces to train on, those with a class first. With `balanced` the index of one of these stands for an
    identity, whose image is chosen at random.
    """

    def __init__(self, faces: FaceTable, places: NDArray[np.int64], config: EdgeFaceTrainingConfig) -> None:
        self.faces, self.places, self.seed, self.draws = faces, places, config.seed, config.draws
        self.upsamplers, self.shares = list(config.mixture), np.array(list(config.mixture.values()))
        self.augmentation = FaceAugmentation("recognition") if config.augment != "none" else None
        self.with_hr = config.needs_hr
        labels = faces.labels[places]
        self.labelled = int((labels != UNSEEN).sum())
        classes = np.unique(labels[: self.labelled])
        self.by_class = [places[labels == label] for label in classes] if config.balanced else []

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, key: tuple[int, int]) -> TrainingItem:
        epoch, index = key
        generator = np.random.default_rng((self.seed, epoch, index))
        of_class = self.by_class and index < self.labelled
        own = self.by_class[index % len(self.by_class)] if of_class else self.places[index : index + 1]
        place = int(generator.choice(own))
        upsampler = self.upsamplers[generator.choice(len(self.upsamplers), p=self.shares)]
        names = [HR if upsampler == NONE else upsampler, *([HR] if self.with_hr else [])]
        images = [self.faces.image(name, place, epoch % self.draws) for name in names]
        if self.augmentation is not None:
            images = self.augmentation(images, (self.seed, epoch, index, 1))
        pixels, *hr_pixels = map(torch.from_numpy, images)
        item: TrainingItem = {"pixels": pixels, "label": int(self.faces.labels[place]), "index": place}
        if hr_pixels:
            (item["hr_pixels"],) = hr_pixels
        return item


class ValidationInputs(Dataset[ValidationItem]):
    """Items by number: a face enlarged by every upsampler, and HR.

    places: of the faces to validate on, held-out images of training identities and those of validation identities.
    """

    def __init__(self, faces: FaceTable, places: NDArray[np.int64]) -> None:
        self.faces, self.places = faces, places
        self.labels = faces.labels[places]
        self.identities = [faces.rows[place].identity for place in places]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> ValidationItem:
        place = int(self.places[index])
        pixels = {name: torch.from_numpy(self.faces.image(name, place)) for name in (HR, *self.faces.enlarged)}
        return {"all_pixels": pixels, "label": int(self.labels[index]), "index": index}


class EdgeFaceDataModule(TrainingDataModule[EdgeFaceTrainingConfig]):
    """Training and validation faces. upsamplers: those of the mixture, without `none`.

    Faces of `extra_hr` are trained on beside those of the training identities, without a class.
    """

    train_set: TrainingInputs
    val_set: ValidationInputs

    def __init__(self, config: EdgeFaceTrainingConfig, upsamplers: Sequence[Upsampler]) -> None:
        super().__init__(config)
        self.upsamplers = list(upsamplers)
        self.files = config.degradation == FILES and bool(upsamplers)
        train, self.unseen_rows = training_faces(config.dataset_root, need_vlr=self.files)
        dsr = {Path(config.dsr_checkpoint): upsampler.trained_on for upsampler in upsamplers if upsampler.name == "dsr"}
        refuse_training_identities(self.unseen_rows, "val", dsr)
        self.train_rows = with_enough_pictures(train, config.min_images, config.dataset_root)
        self.classes = sorted({row.identity for row in self.train_rows})
        self.extra_rows = extra_faces(config.extra_hr, training_root(config.dataset_root))

    def begin_stage(self, config: EdgeFaceStageConfig) -> None:
        """Go on with the options of a stage: only in the second are there extra faces, also in its digest."""
        self.config = config
        self.digest = self.digest.with_extra(self.extra_pictures())

    def prepare_data(self) -> None:
        """On one process: enlarge the faces that are not in the cache."""
        self._open(*self._usable())

    def setup(self, stage: str | None = None) -> None:
        rows, trained = self._usable()
        number = {identity: place for place, identity in enumerate(self.classes)}
        labels = np.array([number.get(row.identity, UNSEEN) for row in rows])
        extra = (labels == UNSEEN) & (np.arange(len(rows)) < trained)
        faces = FaceTable(rows, labels, self._open(rows, trained))
        fitted = to_fit(rows, labels, self.config.seed)
        if fitted.sum() == (labels != UNSEEN).sum():
            raise InputError(
                f"`dataset_root` {self.config.dataset_root}: no training identity has three or more images, one of "
                "which could be held out for validation"
            )
        self.train_set = TrainingInputs(faces, np.flatnonzero(fitted | extra), self.config)
        self.val_set = ValidationInputs(faces, np.flatnonzero(~(fitted | extra)))

    def on_after_batch_transfer(
        self, batch: TrainingPixels | ValidationPixels, dataloader_idx: int
    ) -> TrainingBatch | ValidationBatch:
        """On the device: float32 in [-1, 1]."""
        label, index = batch["label"], batch["index"]
        if "all_pixels" in batch:
            images = {name: to_model_range(pixels) for name, pixels in batch["all_pixels"].items()}
            return {"images": images, "label": label, "index": index}
        shown: TrainingBatch = {"image": to_model_range(batch["pixels"]), "label": label, "index": index}
        if "hr_pixels" in batch:
            shown["hr"] = to_model_range(batch["hr_pixels"])
        return shown

    @property
    def trained_on(self) -> list[str]:
        """Digests of the training identities, so that evaluations can refuse them."""
        return identity_digests(self.classes)

    def pictures(self) -> tuple[list[Picture], list[Picture]]:
        """Validation pictures of training identities, which the seed chooses, are not told apart."""
        return face_pictures(self.train_rows), face_pictures(self.unseen_rows)

    def extra_pictures(self) -> list[Picture]:
        return extra_pictures(self._extra_rows)

    def train_name(self, index: int) -> str:
        return str(self.train_set.faces.rows[index].path)

    @property
    def _extra_rows(self) -> list[FaceRow]:
        return self.extra_rows if self.config.extra_hr else []

    def _usable(self) -> tuple[list[FaceRow], int]:
        """All faces, in the order of a FaceTable, and how many come before those of validation identities."""
        size = parse_vlr_size(self.config.vlr_size) if self.files else None
        trained = [*usable_faces(self.train_rows, size), *self._extra_rows]
        return [*trained, *usable_faces(self.unseen_rows, size)], len(trained)

    def _open(self, rows: Sequence[FaceRow], trained: int) -> dict[str, list[NDArray[np.uint8]]]:
        return {
            upsampler.name: [
                open_inputs(
                    self.config.cache_dir,
                    upsampler,
                    self._vlr_faces(rows if draw == 0 else rows[:trained], upsampler, draw),
                )
                for draw in range(self.config.draws)
            ]
            for upsampler in self.upsamplers
        }

    def _vlr_faces(self, rows: Sequence[FaceRow], upsampler: Upsampler, draw: int) -> VLRFaces:
        config = self.config
        later = (config.misalignment, draw)  # options that came later, and leave the names of earlier files as they are
        origin = (config.vlr_size, config.degradation, config.seed, *(later if any(later) else ()))
        return VLRFaces(rows, lambda: self._batches(rows, upsampler, draw), origin)

    def _batches(
        self, rows: Sequence[FaceRow], upsampler: Upsampler | None = None, draw: int = 0
    ) -> Iterable[FaceBatch]:
        """upsampler: that these faces are for, if they are of several sizes."""
        config = self.config
        rule = VLRRule(config.degradation, config.vlr, config.misalignment)
        dataset = FaceDataset(
            rows,
            seed=config.seed,
            files=self.files,
            rule=rule if rule.by_chance else None,
            collated=upsampler.collated if upsampler is not None and isinstance(config.vlr, VLRRange) else None,
            draw=draw,
        )
        for batch in DataLoader(dataset, UPSAMPLING_BATCH):
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
            "images (`min_images`)"
        )
    _report_left_out(sum(number < least for number in count.values()), least)
    return kept


def to_fit(rows: Sequence[FaceRow], labels: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """(N,) which faces are trained on: of an identity with three or more images HELD_OUT are not, at least one."""
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
            as_flags(f"{identities} training identities have fewer than {least} images and are left out (`min_images`)")
        )
