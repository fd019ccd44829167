"""Operating points and likelihood ratios: fitted on the calibration identities, measured on the test identities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.metrics.calibration import LogisticCalibration, cllr_min, costs
from earface.metrics.operating_points import OperatingPoints, fpir_of_part
from earface.metrics.resampling import Estimate, Resampling
from earface.metrics.verification import FEWEST_FALSE_ACCEPTS
from pipeline.search import Searches

NO_CALIBRATION = "no calibration identities to fit a threshold on"
SIZES = (10, 30, 100, 300, 1000, 3000, 10_000)  # of galleries, beside the test's own


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold for a rate in a gallery of a size, and the FPIR that test identities have there."""

    rate: float
    size: int
    threshold: float | None
    measured: Estimate  # over all galleries of that size among the test identities
    reason: str = ""  # why there is no threshold


@dataclass(frozen=True)
class CalibrationResult:
    """What is known of a configuration's scores; a reason stands where something is not."""

    points: OperatingPoints | None
    operating: list[OperatingPoint]
    ratios: LogisticCalibration | None
    cllr: Estimate  # of the test identities' comparisons, bits
    cllr_min: float | None
    reason: str = ""  # why there are no points
    ratios_reason: str = ""


def calibrated(
    searches: Searches,
    mated: NDArray[np.bool_],
    wrong: NDArray[np.int64],
    resampling: Resampling,
    calibration: Searches | None,
    calibration_size: int,
    others: int,
    rates: Sequence[float],
) -> CalibrationResult:
    """mated: of the test searches; wrong: those that count as non-mated, each of which can find `others` people.

    calibration: searches in a gallery of calibration_size people; None: nothing is fitted.
    """
    if calibration is None or not len(calibration.best) or calibration_size < 2 or not others:
        nothing = Estimate(None, reason=NO_CALIBRATION)
        return CalibrationResult(None, [], None, nothing, None, NO_CALIBRATION, NO_CALIBRATION)
    points = None
    few = f"{len(calibration.best)} searches of the calibration identities, fewer than {FEWEST_FALSE_ACCEPTS}"
    operating: list[OperatingPoint] = []
    if len(calibration.best) >= FEWEST_FALSE_ACCEPTS:
        points, few = OperatingPoints.fit(calibration.best, calibration_size - 1), ""
        sizes = sorted({others, *(size for size in SIZES if size < others)})
        operating = [_operating(points, rate, size, searches, wrong, resampling) for rate in rates for size in sizes]
    own, rest = calibration.mated[np.isfinite(calibration.mated)], calibration.impostor
    if reason := LogisticCalibration.lacking(own, rest):
        reason = f"of the calibration identities, {reason}"
        return CalibrationResult(points, operating, None, Estimate(None, reason=reason), None, few, reason)
    ratios = LogisticCalibration.fit(own, rest)
    right = np.flatnonzero(mated)
    cost, least = Estimate(None, reason="no comparisons of a kind"), None
    if len(right) and len(searches.impostor):
        of_mated = resampling.mean(costs(ratios(searches.mated[right]), True), right)
        of_others = resampling.mean(costs(ratios(searches.impostor), False), searches.impostor_of)
        cost, least = _halved(of_mated, of_others), cllr_min(searches.mated[right], searches.impostor)
    return CalibrationResult(points, operating, ratios, cost, least, few)


def _operating(
    points: OperatingPoints,
    rate: float,
    size: int,
    searches: Searches,
    wrong: NDArray[np.int64],
    resampling: Resampling,
) -> OperatingPoint:
    try:
        threshold = points.threshold(rate, size)
    except InputError as error:
        return OperatingPoint(rate, size, None, Estimate(None, reason=str(error)), str(error))
    count = len(searches.best)
    found = fpir_of_part(searches.impostor, searches.impostor_of, count, threshold, size)
    return OperatingPoint(rate, size, threshold, resampling.mean(found[wrong], wrong))


def _halved(one: Estimate, other: Estimate) -> Estimate:
    """The mean of two metrics of one Resampling."""
    assert one.value is not None
    assert other.value is not None
    both = None if one.replicates is None or other.replicates is None else (one.replicates + other.replicates) / 2
    return Estimate((one.value + other.value) / 2, both, one.samples + other.samples)
