"""Running means of loss terms that cost no synchronisation per step, and a watch for values that are not finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class NonFiniteLossError(RuntimeError):
    """A loss term became NaN or infinite. The message names step, term and samples."""


class TermLog:
    """Sums of detached scalar terms since the last row and since the epoch began.

    `add` only stores; every `check_every` calls, and before anything is read or saved, the stored values are brought
    to the CPU in one copy, checked, and summed in float64.
    """

    def __init__(self, describe: Callable[[Tensor], str], check_every: int = 1) -> None:
        self.describe = describe
        self.check_every = check_every
        self.pending: list[tuple[int, Tensor, Tensor]] = []
        self.names: list[str] = []
        self.window: dict[str, float] = {}
        self.epoch: dict[str, float] = {}

    def add(self, step: int, terms: Mapping[str, Tensor], samples: Tensor) -> None:
        """terms: scalars by name. samples: indices of the batch, to name it if a term is not finite."""
        self.names = list(terms)
        self.pending.append((step, torch.stack([term.detach().float() for term in terms.values()]), samples))
        if len(self.pending) >= self.check_every:
            self.flush()

    def flush(self) -> None:
        """Raises NonFiniteLossError for the first stored step with a value that is not finite."""
        if not self.pending:
            return
        table = torch.stack([values for _, values, _ in self.pending]).cpu().double()
        bad = ~table.isfinite()
        if bad.any():
            row = int(bad.any(1).nonzero()[0])
            step, _, samples = self.pending[row]
            names = ", ".join(name for name, is_bad in zip(self.names, bad[row].tolist(), strict=True) if is_bad)
            self.pending.clear()
            raise NonFiniteLossError(f"step {step}: {names} not finite on {self.describe(samples)}")
        for name, total in zip(self.names, table.sum(0).tolist(), strict=True):
            for sums in (self.window, self.epoch):
                sums[name] = sums.get(name, 0.0) + total
        for sums in (self.window, self.epoch):
            sums["count"] = sums.get("count", 0.0) + len(table)
        self.pending.clear()

    def take_window(self) -> dict[str, float]:
        """Means since the last call."""
        self.flush()
        means, self.window = _means(self.window), {}
        return means

    def take_epoch(self) -> dict[str, float]:
        """Means since the epoch began; starts a new one."""
        self.flush()
        means, self.epoch = _means(self.epoch), {}
        return means

    def state_dict(self) -> dict[str, Any]:
        self.flush()
        return {"window": dict(self.window), "epoch": dict(self.epoch)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.pending.clear()
        self.window, self.epoch = dict(state["window"]), dict(state["epoch"])


def _means(sums: Mapping[str, float]) -> dict[str, float]:
    return {name: value / sums["count"] for name, value in sums.items() if name != "count"}
