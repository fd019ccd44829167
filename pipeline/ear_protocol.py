"""Which ears are enrolled and which are searched for, of a prepared set or of two lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ear_teacher.recognition.loading import TrainedEarRecognizer
from earface.core.errors import InputError
from earface.core.notices import warn
from earface.data.annotations import checked_side
from earface.data.ear_contract import STRETCH
from earface.data.ear_writing import COLUMNS, INDEX, collection_of_folder, prepared_folder, stored_contract
from earface.data.face_rows import read_faces
from earface.data.identity_split import identity_digests, person
from earface.data.image_cache import box_oddities
from earface.data.npy import read_teacher_npy
from earface.data.picture_rows import PictureRow
from earface.data.tables import SIDE_COLUMN, read_csv
from pipeline.ear_options import teacher_file
from pipeline.protocol import Enrolment, Protocol, Sides, enrolments_of, split_by_identity

FEW_VALUES = 10  # of a column, by which results are broken down
SAME, OTHER, UNKNOWN = "same side", "other side", "unknown"  # a probe, and the ears enrolled of its person


@dataclass(frozen=True)
class EarPicture(PictureRow):
    """One picture of an ear."""

    side: str = ""  # l, r, or empty for unknown
    contract: str = STRETCH  # EarContract.id of the picture
    box: tuple[float, ...] | None = None  # of the ear in it: x y width height, pixels
    columns: tuple[tuple[str, str], ...] = ()  # further ones of its index
    collection: str = ""  # whose identities they are; empty where nothing says it


@dataclass(frozen=True)
class EarProtocol(Protocol):
    """A protocol of EarPictures."""

    @property
    def ears(self) -> list[EarPicture]:
        """All, each once."""
        return list(dict.fromkeys(_ear(row) for row in (*self.test.rows, *self.calibration.rows)))

    def groups(self) -> Mapping[str, Sequence[str]]:
        """Whether the probe's side is enrolled, and the columns of the index that have few values."""
        details = self.details()
        few = {name: len({value for value in values if value}) for name, values in details.items()}
        return {"side": self._against()} | {
            name: values for name, values in details.items() if name != "ear" and 2 <= few[name] <= FEW_VALUES
        }

    def details(self) -> Mapping[str, Sequence[str]]:
        """`ear` is the probe's side; the others are columns of the index."""
        probes = [_ear(row) for row in self.test.probes]
        known = [dict(row.columns) for row in probes]
        names = dict.fromkeys(name for row in known for name in row)
        return {"ear": [row.side for row in probes]} | {name: [row.get(name, "") for row in known] for name in names}

    def _against(self) -> list[str]:
        """Of each mated probe; empty for the others."""
        enrolled: dict[str, set[str]] = {}
        for row in self.test.gallery:
            enrolled.setdefault(row.identity, set()).add(_ear(row).side)
        found = []
        for row in self.test.probes:
            side, sides = _ear(row).side, enrolled.get(row.identity, set())
            known = OTHER if side and sides and "" not in sides else UNKNOWN
            found.append((SAME if side and side in sides else known) if sides else "")
        return found


@dataclass(frozen=True)
class EarGalleryRule:
    """Which pictures of a person are enrolled."""

    template_pictures: int = 1
    enroll_sides: Literal["both", "one"] = "both"

    def __call__(self, rows: Sequence[EarPicture]) -> Enrolment:
        """The first `template_pictures` by name of each side of a person that has more; all others are probes.

        With enroll_sides `one` these are enrolled of the side with more pictures alone, and those of the other side are
        left out, so that the probes are the same. People with no such side are not enrolled: non-mated.
        """
        several = Counter((row.identity, row.side) for row in rows)
        enrolled: dict[tuple[str, str], list[EarPicture]] = {}
        for row in sorted(rows, key=lambda row: (row.identity, row.side, row.name)):
            own = enrolled.setdefault((row.identity, row.side), [])
            if several[row.identity, row.side] > self.template_pictures > len(own):
                own.append(row)
        chosen = {row for own in enrolled.values() for row in own}
        probes = [row for row in rows if row not in chosen]
        if self.enroll_sides == "one":
            most: dict[str, str] = {}
            for identity, side in enrolled:
                if several[identity, side] > several[identity, most.setdefault(identity, side)]:
                    most[identity] = side
            enrolled = {key: own for key, own in enrolled.items() if most[key[0]] == key[1]}
        return Enrolment([row for own in enrolled.values() for row in own], probes)

    def __str__(self) -> str:
        count = self.template_pictures
        first = "first picture" if count == 1 else f"first {count} pictures"
        of = "each side that has" if self.enroll_sides == "both" else "the side with more pictures, if it has"
        return f"the {first} by name of {of} {count + 1} or more"


