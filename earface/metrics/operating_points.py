"""Thresholds for a rate of false positives in a gallery of any size. Plain NumPy.

FPIR depends on the gallery's size. A search that finds nobody among N people is one that finds nobody among each part
of them; were the parts independent, FPIR(N) = 1 - (1 - FPIR(M))^(N / M), and with M = 1 1 - (1 - FMR)^N (ISO/IEC
19795-1, annex on identification). M here is the calibration's gallery, so the assumption bears on the ratio of the
sizes alone, and `fpir_of_part` measures what it predicts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.metrics.resampling import fpir_in_gallery, too_few
from earface.metrics.verification import FEWEST_FALSE_ACCEPTS

Floats = NDArray[np.floating]
EACH_UP_TO, STEP = 100, 1.03  # counts of searches that are kept one by one, and the ratio of those above
INSUFFICIENT = "insufficient data"


@dataclass(frozen=True)
class OperatingPoints:
    """Thresholds from the searches for people who are not enrolled."""

    others: int  # people that each of the searches could find
    searches: int
    reached: list[int]  # (K,) rising: numbers of searches
    thresholds: list[float]  # (K,) falling: the lowest that no more than so many reach

    @classmethod
    def fit(cls, best: Floats, others: int) -> Self:
        """best: the highest score of each search, at least FEWEST_FALSE_ACCEPTS of them, finite."""
        reached, count = [], FEWEST_FALSE_ACCEPTS
        while count <= len(best):
            reached.append(count)
            count = count + 1 if count < EACH_UP_TO else int(count * STEP) + 1
        falling = np.sort(best)[::-1]
        above = [
            float(np.nextafter(falling[count], np.inf, dtype=best.dtype)) for count in reached if count < len(best)
        ]
        lowest = [float(falling[-1])] * (len(reached) - len(above))  # all may reach it
        return cls(others, len(best), reached, above + lowest)

    def threshold(self, rate: float, size: int) -> float:
        """The lowest that is known to give at most this FPIR in a gallery of `size` people.

        Raises InputError where fewer than FEWEST_FALSE_ACCEPTS of the searches would decide it.
        """
        own = fpir_in_gallery(rate, size, self.others)
        allowed = int(own * self.searches + 1e-9)
        if not self.reached or allowed < self.reached[0]:
            few = too_few(self.searches, "searches", own)
            raise InputError(f"{INSUFFICIENT} for FPIR {rate:g} among {size:,} people: {few}")
        return self.thresholds[int(np.searchsorted(self.reached, allowed, side="right")) - 1]

    def largest_gallery(self, rate: float) -> int:
        """The most people among whom the threshold for this FPIR is known; 0: for no gallery.

        `threshold` solved for the size at which FEWEST_FALSE_ACCEPTS of the searches decide it.
        """
        fewest = FEWEST_FALSE_ACCEPTS / self.searches
        return int(self.others * math.log1p(-rate) / math.log1p(-fewest) + 1e-9) if fewest < 1 else 0


def fpir_of_part(
    scores: Floats, of: NDArray[np.int64], searches: int, threshold: float, size: int
) -> NDArray[np.float64]:
    """Of each search the share of all galleries of `size` of its people in which it finds anyone: (P,).

    scores: of comparisons with other people; of: the search of each. The hypergeometric distribution, no assumption.
    NaN where a search has fewer than `size` comparisons.
    """
    people = np.bincount(of, minlength=searches)
    found = np.bincount(of[scores >= threshold], minlength=searches)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, people.max(initial=0) + 1)))])  # of factorials
    rest = people - found
    enough, possible = people >= size, rest >= size
    none = np.zeros(searches)
    left, right = rest[possible], people[possible]
    none[possible] = np.exp(logs[left] - logs[left - size] - logs[right] + logs[right - size])
    return np.where(enough, 1.0 - none, np.nan)
