"""The searches of an evaluation: all probes of an enrolment among the templates of its gallery."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.ear_protocol import side_of
from pipeline.gallery import templates_of
from pipeline.options import Fusion
from pipeline.protocol import Enrolment, Sides
from pipeline.search import MAX_COMPARISONS, NOBODY, Searches, search, searches_of_parts


@dataclass(frozen=True)
class Settings:
    """What decides the metrics beside protocol and models."""

    threshold: float
    bootstrap: int
    seed: int
    failures: int
    max_comparisons: int = MAX_COMPARISONS
    device: str = "cpu"
    fusion: Fusion = "mean"
    probe_pictures: int = 1


def searches_in(
    enrolment: Enrolment,
    gallery: Tensor,
    probes: Tensor,
    settings: Settings,
    sides: Sides = "joined",
    weights: Tensor | None = None,
) -> Searches:
    """gallery (G, D), probes (P, D): embeddings of the enrolment's pictures, in their order.

    sides: joined: each person has one template. apart: a probe is compared with the template of its own side; with that
    over all enrolled pictures of a person who has none of that side, or where the probe's side is not known. weights:
    of the gallery's pictures, (G,); None: all alike.
    """
    owners, files = [row.identity for row in enrolment.gallery], [row.name for row in enrolment.gallery]
    templates, names, _ = templates_of(gallery, owners, files, weights)
    number = {name: place for place, name in enumerate(names)}
    mates = np.array([number.get(row.identity, NOBODY) for row in enrolment.probes], np.int64)
    on = torch.device(settings.device)
    searched = np.array(["" if sides == "joined" else side_of(row) for row in enrolment.probes], dtype=object)
    parts = []
    for side in sorted(set(searched)) or [""]:
        places, compared = np.flatnonzero(searched == side), templates
        chosen = [place for place, row in enumerate(enrolment.gallery) if side and side_of(row) == side]
        if chosen:
            weigh = None if weights is None else weights[chosen]
            given = [owners[at] for at in chosen], [files[at] for at in chosen]
            own, whose, _ = templates_of(gallery[chosen], *given, weigh)
            compared = templates.clone()
            compared[[number[name] for name in whose]] = own
        limit = settings.max_comparisons * len(places) // max(1, len(searched))
        found = search(probes[places].to(on), mates[places], compared.to(on), max_comparisons=limit, seed=settings.seed)
        parts.append((places, found))
    return parts[0][1] if len(parts) == 1 else searches_of_parts(parts)
