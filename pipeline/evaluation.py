"""An evaluation from protocol and models to metrics: every configuration and condition on one list of probes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from typing import Protocol as Interface

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from earface.data.picture_rows import PictureRow
from earface.metrics.resampling import Estimate, Resampling
from pipeline.configuration_metrics import ConfigurationResult, Trials, of_pairs, of_searches
from pipeline.ear_protocol import side_of
from pipeline.enrolment_searches import Settings, searches_in
from pipeline.picture_quality import error_rejects, people_of, picture_sets, sets_measured
from pipeline.protocol import Enrolment, Protocol
from pipeline.quality import Quality, weights_of
from pipeline.search import Searches

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

    def quality(self, configuration: Any, rows: Sequence[Any], condition: Any) -> Quality:
        """Of pictures that were embedded, (N,) each; condition: of probes, None of those enrolled. Empty: unknown."""


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
            results.append(self.of(each, condition, test[each.name], calibration[each.name]))
            progress()
        failures = _failures(self.protocol.test, results[-1].searches, self.settings.failures)
        return ConditionResult(condition, list(configurations), results, _differences(results), failures)

    def of(
        self, configuration: AnyConfiguration, condition: AnyCondition, probes: Tensor, calibration_probes: Tensor
    ) -> ConfigurationResult:
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
            weights, calibration_weights = (
                self._weights(configuration, part.gallery, None) for part in (protocol.test, protocol.calibration)
            )
            searches = searches_in(protocol.test, gallery, probes, self.settings, protocol.sides, weights)
            calibration = None
            if len(calibration_gallery):
                calibration = searches_in(
                    *(protocol.calibration, calibration_gallery, calibration_probes, self.settings, protocol.sides),
                    calibration_weights,
                )
            ranks = self._ranks_of_sets(configuration, condition, gallery, probes, weights)
        with self.stages("metrics"):
            size = len({row.identity for row in protocol.calibration.gallery})
            found = of_searches(name, searches, trials, calibration, size, threshold)
            quality = self.embeddings.quality(configuration, protocol.test.probes, condition)
            return replace(
                found,
                error_rejects=error_rejects(searches, quality, trials.resampling),
                picture_sets=sets_measured(ranks, self.settings.bootstrap, self.settings.seed),
                quality=quality,
            )

    def _weights(
        self, configuration: AnyConfiguration, rows: Sequence[PictureRow], condition: AnyCondition | None
    ) -> Tensor | None:
        """What each picture weighs among several of a person, (N,); None: all alike."""
        if self.settings.fusion == "mean":
            return None
        quality = self.embeddings.quality(configuration, rows, condition)
        return torch.from_numpy(weights_of(self.settings.fusion, quality, len(rows)))

    def _ranks_of_sets(
        self,
        configuration: AnyConfiguration,
        condition: AnyCondition,
        gallery: Tensor,
        probes: Tensor,
        weights: Tensor | None,
    ) -> dict[int, tuple[list[str], NDArray[np.int64]]]:
        """Pictures in a set -> whose the sets are, and the ranks of their mates. weights: of the gallery's pictures."""
        test, settings, sides = self.protocol.test, self.settings, self.protocol.sides
        of_probes = self._weights(configuration, test.probes, condition)
        weighted = probes if of_probes is None else probes * of_probes[:, None]
        found = {}
        for size, sets in picture_sets(test, settings.probe_pictures, sides, settings.seed).items():
            together = F.normalize(weighted[torch.from_numpy(np.stack(sets))].sum(dim=1), dim=1)
            own = Enrolment(test.gallery, [test.probes[int(places[0])] for places in sets])
            searches = searches_in(own, gallery, together, replace(settings, max_comparisons=1), sides, weights)
            found[size] = people_of(sets, test.probes), searches.rank
        return found


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
