"""Annotated photographs to batches: whole ones in a square, and a crop around each ear that has landmarks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import Dataset

from ear_teacher.detector.config import EarDetectorTrainingConfig
from ear_teacher.detector.landmarker import MARGIN
from earface.core.errors import InputError
from earface.data.affine import AffineMap, crop_around, hide_outside
from earface.data.annotations import Annotations, Floats, Photograph
from earface.data.augmentation import PixelAugmentation, Strength
from earface.data.coco import read_coco
from earface.data.detection_augmentation import SceneAugmentation
from earface.data.image_cache import MAX_UNREADABLE
from earface.data.images import Pixels, read_ahead, read_image
from earface.data.pixels import to_model_range
from earface.training.datamodule import TrainingDataModule

MIN_CROPPED = 12.0  # pixels of an ear's longer side, below which its landmarks are not told apart
SHIFT, ZOOM = 0.08, 1.15  # of training crops: what a found box is off, in sides, and in size


class PhotographDataset(Dataset[dict[str, Any]]):
    """Items by (epoch, index), see `__getitem__`.

    landmarks: whether to cut a crop around each ear that has any.
    """

    def __init__(
        self,
        photographs: Sequence[Photograph],
        *,
        image_size: int,
        crop_size: int,
        channels: int,
        landmarks: bool,
        augment: Strength = "none",
        seed: int = 0,
    ) -> None:
        self.photographs, self.channels, self.seed = list(photographs), channels, seed
        self.scenes = SceneAugmentation(augment, image_size)
        self.crops = EarCrops(augment, crop_size) if landmarks else None

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, Any]:
        """image: (S, S, C) uint8; boxes: (N, 4) corners of its ears; unclear: (M, 4) corners of what is left of others;
        complete: whether all ears are marked; crops: (L, s, s, C) uint8; keypoints: (L, K, 3) in them; index."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        photograph = self.photographs[index]
        image = read_image(photograph.path, self.channels)
        scene = self.scenes(photograph, image, (self.seed, epoch, index))
        item = {
            "image": torch.from_numpy(scene.image),
            "boxes": torch.from_numpy(_corners(scene.boxes)),
            "unclear": torch.from_numpy(_corners(scene.dropped)),
            "complete": photograph.has_boxes,
            "index": index,
        }
        if self.crops is not None:
            crops, keypoints = self.crops(photograph, image, (self.seed, epoch, index))
            item |= {"crops": torch.from_numpy(crops), "keypoints": torch.from_numpy(keypoints)}
        return item


class EarCrops:
    """`(photograph, image, key) -> crops (L, s, s, C), keypoints (L, K, 3)` of the ears that have landmarks.

    Augmented ones are mirrored, turned, shifted and zoomed as far as a found box may be off, `none` as found.
    """

    def __init__(self, strength: Strength, size: int) -> None:
        self.size = size
        self.turn = {"none": 0.0, "light": 10.0, "full": 25.0}[strength]  # degrees, either way
        self.pixels = PixelAugmentation(strength)

    def __call__(self, photograph: Photograph, image: Pixels, key: Sequence[int]) -> tuple[Pixels, Floats]:
        crops, keypoints = [], []
        for ear, points in with_landmarks(photograph):
            placement = self._placement(photograph.boxes[ear], image, np.random.default_rng([*key, ear, 3]))
            crops.append(self.pixels(placement.image(image), (*key, ear, 4)))
            keypoints.append(hide_outside(placement.points(points), self.size, self.size))
        if not crops:
            count = photograph.keypoints.shape[1]
            return np.empty((0, self.size, self.size, image.shape[2]), np.uint8), np.empty((0, count, 3), np.float32)
        return np.stack(crops), np.stack(keypoints)

    def _placement(self, box: Floats, image: Pixels, rng: np.random.Generator) -> AffineMap:
        size = image.shape[1], image.shape[0]
        if not self.turn:
            return crop_around(box, size, self.size, MARGIN)
        zoom = np.exp(rng.uniform(-1, 1, 2) * np.log(ZOOM))
        shift = rng.uniform(-SHIFT, SHIFT, 2) * max(box[2:])
        moved = np.concatenate([box[:2] + box[2:] * (1 - zoom) / 2 + shift, box[2:] * zoom]).astype(np.float32)
        turn = float(rng.uniform(-self.turn, self.turn))
        return crop_around(moved, size, self.size, MARGIN, turn, mirrored=bool(rng.random() < 0.5))


def with_landmarks(photograph: Photograph) -> list[tuple[int, Floats]]:
    """The ears that are large enough to tell landmarks apart and have any: their numbers and (K, 3) landmarks."""
    ears = enumerate(zip(photograph.boxes, photograph.keypoints, strict=True))
    return [(ear, points) for ear, (box, points) in ears if points[:, 2].any() and max(box[2:]) >= MIN_CROPPED]


