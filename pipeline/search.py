"""Probes against templates by cosine: exact, in memory that does not grow with either."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.errors import InputError

CHUNK_SCORES = 2**23  # of probes with all templates at once: 32 MB
MAX_COMPARISONS = 5_000_000  # non-mated ones that are kept; beyond it each probe's are a sample
NOBODY = -1  # the template of a probe that is not enrolled


def score_chunks(probes: Tensor, templates: Tensor, scores: int = CHUNK_SCORES) -> Iterator[tuple[int, Tensor]]:
    """The number of the first probe, and its and the next probes' scores (n, T), until all are dealt with.

    probes (P, D), templates (T, D) of length 1, float32, on one device. scores: about how many at once.
    """
    rows = max(1, scores // max(1, len(templates)))
    for start in range(0, len(probes), rows):
        yield start, probes[start : start + rows] @ templates.T


def top_candidates(
    probes: Tensor, templates: Tensor, count: int, *, scores: int = CHUNK_SCORES
) -> tuple[Tensor, Tensor]:
    """The `count` best templates of each probe: scores (P, K) falling, and rows (P, K); K = count or all there are.

    Of equal scores the lower row comes first.
    """
    count = min(count, len(templates))
    found = [_best(chunk, count) for _, chunk in score_chunks(probes, templates, scores)]
    if not found:
        return probes.new_empty(0, count), torch.empty(0, count, dtype=torch.int64)
    best, rows = zip(*found, strict=True)
    return torch.cat(best), torch.cat(rows)


def _best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """topk alone leaves the order of equal scores open: one whole number of score and row decides it."""
    bits = (scores + 0.0).contiguous().view(torch.int32).to(torch.int64)  # + 0.0: -0 is 0
    rising = torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
    rows = torch.arange(scores.shape[1], device=scores.device)
    keys = rising * 2**32 + (2**32 - 1 - rows)
    order = keys.topk(count, dim=1).values
    chosen = 2**32 - 1 - (order & (2**32 - 1))
    return scores.gather(1, chosen), chosen


def top_candidates_faiss(probes: Tensor, templates: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`top_candidates` by FAISS's exact index, where it is installed; it leaves the order of equal scores open.

    Raises InputError where it is not.
    """
    if importlib.util.find_spec("faiss") is None:
        raise InputError("--search faiss: FAISS is not installed; pip install faiss-cpu, or use --search exact")
    import faiss

    index: Any = faiss.IndexFlatIP(templates.shape[1])
    index.add(templates.cpu().numpy())
    scores, rows = index.search(probes.cpu().numpy(), min(count, len(templates)))
    return torch.from_numpy(scores), torch.from_numpy(rows)


@dataclass(frozen=True)
class Searches:
    """What P searches in one gallery gave; the P probes in their order. float32."""

    rank: NDArray[np.int64]  # (P,) of the mate, from 1; 0 for who is not enrolled. Equal scores of others come before
    mated: NDArray[np.float32]  # (P,) the mate's score; NaN for who is not enrolled
    best: NDArray[np.float32]  # (P,) the best score of anyone else; -inf where there is nobody else
    best_row: NDArray[np.int64]  # (P,) whose
    impostor: NDArray[np.float32]  # (M,) scores with other people's templates: all, or a sample of max_comparisons
    impostor_of: NDArray[np.int64]  # (M,) the probe of each
    sampled: bool


def search(
    probes: Tensor,
    mates: NDArray[np.int64],
    templates: Tensor,
    *,
    max_comparisons: int = MAX_COMPARISONS,
    seed: int = 0,
    scores: int = CHUNK_SCORES,
) -> Searches:
    """Every probe in the gallery.

    mates: (P,) the row of each probe's own template, or NOBODY. seed: of the sample of comparisons, in which each probe
    has equally many; the same for all rows of a grid.
    """
    count, size = len(probes), len(templates)
    per_probe = size if count * size <= max_comparisons else max(1, max_comparisons // count)
    generator = np.random.default_rng(seed)
    rank, best_row = np.zeros(count, np.int64), np.zeros(count, np.int64)
    mated, best = np.full(count, np.nan, np.float32), np.full(count, -np.inf, np.float32)
    impostor, impostor_of = [], []
    for start, chunk in score_chunks(probes, templates, scores):
        own = torch.from_numpy(mates[start : start + len(chunk)]).to(chunk.device)
        rows = slice(start, start + len(chunk))
        enrolled = own != NOBODY
        mate = chunk.gather(1, own.clamp(min=0)[:, None])[:, 0]
        others = chunk.scatter(1, own.clamp(min=0)[:, None], torch.where(enrolled, -torch.inf, mate)[:, None])
        mated[rows] = mate.masked_fill(~enrolled, torch.nan).cpu().numpy()
        rank[rows] = ((others >= mate[:, None]).sum(dim=1) + 1).masked_fill(~enrolled, 0).cpu().numpy()
        top, top_row = others.max(dim=1)
        best[rows], best_row[rows] = top.cpu().numpy(), top_row.cpu().numpy()
        kept = others.cpu().numpy()
        columns = (
            np.broadcast_to(np.arange(size), kept.shape)
            if per_probe == size
            else generator.integers(0, size, (len(kept), per_probe))
        )
        drawn = np.take_along_axis(kept, columns, axis=1)
        real = np.isfinite(drawn)
        impostor.append(drawn[real])
        impostor_of.append((start + np.nonzero(real)[0]).astype(np.int64))
    return Searches(
        rank, mated, best, best_row, _joined(impostor, np.float32), _joined(impostor_of, np.int64), per_probe < size
    )


def _joined(parts: list[NDArray[Any]], kind: type) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, kind)
