"""Annotated photographs to batches: whole ones in a square, and a crop around each ear that has landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ear_teacher.detector.annotated_photographs import AnnotatedPhotographs, readable
from ear_teacher.detector.config import EarDetectorConfig, EarDetectorTrainingConfig
from ear_teacher.detector.landmarker import MARGIN
from earface.data.affine import AffineMap, crop_around, hide_outside
from earface.data.annotations import Floats, Photograph
from earface.data.augmentation import PixelAugmentation, Strength
from earface.data.detection_augmentation import SceneAugmentation
from earface.data.images import Pixels, read_image
from earface.data.pixels import to_model_range
from earface.training.datamodule import TrainingDataModule

MIN_CROPPED = 12.0  # pixels of an ear's longer side, below which its landmarks cannot be distinguished
SHIFT, ZOOM = 0.08, 1.15  # of training crops: how far a detected box is off, in sides, and in size


class PhotographSample(TypedDict):
    """One photograph of the data set, fitted into a square, with a crop around each of its L ears with landmarks."""

    pixels: Tensor  # (S, S, C) uint8
    boxes: Tensor  # (N, 4) corners of its ears
    unclear: Tensor  # (M, 4) corners of what remains of ears that are cut off
    complete: bool  # whether all ears are annotated
    crop_pixels: NotRequired[Tensor]  # (L, s, s, C) uint8; in data sets with landmarks
    keypoints: NotRequired[Tensor]  # (L, K, 3) in the crops
    index: int


class EarDetectorPixelBatch(TypedDict):
    """B samples as they leave the loader; boxes that a photograph does not have are NaN."""

    pixels: Tensor  # (B, S, S, C) uint8
    boxes: Tensor  # (B, N, 4), N > 0
    unclear: Tensor  # (B, M, 4), M > 0
    complete: Tensor  # (B,) bool
    crop_pixels: NotRequired[Tensor]  # (L, s, s, C) uint8, of all photographs
    keypoints: NotRequired[Tensor]  # (L, K, 3)
    index: Tensor  # (B,) int64


class EarDetectorBatch(TypedDict):
    """The same on the device: what a training step gets."""

    image: Tensor  # (B, C, S, S) float32 in [-1, 1]
    boxes: Tensor
    unclear: Tensor
    complete: Tensor
    crops: NotRequired[Tensor]  # (L, C, s, s) float32 in [-1, 1]
    keypoints: NotRequired[Tensor]
    index: Tensor


class PhotographDataset(Dataset[PhotographSample]):
    """Samples by (epoch, index).

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

    def __getitem__(self, key: tuple[int, int] | int) -> PhotographSample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        photograph = self.photographs[index]
        image = read_image(photograph.path, self.channels)
        scene = self.scenes(photograph, image, (self.seed, epoch, index))
        sample: PhotographSample = {
            "pixels": torch.from_numpy(scene.image),
            "boxes": torch.from_numpy(_corners(scene.boxes)),
            "unclear": torch.from_numpy(_corners(scene.dropped)),
            "complete": photograph.has_boxes,
            "index": index,
        }
        if self.crops is not None:
            crops, keypoints = self.crops(photograph, image, (self.seed, epoch, index))
            sample["crop_pixels"], sample["keypoints"] = torch.from_numpy(crops), torch.from_numpy(keypoints)
        return sample


class EarCrops:
    """`(photograph, image, key) -> crops (L, s, s, C), keypoints (L, K, 3)` of the ears that have landmarks.

    Augmentation mirrors, rotates, shifts and zooms them by as much as a detected box may be off; `none` does not.
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
    """The ears with landmarks that are large enough for them: their numbers and (K, 3) landmarks."""
    ears = enumerate(zip(photograph.boxes, photograph.keypoints, strict=True))
    return [(ear, points) for ear, (box, points) in ears if points[:, 2].any() and max(box[2:]) >= MIN_CROPPED]


def collate_photographs(samples: Sequence[PhotographSample]) -> EarDetectorPixelBatch:
    batch: EarDetectorPixelBatch = {
        "pixels": torch.stack([sample["pixels"] for sample in samples]),
        "boxes": _padded([sample["boxes"] for sample in samples]),
        "unclear": _padded([sample["unclear"] for sample in samples]),
        "complete": torch.tensor([sample["complete"] for sample in samples]),
        "index": torch.tensor([sample["index"] for sample in samples]),
    }
    if "crop_pixels" in samples[0]:
        batch["crop_pixels"] = torch.cat([sample["crop_pixels"] for sample in samples])
        batch["keypoints"] = torch.cat([sample["keypoints"] for sample in samples])
    return batch


class EarDetectorDataModule(TrainingDataModule[EarDetectorTrainingConfig]):
    """Training and validation photographs."""

    collate = staticmethod(collate_photographs)
    least_val_batch = 1

    def __init__(self, config: EarDetectorTrainingConfig, annotated: AnnotatedPhotographs | None = None) -> None:
        """config: resolved. annotated: read from the files of `config` if not given."""
        super().__init__(config)
        self.annotated = annotated or AnnotatedPhotographs.read(config)

    def best(self) -> dict[str, Literal["min", "max"]]:
        """The metrics that these validation photographs allow, and whether low or high is good."""
        photographs = [photograph for each in self.annotated.val for photograph in each.photographs]
        ears = any(p.has_boxes and len(p.boxes) for p in photographs)
        boxes: dict[str, Literal["min", "max"]] = {"ap": "max"} if ears else {}
        landmarks = self.config.num_landmarks and any(
            (points[:, 2] > 0).sum() > 1 for p in photographs for _, points in with_landmarks(p)
        )
        return boxes | ({"nme": "min"} if landmarks else {})

    def setup(self, stage: str | None = None) -> None:
        config = self.config
        assert config.num_landmarks is not None, "resolved"
        data_set = partial(
            PhotographDataset,
            image_size=config.image_size,
            crop_size=config.crop_size or EarDetectorConfig.crop_size,
            channels=config.in_channels or EarDetectorConfig.in_channels,
            landmarks=config.num_landmarks > 0,
        )
        train, val = (readable(each, config.num_landmarks) for each in (self.annotated.train, self.annotated.val))
        self.train_set = data_set(train, augment=config.augment, seed=config.seed)
        self.val_set = data_set(val)

    def on_after_batch_transfer(self, batch: EarDetectorPixelBatch, dataloader_idx: int) -> EarDetectorBatch:
        """uint8 (B, S, S, C) to float32 (B, C, S, S) in [-1, 1], on the device."""
        moved: EarDetectorBatch = {
            "image": to_model_range(batch["pixels"]),
            "boxes": batch["boxes"],
            "unclear": batch["unclear"],
            "complete": batch["complete"],
            "index": batch["index"],
        }
        if "crop_pixels" in batch:
            moved["crops"], moved["keypoints"] = to_model_range(batch["crop_pixels"]), batch["keypoints"]
        return moved

    def train_name(self, index: int) -> str:
        return str(self.train_set.photographs[index].path)


def _padded(tables: Sequence[Tensor]) -> Tensor:
    """(N, 4) of B photographs -> (B, the largest N, 4) with NaN; one row at least."""
    padded = torch.full((len(tables), max(1, *map(len, tables)), 4), torch.nan)
    for rows, table in zip(padded, tables, strict=True):
        rows[: len(table)] = table
    return padded


def _corners(boxes: Floats) -> Floats:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