def collate_photographs(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """image: (B, S, S, C); boxes: (B, N, 4), N > 0; unclear: (B, M, 4), M > 0; complete, index: (B,); crops, keypoints:
    those of all photographs in a row. Boxes that a photograph does not have are NaN."""
    batch: dict[str, Any] = {
        "image": torch.stack([item["image"] for item in items]),
        "boxes": _padded([item["boxes"] for item in items]),
        "unclear": _padded([item["unclear"] for item in items]),
        "complete": torch.tensor([item["complete"] for item in items]),
        "index": torch.tensor([item["index"] for item in items]),
    }
    if "crops" in items[0]:
        batch |= {name: torch.cat([item[name] for item in items]) for name in ("crops", "keypoints")}
    return batch


class EarDetectorDataModule(TrainingDataModule):
    """Training and validation photographs. Their landmarks are known before a model is."""

    collate = staticmethod(collate_photographs)
    least_val_batch = 1

    def __init__(self, config: EarDetectorTrainingConfig) -> None:
        super().__init__(config)
        self.train = read_all(config.train_json, config.images)
        self.val = read_all(config.val_json, config.images)
        agreed = agreed_landmarks([*self.train, *self.val])
        self.num_landmarks = agreed if any(p.has_landmarks for each in self.train for p in each.photographs) else 0
        shared = {photograph.path.resolve() for each in self.train for photograph in each.photographs} & {
            photograph.path.resolve() for each in self.val for photograph in each.photographs
        }
        if shared:
            raise InputError(
                f"{config.val_json[0]}: {len(shared)} photographs are also trained on (such as {min(shared)}): split "
                "them with earface ears annotations"
            )

    @property
    def landmarks(self) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
        """Their names and skeleton, of the first file that has any."""
        named = next((each for each in [*self.train, *self.val] if each.landmark_names), None)
        return (named.landmark_names, named.skeleton) if named else ((), ())

    def best(self) -> dict[str, Literal["min", "max"]]:
        """The figures that validation can give, and whether low or high is good."""
        photographs = [photograph for each in self.val for photograph in each.photographs]
        ears = any(p.has_boxes and len(p.boxes) for p in photographs)
        boxes: dict[str, Literal["min", "max"]] = {"ap": "max"} if ears else {}
        landmarks = self.config.num_landmarks and any(
            (points[:, 2] > 0).sum() > 1 for p in photographs for _, points in with_landmarks(p)
        )
        return boxes | ({"nme": "min"} if landmarks else {})

    def setup(self, stage: str | None = None) -> None:
        config = self.config
        shape: dict[str, Any] = {
            "image_size": config.image_size,
            "crop_size": config.crop_size,
            "channels": config.in_channels,
            "landmarks": bool(config.num_landmarks),
        }
        count = config.num_landmarks or 0
        self.train_set = PhotographDataset(
            readable(self.train, count), **shape, augment=config.augment, seed=config.seed
        )
        self.val_set = PhotographDataset(readable(self.val, count), **shape)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """uint8 (B, S, S, C) to float32 (B, C, S, S) in [-1, 1], on the device."""
        moved: dict[str, Any] = {name: to_model_range(batch[name]) for name in ("image", "crops") if name in batch}
        return {**batch, **moved}

    def train_name(self, index: int) -> str:
        return str(self.train_set.photographs[index].path)


def read_all(paths: Sequence[str], images: str | None) -> list[Annotations]:
    """COCO files. Raises InputError for one that is missing, wrong, or without an ear."""
    read = []
    for path in paths:
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file; make it from your annotations with earface ears annotations")
        annotations = read_coco(path, images)
        if not annotations.num_ears:
            raise InputError(f"{path}: {len(annotations)} photographs without any ear; annotations of ears wanted")
        read.append(annotations)
    if not read:
        raise InputError("no annotations: give one or more COCO files")
    return read


def agreed_landmarks(files: Sequence[Annotations]) -> int:
    """How many landmarks the files have; those with boxes only agree with all. Raises InputError."""
    counts = {len(each.landmark_names): each.source for each in files if each.landmark_names}
    if len(counts) > 1:
        (first, source), (second, other) = list(counts.items())[:2]
        raise InputError(f"{source} has {first} landmarks and {other} {second}: train a detector for each")
    return next(iter(counts), 0)


def readable(files: Sequence[Annotations], num_landmarks: int) -> list[Photograph]:
    """The photographs of all files that can be decoded, with `num_landmarks` each; not labelled where a file has none.

    Raises InputError if more than 5 % cannot.
    """
    photographs = [photograph for each in files for photograph in each.photographs]
    failures = list(read_ahead(_failure, photographs))
    rejects = [failure for failure in failures if failure]
    if len(rejects) > MAX_UNREADABLE * len(photographs):
        raise InputError(
            f"{files[0].source}: {len(rejects)} of {len(photographs)} photographs cannot be read, over "
            f"{MAX_UNREADABLE:.0%}: {'; '.join(rejects[:3])}"
        )
    _report(files, rejects)
    kept = [photograph for photograph, failure in zip(photographs, failures, strict=True) if not failure]
    return [
        dataclasses.replace(photograph, keypoints=_with_landmarks(photograph.keypoints, num_landmarks))
        for photograph in kept
    ]


@rank_zero_only
def _report(files: Sequence[Annotations], rejects: Sequence[str]) -> None:
    if rejects:
        first = "; ".join(rejects[:3])
        print(f"{files[0].source}: {len(rejects)} photographs cannot be read and are left out ({first})")


def _failure(photograph: Photograph) -> str:
    """What decoding fails of; empty if it does not."""
    try:
        read_image(photograph.path)
    except InputError as error:
        return str(error)
    return ""


def _with_landmarks(keypoints: Floats, count: int) -> Floats:
    if keypoints.shape[1] == count:
        return keypoints
    return np.zeros((len(keypoints), count, 3), np.float32)


def _padded(tables: Sequence[Tensor]) -> Tensor:
    """(N, 4) of B photographs -> (B, the largest N, 4) with NaN; one row at least."""
    padded = torch.full((len(tables), max(1, *map(len, tables)), 4), torch.nan)
    for rows, table in zip(padded, tables, strict=True):
        rows[: len(table)] = table
    return padded


def _corners(boxes: Floats) -> Floats:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
