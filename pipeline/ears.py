"""Ears of pictures in the form that a recogniser takes, with their sides, and their embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ear_teacher.recognition.loading import TrainedEarRecognizer
from earface.core.errors import InputError
from earface.data.annotations import Floats, checked_side
from earface.data.duplicates import picture_signature
from earface.data.ear_contract import EarAligner, EarContract, landmarker_of
from earface.data.ear_networks import EarBoxes
from earface.data.ear_writing import CONTRACT, EARS, INDEX, contract_of_folder, holds_prepared_ears
from earface.data.folders import DataRoot
from earface.data.identity_embeddings import IdentityEmbeddings
from earface.data.images import Pixels, read_image, resize_image
from earface.data.pixels import to_model_range
from earface.data.tables import SIDE_COLUMN, read_csv
from earface.metrics.image_quality import sharpness
from earface.nn.inference import in_columns
from pipeline.copies import Signature
from pipeline.picture_options import EAR_SCORE, PictureOptions

SURE = 0.3  # confidence of the landmarks in a side from which on they contradict a given one; of 99 % it is above .69
# The two ears of a person are alike: of AWE's people 053 to 070 one of 177 ears is nearer to the other side by so much,
# and of ears that were put under the wrong side 15 %.
LEAST_PICTURES, NEARER = 3, 0.2


@dataclass(frozen=True, eq=False)
class ReadEar:
    """An ear in the form that a recogniser takes."""

    picture: Pixels  # (S, S, 3) uint8
    side: str  # l, r, or empty where unknown
    contradicted: bool = False  # the side was given, and the landmarks say the other
    size: float = 0.0  # pixels, the longer side of the picture or of the box in it


class EarPictures:
    """`path -> ReadEar`; any number of threads may call it.

    A picture that has the form already is resized, any other is brought into it. A side is the one that is given for
    the picture, the one that `ears prepare` wrote, or what the landmarks say, in this order; but an ear is mirrored as
    the landmarks say, if they are sure.
    """

    def __init__(
        self, contract: EarContract, size: int, options: PictureOptions, given: Mapping[Path, str] | None = None
    ) -> None:
        """given: sides that are known, by the resolved path. Raises InputError for networks that are not of this
        contract.
        """
        self.contract, self.size, self.aligned, self.given = contract, size, options.aligned, given or {}
        self.boxes: EarBoxes | None = None
        if options.detector is not None and not options.aligned:
            self.boxes = EarBoxes(Path(options.detector), options.min_score or EAR_SCORE)
        if options.landmarker is not None and contract.fit != "canonical":
            raise InputError(f"`landmarker`: the recogniser's ears have the form {contract.id}, without landmarks")
        self._landmarker = options.landmarker
        self._prepared: dict[Path, tuple[str | None, Path, Mapping[str, tuple[str, float]]]] = {}

    @cached_property
    def aligner(self) -> EarAligner:
        return EarAligner(self.contract.fit, landmarker_of(self.contract.id, self._landmarker))

    def check(self, paths: Iterable[Path]) -> None:
        """Raise InputError where the networks that these pictures need are not available."""
        if self._landmarker is not None or not all(self._in_form(path) for path in paths):
            _ = self.aligner

    def __call__(self, path: Path) -> ReadEar:
        """Raises InputError for what cannot be read, has another form, or shows no ear."""
        picture = read_image(path)
        given = self.given.get(path.resolve(), "")
        if self._in_form(path):
            side, confidence = self._written(path)
            other = bool(given and side and given != side)
            contradicted, size = other or confidence <= -SURE, float(max(picture.shape[:2]))
            return ReadEar(resize_image(picture, self.size), given or side, contradicted, size)
        box = self._box(path, picture)
        located = self.aligner.locate(picture, box)
        other = located.fit is not None and given not in ("", located.fit.side)
        if other and located.fit is not None and located.fit.confidence < SURE:
            located, other = self.aligner.locate(picture, box, given), False  # type: ignore[arg-type]
        if located.problem:
            raise InputError(f"{path}: {located.problem}")
        side = given or ("" if located.fit is None else located.fit.side)
        size = float(max(picture.shape[:2]) if box is None else max(box[2:]))
        return ReadEar(self.aligner.image(picture, located, self.size), side, other, size)

    def ear(self, path: Path) -> Pixels:
        """The picture alone."""
        return self(path).picture

    def _box(self, path: Path, picture: Pixels) -> Floats | None:
        if self.boxes is None:
            return None
        found, _ = self.boxes(picture)
        if not len(found):
            raise InputError(f"{path}: no ear with a score of {self.boxes.min_score:g} or more")
        return found[0]

    def _in_form(self, path: Path) -> bool:
        """Raises InputError for ears that were prepared in another form."""
        stored, _, _ = self._folder(path.parent)
        if stored is not None and EarContract.parse(stored) != self.contract:
            raise InputError(f"{path}: is in the form {stored}, the recogniser takes {self.contract.id}")
        return self.aligned or stored is not None

    def _written(self, path: Path) -> tuple[str, float]:
        """The side that `ears prepare` wrote, and the confidence of that."""
        _, root, sides = self._folder(path.parent)
        unknown = "", 0.0
        return sides.get(path.absolute().relative_to(root).as_posix(), unknown) if sides else unknown

    def _folder(self, folder: Path) -> tuple[str | None, Path, Mapping[str, tuple[str, float]]]:
        """The form of the pictures in a folder, its root, and their sides below that."""
        if folder not in self._prepared:
            near = (folder, *folder.absolute().parents)
            root = next((each for each in near if (each / CONTRACT).is_file()), folder)
            self._prepared[folder] = contract_of_folder(folder), root.absolute(), _sides_below(root)
        return self._prepared[folder]


def _sides_below(folder: Path) -> dict[str, tuple[str, float]]:
    """Of each picture below a folder of prepared ears: its side, and how sure its landmarks are of it.

    The confidence is 0 where it is not known, and below 0 where they say the other side. Empty for any other folder.
    """
    if not ((folder / CONTRACT).is_file() and (folder / INDEX).is_file()):
        return {}
    try:
        rows = read_csv(folder / INDEX)
        return {row["file"]: (checked_side(row["side"]), float(row["side_confidence"] or 0)) for row in rows}
    except (KeyError, ValueError):
        raise InputError(f"{folder / INDEX}: damaged; prepare the ears again with earface ears prepare") from None


def refuse_preparation(given: str) -> None:
    """Raise InputError for the folder that ears were prepared in, which holds other pictures beside them."""
    if holds_prepared_ears(Path(given)):
        raise InputError(f"`input` {given}: holds prepared ears beside other pictures; give {Path(given) / EARS}")


class EarEmbedder:
    """Pictures of ears to embeddings, and what was found about each ear on the way."""

    what = "ears"

    def __init__(
        self,
        recognizer: TrainedEarRecognizer,
        pictures: EarPictures,
        signatures: dict[Path, Signature] | None = None,
    ) -> None:
        """signatures: where they are wanted, filled with that of each ear that is read."""
        self.recognizer, self.pictures, self.signatures = recognizer, pictures, signatures
        self.sides: dict[Path, str] = {}  # of the pictures that were read
        self.sizes: dict[Path, float] = {}
        self.contradicted: set[Path] = set()  # those whose landmarks say another side than was given

    def picture(self, path: Path) -> Pixels:
        """The ear in a file, in the recogniser's form. Raises InputError."""
        return self.pictures.ear(path)

    def read(self, path: Path) -> Tensor:
        """(3, S, S) in [-1, 1]. Raises InputError."""
        ear = self.pictures(path)
        self.sides[path], self.sizes[path] = ear.side, ear.size
        if self.signatures is not None:
            self.signatures[path] = picture_signature(ear.picture)
        if ear.contradicted:
            self.contradicted.add(path)
        return to_model_range(torch.from_numpy(ear.picture[None]))[0]

    def embed(self, ears: Tensor) -> Tensor:
        """(B, D + 3): the embeddings, and COMPUTED of each."""
        embeddings, *quality = self.recognizer.measured(ears)
        return in_columns([embeddings, *quality, sharpness(ears).to(embeddings)])

    def found_of(self, paths: Sequence[Path]) -> list[str]:
        return [""] * len(paths)

    def sides_of(self, paths: Sequence[Path]) -> list[str]:
        return [self.sides[path] for path in paths]


