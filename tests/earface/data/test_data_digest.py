"""What a checkpoint keeps of its run's data, and what of a change is refused, warned of, or passes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earface.core.errors import InputError
from earface.core.notices import collecting_warnings, warnings_given
from earface.data.data_digest import DataDigest, Picture, base_folder, ear_pictures, refuse_trained_on
from earface.data.npy import TeacherData, read_teacher_npy, write_teacher_npy

CHECKPOINT = Path("last.ckpt")


def people(*names: str, pictures: int = 2, size: int = 9) -> list[Picture]:
    return [Picture(name, f"{name}/{number}.png", str(size)) for name in names for number in range(pictures)]


def warnings_of(now: DataDigest, earlier: DataDigest) -> list[str]:
    with collecting_warnings():
        now.continues(DataDigest.read(earlier.stored()), CHECKPOINT)
        return warnings_given()


def test_a_checkpoint_gives_the_digest_back_and_names_nobody(tmp_path: Path) -> None:
    digest = DataDigest.of(people("anna", "bert"), people("cara"))
    torch.save({"data": digest.stored()}, tmp_path / "last.ckpt")
    found = DataDigest.read(torch.load(tmp_path / "last.ckpt", weights_only=True)["data"])
    assert (found.of_people, found.train, found.val) == (True, digest.train, digest.val)
    assert (len(found.train), len(found.val)) == (2, 1)
    assert not any(name in (tmp_path / "last.ckpt").read_bytes() for name in (b"anna", b"bert", b"cara", b".png"))


def test_the_same_data_passes_in_any_order() -> None:
    train, val = people("anna", "bert"), people("cara")
    assert warnings_of(DataDigest.of(train[::-1], val[::-1]), DataDigest.of(train, val)) == []


@given(
    before=st.dictionaries(st.integers(0, 12), st.booleans(), max_size=10),
    after=st.dictionaries(st.integers(0, 12), st.booleans(), max_size=10),
    known=st.booleans(),
)
def test_exactly_a_change_of_sides_is_refused(before: dict[int, bool], after: dict[int, bool], known: bool) -> None:
    """person -> whether they are trained on, before and after."""

    def digest(sides: dict[int, bool]) -> DataDigest:
        rows = [
            [Picture(str(person) if known else "", f"{person}.png", "9") for person in sides if sides[person] == side]
            for side in (True, False)
        ]
        return DataDigest.of(*rows)

    earlier, now = digest(before), digest(after)
    moved = sorted(str(person) for person in before.keys() & after.keys() if before[person] != after[person])
    if earlier.of_people != now.of_people:  # no pictures at all are of people
        return
    if moved:
        with pytest.raises(InputError, match=r"split anew .* [1-9][0-9]* (person|people|pictures?) such as "):
            now.continues(earlier, CHECKPOINT)
    else:
        assert bool(warnings_of(now, earlier)) == (before != after)


def test_who_was_trained_on_once_is_not_validated_on_later() -> None:
    """Anna leaves, the run goes on, and she comes back on the other side."""
    first = DataDigest.of(people("anna", "bert"), people("cara"))
    with collecting_warnings():
        second = DataDigest.of(people("bert"), people("cara")).continues(first, CHECKPOINT)
    with pytest.raises(InputError, match="trained on before, validated on now: 1 person such as anna"):
        DataDigest.of(people("bert"), people("anna", "cara")).continues(second, CHECKPOINT)


def test_what_came_went_and_changed_is_named_and_counted() -> None:
    earlier = DataDigest.of(people("anna", "bert", "dora"), people("cara"))
    now = DataDigest.of([*people("anna", "emil", "finn"), *people("bert", size=8)], people("cara"))
    (line,) = warnings_of(now, earlier)
    assert "the training data is not what the run began with" in line
    assert "2 people more (such as emil), 1 person fewer, 1 person with other pictures (such as bert)" in line


def test_people_on_both_sides_from_the_start_are_no_change() -> None:
    """Two sets with equal names: the detector trains on one and validates on the other."""
    both = DataDigest.of(people("1", "2"), people("2", "3"))
    assert warnings_of(DataDigest.of(people("1", "2"), people("2", "3")), both) == []
    refuse_trained_on(both.stored(), people("2", "3"), "val.json", of_the_run=True)


def test_an_evaluation_refuses_its_runs_own_file_and_warns_of_another() -> None:
    stored = DataDigest.of(people("anna", "bert"), people("cara")).stored()
    with pytest.raises(InputError, match=r"val\.npy: 1 of 2 people, such as anna, were trained on"):
        refuse_trained_on(stored, people("anna", "cara"), "val.npy", of_the_run=True)
    with collecting_warnings():
        refuse_trained_on(stored, people("anna", "bert", "emil"), "other.npy", of_the_run=False)
        refuse_trained_on(stored, people("emil"), "new.npy", of_the_run=True)
        refuse_trained_on(None, people("anna"), "old.npy", of_the_run=True)
        refuse_trained_on(stored, [Picture("", "anna/1.png", "9")], "nameless.npy", of_the_run=True)
        (line,) = warnings_given()
    assert line.startswith("other.npy: 2 of 3 people, such as anna, have names that were trained on")


# Teacher files


def of_folder(folder: Path) -> DataDigest:
    files = [folder / "train_teacher.npy", folder / "val_teacher.npy"]
    base = base_folder(files)
    train, val = (ear_pictures(read_teacher_npy(file), base) for file in files)
    return DataDigest.of(train, val)


def test_a_set_that_was_moved_is_the_same(ear_set: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(ear_set, tmp_path / "moved"))
    assert warnings_of(of_folder(moved), of_folder(ear_set)) == []


def test_a_picture_or_a_box_that_changed_is_seen(ear_set: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(ear_set, tmp_path / "moved"))
    train = read_teacher_npy(moved / "train_teacher.npy")
    assert train.image_paths
    assert train.subjects
    assert train.bboxes is not None
    train.image_paths[0].write_bytes(train.image_paths[0].read_bytes() + b"\0")
    boxes = train.bboxes.copy()
    boxes[-1, 0] += 1
    write_teacher_npy(moved / "train_teacher.npy", image_paths=train.image_paths, subjects=train.subjects, bboxes=boxes)
    (line,) = warnings_of(of_folder(moved), of_folder(ear_set))
    assert "2 people with other pictures" in line


def test_rows_of_an_image_array_are_told_apart_by_their_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3), np.uint8)

    def digest(order: list[int]) -> DataDigest:
        train, val = (
            ear_pictures(TeacherData(Path("a.npy"), None, images[rows], None, None, None), Path())
            for rows in (order[:4], order[4:])
        )
        return DataDigest.of(train, val)

    assert warnings_of(digest([3, 2, 1, 0, 5, 4]), digest([0, 1, 2, 3, 4, 5])) == []
    with pytest.raises(InputError, match="2 pictures such as "):
        digest([4, 5, 0, 1, 2, 3]).continues(digest([0, 1, 2, 3, 4, 5]), CHECKPOINT)
