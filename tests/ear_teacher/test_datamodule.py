"""Ears from files to batches: augmentation, denoising, ranges, and sets that must not mix."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch

from ear_teacher.config import EarVAETrainingConfig
from ear_teacher.datamodule import FIT_VIEWS, EarVAEDataModule
from ear_teacher.detector.config import EarDetectorTrainingConfig
from earface.core.errors import InputError
from earface.data.augmentation import _run, geometric, photometric
from earface.data.npy import read_teacher_npy, write_teacher_npy
from earface.data.pixels import to_model_range


def module_of(folder: Path, **options: Any) -> EarVAEDataModule:
    """A datamodule over folder/train_teacher.npy and val_teacher.npy, set up."""
    defaults: dict[str, Any] = {
        "encoder": "conv",
        "image_size": 64,
        "linear_path_size": 16,
        "batch_size": 4,
        "num_workers": 0,
        "train_npy": (str(folder / "train_teacher.npy"),),
        "val_npy": (str(folder / "val_teacher.npy"),),
    }
    module = EarVAEDataModule(EarVAETrainingConfig(**(defaults | options)))
    module.prepare_data()
    module.setup("fit")
    return module


@pytest.fixture(scope="module")
def one_ear(ear_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training set of eight copies of one ear: any two views that are equal come from equal randomness."""
    folder = tmp_path_factory.mktemp("one_ear")
    picture, other = module_of(ear_set).train_set.images[:2]
    np.save(folder / "train_teacher.npy", np.repeat(picture[None], 8, axis=0))
    np.save(folder / "val_teacher.npy", other[None])
    return folder


def views(module: EarVAEDataModule, epochs: int) -> dict[tuple[int, int], bytes]:
    """(epoch, index) -> pixels, as the training loader gives them."""
    loader = module.train_dataloader()
    found = {}
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        for batch in loader:
            for index, image in zip(batch["index"].tolist(), batch["pixels"], strict=True):
                found[epoch, index] = image.numpy().tobytes()
    return found


# Augmentation


def test_views_depend_on_the_seed_and_not_on_workers(one_ear: Path) -> None:
    two_workers = views(module_of(one_ear, num_workers=2, batch_size=2), epochs=8)
    assert len(two_workers) == 64
    assert views(module_of(one_ear, batch_size=4), epochs=8) == two_workers
    others = views(module_of(one_ear, seed=43), epochs=8)
    assert sum(others[key] != two_workers[key] for key in others) > 56  # an unchanged ear has no seed


def test_views_of_one_ear_over_samples_and_epochs_are_all_different(one_ear: Path) -> None:
    assert len(set(views(module_of(one_ear), epochs=8).values())) == 64


def test_steps_decide_independently_whether_they_act(one_ear: Path) -> None:
    found = list(views(module_of(one_ear, augment="light"), epochs=50).values())
    unchanged = found.count(np.load(one_ear / "val_teacher.npy").tobytes()) / len(found)
    assert unchanged < 0.1  # no flip, no motion, no colour: .5 x .2 x .5


def test_no_augmentation_gives_the_pictures_themselves(ear_set: Path) -> None:
    module = module_of(ear_set, augment="none")
    found = views(module, epochs=2)
    assert all(pixels == module.train_set.images[index].tobytes() for (_, index), pixels in found.items())


def test_light_changes_less_than_full(one_ear: Path) -> None:
    picture = np.load(one_ear / "val_teacher.npy")[0].astype(float)

    def change(strength: str) -> float:
        found = views(module_of(one_ear, augment=strength), epochs=8).values()
        return float(np.mean([np.abs(np.frombuffer(v, np.uint8).reshape(64, 64, 3) - picture).mean() for v in found]))

    assert 1 < change("light") < change("full")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("strength", ["light", "full"])
