"""A gallery: one template for each enrolled identity, searched exactly.

The file is a table of face embeddings as `earface faces embed` writes it, one row for each picture, so that pictures
can be added later. Templates are computed when it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from earface.core.errors import InputError
from earface.data.identity_embeddings import IdentityEmbeddings, read_embeddings
from pipeline.search import top_candidates, top_candidates_faiss

UNKNOWN = "unknown"

TEMPLATE_RULE = "mean of the embeddings of an identity's pictures, each of length 1, brought to length 1"
SHORTEST_MEAN = 1e-3  # the mean of opposite embeddings means nothing

Backend = Literal["exact", "faiss"]


@dataclass(frozen=True)
class Candidate:
    """An identity that a search found."""

    identity: str
    score: float  # cosine, in [-1, 1]
    picture: str  # the first one enrolled


@dataclass(frozen=True)
class Gallery:
    """T templates, one for each identity. Probes must be embedded with the same contract and weights."""

    templates: Tensor  # (T, D) of length 1
    identities: list[str]  # (T,) all different
    pictures: list[list[str]]  # (T,) the paths that each template was made of
    contract: str  # FaceContract.id
    digest: str  # of the recogniser's weights
    metadata: dict[str, Any]  # of the table: weights, crop, aligned, ...

    def __len__(self) -> int:
        return len(self.identities)

    @classmethod
    def of(cls, table: IdentityEmbeddings) -> Gallery:
        """Templates by TEMPLATE_RULE, in the order of each identity's first picture.

        Raises InputError for a picture whose identity is not known, and for pictures that have no mean direction.
        """
        nameless = [path for path, identity in zip(table.paths, table.identities, strict=True) if not identity]
        if nameless:
            raise InputError(f"{len(nameless)} of {len(table)} pictures have no identity ({nameless[0]})")
        templates, names, pictures = templates_of(
            torch.from_numpy(np.asarray(table.embeddings)), table.identities, table.paths
        )
        return cls(templates, names, pictures, table.contract, table.digest, table.metadata)

    @classmethod
    def load(cls, path: Path) -> Gallery:
        """`of` the table in a file. Raises InputError for any other file."""
        try:
            return cls.of(read_embeddings(path))
        except InputError as error:
            raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None

    def check_key(self, key: tuple[str, str], path: Path) -> None:
        """Raise InputError for a recogniser of another contract or of other weights. key: FaceRecognizer.key."""
        differing = "under another contract", "with other weights"
        for own, other, what in zip((self.contract, self.digest), key, differing, strict=True):
            if own != other:
                raise InputError(
                    f"{path}: was enrolled {what} ({own[:48]}) than the recogniser's ({other[:48]}): "
                    "give the recogniser that it was enrolled with, or enrol again"
                )

    def search(self, probes: Tensor, count: int, backend: Backend = "exact") -> list[list[Candidate]]:
        """The `count` best identities of each probe, or all if there are fewer, best first.

        probes: (P, D) of length 1, float32. exact: chunked matrix products on the probes' device; of equal scores the
        identity enrolled first comes first. faiss: FAISS's exact index, where it is installed.
        """
        templates = self.templates.to(probes.device)
        find = top_candidates if backend == "exact" else top_candidates_faiss
        scores, rows = find(probes, templates, count)
        return [
            [Candidate(self.identities[row], score, self.pictures[row][0]) for score, row in zip(*both, strict=True)]
            for both in zip(scores.tolist(), rows.tolist(), strict=True)
        ]


def templates_of(
    embeddings: Tensor, identities: Sequence[str], pictures: Sequence[str]
) -> tuple[Tensor, list[str], list[list[str]]]:
    """(N, D) of length 1 -> templates (T, D) by TEMPLATE_RULE, their identities and pictures.

    In the order of each identity's first picture. Raises InputError for pictures that have no mean direction.
    """
    number: dict[str, int] = {}
    of = torch.tensor([number.setdefault(identity, len(number)) for identity in identities])
    named: list[list[str]] = [[] for _ in number]
    for row, picture in zip(of.tolist(), pictures, strict=True):
        named[row].append(picture)
    sums = torch.zeros(len(number), embeddings.shape[1]).index_add_(0, of, embeddings.cpu())
    counts = torch.bincount(of, minlength=len(number))
    lengths = sums.norm(dim=1, keepdim=True)
    names = list(number)
    for row in torch.nonzero(lengths[:, 0] / counts < SHORTEST_MEAN)[:, 0].tolist():
        raise InputError(f"the {counts[row]} pictures of {names[row]} have no mean direction: are they of one person?")
    return sums.div_(lengths), names, named  # in place: a million templates are 2 GB


@dataclass(frozen=True)
class Identified:
    """A picture and its candidates, best first."""

    path: Path
    candidates: list[Candidate]
    threshold: float

    @property
    def decision(self) -> str:
        """The best candidate's identity, or UNKNOWN where it does not reach the threshold."""
        best = self.candidates[0]
        return best.identity if best.score >= self.threshold else UNKNOWN
