"""Does a measure of quality predict errors? Error-versus-reject curves: Grother & Tabassi, "Performance of biometric
quality measures", IEEE TPAMI 2007. Plain NumPy.

The share of errors among the probes that are left when those of the lowest quality are rejected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earface.metrics.resampling import Estimate, Resampling
from earface.metrics.verification import FEWEST_FALSE_ACCEPTS

Floats = NDArray[np.floating]
REJECTED = np.linspace(0.0, 0.5, 51)  # shares of the probes
AT_ONCE = 2**23  # weights of replicates


@dataclass(frozen=True)
class ErrorReject:
    """One measure and one kind of error."""

    errors: Floats  # (R,) share of the probes left at each of REJECTED; of equal quality a random part is rejected
    area: Estimate  # mean of errors over REJECTED, by that without rejects: 1 says nothing, below 1 predicts errors
    ideal: float  # the area where every error is rejected before any other probe


def error_reject(
    quality: Floats, errors: NDArray[np.bool_], of: NDArray[np.int64], resampling: Resampling
) -> ErrorReject:
    """quality: (N,) of probes, finite, higher is better; errors: (N,); of: the trial of each in `resampling`."""
    if int(errors.sum()) < FEWEST_FALSE_ACCEPTS:
        reason = f"{int(errors.sum())} errors, fewer than {FEWEST_FALSE_ACCEPTS}"
        return ErrorReject(np.empty(0), Estimate(None, reason=reason), float("nan"))
    subjects = resampling.of[of]
    curve = _curves(quality, errors, np.ones((1, len(errors))))[0]
    ideal = _curves(-errors.astype(np.float64), errors, np.ones((1, len(errors))))[0]
    replicates = None
    if len(np.unique(subjects)) > 1:
        rows = max(1, AT_ONCE // len(errors))
        starts = range(0, len(resampling.weights), rows)
        parts = [_curves(quality, errors, resampling.weights[at : at + rows, subjects]) for at in starts]
        replicates = _areas(np.concatenate(parts))
    area = Estimate(float(_areas(curve[None])[0]), replicates, len(errors))
    return ErrorReject(curve, area, float(_areas(ideal[None])[0]))


def _curves(quality: Floats, errors: NDArray[np.bool_], weights: Floats) -> Floats:
    """weights: (B, N), how often each probe counts -> (B, R); NaN where a replicate holds no probe."""
    order = np.argsort(quality, kind="stable")
    last_of_equals = np.flatnonzero(np.append(np.diff(quality[order]) != 0, True))
    sorted_weights = weights[:, order]
    counted = np.cumsum(sorted_weights, axis=1)[:, last_of_equals]
    wrong = np.cumsum(sorted_weights * errors[order], axis=1)[:, last_of_equals]
    found = np.full((len(weights), len(REJECTED)), np.nan)
    for row, (count, mistakes) in enumerate(zip(counted, wrong, strict=True)):
        if count[-1] > 0:
            shares = np.concatenate([[0.0], count / count[-1]])
            rejected = np.interp(REJECTED, shares, np.concatenate([[0.0], mistakes / count[-1]]))
            found[row] = (mistakes[-1] / count[-1] - rejected) / (1.0 - REJECTED)
    return found


def _areas(curves: Floats) -> Floats:
    """(B, R) -> (B,); NaN without errors."""
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = curves / curves[:, :1]
    return np.asarray(np.trapezoid(relative, REJECTED, axis=1) / (REJECTED[-1] - REJECTED[0]))
