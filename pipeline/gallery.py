"""A gallery: one template for each enrolled identity, or for each side of its ears, searched exactly.

The file is a table of embeddings as `earface faces embed` writes it, one row for each picture, so that pictures
can be added later. Templates are computed when it is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from earface.core.errors import InputError
from earface.data.ear_contract import Fit
from earface.data.given import Pictures, each_picture
from earface.data.identity_embeddings import IdentityEmbeddings, read_embeddings, write_embeddings
from pipeline.calibration import Calibration, Conditions
from pipeline.given_pictures import embedded_together, measured, written
from pipeline.identified import UNKNOWN, Candidate, Identified, Rule
from pipeline.options import Fusion
from pipeline.quality import of_row, weights_of
from pipeline.search import top_candidates, top_candidates_faiss

if TYPE_CHECKING:
    from pipeline.recognizers import Modality, Recognizer

NOT_A_NAME = "which is what people are called who are not recognised"

TEMPLATE_RULE = "mean of the embeddings of an identity's pictures, each of length 1, brought to length 1"
WEIGHTED_RULE = "weighted " + TEMPLATE_RULE
SHORTEST_MEAN = 1e-3  # the mean of opposite embeddings means nothing

Backend = Literal["exact", "faiss"]
Sides = Literal["apart", "joined"]
SIDE_NAMES = {"l": "left ear", "r": "right ear", "": "ear of an unknown side"}
Owner = TypeVar("Owner", str, tuple[str, str])  # an identity, or an identity and a side


@dataclass(frozen=True)
class Gallery:
    """T templates. Probes must be embedded with the same contract and weights.

    One for each identity; where the sides of ears are kept apart, one for each side of it, its own together.
    """

    templates: Tensor  # (T, D) of length 1
    identities: list[str]  # (T,) whose
    pictures: list[list[str]]  # (T,) the paths that each template was made of
    contract: str  # FaceContract.id or EarContract.id
    digest: str  # of the recogniser's weights
    metadata: dict[str, Any]  # of the table: weights, crop, aligned, ...
    sides: list[str] | None = None  # (T,) of each template's first picture, l, r or empty; None: of faces
    apart: bool = False  # whether all pictures of a template are of one side

    def __len__(self) -> int:
        """How many people there are."""
        return len(set(self.identities))

    def __repr__(self) -> str:
        pictures = sum(map(len, self.pictures))
        weights = self.metadata.get("weights", "unknown")
        return f"Gallery({len(self)} people by {pictures} embeddings of {self.modality}s, recogniser {weights})"

    @property
    def modality(self) -> Modality:
        return "ear" if self.contract.partition(":")[0] in get_args(Fit) else "face"

    @classmethod
    def of(cls, table: IdentityEmbeddings, sides: Sides = "apart") -> Gallery:
        """Templates by TEMPLATE_RULE, in the order of each identity's first picture.

        sides: of ears: apart: a template for each side of a person, an unknown one included. Identities that differ in
        nothing but their Unicode form or blanks around them are one. Pictures weigh as the table's `fusion` says.
        Raises InputError for a picture whose identity is not known, somebody called UNKNOWN, and for pictures that have
        no mean direction.
        """
        embeddings, names = torch.from_numpy(np.asarray(table.embeddings)), table.identities
        nameless = [path for path, identity in zip(table.paths, names, strict=True) if not identity]
        if nameless:
            raise InputError(f"{len(nameless)} of {len(table)} pictures have no identity ({nameless[0]})")
        if namesake := next((name for name in names if name.casefold() == UNKNOWN), None):
            raise InputError(f"somebody is enrolled as {namesake!r}, {NOT_A_NAME}: enrol them under another name")
        about = table.contract, table.digest, table.metadata
        weights = torch.from_numpy(weights_of(fusion_of(table.metadata), table.quality, len(table)))
        if table.sides is None:
            return cls(*templates_of(embeddings, names, table.paths, weights), *about)
        if sides == "joined":
            first = {name: table.sides[row] for row, name in reversed(list(enumerate(names)))}
            templates, owners, pictures = templates_of(embeddings, names, table.paths, weights)
            return cls(templates, owners, pictures, *about, [first[name] for name in owners])
        both = list(zip(names, table.sides, strict=True))
        templates, ears, pictures = templates_of(embeddings, both, table.paths, weights)
        number = {name: place for place, name in enumerate(dict.fromkeys(names))}
        order = sorted(range(len(ears)), key=lambda row: number[ears[row][0]])  # of equal scores the lower row is first
        owners, own_sides = ([ears[row][part] for row in order] for part in (0, 1))
        return cls(templates[order], owners, [pictures[row] for row in order], *about, own_sides, apart=True)

    @classmethod
    def load(cls, path: Path, sides: Sides = "apart") -> Gallery:
        """`of` the table in a file. Raises InputError for any other file."""
        try:
            return cls.of(read_embeddings(path), sides)
        except InputError as error:
            raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None

    @classmethod
    def enroll(
        cls,
        recognizer: Recognizer,
        people: Mapping[str, Pictures],
        out: str | Path | None = None,
        *,
        detector: str | PathLike[str] | None = None,
    ) -> Gallery:
        """People by name, each with one or several pictures, as `earface.data.given` takes them.

        recognizer: of `pipeline.load_recognizer`. out: an .npz for the gallery, which earface identify reads, too.
        detector: for photographs of faces, as FaceRecognizer.embed takes it; None: aligned faces, or ears. Raises
        InputError for a picture that cannot be used.
        """
        pictures = [(name, *each) for name, given in people.items() for each in each_picture(given)]
        if not pictures:
            raise InputError("nobody was given to enrol")
        table = IdentityEmbeddings(
            embeddings=embedded_together(recognizer, list(people.values()), detector).numpy(),
            paths=[written(name, picture) for _, name, picture in pictures],
            identities=[name for name, _, _ in pictures],
            contract=recognizer.contract.id,
            digest=recognizer.digest,
            metadata={"weights": recognizer.name, "template": TEMPLATE_RULE}
            | ({} if detector is None else {"aligned": False, "detector": str(Path(detector).resolve())}),
            sides=[""] * len(pictures) if recognizer.modality == "ear" else None,
        )
        if out is not None:
            write_embeddings(Path(out), table)
        return cls.of(table, "joined")

    def identify(
        self,
        recognizer: Recognizer,
        pictures: Pictures,
        threshold: float | None = None,
        count: int = 5,
        *,
        detector: str | PathLike[str] | None = None,
        operating_point: str | None = None,
    ) -> list[Identified]:
        """Of each picture its `count` best people, and who it is, from the cosine `threshold` on.

        pictures: one or several, as `earface.data.given` takes them. detector: for photographs of faces, as
        FaceRecognizer.embed takes it; None: aligned faces, or ears. operating_point: instead of a threshold, such as
        fpir=0.01, of a calibrated gallery; None and no threshold: THRESHOLDS, uncalibrated. Raises InputError for a
        recogniser that the gallery was not enrolled with, a picture that cannot be used, and an operating point that
        the gallery's calibration does not hold.
        """
        self.check_recognizer(recognizer, Path("the gallery"))
        rule = self.rule({"upsampler": "none", "upsampler_digest": ""}, threshold, operating_point)
        names = [name for name, _ in each_picture(pictures)]
        embeddings, quality = measured(recognizer, pictures, detector)
        found = enumerate(zip(names, self.search(embeddings, count), strict=True))
        return [Identified(Path(name), best, rule, "", of_row(quality, row)) for row, (name, best) in found]

    def rule(self, conditions: Conditions, threshold: float | None, operating_point: str | None) -> Rule:
        """By which a candidate is accepted; conditions: how probes are enlarged. Raises InputError as `Rule.of`."""
        stored = self.metadata.get("calibration")
        calibration = None if stored is None else Calibration.from_plain(stored, "the gallery")
        own = {"sides": "apart" if self.apart else "joined", "fusion": fusion_of(self.metadata)}
        return Rule.of(calibration, self.modality, len(self), {**conditions, **own}, threshold, operating_point)

    def check_recognizer(self, recognizer: Recognizer, path: Path) -> None:
        """Raise InputError for a recogniser of the other modality, of another contract or of other weights."""
        if recognizer.modality != self.modality:
            raise InputError(
                f"{path}: holds {self.modality}s, and {recognizer.name} is a recogniser of {recognizer.modality}s: "
                "give the recogniser that it was enrolled with, or another gallery"
            )
        self.check_key(recognizer.key, path)

    def check_key(self, key: tuple[str, str], path: Path) -> None:
        """Raise InputError for a recogniser of another contract or of other weights. key: FaceRecognizer.key."""
        differing = "under another contract", "with other weights"
        for own, other, what in zip((self.contract, self.digest), key, differing, strict=True):
            if own != other:
                raise InputError(
                    f"{path}: was enrolled {what} ({own[:48]}) than the recogniser's ({other[:48]}): "
                    "give the recogniser that it was enrolled with, or enrol again"
                )

    def search(
        self, probes: Tensor, count: int, backend: Backend = "exact", sides: Sequence[str] | None = None
    ) -> list[list[Candidate]]:
        """The `count` best identities of each probe, or all if there are fewer, best first.

        probes: (P, D) of length 1, float32. exact: chunked matrix products on the probes' device; of equal scores the
        identity enrolled first comes first. faiss: FAISS's exact index, where it is installed.
        sides: (P,) of the probes, l, r or empty where unknown; None: of all unknown. Of a person whose sides are apart
        the best of the templates in `comparable` counts.
        """
        find = top_candidates if backend == "exact" else top_candidates_faiss
        templates = self.templates.to(probes.device)
        own = [""] * len(probes) if sides is None or not self.apart else list(sides)
        found: list[list[Candidate]] = [[] for _ in own]
        for side in sorted(set(own)):
            which, usable = [place for place, each in enumerate(own) if each == side], self.comparable(side)
            most = max(Counter(self.identities[row] for row in usable).values()) if self.apart else 1  # of one person
            part = templates if len(usable) == len(templates) else templates[usable]
            scores, places = find(probes if len(which) == len(own) else probes[which], part, count * most)
            for probe, *best in zip(which, scores.tolist(), places.tolist(), strict=True):
                found[probe] = self._candidates(best[0], [usable[place] for place in best[1]], count)
        return found

    def comparable(self, side: str) -> Sequence[int]:
        """The rows of templates that a probe of this side is compared with.

        Of each person those of its side and of unknown side; all, where the person has none of its side, or it has
        none.
        """
        if not self.apart or self.sides is None or not side:
            return range(len(self.identities))
        has = {name for name, own in zip(self.identities, self.sides, strict=True) if own == side}
        ears = enumerate(zip(self.identities, self.sides, strict=True))
        return [row for row, (name, own) in ears if own in (side, "") or name not in has]

    def _candidates(self, scores: Sequence[float], rows: Sequence[int], count: int) -> list[Candidate]:
        """The first `count` people among templates, best first."""
        found: dict[str, Candidate] = {}
        for score, row in zip(scores, rows, strict=True):
            name = self.identities[row]
            if name not in found:
                found[name] = Candidate(name, score, self.pictures[row][0], self.sides[row] if self.sides else "")
            if len(found) == count:
                break
        return list(found.values())


def fusion_of(metadata: Mapping[str, Any]) -> Fusion:
    """How a gallery's pictures are fused. Raises InputError for what is not known here."""
    found = metadata.get("fusion", "mean")
    if found not in get_args(Fusion):
        raise InputError(f"its pictures are fused by {found!r}, not one of {', '.join(get_args(Fusion))}")
    return found