def test_denoising_has_a_clean_target_and_a_degraded_source(one_ear: Path, strength: str, channels: int) -> None:
    module = module_of(one_ear, augment=strength, denoise=True, in_channels=channels, batch_size=8)
    undegraded = A.Compose([*geometric(strength), *photometric(strength)])  # type: ignore[arg-type]
    picture = np.repeat(module.train_set.images[0], 3 // channels, axis=2)
    items = [(key, module.train_set[key]) for key in itertools.product(range(8), range(8))]
    for key, item in items:
        assert np.array_equal(item["pixels"], _run(undegraded, picture, (42, *key))[..., :channels])
    degraded = sum(not torch.equal(item["source_pixels"], item["pixels"]) for _, item in items)
    assert 8 <= degraded < 64


def test_without_denoising_source_and_target_are_one(ear_set: Path) -> None:
    module = module_of(ear_set)
    batch = module.on_after_batch_transfer(next(iter(module.train_dataloader())), 0)
    assert batch["source"] is batch["image"]


# Batches


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_are_float32_in_the_models_range(ear_set: Path, channels: int) -> None:
    module = module_of(ear_set, in_channels=channels, denoise=True)
    raw = next(iter(module.train_dataloader()))
    assert raw["pixels"].dtype == torch.uint8
    assert raw["pixels"].shape == (4, 64, 64, channels)
    batch = module.on_after_batch_transfer(raw, 0)
    for name, source in (("image", "pixels"), ("source", "source_pixels")):
        assert batch[name].dtype == torch.float32
        assert batch[name].shape == (4, channels, 64, 64)
        assert batch[name].stride() == torch.empty(batch[name].shape).stride()  # of a grey batch, others crash oneDNN
        assert torch.equal(((batch[name] + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1), raw[source])


def test_every_pixel_value_survives_the_way_to_the_model_and_back() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
    moved = to_model_range(values)
    assert (moved.min(), moved.max()) == (-1, 1)
    assert torch.equal(((moved + 1) * 127.5).permute(0, 2, 3, 1).round().to(torch.uint8), values)
    assert torch.allclose(moved.flatten().double(), torch.linspace(-1, 1, 256).double(), atol=1e-7)


def test_grey_ears_are_opencvs_grey(ear_set: Path) -> None:
    rgb, grey = module_of(ear_set), module_of(ear_set, in_channels=1)
    for index in (0, 17):
        wanted = cv2.cvtColor(np.asarray(rgb.train_set.images[index]), cv2.COLOR_RGB2GRAY)
        found = grey.train_set.images[index][..., 0]
        assert np.abs(found.astype(int) - wanted).max() <= 1  # grey before or after the resize


def test_validation_holds_every_ear_once_unaugmented_and_in_order(ear_set: Path) -> None:
    module = module_of(ear_set)
    batches = list(module.val_dataloader())
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(10))
    assert np.array_equal(torch.cat([batch["pixels"] for batch in batches]), module.val_set.images)


def test_subjects_are_numbered_alike_in_both_sets(ear_set: Path) -> None:
    module = module_of(ear_set, augment="none")
    names = read_teacher_npy(ear_set / "train_teacher.npy").subjects or []
    numbers = [module.train_set[0, index]["subject"] for index in range(40)]
    assert len({(str(name), number) for name, number in zip(names, numbers, strict=True)}) == 8
    assert not set(numbers) & {module.val_set[0, index]["subject"] for index in range(10)}


def test_ears_without_a_subject_have_minus_one(one_ear: Path) -> None:
    assert module_of(one_ear).train_set[0, 3]["subject"] == -1


# The linear path's rows


def test_without_augmentation_the_linear_path_sees_each_picture_once(ear_set: Path) -> None:
    module = module_of(ear_set, augment="none")
    rows = module.closed_form_rows(lambda images: images.flatten(1))
    wanted = to_model_range(torch.from_numpy(np.array(module.train_set.images))).flatten(1)
    assert sorted(map(tuple, rows[:, :50].tolist())) == sorted(map(tuple, wanted[:, :50].tolist()))


def test_the_linear_path_sees_the_same_views_with_any_number_of_workers(one_ear: Path) -> None:
    rows, again = (
        module_of(one_ear, num_workers=workers).closed_form_rows(lambda images: images.flatten(1)) for workers in (0, 2)
    )
    assert torch.equal(rows, again)
    assert len(rows) == 8 * FIT_VIEWS


def test_the_linear_path_sees_different_views(one_ear: Path) -> None:
    rows = module_of(one_ear).closed_form_rows(lambda images: images.flatten(1))
    assert len(torch.unique(rows, dim=0)) > 0.98 * len(rows)


@pytest.mark.parametrize(("most", "wanted"), [(99, 8), (5, 5)])
def test_of_more_images_than_fit_rows_each_is_fitted_on_once(
    one_ear: Path, monkeypatch: pytest.MonkeyPatch, most: int, wanted: int
) -> None:
    monkeypatch.setattr("ear_teacher.datamodule.FIT_ROWS", 3)
    monkeypatch.setattr("ear_teacher.datamodule.MOST_FIT_ROWS", most)
    assert len(module_of(one_ear, augment="full").closed_form_rows(lambda images: images.flatten(1))) == wanted


# Files


def test_a_subject_on_both_sides_is_refused_by_name(ear_set: Path, tmp_path: Path) -> None:
    train = read_teacher_npy(ear_set / "train_teacher.npy")
    assert train.image_paths
    assert train.subjects
    for name, rows in (("all", slice(None)), ("some", slice(5, None))):
        paths, subjects = train.image_paths[rows], train.subjects[rows]
        write_teacher_npy(tmp_path / f"{name}.npy", image_paths=paths, subjects=subjects)
    message = rf"7 subjects are also in .*{train.subjects[5]}.*earface ears prepare"
    with pytest.raises(InputError, match=message) as caught:
        module_of(ear_set, train_npy=(str(tmp_path / "all.npy"),), val_npy=(str(tmp_path / "some.npy"),))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("which", ["train_npy", "val_npy"])
def test_a_missing_file_is_one_line_that_says_how_to_make_it(ear_set: Path, which: str) -> None:
    absent = str(ear_set / "absent.npy")
    with pytest.raises(InputError, match=r"absent\.npy: no such file; .*earface ears prepare.*earface ears synthesize"):
        module_of(ear_set, **{which: (absent,)})


def test_samples_are_described_by_their_files_past_unreadable_ones(ear_set: Path, tmp_path: Path) -> None:
    pictures = np.array(module_of(ear_set).train_set.images)
    paths = [tmp_path / f"ear_{row:02d}.png" for row in range(40)]
    for path, picture in zip(paths, pictures, strict=True):
        cv2.imwrite(str(path), picture)
    paths[5].write_bytes(b"no picture")
    content = {"image_paths": [path.name for path in paths], "bboxes": np.tile([0.0, 0, 64, 64], (40, 1))}
    np.save(tmp_path / "train_teacher.npy", np.array(content, dtype=object))
    module = module_of(tmp_path, val_npy=(str(ear_set / "val_teacher.npy"),))
    assert len(module.train_set) == 39
    description = module.describe(torch.tensor([4, 5]))
    assert description == f"{paths[4]}, {paths[6]}"
    assert module.describe(torch.arange(39)).endswith(f"{paths[8]} and 31 more")


def test_pixels_without_files_are_described_by_their_row(one_ear: Path) -> None:
    assert module_of(one_ear).describe(torch.tensor([3])) == f"{one_ear / 'train_teacher.npy'} row 3"


def test_train_batches_are_shuffled_and_each_epoch_otherwise(ear_set: Path) -> None:
    loader = module_of(ear_set, augment="none").train_dataloader()
    orders = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        orders.append(list(itertools.chain.from_iterable(batch["index"].tolist() for batch in loader)))
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(40))
    assert orders[0] != orders[1]
    assert orders[0] != list(range(40))


