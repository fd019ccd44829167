"""Annotated photographs to batches: whole ones in a square, and a crop around each ear that has landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ear_teacher.detector.annotated_photographs import AnnotatedPhotographs, readable
from ear_teacher.detector.config import EarDetectorConfig, EarDetectorTrainingConfig
from ear_teacher.detector.crops_without_ears import picture_without_ear
from ear_teacher.detector.landmarker import MARGIN
from ear_teacher.detector.losses import ABSENT
from earface.data.affine import PAD, AffineMap, crop_around, hide_outside
from earface.data.annotations import Floats, Photograph
from earface.data.augmentation import PixelAugmentation, PixelStrength
from earface.data.data_digest import Picture, base_folder, photograph_pictures
from earface.data.detection_augmentation import SceneAugmentation
from earface.data.images import Pixels, read_image
from earface.data.pixels import to_model_range
from earface.training.datamodule import TrainingDataModule

MIN_CROPPED = 12.0  # pixels of an ear's longer side, below which its landmarks cannot be distinguished
TIGHT = 0.5  # of the strong training crops: cut out along the ear's box, like the pictures of most ear data sets


class PhotographSample(TypedDict):
    """One photograph of the data set, fitted into a square, with a crop around each of its L ears with landmarks."""

    pixels: NotRequired[Tensor]  # (S, S, C) uint8; where boxes are learned, as the next three
    boxes: NotRequired[Tensor]  # (N, 4) corners of its ears
    unclear: NotRequired[Tensor]  # (M, 4) corners of what remains of ears that are cut off
    complete: NotRequired[bool]  # whether all ears are annotated
    crop_pixels: NotRequired[Tensor]  # (L, s, s, C) uint8; in data sets with landmarks
    keypoints: NotRequired[Tensor]  # (L, K, 3) in the crops
    index: int


class EarDetectorPixelBatch(TypedDict):
    """B samples as they leave the loader; boxes that a photograph does not have are NaN."""

    pixels: NotRequired[Tensor]  # (B, S, S, C) uint8
    boxes: NotRequired[Tensor]  # (B, N, 4), N > 0
    unclear: NotRequired[Tensor]  # (B, M, 4), M > 0
    complete: NotRequired[Tensor]  # (B,) bool
    crop_pixels: NotRequired[Tensor]  # (L, s, s, C) uint8, of all photographs
    keypoints: NotRequired[Tensor]  # (L, K, 3)
    index: Tensor  # (B,) int64


class EarDetectorBatch(TypedDict):
    """The same on the device: what a training step gets."""

    image: NotRequired[Tensor]  # (B, C, S, S) float32 in [-1, 1]
    boxes: NotRequired[Tensor]
    unclear: NotRequired[Tensor]
    complete: NotRequired[Tensor]
    crops: NotRequired[Tensor]  # (L, C, s, s) float32 in [-1, 1]
    keypoints: NotRequired[Tensor]
    index: Tensor


class PhotographDataset(Dataset[PhotographSample]):
    """Samples by (epoch, index), `views` of each photograph: index % the number of photographs is the photograph.

    boxes: whether to show the photograph and the boxes in it. landmarks: whether to cut a crop around each ear that has
    any.
    """

    def __init__(
        self,
        photographs: Sequence[Photograph],
        *,
        image_size: int,
        crop_size: int,
        channels: int,
        landmarks: bool,
        boxes: bool = True,
        augment: PixelStrength = "none",
        views: int = 1,
        absent: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.photographs, self.views, self.channels, self.seed = list(photographs), views, channels, seed
        self.scenes = SceneAugmentation(augment, image_size) if boxes else None
        self.crops = EarCrops(augment, crop_size, absent) if landmarks else None

    def __len__(self) -> int:
        return len(self.photographs) * self.views

    def photograph(self, index: int) -> Photograph:
        """That sample `index` is a view of."""
        return self.photographs[index % len(self.photographs)]

    def __getitem__(self, key: tuple[int, int] | int) -> PhotographSample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        photograph = self.photograph(index)
        image = read_image(photograph.path, self.channels)
        sample: PhotographSample = {"index": index}
        if self.scenes is not None:
            scene = self.scenes(photograph, image, (self.seed, epoch, index))
            sample["pixels"], sample["complete"] = torch.from_numpy(scene.image), photograph.has_boxes
            sample["boxes"] = torch.from_numpy(_corners(scene.boxes))
            sample["unclear"] = torch.from_numpy(_corners(scene.dropped))
        if self.crops is not None:
            crops, keypoints = self.crops(photograph, image, (self.seed, epoch, index))
            sample["crop_pixels"], sample["keypoints"] = torch.from_numpy(crops), torch.from_numpy(keypoints)
        return sample


@dataclass(frozen=True)
class _Moves:
    """Of training crops: rotation in degrees either way; how far a detected box is off, in sides and in size; the
    widths of ears seen askew; the share of tight crops."""

    turn: float
    shift: float = 0.08
    zoom: float = 1.15
    width: tuple[float, float] = (1.0, 1.0)
    tight: float = 0.0


_MOVES: dict[PixelStrength, _Moves] = {
    "light": _Moves(10.0),
    "full": _Moves(25.0),
    "strong": _Moves(30.0, 0.12, 1.3, (0.55, 1.25), TIGHT),
}


class EarCrops:
    """`(photograph, image, key) -> crops (L, s, s, C), keypoints (L, K, 3)` of the ears that have landmarks.

    Augmentation mirrors, rotates, shifts and zooms them by as much as a detected box may be off; `none` does not.
    absent: how many crops without an ear, whose landmarks are ABSENT, come with each photograph.
    """

    def __init__(self, strength: PixelStrength, size: int, absent: float = 0.0) -> None:
        self.size, self.moves, self.absent = size, _MOVES.get(strength), absent
        self.pixels = PixelAugmentation(strength)

    def __call__(self, photograph: Photograph, image: Pixels, key: Sequence[int]) -> tuple[Pixels, Floats]:
        crops, keypoints = [], []
        for ear, points in with_landmarks(photograph):
            rng = np.random.default_rng([*key, ear, 3])
            placement, shown = self._placed(photograph.boxes[ear], image, rng)
            crops.append(self.pixels(placement.image(shown), (*key, ear, 4)))
            keypoints.append(hide_outside(placement.points(points), self.size, self.size))
        if self.absent:
            rng = np.random.default_rng([*key, 5])
            if rng.random() < self.absent:
                crops.append(self.pixels(picture_without_ear(image, photograph.boxes, self.size, rng), (*key, 6)))
                keypoints.append(np.full((photograph.keypoints.shape[1], 3), (0, 0, ABSENT), np.float32))
        if not crops:
            count = photograph.keypoints.shape[1]
            return np.empty((0, self.size, self.size, image.shape[2]), np.uint8), np.empty((0, count, 3), np.float32)
        return np.stack(crops), np.stack(keypoints)

    def _placed(self, box: Floats, image: Pixels, rng: np.random.Generator) -> tuple[AffineMap, Pixels]:
        """Where the crop lies, and the photograph, or what a tight crop leaves of it."""
        moves, size = self.moves, (image.shape[1], image.shape[0])
        if moves is None:
            return crop_around(box, size, self.size, MARGIN), image
        zoom = np.exp(rng.uniform(-1, 1, 2) * np.log(moves.zoom))
        shift = rng.uniform(-moves.shift, moves.shift, 2) * max(box[2:])
        moved = np.concatenate([box[:2] + box[2:] * (1 - zoom) / 2 + shift, box[2:] * zoom]).astype(np.float32)
        turn, mirrored = float(rng.uniform(-moves.turn, moves.turn)), bool(rng.random() < 0.5)
        if moves.width == (1.0, 1.0):
            return crop_around(moved, size, self.size, MARGIN, turn, mirrored), image
        if rng.random() < moves.tight:
            image, moved, turn = _tight(image, box, rng), box, turn / 4  # its edges lie along the crop's
        width = float(np.exp(rng.uniform(*np.log(moves.width))))
        return narrowed(crop_around(moved, size, self.size, MARGIN, turn, mirrored), width), image


def _tight(image: Pixels, box: Floats, rng: np.random.Generator) -> Pixels:
    """`PAD` outside the box (4,) x y width height, each side of which is up to a tenth further in or out."""
    low, high = box[:2] - box[2:] * rng.uniform(-0.05, 0.1, 2), box[:2] + box[2:] * (1 + rng.uniform(-0.05, 0.1, 2))
    (left, top), (right, bottom) = low.round().clip(0).astype(int), high.round().clip(0).astype(int)
    alone = np.full_like(image, PAD)
    alone[top:bottom, left:right] = image[top:bottom, left:right]
    return alone


def narrowed(placement: AffineMap, width: float) -> AffineMap:
    """`placement` with the crop's width times `width`, about its middle."""
    change = np.diag([width, 1.0])
    middle = placement.size / 2
    offset = change @ (placement.matrix[:, 2] - middle) + middle
    matrix = np.column_stack([change @ placement.matrix[:, :2], offset])
    return AffineMap(matrix, placement.photograph, placement.size)


