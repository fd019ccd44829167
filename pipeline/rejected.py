"""What quality rejects: the measure that predicts the errors of a condition, and the probes that it calls worst."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from earface.metrics.error_reject import REJECTED
from earface.metrics.resampling import Estimate
from pipeline.configuration_metrics import ConfigurationResult

SHARES = (0.1, 0.25, 0.5)  # of the probes
LOWEST = 8  # probes


@dataclass(frozen=True)
class Rejected:
    """By the measure with the lowest area."""

    measure: str  # of MEASURES
    area: Estimate
    error: float  # rank-1 error of all mated probes
    left: dict[float, float]  # share rejected -> error of the others
    lowest: list[int]  # mated probes, that of the lowest quality first

    @property
    def predicts(self) -> bool:
        """Whether the area's interval lies below 1, which is what rejecting at random gives."""
        interval = self.area.interval()
        return interval is not None and interval[1] < 1


def rejected(result: ConfigurationResult) -> Rejected | None:
    """None where there are too few errors for any measure."""
    curves = {name: own["rank1_error"] for name, own in result.error_rejects.items()}
    areas = {name: curve.area.value for name, curve in curves.items() if curve.area.value is not None}
    if not areas or result.searches is None:
        return None
    measure = min(areas, key=lambda name: areas[name])
    curve = curves[measure]
    right = np.flatnonzero(result.searches.rank > 0)
    lowest = right[np.argsort(np.asarray(result.quality[measure])[right], kind="stable")][:LOWEST]
    left = {share: float(np.interp(share, REJECTED, curve.errors)) for share in SHARES}
    return Rejected(measure, curve.area, float(curve.errors[0]), left, lowest.tolist())
