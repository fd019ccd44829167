"""How well identities are recognised by low-resolution probes against one HR face of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from earface.core.errors import InputError
from earface.metrics.identification import one_gallery_picture, rank_one_hits
from earface.metrics.verification import equal_error_rate, true_accept_rate

FAR = 1e-3
FORGOTTEN = 1.0  # added to the loss of a checkpoint whose rank-1 of HR faces fell too much


def recognition_metrics(probes: Tensor, gallery: Tensor, identities: Sequence[str]) -> dict[str, float]:
    """rank1, eer, and tar at a false accept rate of 1e-3, where the sample supports it; shares in [0, 1].

    probes, gallery: (N, D) of length 1, embeddings of the same N faces. The first face of each identity with several is
    in the gallery, with its row of `gallery`; the others are probes, with their rows of `probes`. All probes are
    compared with all gallery faces. Raises InputError if fewer than two identities have several faces.
    """
    first, others = one_gallery_picture(identities)
    if len(first) < 2:
        raise InputError("fewer than two identities have two or more faces: nobody could be confused")
    owners, wanted = [identities[row] for row in first], [identities[row] for row in others]
    hits = rank_one_hits(probes[others], wanted, gallery[first], owners)
    scores = (probes[others] @ gallery[first].T).numpy()
    mated = np.array(wanted)[:, None] == np.array(owners)[None, :]
    found = {"rank1": float(hits.double().mean()), "eer": equal_error_rate(scores[mated], scores[~mated])}
    tar = true_accept_rate(scores[mated], scores[~mated], FAR)
    return found if tar is None else found | {"tar": tar}


def metrics_by_upsampler(tables: Mapping[str, Tensor], hr: str, identities: Sequence[str]) -> dict[str, float]:
    """`recognition_metrics` of each table (N, D) against the table `hr`, as {metric}_{upsampler}.

    tables: upsampler or HR -> embeddings.
    """
    rows = {upsampler: table.cpu() for upsampler, table in tables.items()}
    return {
        f"{name}_{upsampler}": value
        for upsampler, table in rows.items()
        for name, value in recognition_metrics(table, rows[hr], identities).items()
    }


def selection_loss(found: Mapping[str, float], upsamplers: Sequence[str], hr: str, max_forgetting: float) -> float:
    """The loss that selects checkpoints: 1 - the mean of rank1 and, where it is known, tar over the upsamplers.

    found: {metric}_{upsampler}, and rank1_pretrained_{hr} of the pretrained network. FORGOTTEN is added if rank1 of
    HR faces fell by more than max_forgetting, a share. Rank-1 alone differs between epochs by a face or two only.
    """
    low = [
        found[name] for upsampler in upsamplers for name in (f"rank1_{upsampler}", f"tar_{upsampler}") if name in found
    ]
    forgotten = found[f"rank1_pretrained_{hr}"] - found[f"rank1_{hr}"] > max_forgetting
    return 1.0 - float(np.mean(low)) + FORGOTTEN * forgotten