def ears_of_set(root: str) -> list[EarPicture]:
    """The validation ears of a prepared set, or those of a teacher file. Raises InputError."""
    path = teacher_file(root)
    if path is None:
        raise InputError(
            f"`dataset_root` {root}: no prepared ears: a folder of earface ears prepare, or a teacher .npy"
        )
    data = read_teacher_npy(path)
    if data.image_paths is None or data.subjects is None:
        lacking = "paths of pictures" if data.image_paths is None else "subjects"
        raise InputError(f"{path}: names no {lacking}; make it with earface ears prepare, one folder per person")
    if len(set(data.image_paths)) < len(data):
        raise InputError(f"{path}: names a picture twice")
    for picture in data.image_paths:
        if not picture.is_file():
            raise InputError(f"{path}: {picture} is missing")
    for oddity in box_oddities(data):
        warn(oddity)
    sides, known = data.sides or [""] * len(data), _records(data.image_paths)
    boxes = [None] * len(data) if data.bboxes is None else [tuple(map(float, box)) for box in data.bboxes]
    contract = data.contract or STRETCH
    return [
        EarPicture(
            *(picture, _name_below(path.parent, picture), subject, side, contract, box),
            *(_columns(record), data.collection),
        )
        for picture, subject, side, box, record in zip(
            data.image_paths, data.subjects, sides, boxes, known, strict=True
        )
    ]


def listed_ears(source: str) -> list[EarPicture]:
    """The ears of a CSV of file, identity and, if it has it, side; or of a folder, as of faces.

    Sides of prepared ears are those of their index where the CSV has none. Raises InputError.
    """
    rows, sides = read_faces(source), None
    if Path(source).is_file():
        sides = [record.get(SIDE_COLUMN, "") for record in read_csv(Path(source))]
    found = []
    for number, (row, record) in enumerate(zip(rows, _records([row.path for row in rows]), strict=True)):
        folder = prepared_folder(row.path.parent)
        try:
            side = checked_side(sides[number] if sides else "") or record.get("side", "")
        except InputError as error:
            raise InputError(f"{source} line {number + 2}: {error}") from None
        contract = STRETCH if folder is None else stored_contract(folder)
        collection = collection_of_folder(row.path.parent)
        found.append(EarPicture(row.path, row.name, row.identity, side, contract, None, _columns(record), collection))
    return found


def from_ear_set(root: str, rule: EarGalleryRule, sides: Sides, calibration_fraction: float, seed: int) -> EarProtocol:
    """A share of the people is kept for calibration. Raises InputError."""
    calibration, test = split_by_identity(ears_of_set(root), calibration_fraction, seed)
    protocol = EarProtocol(f"{rule}; {describe_sides(sides)}", rule(test), rule(calibration), None, sides)
    if not protocol.test.gallery:
        few = f"nobody has {rule.template_pictures + 1} pictures of one side"
        raise InputError(f"`dataset_root` {root}: {few}; lower `template_pictures`, or give more pictures")
    return protocol


def from_ear_lists(gallery: str, probes: str, sides: Sides, calibration_fraction: float, seed: int) -> EarProtocol:
    """All of `gallery` are enrolled, those of `probes` searched for; some people calibrate. Raises InputError."""
    enrolled, searched = listed_ears(gallery), listed_ears(probes)
    if not {row.identity for row in enrolled} & {row.identity for row in searched}:
        raise InputError(f"`probes` {probes}: nobody in it is in `gallery` {gallery}")
    test, calibration = enrolments_of(enrolled, searched, calibration_fraction, seed)
    words = f"{Path(gallery).name} against {Path(probes).name}; {describe_sides(sides)}"
    return EarProtocol(words, test, calibration, None, sides)


def names_trained_on(
    protocol: EarProtocol, recognizer: TrainedEarRecognizer, policy: Literal["refuse", "note"]
) -> list[str]:
    """A note where people have names that were trained on, and nothing says of which set they are.

    Raises InputError for people of a set that was trained on, and under `refuse` for the others too.
    """
    people = sorted({(row.collection, row.identity) for row in protocol.ears})
    found = {pair: identity_digests([person(*pair)])[0] for pair in people}
    known = [pair for pair in people if found[pair] in recognizer.trained_on]
    if not known:
        return []
    line = f"{len(known)} of {len(people)} people"
    if any(collection for collection, _ in known):
        raise InputError(f"{recognizer.name}: was trained on {line}, such as {known[0][1]}: evaluate others")
    if policy == "refuse":
        raise InputError(
            f"{recognizer.name}: was trained on people with the names of {line}, such as {known[0][1]}: evaluate "
            "others, or give `known_names` note if they are not the same"
        )
    return [f"{line} have names that were trained on, such as {known[0][1]}"]


def describe_sides(sides: Sides) -> str:
    return "a template for each side" if sides == "apart" else "one template per person over both sides"


def _ear(row: PictureRow) -> EarPicture:
    assert isinstance(row, EarPicture)
    return row


def side_of(row: PictureRow) -> str:
    """l, r, or empty where it is unknown, and of faces."""
    return row.side if isinstance(row, EarPicture) else ""


def _name_below(folder: Path, path: Path) -> str:
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def _columns(record: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in record.items() if name and name not in COLUMNS)


def _records(pictures: Sequence[Path]) -> list[Mapping[str, str]]:
    """What the index of prepared ears holds of each; empty for any other picture."""
    indices: dict[Path, dict[Path, dict[str, str]]] = {}
    found: list[Mapping[str, str]] = []
    for picture in pictures:
        folder = prepared_folder(picture.parent)
        if folder is not None and folder not in indices:
            records = read_csv(folder / INDEX) if (folder / INDEX).is_file() else []
            indices[folder] = {(folder / record.get("file", "")).resolve(): record for record in records}
        found.append({} if folder is None else indices[folder].get(picture.resolve(), {}))
    return found
