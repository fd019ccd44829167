"""Probes against templates by cosine: exact, in memory that does not grow with either."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from earface.core.errors import InputError

CHUNK_SCORES = 2**25  # of probes with all templates at once: 128 MB
BLOCK = {
    "cpu": (32, 2048),
    "cuda": (128, 16384),
}  # probes x templates of one product; a block of templates stays in cache
MAX_COMPARISONS = 5_000_000  # non-mated ones that are kept; if there are more, a sample for each probe
NOBODY = -1  # the template of a probe that is not enrolled


def score_chunks(probes: Tensor, templates: Tensor, scores: int = CHUNK_SCORES) -> Iterator[tuple[int, Tensor]]:
    """The number of the first probe of each chunk, and the scores (n, T) of its probes, for all probes.

    probes (P, D), templates (T, D) of length 1, float32, on one device. scores: about how many at once, at least those
    of one block of probes. A score is the same bit for bit in any chunk; at another place in the list its last bit may
    differ. Raises InputError for embeddings that are not finite: NaN, not lower than any score, would rank first.
    """
    block = block_shape(probes.device)[0]
    rows = max(1, scores // max(1, *templates.shape) // block) * block  # D: with few templates chunks are long
    for start in range(0, len(probes), rows):
        found = products(probes[start : start + rows], templates)
        if not found.isfinite().all():
            raise InputError("embeddings are not finite: the recogniser's weights are damaged, or use `precision` 32")
        yield start, found


def block_shape(device: torch.device) -> tuple[int, int]:
    """Probes and templates of one product on this device."""
    return BLOCK.get(device.type, BLOCK["cuda"])


def products(probes: Tensor, templates: Tensor) -> Tensor:
    """Probes (P, D) @ templates (T, D).T -> (P, T), each product in a shape that does not depend on P.

    The last bit of a product depends on the kernel, which is chosen by the shape. So probes are padded to whole blocks;
    the last block of templates is as wide as is left, which only T decides.
    """
    rows, columns = block_shape(probes.device)
    padded = F.pad(probes, (0, 0, 0, -len(probes) % rows))
    scores = padded.new_empty(len(padded), len(templates))
    for left in range(0, len(templates), columns):
        block = templates[left : left + columns].T
        for top in range(0, len(padded), rows):
            scores[top : top + rows, left : left + columns] = padded[top : top + rows] @ block
    return scores[: len(probes)]


def top_candidates(
    probes: Tensor, templates: Tensor, count: int, *, scores: int = CHUNK_SCORES
) -> tuple[Tensor, Tensor]:
    """The `count` best templates of each probe, or all if there are fewer: scores (P, K), falling, and rows (P, K).

    Of equal scores the lower row comes first.
    """
    count = min(count, len(templates))
    found = [_best(chunk, count) for _, chunk in score_chunks(probes, templates, scores)]
    if not found:
        return probes.new_empty(0, count), probes.new_empty(0, count, dtype=torch.int64)
    best, rows = zip(*found, strict=True)
    return torch.cat(best), torch.cat(rows)


def _best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """topk leaves the order of equal scores open; a whole number made of score and row decides it."""
    bits = (scores + 0.0).contiguous().view(torch.int32)  # + 0.0: -0 is 0
    bits ^= (bits >> 31) & 0x7FFFFFFF  # a negative number's bits fall where it rises
    rows = torch.arange(scores.shape[1], device=scores.device)
    keys = bits.to(torch.int64).mul_(2**32).add_(2**32 - 1 - rows)  # in place: they are twice the scores
    order = keys.topk(count, dim=1).values
    chosen = 2**32 - 1 - (order & (2**32 - 1))
    return scores.gather(1, chosen), chosen


def top_candidates_faiss(probes: Tensor, templates: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`top_candidates` by FAISS's exact index, which leaves the order of equal scores open.

    Raises InputError if FAISS is not installed.
    """
    if importlib.util.find_spec("faiss") is None:
        raise InputError("`search` faiss: FAISS is not installed; pip install faiss-cpu, or use `search` exact")
    import faiss

    index: Any = faiss.IndexFlatIP(templates.shape[1])
    index.add(templates.cpu().numpy())
    scores, rows = index.search(probes.cpu().numpy(), min(count, len(templates)))
    return torch.from_numpy(scores), torch.from_numpy(rows)


