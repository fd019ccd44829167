"""An evaluation from protocol and models to figures: every row of every condition on one list of probes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earface.data.face_rows import FaceRow
from earface.data.multipie import CAMERA_YAW
from earface.nn.upsampler import NONE
from pipeline.configuration_metrics import ConfigurationResult, Trials, of_pairs, of_searches
from pipeline.configurations import Condition, Configuration, EmbeddingCache, Grids
from pipeline.gallery import templates_of
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
    grid: list[Configuration]
    rows: list[ConfigurationResult]
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


def embeddings_wanted(protocol: Protocol, grids: Grids) -> int:
    """How many faces are embedded in all."""
    probes = len(protocol.score.probes) + len(protocol.tune.probes)
    gallery = len(protocol.score.gallery) + len(protocol.tune.gallery)
    rows = list(itertools.chain(*grids.values()))
    hr = {row.recognizer.key for row in rows if row.upsampler.name == NONE}
    low = sum(row.upsampler.name != NONE for row in rows)
    return gallery * len({row.recognizer.key for row in rows}) + probes * (len(hr) + low)


def evaluate(
    protocol: Protocol,
    grids: Grids,
    embeddings: EmbeddingCache,
    settings: Settings,
    stages: Stages,
    progress: Callable[[], None] = lambda: None,
) -> list[ConditionResult]:
    """The figures of every row under every condition. progress: called after each row of figures."""
    evaluation = _Evaluation(protocol, embeddings, settings, stages, _trials(protocol, settings))
    return [evaluation.under(condition, grid, progress) for condition, grid in grids.items()]


@dataclass(frozen=True)
class _Evaluation:
    """What all conditions and rows share."""

    protocol: Protocol
    embeddings: EmbeddingCache
    settings: Settings
    stages: Stages
    trials: Trials

    def under(
        self, condition: Condition, grid: Sequence[Configuration], progress: Callable[[], None]
    ) -> ConditionResult:
        with self.stages("embedding"):
            score = self.embeddings.of_rows(grid, self.protocol.score.probes, condition)
            tune = self.embeddings.of_rows(grid, self.protocol.tune.probes, condition)
        rows = []
        for row in grid:
            rows.append(self.row(row, score[row.name], tune[row.name]))
            progress()
        failures = _failures(self.protocol.score, rows[-1].searches, self.settings.failures)
        return ConditionResult(condition, list(grid), rows, _differences(rows), failures)

    def row(self, row: Configuration, score: Tensor, tune: Tensor) -> ConfigurationResult:
        """score, tune: embeddings of the probes of the two, (P, 512)."""
        protocol, trials, given = self.protocol, self.trials, self.settings.threshold
        with self.stages("embedding"):
            gallery = self.embeddings.hr(row.recognizer, protocol.score.gallery)
            tune_gallery = self.embeddings.hr(row.recognizer, protocol.tune.gallery)
        if protocol.pairs is not None:
            with self.stages("figures"):
                return of_pairs(row.name, gallery, score, protocol.pairs, trials.resampling, given)
        with self.stages("search"):
            searches = searches_in(protocol.score, gallery, score, self.settings)
            fitting = searches_in(protocol.tune, tune_gallery, tune, self.settings) if len(tune_gallery) else None
        with self.stages("figures"):
            tune_size = len({own.identity for own in protocol.tune.gallery})
            return of_searches(row.name, searches, trials, fitting, tune_size, given)


def _trials(protocol: Protocol, settings: Settings) -> Trials:
    probes = protocol.score.probes
    subjects = [row.identity for row in probes]
    if protocol.pairs is not None:
        subjects = [subjects[pair.second] for pair in protocol.pairs]
    return Trials(
        mated=np.array(protocol.score.mated, bool),
        resampling=Resampling(subjects, settings.bootstrap, settings.seed),
        groups=groups_of(probes),
        gallery_size=len({row.identity for row in protocol.score.gallery}),
    )


def _differences(rows: Sequence[ConfigurationResult]) -> list[Difference]:
    return [
        Difference(later.name, earlier.name, measure, later.measured[measure] - earlier.measured[measure])
        for earlier, later in itertools.combinations(rows, 2)
        for measure in COMPARED
        if measure in later.measured
    ]


def notes_of(results: Sequence[ConditionResult]) -> list[str]:
    """Where one-to-one figures rest on a sample."""
    searches = [row.searches for result in results for row in result.rows if row.searches is not None]
    sampled = max((len(each.impostor) for each in searches if each.sampled), default=0)
    return [f"one-to-one figures rest on a sample of {sampled:,} non-mated comparisons"] if sampled else []


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
    angles = {camera: f"{yaw:+d}°" if yaw else "0°" for camera, yaw in CAMERA_YAW.items()}
    cameras = [angles.get(row.camera, row.camera) for row in probes]
    return {"camera angle": cameras, "illumination": [row.illumination for row in probes]}


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
