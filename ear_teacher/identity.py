"""The identity part of an ear VAE's latents in training: its loss over people, and how well it tells others apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from ear_teacher.config import EarVAETrainingConfig
from ear_teacher.ear_files import EarFile
from ear_teacher.recognition.metrics import identification
from earface.core.errors import InputError
from earface.data.identity_split import identity_digests
from earface.nn.margin_head import MarginHead, margin_loss

SCALE, LABEL_SMOOTHING = 32.0, 0.1  # as of the ear recogniser


class IdentityLoss(nn.Module):
    """The margin loss of identity latents, and the people's centres, which it learns.

    `digests`: of the people, in the order of their centres, which a checkpoint keeps.
    """

    def __init__(self, config: EarVAETrainingConfig, people: Sequence[str]) -> None:
        """people: EarVAEDataModule.classes."""
        super().__init__()
        kind, sub_centers = config.identity_head, config.identity_sub_centers
        self.head = MarginHead(config.identity_dim, len(people), kind, 0.0, SCALE, sub_centers)
        self.digests = identity_digests([*people])

    def check(self, digests: Sequence[str], source: str) -> None:
        """Raise InputError where a run began with other people. source: where today's are from."""
        if list(digests) != self.digests:
            raise InputError(
                f"{source}: its people are not those that the run began with: train on the same ears, or start again "
                "with `resume` never"
            )

    def forward(self, mu: Tensor, people: Tensor) -> Tensor:
        """mu: (B, identity_dim); people: (B,) their numbers. In nats, mean over the batch."""
        return margin_loss(self.head(mu, people), people, LABEL_SMOOTHING)


class IdentityMetrics:
    """The identity latents of validation ears, gathered batch by batch and from all processes."""

    def __init__(self, files: Sequence[EarFile], identity_dim: int, device: torch.device) -> None:
        self.files = files
        self.latents = torch.zeros(sum(map(len, files)), identity_dim, device=device)

    def add(self, mu: Tensor, index: Tensor) -> None:
        """mu: (B, identity_dim); index: (B,) their places in all files in a row."""
        self.latents.index_copy_(0, index, mu.float())

    def means(self, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """`identity_rank1` and `identity_eer`, the people of each file apart: of several files the mean, and each under
        its number. total: sums a tensor over all processes."""
        latents = total(self.latents).cpu().numpy()
        of_files = [
            identification(latents[start:end], file.subjects)
            for (start, end), file in zip(pairwise(np.cumsum([0, *map(len, self.files)])), self.files, strict=True)
        ]
        found: dict[str, float] = {}
        for name in ("rank1", "eer"):
            values = {number: getattr(each, name) for number, each in enumerate(of_files, 1)}
            known = {number: value for number, value in values.items() if value is not None}
            if known:
                found[f"identity_{name}"] = sum(known.values()) / len(known)
            if len(of_files) > 1:
                found |= {f"identity_{name}_{number}": value for number, value in known.items()}
        return found
