"""How well people are recognised by embeddings of their low-resolution faces against one HR face of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from earface.core.errors import InputError
from earface.metrics.identification import one_gallery_picture, rank_one_hits
from earface.metrics.verification import equal_error_rate, true_accept_rate

FAR = 1e-3
FORGOTTEN = 1.0  # added to the loss of a checkpoint that recognises HR faces worse than is allowed


def figures(probes: Tensor, gallery: Tensor, identities: Sequence[str]) -> dict[str, float]:
    """rank1, eer, and tar at a false accept rate of 1e-3, where the sample supports it; shares in [0, 1].

    probes, gallery: (N, D) of length 1, embeddings of the same N faces. Of each identity with several faces the first
    is the gallery, by its row of `gallery`, and the others are probes, by theirs of `probes`; every probe is compared
    with every gallery face. Raises InputError if fewer than two identities have several.
    """
    first, others = one_gallery_picture(identities)
    if len(first) < 2:
        raise InputError("fewer than two identities have two or more faces: nobody to be told apart")
    owners, wanted = [identities[row] for row in first], [identities[row] for row in others]
    hits = rank_one_hits(probes[others], wanted, gallery[first], owners)
    scores = (probes[others] @ gallery[first].T).numpy()
    mated = np.array(wanted)[:, None] == np.array(owners)[None, :]
    found = {"rank1": float(hits.double().mean()), "eer": equal_error_rate(scores[mated], scores[~mated])}
    tar = true_accept_rate(scores[mated], scores[~mated], FAR)
    return found if tar is None else found | {"tar": tar}


def by_route(tables: Mapping[str, Tensor], sharp: str, identities: Sequence[str]) -> dict[str, float]:
    """`figures` of each route's embeddings (N, D) against those of the route `sharp`, as {figure}_{route}."""
    rows = {route: table.cpu() for route, table in tables.items()}
    return {
        f"{name}_{route}": value
        for route, table in rows.items()
        for name, value in figures(table, rows[sharp], identities).items()
    }


def selection_loss(found: Mapping[str, float], routes: Sequence[str], sharp: str, max_forgetting: float) -> float:
    """By which checkpoints are chosen: 1 - the mean of rank1 and, where it can be told, tar over the routes.

    found: {figure}_{route}, and rank1_stock_{sharp} of the network as published. FORGOTTEN is added where rank1 of the
    route `sharp` fell by more than max_forgetting, a share. By rank-1 alone epochs differ by a face or two.
    """
    low = [found[name] for route in routes for name in (f"rank1_{route}", f"tar_{route}") if name in found]
    forgotten = found[f"rank1_stock_{sharp}"] - found[f"rank1_{sharp}"] > max_forgetting
    return 1.0 - float(np.mean(low)) + FORGOTTEN * forgotten
