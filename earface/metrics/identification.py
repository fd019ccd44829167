"""Closed-set identification: with one gallery picture a person, and leaving one out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earface.metrics.verification import equal_error_rate

BLOCK_ROWS = 512  # of the similarity matrix, held at once
MAX_IMPOSTOR_PAIRS = 20_000_000  # a false match rate is as precise with an even share of more

CHUNK = 1024  # probes compared at once


def one_gallery_picture(identities: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """The first picture of each identity that has several, and all their others: gallery and probes, by number."""
    places: dict[Hashable, list[int]] = {}
    for place, identity in enumerate(identities):
        places.setdefault(identity, []).append(place)
    several = [own for own in places.values() if len(own) > 1]
    return [own[0] for own in several], [place for own in several for place in own[1:]]


def rank_one_hits(
    probes: Tensor, probe_identities: Sequence[Hashable], gallery: Tensor, gallery_identities: Sequence[Hashable]
) -> Tensor:
    """Whether the most similar gallery entry of each probe is its own identity's: (P,) bool.

    probes (P, D), gallery (G, D) of length 1. Of equal scores a wrong entry counts before a right one.
    """
    number = {identity: place for place, identity in enumerate(dict.fromkeys([*gallery_identities, *probe_identities]))}
    owner = torch.tensor([number[identity] for identity in gallery_identities])
    target = torch.tensor([number[identity] for identity in probe_identities])
    hits = []
    for rows, own in zip(probes.split(CHUNK), target.split(CHUNK), strict=True):
        scores = rows @ gallery.T
        mated = owner[None, :] == own[:, None]
        best_mated = scores.masked_fill(~mated, -torch.inf).amax(dim=1)
        best_other = scores.masked_fill(mated, -torch.inf).amax(dim=1)
        hits.append(best_mated > best_other)
    return torch.cat(hits) if hits else torch.empty(0, dtype=torch.bool)


@dataclass(frozen=True)
class Identification:
    """Leave one out over a set of images. A metric is None where there are too few subjects for it."""

    rank1: float | None  # share of the probes whose most similar other image shows the same subject
    eer: float | None  # share, in [0, 1]
    probes: int  # images whose subject has another image
    single_image_subjects: int  # their images are no probes, but stay in the gallery
    genuine_pairs: int
    impostor_pairs: int


def unit_rows(embeddings: NDArray[np.floating], center: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
    """(N, D) minus `center` (D,), each row scaled to length 1: dot products are cosines. A row of zeros stays so."""
    rows = np.asarray(embeddings, np.float64)
    if center is not None:
        rows = rows - np.asarray(center, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def nearest_other(units: NDArray[np.float64]) -> NDArray[np.int64]:
    """(N,) the row most similar to each of N >= 2 unit rows, itself left out; the first of equals."""
    nearest = np.empty(len(units), np.int64)
    for start in range(0, len(units), BLOCK_ROWS):
        block = np.arange(start, min(start + BLOCK_ROWS, len(units)))
        similarity = units[block] @ units.T
        similarity[np.arange(len(block)), block] = -np.inf
        nearest[block] = similarity.argmax(axis=1)
    return nearest


def identify(units: NDArray[np.float64], subjects: Sequence[str]) -> Identification:
    """Rank-1 and EER of (N, D) unit rows, N >= 2, whose subjects are known.

    Both need two subjects and one with two images; else they are None.
    """
    _, owner, counts = np.unique(np.asarray(subjects), return_inverse=True, return_counts=True)
    is_probe = counts[owner] > 1
    genuine, impostor = pair_scores(units, owner)
    enough = len(counts) > 1 and bool(is_probe.any())
    found = owner[nearest_other(units)] == owner
    sizes = counts.astype(np.int64)
    genuine_pairs = int((sizes * (sizes - 1) // 2).sum())
    return Identification(
        rank1=float(found[is_probe].mean()) if enough else None,
        eer=equal_error_rate(genuine, impostor) if enough else None,
        probes=int(is_probe.sum()),
        single_image_subjects=int((counts == 1).sum()),
        genuine_pairs=genuine_pairs,
        impostor_pairs=len(owner) * (len(owner) - 1) // 2 - genuine_pairs,
    )


def pair_scores(
    units: NDArray[np.float64], owner: NDArray[np.integer], max_impostors: int = MAX_IMPOSTOR_PAIRS
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines of the unordered pairs of N images: the same owner's (genuine), and two owners' (impostor).

    Of more than `max_impostors` impostor pairs every second, third, ... is taken.
    """
    stride = max(1, -(-len(units) * (len(units) - 1) // 2 // max_impostors))
    genuine, impostor = [], []
    for start in range(0, len(units), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        similarity = (units[block] @ units[start:].T).astype(np.float32)
        once = np.triu(np.ones(similarity.shape, bool), k=1)
        same = owner[block, None] == owner[None, start:]
        genuine.append(similarity[once & same])
        impostor.append(similarity[once & ~same][::stride])
    return np.concatenate(genuine), np.concatenate(impostor)
