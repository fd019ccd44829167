"""An evaluation from protocol and models to metrics: every configuration and condition on one list of probes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from typing import Protocol as Interface

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earface.data.picture_rows import PictureRow
from earface.metrics.resampling import Estimate, Resampling
from pipeline.configuration_metrics import ConfigurationResult, Trials, of_pairs, of_searches
from pipeline.ear_protocol import side_of
from pipeline.gallery import templates_of
from pipeline.protocol import Enrolment, Protocol, Sides
from pipeline.search import MAX_COMPARISONS, NOBODY, Searches, search, searches_of_parts

COMPARED = ("rank1", "fnir_at_fpir_0.1", "tar_at_far_0.001", "eer")  # metrics whose paired differences are reported


class AnyCondition(Interface):
    """How the probes came about: a Condition of faces, or an EarCondition."""

    @property
    def slug(self) -> str: ...

    def plain(self) -> dict[str, str]: ...

    def __hash__(self) -> int: ...


class AnyConfiguration(Interface):
    """What turns pictures into embeddings: a Configuration of faces, or an EarConfiguration."""

    @property
    def name(self) -> str: ...

    def plain(self) -> dict[str, str]: ...

    def scored_by(self) -> dict[str, str]:
        """contract, digest, upsampler, upsampler_digest."""

    def models(self) -> dict[str, dict[str, str]]: ...


class Embeddings(Interface):
    """The embeddings of an evaluation's pictures: an EmbeddingCache of faces, or an EarEmbeddings."""

    def enrolled(self, configuration: Any, rows: Sequence[Any]) -> Tensor:
        """(N, D) of pictures that are enrolled."""

    def of_configurations(
        self, configurations: Sequence[Any], rows: Sequence[Any], condition: Any
    ) -> Mapping[str, Tensor]:
        """Configuration -> (N, D) of probes."""


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

    probe: PictureRow
    right: PictureRow
    wrong: PictureRow
    mated: float
    best: float
    rank: int


@dataclass(frozen=True)
class ConditionResult:
    """All configurations under one condition."""

    condition: AnyCondition
    configurations: Sequence[AnyConfiguration]
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


def evaluate(
    protocol: Protocol,
    configurations: Mapping[Any, Sequence[AnyConfiguration]],
    embeddings: Embeddings,
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
    embeddings: Embeddings
    settings: Settings
    stages: Stages
    trials: Trials

    def under(
        self, condition: AnyCondition, configurations: Sequence[AnyConfiguration], progress: Callable[[], None]
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

    def of(self, configuration: AnyConfiguration, probes: Tensor, calibration_probes: Tensor) -> ConfigurationResult:
        """probes, calibration_probes: their embeddings, (P, D)."""
        protocol, trials, name = self.protocol, self.trials, configuration.name
        threshold = self.settings.threshold
        with self.stages("embedding"):
            gallery = self.embeddings.enrolled(configuration, protocol.test.gallery)
            calibration_gallery = self.embeddings.enrolled(configuration, protocol.calibration.gallery)
        if protocol.pairs is not None:
            with self.stages("metrics"):
                return of_pairs(name, gallery, probes, protocol.pairs, trials.resampling, threshold)
        with self.stages("search"):
            searches = searches_in(protocol.test, gallery, probes, self.settings, protocol.sides)
            calibration = None
            if len(calibration_gallery):
                enrolment = protocol.calibration
                calibration = searches_in(
                    enrolment, calibration_gallery, calibration_probes, self.settings, protocol.sides
                )
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
        groups=protocol.groups(),
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


def searches_in(
    enrolment: Enrolment, gallery: Tensor, probes: Tensor, settings: Settings, sides: Sides = "joined"
) -> Searches:
    """gallery (G, D), probes (P, D): embeddings of the enrolment's pictures, in their order.

    sides: joined: each person has one template. apart: a probe is compared with the template of its own side; with that
    over all enrolled pictures of a person who has none of that side, or where the probe's side is not known.
    """
    owners, files = [row.identity for row in enrolment.gallery], [row.name for row in enrolment.gallery]
    templates, names, _ = templates_of(gallery, owners, files)
    number = {name: place for place, name in enumerate(names)}
    mates = np.array([number.get(row.identity, NOBODY) for row in enrolment.probes], np.int64)
    on = torch.device(settings.device)
    searched = np.array(["" if sides == "joined" else side_of(row) for row in enrolment.probes], dtype=object)
    parts = []
    for side in sorted(set(searched)) or [""]:
        places, compared = np.flatnonzero(searched == side), templates
        chosen = [place for place, row in enumerate(enrolment.gallery) if side and side_of(row) == side]
        if chosen:
            own, whose, _ = templates_of(gallery[chosen], [owners[at] for at in chosen], [files[at] for at in chosen])
            compared = templates.clone()
            compared[[number[name] for name in whose]] = own
        limit = settings.max_comparisons * len(places) // max(1, len(searched))
        found = search(probes[places].to(on), mates[places], compared.to(on), max_comparisons=limit, seed=settings.seed)
        parts.append((places, found))
    return parts[0][1] if len(parts) == 1 else searches_of_parts(parts)


def _failures(enrolment: Enrolment, searches: Searches | None, count: int) -> list[Failure]:
    if searches is None:
        return []
    enrolled: dict[str, list[PictureRow]] = {}
    for row in enrolment.gallery:
        enrolled.setdefault(row.identity, []).append(row)
    names = list(enrolled)

    def shown(name: str, probe: PictureRow) -> PictureRow:
        """The first picture, if possible of the same ear."""
        return next((row for row in enrolled[name] if side_of(row) == side_of(probe)), enrolled[name][0])

    missed: NDArray[np.int64] = np.flatnonzero(searches.rank > 1)
    worst = missed[np.argsort((searches.mated - searches.best)[missed], kind="stable")][:count]
    return [
        Failure(
            enrolment.probes[place],
            shown(enrolment.probes[place].identity, enrolment.probes[place]),
            shown(names[searches.best_row[place]], enrolment.probes[place]),
            float(searches.mated[place]),
            float(searches.best[place]),
            int(searches.rank[place]),
        )
        for place in worst.tolist()
    ]
