"""How well embeddings identify: rank-1 and EER, leave one out, and the true accept rate at a false one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earface.metrics.identification import identify, pair_scores, unit_rows
from earface.metrics.verification import true_accept_rate

FAR = 1e-3


@dataclass(frozen=True)
class EarIdentification:
    """Leave one out over ears; None where there are too few people or pairs for it."""

    rank1: float | None
    eer: float | None
    tar: float | None  # at a false accept rate of FAR


def identification(embeddings: NDArray[np.floating], subjects: Sequence[str] | Sequence[int]) -> EarIdentification:
    """embeddings: (N, D); subjects: N."""
    units = unit_rows(embeddings)
    found = identify(units, [str(subject) for subject in subjects])
    owner = np.unique(np.asarray(subjects), return_inverse=True)[1]
    return EarIdentification(found.rank1, found.eer, true_accept_rate(*pair_scores(units, owner), FAR))
