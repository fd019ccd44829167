"""The same faces at each stage: some probes that are shown under every condition, chosen by a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from earface.data.picture_rows import PictureRow
from pipeline.configurations import Condition
from pipeline.evaluation import ConditionResult
from pipeline.protocol import Enrolment

QUANTILES = (0.1, 0.5, 0.9)  # of the mated scores


@dataclass(frozen=True)
class StagedFace:
    """A mated probe."""

    quantile: float
    place: int  # among the probes
    probe: PictureRow
    enrolled: PictureRow  # the first picture of the same person


def hardest(results: Sequence[ConditionResult]) -> ConditionResult:
    """Where the last configuration's rank-1 is lowest; of several the first."""
    return min(results, key=lambda result: result.results[-1].metrics["rank1"].value or 0.0)


def staged_faces(results: Sequence[ConditionResult], enrolment: Enrolment) -> list[StagedFace]:
    """The probes at QUANTILES of the mated score of the last configuration under the hardest condition, each once.

    Nothing of ears, of pairs, and without mated probes.
    """
    searches = results[0].results[-1].searches
    if searches is None or not isinstance(results[0].condition, Condition) or not (searches.rank > 0).any():
        return []
    scores = hardest(results).results[-1].searches.mated  # type: ignore[union-attr]
    rising = np.argsort(scores, kind="stable")[: int(np.isfinite(scores).sum())]  # NaN of non-mated ones is last
    first: dict[str, PictureRow] = {}
    for row in enrolment.gallery:
        first.setdefault(row.identity, row)
    places = {int(rising[round(quantile * (len(rising) - 1))]): quantile for quantile in reversed(QUANTILES)}
    return [
        StagedFace(quantile, place, probe := enrolment.probes[place], first[probe.identity])
        for place, quantile in reversed(places.items())
    ]
