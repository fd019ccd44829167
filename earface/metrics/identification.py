"""Closed-set identification with one gallery picture a person."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

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
    wanted = torch.tensor([number[identity] for identity in probe_identities])
    hits = []
    for rows, own in zip(probes.split(CHUNK), wanted.split(CHUNK), strict=True):
        scores = rows @ gallery.T
        mated = owner[None, :] == own[:, None]
        best_mated = scores.masked_fill(~mated, -torch.inf).amax(dim=1)
        best_other = scores.masked_fill(mated, -torch.inf).amax(dim=1)
        hits.append(best_mated > best_other)
    return torch.cat(hits) if hits else torch.empty(0, dtype=torch.bool)