@dataclass(frozen=True)
class Searches:
    """The results of P searches in one gallery, in the order of the probes."""

    rank: NDArray[np.int64]  # (P,) of the mate, from 1; 0 if not enrolled. Equal scores of others come before
    mated: NDArray[np.float32]  # (P,) the mate's score; NaN if not enrolled
    best: NDArray[np.float32]  # (P,) the best score of anyone else; -inf if there is nobody else
    best_row: NDArray[np.int64]  # (P,) whose it is; NOBODY if there is nobody else
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
    has equally many, none twice; the same for all configurations. Raises ValueError for a row that does not exist and
    for an empty gallery, and InputError like score_chunks.
    """
    count, size = len(probes), len(templates)
    if size == 0 or mates.shape != (count,) or ((mates < NOBODY) | (mates >= size)).any():
        raise ValueError(f"mates must hold one of {size} templates, or NOBODY, for each of {count} probes")
    mates = mates.astype(np.int64)
    others = size - (mates != NOBODY)  # how many other people's templates there are
    sampled = bool(others.sum() > max_comparisons)
    kept = np.full(count, min(max(1, max_comparisons // count), size - 1)) if sampled else others
    first = np.random.default_rng(seed).integers(np.maximum(1, others))
    rank, best_row = np.zeros(count, np.int64), np.zeros(count, np.int64)
    mated, best = np.full(count, np.nan, np.float32), np.full(count, -np.inf, np.float32)
    impostor = [np.empty(0, np.float32)]
    for start, chunk in score_chunks(probes, templates, scores):
        rows = slice(start, start + len(chunk))
        own = torch.from_numpy(mates[rows]).to(chunk.device)
        enrolled = own != NOBODY
        mate = chunk.gather(1, own.clamp(min=0)[:, None])[:, 0]
        rest = chunk.scatter(1, own.clamp(min=0)[:, None], torch.where(enrolled, -torch.inf, mate)[:, None])
        mated[rows] = mate.masked_fill(~enrolled, torch.nan).cpu().numpy()
        rank[rows] = ((rest >= mate[:, None]).sum(dim=1) + 1).masked_fill(~enrolled, 0).cpu().numpy()
        top, top_row = rest.max(dim=1)
        best[rows], best_row[rows] = top.cpu().numpy(), top_row.masked_fill(top == -torch.inf, NOBODY).cpu().numpy()
        if sampled:
            columns = _spread(kept[start], others[rows], first[rows], mates[rows])
            impostor.append(chunk.gather(1, torch.from_numpy(columns).to(chunk.device)).cpu().numpy().ravel())
        else:
            impostor.append(chunk.cpu().numpy()[np.arange(size) != mates[rows, None]])
    impostor_of = np.repeat(np.arange(count), kept)
    return Searches(rank, mated, best, best_row, np.concatenate(impostor), impostor_of, sampled)


def searches_of_parts(parts: Sequence[tuple[NDArray[np.int64], Searches]]) -> Searches:
    """One result for all probes. parts: the numbers of the probes that were searched for together, and their result.

    Every probe is in one part.
    """
    order = np.argsort(np.concatenate([places for places, _ in parts]))

    def in_order(name: str) -> Any:
        return np.concatenate([getattr(found, name) for _, found in parts])[order]

    return Searches(
        **{name: in_order(name) for name in ("rank", "mated", "best", "best_row")},
        impostor=np.concatenate([found.impostor for _, found in parts]),
        impostor_of=np.concatenate([places[found.impostor_of] for places, found in parts]),
        sampled=any(found.sampled for _, found in parts),
    )


def _spread(
    count: int, others: NDArray[np.int64], first: NDArray[np.int64], mates: NDArray[np.int64]
) -> NDArray[np.int64]:
    """`count` different rows for each probe, (P, count), evenly over all but its mate's, from the `first` one on."""
    rows = (np.arange(count) * others[:, None] // max(1, count) + first[:, None]) % others[:, None]
    return rows + ((rows >= mates[:, None]) & (mates != NOBODY)[:, None])  # past the mate's
