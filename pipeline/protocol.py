"""Which pictures are enrolled and which are searched for.

Gallery and probes are of the test identities. Thresholds are fitted on others, the calibration identities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.data.face_folders import HR_FOLDER, SPLITS_FILE, require_face_set, split_folder
from earface.data.face_rows import FaceRow, read_faces
from earface.data.multipie import CAMERA_YAW, FRONTAL, FRONTAL_FLASH, NEUTRAL, MultiPieName, warn_of_profiles
from earface.data.picture_rows import PictureRow
from earface.data.splits import split_by_subject

NONMATED = "nonmated"  # a role of earface/data/identity_split.py
PATTERN = "SUBJECT_SESSION_RECORDING_CAMERA_ILLUMINATION_crop_128.png, such as 001_01_01_051_07_crop_128.png"

Sides = Literal["apart", "joined"]
Row = TypeVar("Row", bound=PictureRow)
AnyProtocol = TypeVar("AnyProtocol", bound="Protocol")


@dataclass(frozen=True)
class Enrolment:
    """Enrolled pictures, and probes: of enrolled people (mated) and of others (non-mated)."""

    gallery: Sequence[PictureRow]
    probes: Sequence[PictureRow]

    @property
    def mated(self) -> list[bool]:
        """Whether the person of each probe is enrolled."""
        people = {row.identity for row in self.gallery}
        return [row.identity in people for row in self.probes]

    @property
    def rows(self) -> list[PictureRow]:
        return [*self.gallery, *self.probes]


@dataclass(frozen=True)
class Pair:
    """Two pictures, by their numbers in `first` and `second` of Protocol, and the fold that they are in."""

    first: int
    second: int
    same: bool
    fold: int


@dataclass(frozen=True)
class Protocol:
    """What an evaluation compares."""

    rule: str  # which pictures are enrolled, in words
    test: Enrolment
    calibration: Enrolment  # to fit thresholds on; empty: none are fitted
    pairs: list[Pair] | None = None  # then `test` holds their first and second pictures, and nobody is searched for
    sides: Sides = "joined"  # of ears: templates of each side, or as of faces one per person
    left_out: Sequence[str] = ()  # a line for each picture or pair that its list names and that is not used

    def groups(self) -> Mapping[str, Sequence[str]]:
        """Camera angle and flash of each test probe, where its name is a Multi-PIE one."""
        details = self.details()
        if not any(details["camera"]):
            return {}
        angles = {camera: f"{yaw:+d}°" if yaw else "0°" for camera, yaw in CAMERA_YAW.items()}
        cameras = [angles.get(camera, camera) for camera in details["camera"]]
        return {"camera angle": cameras, "illumination": details["illumination"]}

    def details(self) -> Mapping[str, Sequence[str]]:
        """What is known of each test probe, by the column of probes.csv."""
        names = ("session", "camera", "illumination")
        return {name: [getattr(row, name) for row in self.test.probes] for name in names}

    def notes(self) -> list[str]:
        """Sentences about people who are only enrolled or only searched for."""
        if self.pairs is not None:
            return []
        enrolled = {row.identity for row in self.test.gallery}
        probed = {row.identity for row in self.test.probes}
        found = []
        if distractors := enrolled - probed:
            found.append(f"{len(distractors)} identities are enrolled and have no probe ({_some(distractors)})")
        if others := probed - enrolled:
            found.append(f"{len(others)} identities have probes and are not enrolled: non-mated ({_some(others)})")
        if not others:
            found.append("everyone is enrolled: the non-mated searches are those of all probes, each without its mate")
        return found


@dataclass(frozen=True)
class GalleryRule:
    """Which pictures of a person are enrolled."""

    camera: str = FRONTAL
    illumination: str = FRONTAL_FLASH
    recording: str = NEUTRAL
    template_pictures: int = 1

    def __call__(self, rows: Sequence[FaceRow]) -> tuple[Enrolment, str]:
        """Gallery and probes of one set of pictures, and the rule in words. rows: at least one.

        Of an identity with a Multi-PIE name, the first `template_pictures` of this camera, illumination and recording
        are enrolled, and identities without one are left out, with a warning. Of others the first `template_pictures`
        by name of every identity with more. All other pictures are probes. Identities whose role in splits.json is
        `nonmated` are never enrolled. Raises InputError if there are Multi-PIE names alone and none can be enrolled.
        """
        by_name = {row.identity for row in rows if MultiPieName.parse(row.path.name)}
        several = Counter(row.identity for row in rows)
        enrolled: dict[str, list[FaceRow]] = {}
        count = self.template_pictures
        for row in sorted(rows, key=_order):
            suits = self._suits(row) if row.identity in by_name else several[row.identity] > count
            if row.role != NONMATED and suits and len(enrolled.get(row.identity, ())) < count:
                enrolled.setdefault(row.identity, []).append(row)
        if not enrolled and by_name == set(several):
            raise InputError(
                f"{rows[0].path.parent}: no picture of camera {self.camera}, illumination {self.illumination}, "
                f"recording {self.recording} to enrol; names are {PATTERN}"
            )
        chosen = {row.path for own in enrolled.values() for row in own}
        nonmated = {row.identity for row in rows if row.role == NONMATED}
        lacking = by_name - set(enrolled) - nonmated
        rules, first = [], "first" if count == 1 else f"first {count}"
        if by_name:
            rules = [f"{first} of camera {self.camera}, illumination {self.illumination}, recording {self.recording}"]
        if by_name != set(several):
            several_of = (
                "picture by name of everyone with two"
                if count == 1
                else (f"pictures by name of everyone with {count + 1}")
            )
            rules.append(f"{first} {several_of} or more")
        if lacking:
            view = rules[0].removeprefix(f"{first} of ")
            warn(
                f"{len(lacking)} of {len(several)} identities are left out: no picture of {view} ({_some(lacking)})",
                sorted(lacking),
            )
        probes = [row for row in rows if row.path not in chosen and row.identity not in lacking]
        return Enrolment([row for own in enrolled.values() for row in own], probes), "; of others the ".join(rules)

    def _suits(self, row: FaceRow) -> bool:
        name = MultiPieName.parse(row.path.name)
        codes = (self.camera, self.illumination, self.recording)
        return name is not None and (name.camera, name.illumination, name.recording) == codes


def from_dataset(root: str, rule: GalleryRule, calibration_fraction: float, seed: int) -> Protocol:
    """The test and validation identities of a prepared set; of any other set, a share is kept for calibration.

    root: a prepared set, its test_processed, or what earface.data.face_rows.read_faces takes.
    calibration_fraction: of the identities, in [0, 1); 0: no thresholds are fitted. Raises InputError.
    """
    path = Path(root)
    if path.name in ("", ".."):  # the folder above it has to be known
        path = path.resolve()
    whole = (path / split_folder("test") / HR_FOLDER).is_dir()
    if whole or (path / HR_FOLDER).is_dir():
        inside = path if whole else path.parent
        test_rows = read_faces(path, ("test",))
        has_val = (inside / split_folder("val") / HR_FOLDER).is_dir() and path != inside / split_folder("val")
        calibration_rows = read_faces(inside, ("val",)) if has_val else []
        test, words = rule(test_rows)
        calibration = rule(calibration_rows)[0] if calibration_rows else Enrolment([], [])
        folder = split_folder("test") if whole else path.name
        where = f"identities of {SPLITS_FILE}" if (inside / SPLITS_FILE).is_file() else folder
        return Protocol(f"{words}; {where}", test, calibration)
    require_face_set(root)
    calibration_rows, test_rows = split_by_identity(read_faces(path), calibration_fraction, seed)
    test, words = rule(test_rows)
    return Protocol(words, test, rule(calibration_rows)[0] if calibration_rows else Enrolment([], []))


def from_lists(gallery: str, probes: str, calibration_fraction: float, seed: int) -> Protocol:
    """All pictures of `gallery` are enrolled, those of `probes` searched for; some enrolled identities calibrate.

    gallery, probes: each a CSV of file and identity, or a folder. calibration_fraction: as above. Raises InputError.
    """
    enrolled, searched = read_faces(gallery), read_faces(probes)
    warn_of_profiles(row.path for row in enrolled)
    if not {row.identity for row in enrolled} & {row.identity for row in searched}:
        raise InputError(f"`probes` {probes}: nobody in it is in `gallery` {gallery}")
    test, calibration = enrolments_of(enrolled, searched, calibration_fraction, seed)
    return Protocol(f"{Path(gallery).name} against {Path(probes).name}", test, calibration)


def enrolments_of(
    enrolled: Sequence[PictureRow], searched: Sequence[PictureRow], calibration_fraction: float, seed: int
) -> tuple[Enrolment, Enrolment]:
    """Test and calibration; of the enrolled identities a fraction calibrates. Raises InputError."""
    chosen = {row.identity for row in split_by_identity(enrolled, calibration_fraction, seed)[0]}
    test = Enrolment(*([row for row in rows if row.identity not in chosen] for rows in (enrolled, searched)))
    calibration = Enrolment(*([row for row in rows if row.identity in chosen] for rows in (enrolled, searched)))
    return test, calibration


def split_by_identity(rows: Sequence[Row], fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Those of the calibration identities, and the others. Raises InputError where either side would be empty."""
    if fraction == 0:
        return [], list(rows)
    try:
        calibrating = split_by_subject([row.identity for row in rows], fraction, seed)
    except InputError as error:
        raise InputError(f"`calibration_fraction`: {error}; with 0 no thresholds are fitted") from None
    return (
        [row for row, chosen in zip(rows, calibrating, strict=True) if chosen],
        [row for row, chosen in zip(rows, calibrating, strict=True) if not chosen],
    )


def _order(row: FaceRow) -> tuple[str, str]:
    """By name; of Multi-PIE names without the extension, so that a copy, `... (1).png`, comes after its original."""
    return row.identity, row.path.stem if MultiPieName.parse(row.path.name) else row.path.name


def _some(names: Iterable[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:3]) + (", ..." if len(shown) > 3 else "")
