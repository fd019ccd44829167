"""Who a picture shows, and what that decision rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from earface.core.errors import InputError
from earface.core.notices import warn
from pipeline.calibration import Calibration, Conditions
from pipeline.options import THRESHOLDS, rate_of

if TYPE_CHECKING:
    from pipeline.recognizers import Modality

UNKNOWN = "unknown"
GIVEN, UNCALIBRATED = "given", "uncalibrated"  # where a threshold comes from, unless from an operating point


@dataclass(frozen=True)
class Candidate:
    """An identity that a search found."""

    identity: str
    score: float  # cosine, in [-1, 1]
    picture: str  # the first one enrolled
    side: str = ""  # of its ear: l, r, or empty where unknown


@dataclass(frozen=True)
class Rule:
    """From which cosine on a candidate is accepted."""

    threshold: float
    origin: str = UNCALIBRATED  # or GIVEN, or an operating point such as fpir=0.01
    calibration: Calibration | None = None  # for likelihood ratios

    @classmethod
    def of(
        cls,
        calibration: Calibration | None,
        modality: Modality,
        size: int,
        conditions: Conditions,
        threshold: float | None,
        operating_point: str | None,
    ) -> Rule:
        """calibration: of a gallery of `size` people; conditions: under which it is searched now.

        A calibration of other conditions gives no likelihood ratios, with a warning. Raises InputError where both
        threshold and operating point are given, or the calibration does not hold the operating point.
        """
        if operating_point is not None:
            if threshold is not None:
                raise InputError("`threshold` and `operating_point`: give one of them")
            return cls._calibrated(calibration, size, conditions, operating_point)
        if calibration is not None and (other := calibration.differing(conditions)):
            warn(f"the gallery's calibration ({calibration.name}) is not used: it is of {other}")
            calibration = None
        if threshold is not None:
            return cls(threshold, GIVEN, calibration)
        return cls(THRESHOLDS[modality], UNCALIBRATED, calibration)

    @classmethod
    def _calibrated(cls, calibration: Calibration | None, size: int, conditions: Conditions, point: str) -> Rule:
        rate = rate_of(point)
        if calibration is None:
            raise InputError(
                f"`operating_point` {point}: the gallery holds no calibration: enrol with `calibration`, a report of "
                "earface evaluate, or give `threshold`"
            )
        if other := calibration.differing(conditions):
            raise InputError(f"`operating_point` {point}: the gallery's calibration ({calibration.name}) is of {other}")
        try:
            return cls(calibration.threshold(rate, size), point, calibration)
        except InputError as error:
            raise InputError(
                f"`operating_point` {point}: {error}: give a higher rate or `threshold`, or evaluate with more "
                "calibration identities"
            ) from None


@dataclass(frozen=True)
class Identified:
    """A picture, or a track, and its candidates, best first."""

    path: Path
    candidates: list[Candidate]
    rule: Rule
    side: str = ""  # of an ear: l, r, or empty where unknown
    quality: Mapping[str, float] = field(default_factory=dict)  # by the names of MEASURES; NaN where unknown
    pictures: int = 1  # of a track: how many were used
    shown: Path | None = None  # of a track: its most typical picture
    found: str = ""  # how the face was found, as in earface/data/face_inspection.py; empty for one that came aligned

    @property
    def threshold(self) -> float:
        return self.rule.threshold

    @property
    def score(self) -> float:
        """The best candidate's."""
        return self.candidates[0].score

    @property
    def decision(self) -> str:
        """The best candidate's identity, or UNKNOWN where it does not reach the threshold."""
        best = self.candidates[0]
        return best.identity if best.score >= self.threshold else UNKNOWN

    @property
    def runner_up(self) -> Candidate | None:
        """The second candidate."""
        return self.candidates[1] if len(self.candidates) > 1 else None

    def likelihood_ratio(self, place: int = 0) -> float | None:
        """Of a candidate, where the gallery is calibrated: of this one comparison, not of the best among many."""
        calibration = self.rule.calibration
        return None if calibration is None else calibration.likelihood_ratio(self.candidates[place].score)