# Several files


@pytest.fixture(scope="module")
def two_sets(ear_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """first/ and second/{train,val}_teacher.npy: other pictures of people with the same names."""
    folder = tmp_path_factory.mktemp("sets")
    for side in ("train", "val"):
        data = read_teacher_npy(ear_set / f"{side}_teacher.npy")
        assert data.image_paths
        half = len(data) // 2
        for name, rows in (("first", slice(half)), ("second", slice(half, None))):
            paths = data.image_paths[rows]
            subjects = [f"{side}{row % 2}" for row in range(len(paths))]
            target = folder / name / f"{side}_teacher.npy"
            target.parent.mkdir(exist_ok=True)
            write_teacher_npy(target, image_paths=paths, subjects=subjects, collection=name)
    return folder


def both(folder: Path, side: str) -> tuple[str, ...]:
    return tuple(str(folder / name / f"{side}_teacher.npy") for name in ("first", "second"))


def test_several_files_are_one_set_in_a_row_whose_people_are_apart(two_sets: Path, ear_set: Path) -> None:
    module = module_of(two_sets, train_npy=both(two_sets, "train"), val_npy=both(two_sets, "val"), augment="none")
    whole = module_of(ear_set, augment="none")
    for several, one in ((module.train_set, whole.train_set), (module.val_set, whole.val_set)):
        assert len(several) == len(one)
        assert all(torch.equal(several[0, row]["pixels"], one[0, row]["pixels"]) for row in range(len(one)))
    subjects = [module.train_set[0, row]["subject"] for row in range(40)]
    assert len(set(subjects)) == 4  # two names in either file
    assert not set(subjects[:20]) & set(subjects[20:])
    assert not set(subjects) & {module.val_set[0, row]["subject"] for row in range(10)}
    assert module.train_name(20) == module.train_files[1].names[0]
    assert [len({picture.person for picture in side}) for side in module.pictures()] == [4, 4]


def test_people_of_another_set_may_have_the_names_of_those_trained_on(two_sets: Path) -> None:
    first, second = both(two_sets, "train")
    module_of(two_sets, train_npy=(first,), val_npy=(second,))
    data = read_teacher_npy(second)
    same = two_sets / "again.npy"
    write_teacher_npy(same, image_paths=data.image_paths, subjects=data.subjects, collection="first")
    with pytest.raises(InputError, match=r"again\.npy: 2 subjects are also in .*first.train_teacher\.npy"):
        module_of(two_sets, train_npy=(first,), val_npy=(both(two_sets, "val")[0], str(same)))


def test_files_in_two_forms_are_refused(two_sets: Path) -> None:
    data = read_teacher_npy(both(two_sets, "val")[0])
    other = two_sets / "letterbox.npy"
    write_teacher_npy(other, image_paths=data.image_paths, subjects=data.subjects, contract="letterbox")
    with pytest.raises(InputError, match=r"letterbox\.npy: its ears are in the form letterbox, those of .* in stretch"):
        module_of(two_sets, train_npy=(both(two_sets, "train")[0],), val_npy=(both(two_sets, "val")[0], str(other)))


def test_one_file_may_be_given_by_itself() -> None:
    """As in Python code and files of before several were taken."""
    assert EarVAETrainingConfig(train_npy="a.npy").train_npy == ("a.npy",)
    assert EarDetectorTrainingConfig(val_json="a.json").val_json == ("a.json",)