def templates_of(
    embeddings: Tensor, identities: Sequence[Owner], pictures: Sequence[str], weights: Tensor | None = None
) -> tuple[Tensor, list[Owner], list[list[str]]]:
    """(N, D) of length 1 -> templates (T, D) by TEMPLATE_RULE, their identities and pictures.

    identities: names, or names and sides. weights: of the pictures, (N,); None: all alike. In the order of each one's
    first picture. Raises InputError for pictures that have no mean direction.
    """
    number: dict[Owner, int] = {}
    of = torch.tensor([number.setdefault(identity, len(number)) for identity in identities])
    named: list[list[str]] = [[] for _ in number]
    for row, picture in zip(of.tolist(), pictures, strict=True):
        named[row].append(picture)
    rows = embeddings.cpu() if weights is None else embeddings.cpu() * weights[:, None]
    sums = torch.zeros(len(number), embeddings.shape[1]).index_add_(0, of, rows)
    counts = torch.bincount(of, weights, minlength=len(number))
    lengths = sums.norm(dim=1, keepdim=True)
    names = list(number)
    for row in torch.nonzero(lengths[:, 0] / counts < SHORTEST_MEAN)[:, 0].tolist():
        whose = names[row] if isinstance(names[row], str) else f"the {SIDE_NAMES[names[row][1]]} of {names[row][0]}"
        raise InputError(f"the {len(named[row])} pictures of {whose} have no mean direction: are they of one person?")
    return sums.div_(lengths), names, named  # in place: a million templates are 2 GB
