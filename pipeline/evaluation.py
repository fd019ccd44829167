"""An evaluation from protocol and models to figures: every row of every condition on one list of probes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.face_rows import FaceRow
from data.multipie import CAMERA_YAW
from pipeline.figures import RowResult, Trials, of_pairs, of_searches
from pipeline.gallery import templates_of
from pipeline.grid import Condition, Embeddings, GridRow
from pipeline.metrics import Figure, Resampling
from pipeline.protocol import Enrolment, Protocol
from pipeline.search import MAX_COMPARISONS, NOBODY, Searches, search

COMPARED = ("rank1", "fnir_at_fpir_0.1", "tar_at_far_0.001", "eer")  # figures whose paired differences are told


@dataclass(frozen=True)
class Difference:
    """How a figure of one row differs from that of another, on the same probes."""

    of: str
    to: str
    measure: str
    figure: Figure


@dataclass(frozen=True)
class Failure:
    """A mated probe whose best candidate is someone else."""

    probe: FaceRow
    right: FaceRow
    wrong: FaceRow
    mated: float
    best: float
    rank: int


@dataclass(frozen=True)
class ConditionResult:
    """All rows under one condition."""

    condition: Condition
    grid: list[GridRow]
    rows: list[RowResult]
    differences: list[Difference]
    failures: list[Failure]  # of the last row, the most wrong first


@dataclass
class Stages:
    """Seconds spent in each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Settings:
    """What decides the figures beside protocol and models."""

    threshold: float
    bootstrap: int
    seed: int
    failures: int
    max_comparisons: int = MAX_COMPARISONS
    device: str = "cpu"


def embeddings_wanted(protocol: Protocol, grids: Mapping[Condition, Sequence[GridRow]]) -> int:
    """How many faces are embedded in all."""
    probes = len(protocol.score.probes) + len(protocol.tune.probes)
    gallery = len(protocol.score.gallery) + len(protocol.tune.gallery)
    rows = list(itertools.chain(*grids.values()))
    sharp = {row.recognizer.key for row in rows if row.route.name == "hr"}
    return gallery * len({row.recognizer.key for row in rows}) + probes * (
        len(sharp) + sum(row.route.name != "hr" for row in rows)
    )


def evaluate(
    protocol: Protocol,
    grids: Mapping[Condition, Sequence[GridRow]],
    embeddings: Embeddings,
    settings: Settings,
    stages: Stages,
    progress: Callable[[], None] = lambda: None,
) -> list[ConditionResult]:
    """progress: called after each row of figures."""
    probes = protocol.score.probes
    if protocol.pairs is None:
        subjects = [row.identity for row in probes]
    else:
        subjects = [probes[pair.second].identity for pair in protocol.pairs]
    trials = Trials(
        mated=np.array(protocol.score.mated, bool),
        resampling=Resampling(subjects, settings.bootstrap, settings.seed),
        groups=groups_of(probes),
        gallery_size=len({row.identity for row in protocol.score.gallery}),
    )
    found = []
    for condition, grid in grids.items():
        with stages("embedding"):
            score = embeddings.of_rows(grid, probes, condition)
            tune = embeddings.of_rows(grid, protocol.tune.probes, condition)
        rows = []
        for row in grid:
            rows.append(_row(row, protocol, embeddings, score[row.name], tune[row.name], trials, settings, stages))
            progress()
        differences = [
            Difference(later.name, earlier.name, measure, later.measured[measure] - earlier.measured[measure])
            for earlier, later in itertools.combinations(rows, 2)
            for measure in COMPARED
            if measure in later.measured
        ]
        failures = _failures(protocol.score, rows[-1].searches, settings.failures)
        found.append(ConditionResult(condition, list(grid), rows, differences, failures))
    return found


def _row(
    row: GridRow,
    protocol: Protocol,
    embeddings: Embeddings,
    score: Tensor,
    tune: Tensor,
    trials: Trials,
    settings: Settings,
    stages: Stages,
) -> RowResult:
    with stages("embedding"):
        gallery = embeddings.sharp(row.recognizer, protocol.score.gallery)
        tune_gallery = embeddings.sharp(row.recognizer, protocol.tune.gallery)
    if protocol.pairs is not None:
        with stages("figures"):
            return of_pairs(row.name, gallery, score, protocol.pairs, trials.resampling, settings.threshold)
    with stages("search"):
        searches = searches_in(protocol.score, gallery, score, settings)
        fitting = searches_in(protocol.tune, tune_gallery, tune, settings) if len(tune_gallery) else None
    with stages("figures"):
        tune_size = len({own.identity for own in protocol.tune.gallery})
        return of_searches(row.name, searches, trials, fitting, tune_size, settings.threshold)


def searches_in(enrolment: Enrolment, gallery: Tensor, probes: Tensor, settings: Settings) -> Searches:
    """gallery (G, D), probes (P, D): embeddings of the enrolment's pictures, in their order."""
    owners = [row.identity for row in enrolment.gallery]
    templates, names, _ = templates_of(gallery, owners, [row.name for row in enrolment.gallery])
    number = {name: place for place, name in enumerate(names)}
    mates = np.array([number.get(row.identity, NOBODY) for row in enrolment.probes], np.int64)
    on = torch.device(settings.device)
    return search(probes.to(on), mates, templates.to(on), max_comparisons=settings.max_comparisons, seed=settings.seed)


def groups_of(probes: Sequence[FaceRow]) -> dict[str, list[str]]:
    """Camera and flash of each probe by Multi-PIE names; the camera with its angle."""
    if not any(row.camera for row in probes):
        return {}
    angles = [f"{CAMERA_YAW[row.camera]:+d}°" if row.camera in CAMERA_YAW else row.camera for row in probes]
    return {"camera angle": angles, "illumination": [row.illumination for row in probes]}


def _failures(enrolment: Enrolment, searches: Searches | None, count: int) -> list[Failure]:
    if searches is None:
        return []
    first: dict[str, FaceRow] = {}
    for row in enrolment.gallery:
        first.setdefault(row.identity, row)
    names = list(first)
    missed: NDArray[np.int64] = np.flatnonzero(searches.rank > 1)
    worst = missed[np.argsort((searches.mated - searches.best)[missed], kind="stable")][:count]
    return [
        Failure(
            enrolment.probes[place],
            first[enrolment.probes[place].identity],
            first[names[searches.best_row[place]]],
            float(searches.mated[place]),
            float(searches.best[place]),
            int(searches.rank[place]),
        )
        for place in worst.tolist()
    ]