def ear_pictures(
    recognizer: TrainedEarRecognizer, options: PictureOptions, given: Mapping[Path, str] | None = None
) -> EarPictures:
    return EarPictures(recognizer.contract, recognizer.model.config.image_size, options, given)


def sides_in_index(index: Path) -> dict[Path, str]:
    """The sides that a CSV with the columns file and side gives, by the resolved path; none without that column.

    Raises InputError for a side that is neither l nor r.
    """
    root, sides = DataRoot(index.parent), {}
    for record in read_csv(index):
        try:
            if side := checked_side(record.get(SIDE_COLUMN, "").strip()):
                sides[root.resolve(record["file"]).resolve()] = side
        except InputError as error:
            raise InputError(f"{index} line {record.line}: {error}") from None
    return sides


def contradicted_sides(people: Sequence[str], paths: Sequence[Path], contradicted: set[Path]) -> list[str]:
    """A line for each person of whom an ear was given a side that its landmarks contradict."""
    lines = []
    for person in sorted(set(people)):
        own = [path for name, path in zip(people, paths, strict=True) if name == person]
        if wrong := [path for path in own if path in contradicted]:
            lines.append(
                f"{person}: the landmarks of {len(wrong)} of {len(own)} ears say the other side than was given "
                f"({wrong[0]})"
            )
    return lines


def nearer_to_the_other_side(table: IdentityEmbeddings, people: Iterable[str]) -> list[str]:
    """A line for each person of whom an ear is more alike to the other side than to the others of its own.

    By NEARER in the cosine with the template of the other side, and with that of its own without it; where there are
    LEAST_PICTURES or more of each side.
    """
    lines = []
    sides, names = np.array(table.sides or [""] * len(table)), np.array(table.identities)
    for person in sorted(set(people)):
        left, right = (np.flatnonzero((names == person) & (sides == side)) for side in "lr")
        if min(len(left), len(right)) < LEAST_PICTURES:
            continue
        margins: dict[int, float] = {}
        for rows, others in ((left, right), (right, left)):
            own, other = table.embeddings[rows], table.embeddings[others].sum(axis=0)
            without = own.sum(axis=0) - own
            within = (own * without).sum(axis=1) / np.maximum(np.linalg.norm(without, axis=1), 1e-6)
            across = own @ other / max(float(np.linalg.norm(other)), 1e-6)
            margins |= dict(zip(rows.tolist(), (across - within).tolist(), strict=True))
        if wrong := sorted((row for row in margins if margins[row] > NEARER), key=lambda row: -margins[row]):
            lines.append(
                f"{person}: {len(wrong)} of {len(margins)} ears are more alike to the other side than to their own "
                f"({table.paths[wrong[0]]}): are they enrolled under the right one?"
            )
    return lines
