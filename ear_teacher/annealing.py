"""How the KL weight moves over training: a function of the fractional epoch, so that it moves at every step."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Literal

from ear_teacher.config import EarVAETrainingConfig
from earface.core.options import check_field

Strategy = Literal["threshold", "epoch", "linear", "monotonic", "cyclic", "none"]


def linear_ramp(fraction: float) -> float:
    """0 below 0, 1 above 1, linear between."""
    return min(max(fraction, 0.0), 1.0)


def cosine_ramp(fraction: float) -> float:
    """Half a cosine from 0 to 1: slow, fast, slow."""
    return 0.5 * (1.0 - math.cos(math.pi * linear_ramp(fraction)))


def cyclic_ramp(fraction: float, cycles: int, ratio: float) -> float:
    """`cycles` equal cycles; each rises from 0 to 1 over its first `ratio`, then stays at 1. From fraction 1 on, 1.

    Fu et al. 2019, Cyclical Annealing Schedule (equations 6 and 7, with a linear f). ratio 0: always 1.
    """
    if fraction >= 1.0:
        return 1.0
    position = math.modf(max(fraction, 0.0) * cycles)[0]
    return 1.0 if position >= ratio else position / ratio


@dataclass
class KLAnnealing:
    """beta(progress) = weight x (start + (end - start) x ramp); progress is in epochs, 2.5 is half through the third.

    threshold: the ramp takes `epochs` epochs from the one after validation PSNR first reached `threshold_psnr` dB, at
        the latest from `latest_epoch` (None: it may never start). Its only state is the epoch it starts at.
    epoch: over the first `epochs` epochs. linear, monotonic (half cosine): over the whole run of `total_epochs`.
    cyclic: `cycles` ramps over the whole run, each rising during its first `ratio`.
    none, or `epochs` 0 with any strategy: the final weight throughout.

    Raises InputError, naming option and range, for a value out of range.
    """

    strategy: Strategy
    weight: float
    total_epochs: int
    start: float = 0.0
    end: float = 1.0
    epochs: int = 10
    cycles: int = 4
    ratio: float = 0.5
    threshold_psnr: float = 24.0
    latest_epoch: int | None = None
    start_epoch: int | None = field(default=None, init=False)  # of the threshold's ramp, once known

    def __post_init__(self) -> None:
        for name, value in (
            ("kl_anneal_strategy", self.strategy),
            ("kl_weight", self.weight),
            ("epochs", self.total_epochs),
            ("kl_anneal_start", self.start),
            ("kl_anneal_end", self.end),
            ("kl_anneal_epochs", self.epochs),
            ("kl_anneal_cycles", self.cycles),
            ("kl_anneal_ratio", self.ratio),
            ("kl_anneal_threshold_psnr", self.threshold_psnr),
            *([] if self.latest_epoch is None else [("kl_anneal_latest_epoch", self.latest_epoch)]),
        ):
            check_field(EarVAETrainingConfig, name, value)

    @property
    def final_weight(self) -> float:
        """The weight once the ramp is over; validation losses of all epochs are compared at it."""
        return self.weight * self.end

    @property
    def is_fixed(self) -> bool:
        return self.strategy == "none" or self.epochs == 0

    def weight_at(self, progress: float) -> float:
        """The KL weight at `progress` epochs from the start of training."""
        if self.is_fixed:
            return self.final_weight
        return self.weight * (self.start + (self.end - self.start) * self._ramp(progress))

    def is_warming_up(self, progress: float) -> bool:
        """Whether the first ramp is still below its end; early stopping does not count such epochs.

        Of the cyclic strategy only the first cycle's rise counts: the later ones would leave half the run uncounted.
        A threshold that is never reached, without `latest_epoch`, warms up for ever.
        """
        if self.is_fixed:
            return False
        if self.strategy == "cyclic":
            return progress < self.ratio * self.total_epochs / self.cycles
        return self._ramp(progress) < 1.0

    def observe_validation(self, epoch: int, psnr: float) -> str | None:
        """Record that epoch `epoch` (from 0) ended with a validation PSNR of `psnr` dB.

        Returns one line if this determines the start of the threshold's ramp, else None. If `latest_epoch` forced it,
        the line is also issued as a warning.
        """
        if self.strategy != "threshold" or self.is_fixed or self.start_epoch is not None:
            return None
        if psnr >= self.threshold_psnr and (self.latest_epoch is None or epoch < self.latest_epoch):
            self.start_epoch = epoch + 1
            return f"KL ramp from epoch {epoch + 1}: validation PSNR {psnr:.2f} dB reached {self.threshold_psnr:g} dB"
        if self.latest_epoch is None or epoch + 1 < self.latest_epoch:
            return None
        self.start_epoch = self.latest_epoch
        line = (
            f"KL ramp from epoch {self.latest_epoch} (kl_anneal_latest_epoch): validation PSNR {psnr:.2f} dB "
            f"has not reached {self.threshold_psnr:g} dB"
        )
        warnings.warn(line, stacklevel=2)
        return line

    def state_dict(self) -> dict[str, int]:
        """For a checkpoint, as plain numbers; -1 if the start of the ramp is not known yet."""
        return {"start_epoch": -1 if self.start_epoch is None else self.start_epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        start = int(state["start_epoch"])
        self.start_epoch = None if start < 0 else start

    def _ramp(self, progress: float) -> float:
        if self.strategy == "threshold":
            start = self.latest_epoch if self.start_epoch is None else self.start_epoch
            return 0.0 if start is None else linear_ramp((progress - start) / self.epochs)
        if self.strategy == "epoch":
            return linear_ramp(progress / self.epochs)
        if self.strategy == "linear":
            return linear_ramp(progress / self.total_epochs)
        if self.strategy == "monotonic":
            return cosine_ramp(progress / self.total_epochs)
        return cyclic_ramp(progress / self.total_epochs, self.cycles, self.ratio)


def annealing_of(config: EarVAETrainingConfig) -> KLAnnealing:
    return KLAnnealing(
        config.kl_anneal_strategy,
        config.kl_weight,
        config.epochs,
        start=config.kl_anneal_start,
        end=config.kl_anneal_end,
        epochs=config.kl_anneal_epochs,
        cycles=config.kl_anneal_cycles,
        ratio=config.kl_anneal_ratio,
        threshold_psnr=config.kl_anneal_threshold_psnr,
        latest_epoch=config.kl_anneal_latest_epoch,
    )