def with_landmarks(photograph: Photograph) -> list[tuple[int, Floats]]:
    """The ears with landmarks that are large enough for them: their numbers and (K, 3) landmarks."""
    ears = enumerate(zip(photograph.boxes, photograph.keypoints, strict=True))
    return [(ear, points) for ear, (box, points) in ears if points[:, 2].any() and max(box[2:]) >= MIN_CROPPED]


def collate_photographs(samples: Sequence[PhotographSample]) -> EarDetectorPixelBatch:
    batch: EarDetectorPixelBatch = {"index": torch.tensor([sample["index"] for sample in samples])}
    if "pixels" in samples[0]:
        batch["pixels"] = torch.stack([sample["pixels"] for sample in samples])
        batch["boxes"] = _padded([sample["boxes"] for sample in samples])
        batch["unclear"] = _padded([sample["unclear"] for sample in samples])
        batch["complete"] = torch.tensor([sample["complete"] for sample in samples])
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
        ears = self.config.train_boxes and any(p.has_boxes and len(p.boxes) for p in photographs)
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
        self.train_set = data_set(
            train,
            boxes=config.train_boxes,
            augment=config.augment,
            views=config.views,
            absent=config.absent_crops,
            seed=config.seed,
        )
        self.val_set = data_set(val)

    def on_after_batch_transfer(self, batch: EarDetectorPixelBatch, dataloader_idx: int) -> EarDetectorBatch:
        """uint8 (B, S, S, C) to float32 (B, C, S, S) in [-1, 1], on the device."""
        moved: EarDetectorBatch = {"index": batch["index"]}
        if "pixels" in batch:
            moved["image"], moved["complete"] = to_model_range(batch["pixels"]), batch["complete"]
            moved["boxes"], moved["unclear"] = batch["boxes"], batch["unclear"]
        if "crop_pixels" in batch:
            moved["crops"], moved["keypoints"] = to_model_range(batch["crop_pixels"]), batch["keypoints"]
        return moved

    def pictures(self) -> tuple[list[Picture], list[Picture]]:
        base = base_folder([*self.config.train_json, *self.config.val_json])
        train, val = (
            [picture for each in files for picture in photograph_pictures(each.photographs, base)]
            for files in (self.annotated.train, self.annotated.val)
        )
        return train, val

    def train_name(self, index: int) -> str:
        return str(self.train_set.photograph(index).path)


def _padded(tables: Sequence[Tensor]) -> Tensor:
    """(N, 4) of B photographs -> (B, the largest N, 4) with NaN; one row at least."""
    padded = torch.full((len(tables), max(1, *map(len, tables)), 4), torch.nan)
    for rows, table in zip(padded, tables, strict=True):
        rows[: len(table)] = table
    return padded


def _corners(boxes: Floats) -> Floats:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
