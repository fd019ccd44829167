"""The ears of teacher files: opened alike for every training and tool, of one form, and of people on one side alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from earface.core.errors import InputError
from earface.core.progress import progress
from earface.data.ear_contract import STRETCH
from earface.data.identity_split import person
from earface.data.image_cache import ImageMap, open_image_cache
from earface.data.npy import TeacherData
from earface.data.training_checks import DecodedPictures, check_decoded, row_names


@dataclass(frozen=True)
class EarFile:
    """The ears of one teacher file that can be read."""

    source: str
    images: ImageMap  # (N, S, S, C)
    names: list[str]  # paths, or rows of an image array
    subjects: list[str]  # none where the file names none
    sides: list[str]  # l, r or empty
    collection: str  # whose subjects they are, empty where it is unknown
    skipped: int = 0

    @property
    def people(self) -> set[str]:
        """The subjects by names that differ from those of other sets."""
        return {person(self.collection, subject) for subject in self.subjects}

    @property
    def place(self) -> str:
        """Whose subjects they are: of files of one set, or else in one folder, equal names are one person."""
        return self.collection or str(Path(self.source).parent.resolve())

    def __len__(self) -> int:
        return len(self.names)


def open_ear_file(
    data: TeacherData,
    *,
    image_size: int,
    channels: int,
    crop_to_bbox: bool = False,
    cache_dir: str | None = None,
    quiet: bool = False,
) -> EarFile:
    """The file's ears, decoded into `cache_dir`, by default .cache beside the file. quiet: no progress is shown."""
    path = str(data.source)
    with progress(f"decoding {path}", quiet=quiet) as state:
        cache = open_image_cache(
            data,
            image_size=image_size,
            channels=channels,
            crop_to_bbox=crop_to_bbox,
            cache_dir=cache_dir or Path(path).parent / ".cache",
            progress=state.update,
        )
    cache.warn_of_skipped(data)
    names, kept = row_names(data), cache.kept.tolist()
    sides = data.sides or [""] * len(data)
    return EarFile(
        path,
        cache.images,
        [names[row] for row in kept],
        [] if data.subjects is None else [data.subjects[row] for row in kept],
        [sides[row] for row in kept],
        data.collection,
        len(cache.skipped),
    )


def common_contract(files: Iterable[TeacherData]) -> str:
    """EarContract.id of all ears. Raises InputError where they are in different forms."""
    first, *others = [(data.contract or STRETCH, data.source) for data in files]
    for contract, source in others:
        if contract != first[0]:
            raise InputError(
                f"{source}: its ears are in the form {contract}, those of {first[1]} in {first[0]}: prepare all alike"
            )
    return first[0]


def check_people(train: Sequence[EarFile], val: Sequence[EarFile]) -> None:
    """Raise InputError for a person, or where no subjects are known a picture, that is on both sides."""
    trained = {(file.place, name): file for file in train for name in file.subjects}
    for file in val:
        shared = sorted(name for name in set(file.subjects) if (file.place, name) in trained)
        if shared:
            other = trained[file.place, shared[0]].source
            raise InputError(
                f"{file.source}: {len(shared)} subjects are also in {other} (such as {shared[0]}); split by subject, "
                "for example with earface ears prepare"
            )
    check_decoded([_decoded(file) for file in train], [_decoded(file) for file in val])


def check_several(people: Sequence[str], source: str, purpose: str) -> None:
    """Raise InputError for ears among which nobody can be recognised. people: of each; purpose: what needs it."""
    counts = Counter(people)
    if len(counts) < 2 or max(counts.values()) < 2:
        raise InputError(f"{source}: {purpose} needs two people, one of them with two ears or more")


def people_of(files: Sequence[EarFile]) -> list[str]:
    """Whose each ear is, of all files in a row; empty where it is unknown. A file is part of a name: 001 is one person
    a file."""
    return [
        f"{number}/{subject}" if subject else ""
        for number, file in enumerate(files)
        for subject in (file.subjects or [""] * len(file))
    ]


def _decoded(file: EarFile) -> DecodedPictures:
    return DecodedPictures(file.source, file.images, file.names, with_subjects=bool(file.subjects))
