"""Faces to batches: pairs that stay registered, augmentation that only its key decides, and sets that are wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from dsr.config import DSRTrainingConfig
from dsr.datamodule import DSRDataModule
from dsr.train_dsr import main
from earface.core.errors import InputError
from earface.core.notices import collecting_warnings, warnings_given
from earface.data.degradation import bicubic, picture_key, realistic
from earface.data.face_dataset import FaceBatch, FaceDataset, usable_faces, with_vlr
from earface.data.face_folders import REPORT
from earface.data.face_rows import read_faces
from earface.data.images import read_image
from earface.data.pixels import to_model_range
from tests.conftest import only_line
from tests.dsr.conftest import ALONE, Arguments

Change = Callable[[Path], object]


def module_of(root: Path, **changes: Any) -> DSRDataModule:
    options = {"dataset_root": str(root), "vlr_size": "16", "batch_size": 8, "num_workers": 0} | changes
    datamodule = DSRDataModule(DSRTrainingConfig(**options))
    datamodule.setup("fit")
    return datamodule


def first_batch(datamodule: DSRDataModule, epoch: int = 0) -> FaceBatch:
    loader = datamodule.train_dataloader()
    loader.set_epoch(epoch)
    return datamodule.on_after_batch_transfer(next(iter(loader)), 0)


def from_file(path: Path) -> Tensor:
    """(3, H, W) in [-1, 1]."""
    return to_model_range(torch.from_numpy(read_image(path)[None]))[0]


@pytest.fixture
def copied(face_set: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(face_set, tmp_path / "copied"))


# Pairs


def test_unaugmented_pairs_are_the_files(face_set: Path) -> None:
    datamodule = module_of(face_set, degradation="files", augment="none")
    batch = first_batch(datamodule)
    assert batch["hr"].shape == (8, 3, 128, 128)
    assert batch["vlr"].shape == (8, 3, 16, 16)
    for index, hr, vlr in zip(batch["index"].tolist(), batch["hr"], batch["vlr"], strict=True):
        row = datamodule.train_set.rows[index]
        assert row.vlr_path is not None
        assert torch.equal(hr, from_file(row.path))
        assert torch.equal(vlr, from_file(row.vlr_path))


@pytest.mark.parametrize("augment", ["light", "full"])
def test_augmented_files_are_mirrored_together_and_changed_in_no_other_way(face_set: Path, augment: str) -> None:
    datamodule = module_of(face_set, degradation="files", batch_size=19, augment=augment)
    batch = first_batch(datamodule)
    mirrored = []
    for index, hr, vlr in zip(batch["index"].tolist(), batch["hr"], batch["vlr"], strict=True):
        row = datamodule.train_set.rows[index]
        assert row.vlr_path is not None
        mirrored.append(torch.equal(hr, from_file(row.path).flip(2)))
        turned = (hr.flip(2), vlr.flip(2)) if mirrored[-1] else (hr, vlr)
        assert torch.equal(turned[0], from_file(row.path))
        assert torch.equal(turned[1], from_file(row.vlr_path))
    assert 3 < sum(mirrored) < 16  # of 19; outside once in 500


def test_validation_without_vlr_files_makes_the_very_same(face_set: Path, copied: Path) -> None:
    for split in ("train", "val"):
        shutil.rmtree(copied / f"{split}_processed" / "vlr_images")
    datamodule = module_of(copied)
    batch = datamodule.on_after_batch_transfer(next(iter(datamodule.val_dataloader())), 0)
    assert len(batch["index"]) == 6
    for index, vlr in zip(batch["index"].tolist(), batch["vlr"], strict=True):
        name = datamodule.val_set.rows[index].name
        assert torch.equal(vlr, from_file(face_set / "val_processed" / "vlr_images" / name))


def test_realistic_validation_faces_depend_on_the_name_and_are_equal_in_every_epoch(face_set: Path) -> None:
    """As data.prepare_faces makes them."""
    datamodule = module_of(face_set, degradation="realistic", seed=7)
    batch = datamodule.on_after_batch_transfer(next(iter(datamodule.val_dataloader())), 0)
    rows = datamodule.val_set.rows
    hr = torch.stack([from_file(row.path) for row in rows])
    wanted = realistic(hr, datamodule.config.vlr, [picture_key(7, row.path.stem) for row in rows])
    assert torch.equal(batch["vlr"], wanted)


def test_another_size_than_the_set_was_prepared_with_is_noticed(face_set: Path, copied: Path) -> None:
    (copied / REPORT).write_text("[]")  # of a set that something else made
    with collecting_warnings():
        module_of(face_set / "train_processed", vlr_size="16")
        module_of(copied, vlr_size="32")
        assert not warnings_given()
        module_of(face_set, vlr_size="32")
        (line,) = warnings_given()
    assert "was prepared with VLR faces of 16" in line
    assert "enlarge 32: give `vlr_size` 16" in line


@pytest.mark.parametrize(("vlr_size", "augment"), [("16", "light"), ("14x16", "full")])
def test_vlr_is_made_of_the_augmented_face(face_set: Path, vlr_size: str, augment: str) -> None:
    datamodule = module_of(face_set, vlr_size=vlr_size, augment=augment)
    batch = first_batch(datamodule)
    rows = datamodule.train_set.rows
    plain = torch.stack([from_file(rows[index].path) for index in batch["index"].tolist()])
    same = [torch.equal(hr, own) or torch.equal(hr, own.flip(2)) for hr, own in zip(batch["hr"], plain, strict=True)]
    assert not all(same)
    assert torch.equal(batch["vlr"], bicubic(batch["hr"], datamodule.config.vlr))


def test_realistic_pairs_are_registered_and_differ_between_epochs(face_set: Path) -> None:
    datamodule = module_of(face_set, degradation="realistic", batch_size=19, seed=5)
    for epoch in (0, 3):
        batch = first_batch(datamodule, epoch)
        keys = [(5, epoch + 1, index) for index in batch["index"].tolist()]
        assert torch.equal(batch["vlr"], realistic(batch["hr"], datamodule.config.vlr, keys))


def test_a_prepared_split_stands_for_its_root(face_set: Path) -> None:
    given = module_of(face_set / "test_processed")
    assert [row.path for row in given.train_rows] == [row.path for row in module_of(face_set).train_rows]


def test_nobody_is_trained_on_and_validated_with(face_set: Path) -> None:
    datamodule = module_of(face_set)
    train, val = ({row.identity for row in rows} for rows in (datamodule.train_rows, datamodule.val_rows))
    assert (len(datamodule.train_set), len(datamodule.val_set)) == (19, 6)
    assert train.isdisjoint(val)
    assert len(datamodule.trained_on) == len(train)
    assert (
        datamodule.val_set.identities.tolist() == sorted(datamodule.val_set.identities.tolist()) == [0, 0, 0, 1, 1, 1]
    )


# Augmentation and its key


def test_augmentation_is_a_function_of_seed_epoch_and_index(face_set: Path) -> None:
    rows = read_faces(face_set, ("train",))
    first, again = (FaceDataset(rows, seed=1, augment="light") for _ in range(2))
    view = first[(2, 4)]
    for _ in range(2):  # whatever was asked for before
        assert torch.equal(again[(2, 4)]["hr_pixels"], view["hr_pixels"])
        again[(0, 0)]
    others = [first[(3, 4)], FaceDataset(rows, seed=2, augment="light")[(2, 4)], FaceDataset([*rows], seed=1)[4]]
    assert not any(torch.equal(other["hr_pixels"], view["hr_pixels"]) for other in others)
    assert view["key"].tolist() == [1, 3, 4]


@pytest.mark.parametrize("degradation", ["bicubic", "realistic"])
def test_workers_do_not_matter(face_set: Path, degradation: str) -> None:
    """Realistic VLR faces are theirs to make."""
    batches = []
    for workers in (0, 2):
        loader = module_of(face_set, num_workers=workers, degradation=degradation).train_dataloader()
        epochs = []
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            epochs.append(list(loader))
        batches.append(epochs)
    made = {"vlr_pixels"} if degradation == "realistic" else set()
    for alone, shared in zip(batches[0], batches[1], strict=True):
        assert len(set(torch.cat([batch["index"] for batch in alone]).tolist())) == 16  # of 19, in whole batches
        for one, other in zip(alone, shared, strict=True):
            assert one.keys() == other.keys() == {"hr_pixels", "key", "identity", "index"} | made
            assert all(torch.equal(one[name], other[name]) for name in one)
    (first, *_), (second, *_) = batches[0]
    assert first["index"].tolist() != second["index"].tolist()


# Pictures as they come


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_grey_and_transparent_faces_become_rgb(copied: Path, mode: str) -> None:
    path = sorted((copied / "val_processed" / "hr_images").iterdir())[0]
    picture = Image.open(path).convert(mode)
    if mode == "RGBA":
        picture.putalpha(0)
    picture.save(path)
    item = module_of(copied).val_set[0]["hr_pixels"]
    assert item.shape == (128, 128, 3)
    grey = np.asarray(picture.convert("L")) if mode == "L" else np.full((128, 128), 255)  # on white
    assert torch.equal(item, torch.from_numpy(np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)))


def test_unreadable_faces_are_left_out_and_named_and_over_5_percent_stop(face_set: Path, tmp_path: Path) -> None:
    rows = read_faces(face_set, ("train",))
    (tmp_path / "broken__0.png").write_bytes(b"no picture")
    broken = rows[0].__class__(tmp_path / "broken__0.png", "broken__0.png", "broken")
    with collecting_warnings():
        assert usable_faces([*rows, broken], None) == rows
        unread, lost = warnings_given()
    assert "1 faces cannot be read and are left out" in unread
    assert "broken__0.png" in unread
    assert "1 person has no picture left (broken)" in lost
    with pytest.raises(InputError, match=r"2 of 21 faces cannot be read, over 5%: .*broken__0\.png"):
        usable_faces([*rows, broken, broken], None)


def test_a_batch_of_files_keeps_its_vlr_whatever_the_degradation_is_called(face_set: Path) -> None:
    """Evaluation needs no dataset of its own."""
    dataset = FaceDataset(read_faces(face_set, ("val",)), seed=0, files=True)
    batch = default_collate([dataset[index] for index in range(3)])
    config = DSRTrainingConfig(vlr_size="16")
    assert torch.equal(with_vlr(batch, "files", config.vlr)["vlr"], to_model_range(batch["vlr_pixels"]))


# Sets that are wrong


def first_of(root: Path, split: str, kind: str) -> Path:
    return sorted((root / f"{split}_processed" / f"{kind}_images").iterdir())[0]


def without_vlr_of_one(root: Path) -> None:
    first_of(root, "train", "vlr").unlink()


def without_vlr(root: Path) -> None:
    shutil.rmtree(root / "val_processed" / "vlr_images")


def with_a_larger_vlr(root: Path) -> None:
    Image.new("RGB", (24, 16)).save(first_of(root, "train", "vlr"))


def with_a_smaller_hr(root: Path) -> None:
    Image.new("RGB", (112, 128)).save(first_of(root, "val", "hr"))


def with_one_identity(root: Path) -> None:
    kept = first_of(root, "train", "hr").name[:3]
    for path in (root / "train_processed").rglob("*.png"):
        if not path.name.startswith(kept):
            path.unlink()


def without_validation(root: Path) -> None:
    shutil.rmtree(root / "val_processed")


def with_somebody_in_both(root: Path) -> None:
    (root / "splits.json").unlink()
    for kind in ("hr", "vlr"):
        path = first_of(root, "train", kind)
        shutil.copy(path, root / "val_processed" / f"{kind}_images" / path.name)


def with_somebody_moved(root: Path) -> None:
    for kind in ("hr", "vlr"):
        path = first_of(root, "train", kind)
        path.rename(root / "val_processed" / f"{kind}_images" / path.name)


def without_faces(root: Path) -> None:
    for path in (root / "val_processed").rglob("*.png"):
        path.unlink()


@pytest.mark.parametrize(
    ("change", "degradation", "message"),
    [
        (without_vlr_of_one, "bicubic", "missing, but "),
        (without_vlr, "files", "vlr_images: no such folder; --degradation bicubic or realistic makes VLR faces"),
        (with_a_larger_vlr, "files", "24x16, expected 16x16: prepare the set with that --vlr-size, or change it"),
        (with_a_smaller_hr, "bicubic", "112x128, expected 128x128: prepare the set again"),
        (with_one_identity, "bicubic", "train_processed: one identity, "),
        (without_validation, "bicubic", "no val_processed/hr_images in it"),
        (with_somebody_in_both, "bicubic", "1 identities are in train_processed and in val_processed (such as "),
        (with_somebody_moved, "bicubic", "not in val"),
        (without_faces, "bicubic", "hr_images: holds no pictures"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_set_is_one_line(
    copied: Path,
    arguments: Arguments,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    degradation: str,
    message: str,
) -> None:
    change(copied)
    run = copied.parent / "run"
    capsys.readouterr()
    assert main(arguments(run, *ALONE, "--dataset-root", str(copied), "--degradation", degradation)) == 2
    assert message in only_line(capsys)
    assert not list(run.rglob("*.ckpt"))


def test_a_set_that_is_not_there_is_one_line(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path, *ALONE, "--dataset-root", str(tmp_path / "nowhere"))) == 2
    assert "nowhere: no train_processed/hr_images in it; earface faces prepare makes it" in only_line(capsys)


def test_files_of_another_size_than_the_models_are_one_line(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path, *ALONE, "--degradation", "files", "--vlr-size", "32")) == 2
    assert "16x16, expected 32x32: prepare the set with that --vlr-size, or change it" in only_line(capsys)
