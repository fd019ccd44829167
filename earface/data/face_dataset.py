"""Faces of a prepared set, as super-resolver and recogniser are trained on them: HR pictures with VLR made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.data.augmentation import FaceAugmentation
from earface.data.degradation import degrade, picture_key
from earface.data.face_folders import VLR_FOLDER, split_folder, training_root
from earface.data.face_rows import FaceRow, read_faces
from earface.data.face_sizes import FACE_SIZE, VLRRange, VLRSize
from earface.data.identity_split import identity_digests
from earface.data.image_cache import MAX_UNREADABLE
from earface.data.images import Pixels, read_ahead, read_image
from earface.data.names import warn_of_lost_people
from earface.data.picture_rows import PictureRow
from earface.data.pixels import to_model_range
from earface.data.vlr_rule import VLRRule, on_grid


class FaceItem(TypedDict):
    """One face of a FaceDataset."""

    hr_pixels: Tensor  # (128, 128, 3) uint8
    vlr_pixels: NotRequired[Tensor]  # (h, w, 3) uint8, with `files` or `rule`
    vlr: NotRequired[Tensor]  # instead (3, grid, grid) float32 in [-1, 1], with `grid`
    key: Tensor  # (3,) int64: what its degradation depends on
    identity: int
    index: int


class FacePixels(TypedDict):
    """A batch of FaceItems, as the loader collates them."""

    hr_pixels: Tensor  # (B, 128, 128, 3) uint8
    vlr_pixels: NotRequired[Tensor]  # (B, h, w, 3) uint8
    vlr: NotRequired[Tensor]  # (B, 3, grid, grid) float32
    key: Tensor  # (B, 3) int64
    identity: Tensor  # (B,) int64
    index: Tensor  # (B,) int64


class FaceBatch(TypedDict):
    """The same on its device, as a network takes it: float32 in [-1, 1]."""

    hr: Tensor  # (B, 3, 128, 128)
    vlr: Tensor  # (B, 3, h, w)
    identity: Tensor  # (B,)
    index: Tensor  # (B,)


class FaceDataset(Dataset[FaceItem]):
    """Items by (epoch, index), or by index alone.

    With `files` HR and VLR are mirrored together and changed in no other way. rule: by which VLR faces are made here,
    by the loader's workers: what chance decides is computed on the CPU, for which a device would wait. grid: side to
    which these are interpolated, `on_grid`, so that faces of several sizes make a batch. draw: which degradation of
    each picture, without augmentation. moved: what an HR picture is changed by first, with its key.
    """

    def __init__(
        self,
        rows: Sequence[FaceRow],
        *,
        seed: int,
        augment: Literal["none", "light", "full"] = "none",
        files: bool = False,
        rule: VLRRule | None = None,
        grid: int | None = None,
        draw: int = 0,
        moved: Callable[[Pixels, Sequence[int]], Pixels] | None = None,
    ) -> None:
        self.rows, self.seed, self.files = list(rows), seed, files
        self.rule, self.grid, self.draw, self.moved = rule, grid, draw, moved
        self.augmentation = FaceAugmentation(augment, mirror_only=files) if augment != "none" else None
        number = {name: place for place, name in enumerate(sorted({row.identity for row in self.rows}))}
        self.identities = np.array([number[row.identity] for row in self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int] | int) -> FaceItem:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        row = self.rows[index]
        pictures = [read_image(row.path)]
        if self.files and row.vlr_path is not None:
            pictures.append(read_image(row.vlr_path))
        degradation = picture_key(self.seed, row.path.stem, self.draw)
        if self.augmentation is not None:
            pictures = self.augmentation(pictures, (self.seed, epoch, index))
            degradation = (self.seed, epoch + 1, index)  # a picture's own keys have a draw there, and end in a digest
        if self.moved is not None:
            pictures[0] = self.moved(pictures[0], degradation)
        hr, *own_vlr = map(torch.from_numpy, pictures)
        item: FaceItem = {
            "hr_pixels": hr,
            "key": torch.tensor(degradation),
            "identity": int(self.identities[index]),
            "index": index,
        }
        if self.rule is not None:
            made = self.rule(pictures[0], degradation)
            if self.grid is None:
                item["vlr_pixels"] = made
            else:
                item["vlr"] = on_grid(made, self.grid)
        elif own_vlr:
            (item["vlr_pixels"],) = own_vlr
        return item


def on_device(batch: FacePixels, device: str) -> FacePixels:
    """Every tensor of the batch on the device."""
    return cast(FacePixels, {name: cast(Tensor, value).to(device, non_blocking=True) for name, value in batch.items()})


def with_vlr(batch: FacePixels, degradation: str, size: VLRSize | VLRRange) -> FaceBatch:
    """The batch in [-1, 1], on its device. VLR faces are made of the HR ones, of one size, unless the batch has any."""
    hr = to_model_range(batch["hr_pixels"])
    if "vlr" in batch:
        vlr = batch["vlr"]
    elif "vlr_pixels" in batch:
        vlr = to_model_range(batch["vlr_pixels"])
    else:
        assert isinstance(size, VLRSize), "faces of several sizes are made by the dataset's rule"
        keys = batch["key"].tolist() if degradation in ("realistic", "mixed") else [()] * len(hr)
        vlr = degrade(degradation, hr, size, keys)
    return {"hr": hr, "vlr": vlr, "identity": batch["identity"], "index": batch["index"]}


def training_faces(dataset_root: str, need_vlr: bool) -> tuple[list[FaceRow], list[FaceRow]]:
    """The training and validation faces of a prepared set, given by its root or by one of its splits.

    need_vlr: whether each must have a VLR picture. Raises InputError.
    """
    root = training_root(dataset_root)
    train, val = read_faces(root, ("train",)), read_faces(root, ("val",))
    people, others = {row.identity for row in train}, {row.identity for row in val}
    if len(people) == 1:
        raise InputError(f"{root / split_folder('train')}: one identity, {min(people)}; training needs at least two")
    if shared := people & others:
        raise InputError(
            f"{root}: {len(shared)} identities are in {split_folder('train')} and in {split_folder('val')} (such as "
            f"{min(shared)}); split by identity, as earface faces prepare does"
        )
    if need_vlr:
        require_vlr([*train, *val])
    return train, val


def require_vlr(rows: Sequence[FaceRow]) -> None:
    """Raise InputError for a face without a VLR picture."""
    if lacking := next((row for row in rows if row.vlr_path is None), None):
        folder = lacking.path.parent.parent / VLR_FOLDER
        raise InputError(f"{folder}: no such folder; `degradation` bicubic or realistic makes VLR faces of HR ones")


def usable_faces(rows: Sequence[FaceRow], vlr: VLRSize | None) -> list[FaceRow]:
    """Those that can be read, with a warning of the others. vlr: the size of their VLR pictures, if these are used.

    Raises InputError for a picture of another size or none, and if more than 5 % cannot be read.
    """
    if vlr is not None:
        require_vlr(rows)
    failures = list(read_ahead(lambda row: _failure(row, vlr), rows))
    skipped = [failure for failure in failures if failure]
    if len(skipped) > MAX_UNREADABLE * len(rows):
        raise InputError(
            f"{rows[0].path.parent}: {len(skipped)} of {len(rows)} faces cannot be read, over {MAX_UNREADABLE:.0%}: "
            f"{'; '.join(skipped[:3])}"
        )
    kept = [row for row, failure in zip(rows, failures, strict=True) if not failure]
    if skipped:
        folder = rows[0].path.parent
        warn(f"{folder}: {len(skipped)} faces cannot be read and are left out ({'; '.join(skipped[:3])})", skipped)
        warn_of_lost_people((row.identity for row in rows), (row.identity for row in kept), folder)
    return kept


def _failure(row: FaceRow, vlr: VLRSize | None) -> str:
    """What reading fails of; empty if it does not. Raises InputError for a picture of another size."""
    expected = {row.path: VLRSize(FACE_SIZE, FACE_SIZE)}
    if vlr is not None and row.vlr_path is not None:
        expected[row.vlr_path] = vlr
    for path, size in expected.items():
        try:
            height, width, _ = read_image(path).shape
        except InputError as error:
            return str(error)
        if (width, height) != size:
            again = (
                "prepare the set again" if row.identity else "`extra_hr` takes aligned faces (earface faces prepare)"
            )
            cure = again if path == row.path else "prepare the set with that `vlr_size`, or change it"
            raise InputError(f"{path}: {width}x{height}, expected {size.width}x{size.height}: {cure}")
    return ""


def evaluation_faces(dataset_root: str, split: str, known: Mapping[Path, frozenset[str]]) -> list[FaceRow]:
    """The faces of a split. known: of each model, digests of the identities it was trained on.

    Raises InputError if there is no such split, and for a model that was trained on one of these identities.
    """
    rows = read_faces(dataset_root, (split,))
    if not all(row.split == split for row in rows):
        raise InputError(
            f"`dataset_root` {dataset_root}: no prepared set with {split}; earface faces prepare makes one"
        )
    refuse_training_identities(rows, split, known)
    return rows


def refuse_training_identities(rows: Sequence[PictureRow], split: str, known: Mapping[Path, frozenset[str]]) -> None:
    """Raise InputError for a model that was trained on one of these identities. split: what the message calls them."""
    names = {digest: row.identity for row in rows for digest in identity_digests([row.identity])}
    for path, trained_on in known.items():
        if seen := sorted(names[digest] for digest in trained_on & names.keys()):
            raise InputError(
                f"{path}: was trained on {len(seen)} of the {len(names)} identities of {split} (such as {seen[0]}); "
                "evaluate it on others"
            )
