"""What a checkpoint keeps of its run's data: which people, or pictures, were trained and validated on, as digests.

A run that goes on, or an evaluation, can thus name and count what has changed since, and refuse people who were trained
on and now validate. Of pictures a digest has relative names, sizes in bytes and boxes, not pixels; only the rows of an
image array, which have no names, are told apart by a few of theirs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.data.annotations import Photograph
from earface.data.npy import TeacherData
from earface.data.picture_rows import PictureRow

SAMPLED = 8  # pixels a side of a row without a name
Entries = dict[int, int]  # 64 bits of the name's SHA-256 -> of the pictures'


class Picture(NamedTuple):
    """One picture to digest."""

    person: str  # empty where it is unknown
    name: str  # the same wherever the data lies
    content: str  # changes when the picture does


@dataclass(frozen=True)
class DataDigest:
    """The people of a run or, where one picture is of nobody known, its pictures; and the pictures beside these.

    extra: trained on beside `train`, of nobody in particular, so that no evaluation asks for them.
    """

    of_people: bool
    train: Entries
    val: Entries
    extra: Entries = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)  # of those that are there now; never stored

    @classmethod
    def of(cls, train: Iterable[Picture], val: Iterable[Picture], extra: Iterable[Picture] = ()) -> Self:
        sides = [list(train), list(val)]
        of_people = all(picture.person for side in sides for picture in side)
        names: dict[int, str] = {}
        train_entries, val_entries = (_entries(side, of_people, names) for side in sides)
        return cls(of_people, train_entries, val_entries, _entries(list(extra), False, names), names)

    def with_extra(self, pictures: Iterable[Picture]) -> Self:
        """With these extra ones."""
        return replace(self, extra=_entries(list(pictures), False, {}))

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Self:
        """What `stored` gave."""
        train, val, extra = (
            dict(stored[side].tolist()) if side in stored else {} for side in ("train", "val", "extra")
        )
        return cls(bool(stored["of_people"]), train, val, extra)

    def stored(self) -> dict[str, Any]:
        """Plain values and (N, 2) int64 tensors, 16 bytes a person or picture."""
        sides = {"train": self.train, "val": self.val} | ({"extra": self.extra} if self.extra else {})
        tables = {side: torch.tensor(sorted(each.items()), dtype=torch.int64) for side, each in sides.items()}
        return {"of_people": self.of_people, **{side: table.view(len(table), 2) for side, table in tables.items()}}

    def counted(self, number: int | str) -> str:
        """`1 person`, `2 of 4 people`, or so many pictures."""
        words = ("person", "people") if self.of_people else ("picture", "pictures")
        return f"{number} {words[number != 1]}"

    def trained_on(self, pictures: Iterable[Picture]) -> tuple[list[str], int]:
        """Names of the people, or pictures, among these that were only trained on, and how many there are in all."""
        names: dict[int, str] = {}
        entries = _entries(list(pictures), self.of_people, names)
        return sorted(names[key] for key in entries.keys() & self.train.keys() - self.val.keys()), len(entries)

    def continues(self, earlier: Self, checkpoint: Path | None) -> Self:
        """This data for a run that began with `earlier`; whoever was trained on once stays so.

        Raises InputError where people, or pictures, have changed sides, and where the extra ones are not the same;
        warns where people or their pictures are others.
        """
        if self.extra != earlier.extra:
            kept = sum(earlier.extra.get(key) == content for key, content in self.extra.items())
            raise InputError(
                f"{checkpoint}: the faces of `extra_hr` are not those that the run began with "
                f"({len(earlier.extra)} then, {len(self.extra)} now, {kept} the same): give the same, or start another "
                "run by `name` or `resume` never"
            )
        if self.of_people != earlier.of_people:
            known = "known" if self.of_people else "unknown"
            warn(f"{checkpoint}: whose pictures the data holds is {known} now, unlike before, so it is not compared")
            return self
        for now, before, other, words in (
            (self.val, earlier.val, earlier.train, "trained on before, validated on now"),
            (self.train, earlier.train, earlier.val, "validated on before, trained on now"),
        ):
            if moved := now.keys() & other.keys() - before.keys():
                raise InputError(
                    f"{checkpoint}: the data was split anew ({words}: {self.counted(len(moved))} such as "
                    f"{self._first(moved)}): split it as it was (the same seed), or start another run by `name` or "
                    "`resume` never"
                )
        for side, now, before in (("training", self.train, earlier.train), ("validation", self.val, earlier.val)):
            if changes := self._changes(now, before):
                warn(f"{checkpoint}: the {side} data is not what the run began with: {', '.join(changes)}")
        return replace(self, train=earlier.train | self.train)

    def _changes(self, now: Entries, before: Entries) -> list[str]:
        came, went = now.keys() - before.keys(), before.keys() - now.keys()
        others = {key for key in now.keys() & before.keys() if now[key] != before[key]}
        changes = [f"{self.counted(len(came))} more (such as {self._first(came)})"] if came else []
        changes += [f"{self.counted(len(went))} fewer"] if went else []
        words = "with other pictures" if self.of_people else "changed"
        return changes + ([f"{self.counted(len(others))} {words} (such as {self._first(others)})"] if others else [])

    def _first(self, keys: Iterable[int]) -> str:
        return min(self.names[key] for key in keys)


def refuse_trained_on(
    stored: Mapping[str, Any] | None, pictures: Sequence[Picture], source: str, of_the_run: bool
) -> None:
    """stored: of the checkpoint that is evaluated on these pictures; None: it has none.

    of_the_run: `source` is what the run was validated on. Raises InputError where that holds people, or pictures, that
    were trained on; warns where another file has such names.
    """
    digest = None if stored is None else DataDigest.read(stored)
    if digest is None or (digest.of_people and not all(picture.person for picture in pictures)):
        return
    found, count = digest.trained_on(pictures)
    if not found:
        return
    line = f"{source}: {digest.counted(f'{len(found)} of {count}')}, such as {found[0]},"
    if of_the_run:
        raise InputError(f"{line} were trained on: the data was split anew since; evaluate on others")
    warn(f"{line} have names that were trained on: if they are the same, these are no metrics of unseen ones")


def _entries(pictures: Sequence[Picture], of_people: bool, names: dict[int, str]) -> Entries:
    """names: gets the name of each."""
    contents: dict[str, list[str]] = {}
    for person, name, content in pictures:
        contents.setdefault(person if of_people else name, []).append(f"{name}\0{content}")
    keys = {name: _digest(name) for name in contents}
    names |= {key: name for name, key in keys.items()}
    return {keys[name]: _digest("\0".join(sorted(rows))) for name, rows in contents.items()}


def _digest(text: str) -> int:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def base_folder(sources: Iterable[str | os.PathLike[str]]) -> Path:
    """The folder that all of these files are in, from which their pictures are named."""
    folders = [Path(source).absolute().parent for source in sources]
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # on two drives
        return folders[0]


def ear_pictures(data: TeacherData, base: Path, apart_by_folder: bool = False) -> list[Picture]:
    """The rows of a teacher file. apart_by_folder: the subjects of files in two folders are other people."""
    place = f"{_relative(data.source.parent, base)}/" if apart_by_folder else ""
    people = [""] * len(data) if data.subjects is None else [place + name for name in data.subjects]
    if data.image_paths is not None:
        names = [_relative(path, base) for path in data.image_paths]
        contents = [_size(path) for path in data.image_paths]
    else:
        names = contents = [each.hex() for each in row_samples(data.images)]
    boxes = [""] * len(data) if data.bboxes is None else [box.tobytes().hex() for box in data.bboxes]
    rows = zip(people, names, contents, boxes, strict=True)
    return [Picture(whose, name, f"{content} {box}") for whose, name, content, box in rows]


def photograph_pictures(rows: Iterable[Photograph], base: Path) -> list[Picture]:
    """Annotated photographs."""
    return [
        Picture(row.subject, _relative(row.path, base), f"{_size(row.path)} {row.boxes.tobytes().hex()}")
        for row in rows
    ]


def face_pictures(rows: Iterable[PictureRow]) -> list[Picture]:
    """Pictures of a prepared set."""
    return [Picture(row.identity, row.path.name, _size(row.path)) for row in rows]


def row_samples(images: NDArray[np.uint8] | None) -> list[bytes]:
    """A few pixels of each of N pictures (H, W, C), evenly spread: a digest of 16 bytes."""
    assert images is not None
    return [hashlib.blake2b(_sampled(image).tobytes(), digest_size=16).digest() for image in images]


def _sampled(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    down, across = (max(1, side // SAMPLED) for side in image.shape[:2])
    return np.ascontiguousarray(image[down // 2 :: down, across // 2 :: across])


def _relative(path: Path, base: Path) -> str:
    path = path.absolute()
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()


def _size(path: Path) -> str:
    try:
        return str(path.stat().st_size)
    except (OSError, ValueError):  # reported when it is read
        return "unreadable"
