"""How an estimate is written: in report.json, in a table, in a sentence."""

from __future__ import annotations

from typing import Any

from earface.metrics.resampling import Estimate


def plain_estimate(estimate: Estimate) -> dict[str, Any]:
    """For report.json."""
    if estimate.value is None:
        return {"value": None, "insufficient_data": estimate.reason}
    low, high = estimate.interval() or (None, None)
    return {"value": estimate.value, "low": low, "high": high, "samples": estimate.samples}


def in_words(estimate: Estimate) -> str:
    """A share with its interval, in a sentence."""
    if estimate.value is None:
        return "insufficient data"
    interval = estimate.interval()
    return f"{estimate.value:.1%}" + ("" if interval is None else f" ({interval[0]:.1%} to {interval[1]:.1%})")


def in_cell(estimate: Estimate) -> str:
    """In two lines."""
    if estimate.value is None:
        return "insufficient"
    interval = estimate.interval()
    return f"{estimate.value:.1%}" + ("" if interval is None else f"\n{interval[0]:.1%} - {interval[1]:.1%}")


def in_short(estimate: Estimate) -> str:
    """Without the interval."""
    return "?" if estimate.value is None else f"{estimate.value:.1%}"
