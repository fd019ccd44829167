"""What pictures tell of themselves, in an evaluation: which measure predicts errors, and what several are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earface.data.picture_rows import PictureRow
from earface.metrics.error_reject import ErrorReject, error_reject
from earface.metrics.resampling import Estimate, Resampling
from earface.metrics.verification import threshold_at
from pipeline.ear_protocol import side_of
from pipeline.protocol import Enrolment, Sides
from pipeline.quality import MEASURES, Quality
from pipeline.search import Searches

FMR = 1e-3  # of the threshold at which FNMR is counted
ERRORS = {"rank1_error": "rank-1 error", "fnmr": f"FNMR at FMR {FMR:g}"}
DRAWS, MOST_SETS = 20, 20_000  # sets of pictures of a person at most, and of all


@dataclass(frozen=True)
class PictureSets:
    """Probes of several pictures, each fused into one, against single pictures of the same people."""

    pictures: int  # of each probe
    people: int  # who have so many
    rank1: Estimate
    single: Estimate
    gain: Estimate


def error_rejects(searches: Searches, quality: Quality, resampling: Resampling) -> dict[str, dict[str, ErrorReject]]:
    """Measure -> kind of error -> curve over the mated probes, of measures that are known of all and differ."""
    right = np.flatnonzero(searches.rank > 0)
    wrong = {"rank1_error": searches.rank[right] > 1}
    if len(searches.impostor) and (threshold := threshold_at(searches.impostor, FMR)) is not None:
        wrong["fnmr"] = searches.mated[right] < threshold
    found = {}
    for name in MEASURES:
        own = np.asarray(quality.get(name, ()), np.float64)
        if len(own) and len(right) and np.isfinite(own[right]).all() and np.ptp(own[right]) > 0:
            curves = {kind: error_reject(own[right], events, right, resampling) for kind, events in wrong.items()}
            found[name] = curves
    return found


def picture_sets(enrolment: Enrolment, most: int, sides: Sides, seed: int) -> dict[int, list[NDArray[np.int64]]]:
    """1, 2, 4, ... up to `most` pictures -> sets of so many probes of one enrolled person, by their numbers.

    Of everyone who has so many, equally many sets, drawn without replacement within a set. sides: apart: a set is of
    one side. Sizes that fewer than two people have are not there; nothing for `most` 1.
    """
    own: dict[tuple[str, str], list[int]] = {}
    for place, (row, mated) in enumerate(zip(enrolment.probes, enrolment.mated, strict=True)):
        if mated:
            own.setdefault((row.identity, side_of(row) if sides == "apart" else ""), []).append(place)
    sizes = [2**power for power in range(most.bit_length())] if most > 1 else []
    found: dict[int, list[NDArray[np.int64]]] = {}
    for size in sizes:
        several = [places for places in own.values() if len(places) >= size]
        if len({enrolment.probes[places[0]].identity for places in several}) < 2:
            continue
        random, draws = np.random.default_rng([seed, size]), max(1, min(DRAWS, MOST_SETS // len(several)))
        found[size] = [random.choice(places, size, replace=False) for places in several for _ in range(draws)]
    return found


def people_of(sets: Sequence[NDArray[np.int64]], probes: Sequence[PictureRow]) -> list[str]:
    """Whose each set is."""
    return [probes[int(places[0])].identity for places in sets]


def sets_measured(
    ranks: dict[int, tuple[list[str], NDArray[np.int64]]], replicates: int, seed: int
) -> list[PictureSets]:
    """ranks: of each size of sets, whose they are and the rank of the mate; that of 1 included."""
    found = []
    singles, single_ranks = ranks.get(1, ([], np.empty(0, np.int64)))
    for size, (owners, rank) in ranks.items():
        people = set(owners)
        same = np.array([name in people for name in singles], bool)
        several, one = (
            Resampling(names, replicates, seed).share(hits == 1)  # of the same people: the same draws
            for names, hits in ((owners, rank), ([name for name in singles if name in people], single_ranks[same]))
        )
        found.append(PictureSets(size, len(people), several, one, several - one))
    return found
