"""An evaluation from protocol and models to metrics: every configuration and condition on one list of probes."""

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
from earface.data.face_sizes import NONE
from earface.data.multipie import CAMERA_YAW
from earface.metrics.resampling import Estimate, Resampling
from pipeline.configuration_metrics import ConfigurationResult, Trials, of_pairs, of_searches
from pipeline.configurations import Condition, Configuration, Configurations, EmbeddingCache
from pipeline.gallery import templates_of
from pipeline.protocol import Enrolment, Protocol
from pipeline.search import MAX_COMPARISONS, NOBODY, Searches, search

COMPARED = ("rank1", "fnir_at_fpir_0.1", "tar_at_far_0.001", "eer")  # metrics whose paired differences are reported


@dataclass(frozen=True)
class Difference:
    """How a metric of one configuration differs from that of another, on the same probes."""

    of: str
    to: str
    metric: str
    estimate: Estimate


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
    """All configurations under one condition."""

    condition: Condition
    configurations: list[Configuration]
    results: list[ConfigurationResult]  # of each configuration, in their order
    differences: list[Difference]
    failures: list[Failure]  # of the last configuration, the worst first


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
    """What decides the metrics beside protocol and models."""

    threshold: float
    bootstrap: int
    seed: int
    failures: int
    max_comparisons: int = MAX_COMPARISONS
    device: str = "cpu"


def count_embeddings(protocol: Protocol, configurations: Configurations) -> int:
    """How many embeddings an evaluation computes."""
    probes = len(protocol.test.probes) + len(protocol.calibration.probes)
    gallery = len(protocol.test.gallery) + len(protocol.calibration.gallery)
    every = list(itertools.chain(*configurations.values()))
    hr = {each.recognizer.key for each in every if each.upsampler.name == NONE}
    low = sum(each.upsampler.name != NONE for each in every)
    return gallery * len({each.recognizer.key for each in every}) + probes * (len(hr) + low)


def evaluate(
    protocol: Protocol,
    configurations: Configurations,
    embeddings: EmbeddingCache,
    settings: Settings,
    stages: Stages,
    progress: Callable[[], None] = lambda: None,
) -> list[ConditionResult]:
    """The metrics of every configuration under every condition. progress: called after each configuration."""
    evaluation = _Evaluation(protocol, embeddings, settings, stages, _trials(protocol, settings))
    return [evaluation.under(condition, own, progress) for condition, own in configurations.items()]


@dataclass(frozen=True)
class _Evaluation:
    """What all conditions and configurations share."""

    protocol: Protocol
    embeddings: EmbeddingCache
    settings: Settings
    stages: Stages
    trials: Trials

    def under(
        self, condition: Condition, configurations: Sequence[Configuration], progress: Callable[[], None]
    ) -> ConditionResult:
        with self.stages("embedding"):
            test = self.embeddings.of_configurations(configurations, self.protocol.test.probes, condition)
            calibration = self.embeddings.of_configurations(configurations, self.protocol.calibration.probes, condition)
        results = []
        for each in configurations:
            results.append(self.of(each, test[each.name], calibration[each.name]))
            progress()
        failures = _failures(self.protocol.test, results[-1].searches, self.settings.failures)
        return ConditionResult(condition, list(configurations), results, _differences(results), failures)

    def of(self, configuration: Configuration, probes: Tensor, calibration_probes: Tensor) -> ConfigurationResult:
        """probes, calibration_probes: their embeddings, (P, 512)."""
        protocol, trials, name = self.protocol, self.trials, configuration.name
        threshold = self.settings.threshold
        with self.stages("embedding"):
            gallery = self.embeddings.hr(configuration.recognizer, protocol.test.gallery)
            calibration_gallery = self.embeddings.hr(configuration.recognizer, protocol.calibration.gallery)
        if protocol.pairs is not None:
            with self.stages("metrics"):
                return of_pairs(name, gallery, probes, protocol.pairs, trials.resampling, threshold)
        with self.stages("search"):
            searches = searches_in(protocol.test, gallery, probes, self.settings)
            calibration = None
            if len(calibration_gallery):
                enrolment = protocol.calibration
                calibration = searches_in(enrolment, calibration_gallery, calibration_probes, self.settings)
        with self.stages("metrics"):
            size = len({row.identity for row in protocol.calibration.gallery})
            return of_searches(name, searches, trials, calibration, size, threshold)


def _trials(protocol: Protocol, settings: Settings) -> Trials:
    probes = protocol.test.probes
    subjects = [row.identity for row in probes]
    if protocol.pairs is not None:
        subjects = [subjects[pair.second] for pair in protocol.pairs]
    return Trials(
        mated=np.array(protocol.test.mated, bool),
        resampling=Resampling(subjects, settings.bootstrap, settings.seed),
        groups=groups_of(probes),
        gallery_size=len({row.identity for row in protocol.test.gallery}),
    )


def _differences(results: Sequence[ConfigurationResult]) -> list[Difference]:
    return [
        Difference(later.name, earlier.name, metric, later.metrics[metric] - earlier.metrics[metric])
        for earlier, later in itertools.combinations(results, 2)
        for metric in COMPARED
        if metric in later.metrics
    ]


def notes_of(results: Sequence[ConditionResult]) -> list[str]:
    """A note if verification metrics rest on a sample of the comparisons."""
    searches = [each.searches for result in results for each in result.results if each.searches is not None]
    sampled = max((len(each.impostor) for each in searches if each.sampled), default=0)
    return [f"verification metrics rest on a sample of {sampled:,} non-mated comparisons"] if sampled else []


def searches_in(enrolment: Enrolment, gallery: Tensor, probes: Tensor, settings: Settings) -> Searches:
    """gallery (G, D), probes (P, D): embeddings of the enrolment's pictures, in their order."""
    owners = [row.identity for row in enrolment.gallery]
    templates, names, _ = templates_of(gallery, owners, [row.name for row in enrolment.gallery])
    number = {name: place for place, name in enumerate(names)}
    mates = np.array([number.get(row.identity, NOBODY) for row in enrolment.probes], np.int64)
    on = torch.device(settings.device)
    return search(probes.to(on), mates, templates.to(on), max_comparisons=settings.max_comparisons, seed=settings.seed)


def groups_of(probes: Sequence[FaceRow]) -> dict[str, list[str]]:
    """Camera angle and flash of each probe, where its name is a Multi-PIE one."""
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
