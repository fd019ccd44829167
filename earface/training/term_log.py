"""Sums of loss terms and of validation metrics that stay on the device, and a watch for values that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

Total = Callable[[Tensor], Tensor]


def _alone(sums: Tensor) -> Tensor:
    return sums


class NonFiniteLossError(RuntimeError):
    """A loss term became NaN or infinite. The message names step, term and samples."""


class TermLog:
    """Sums of detached scalar terms since the last row and since the epoch began.

    `add` only stores; every `check_every` calls, and before anything is read or saved, the stored values are brought
    to the CPU in one copy, checked, and summed in float64.
    total: adds up a float64 tensor over all processes.
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

    def take_window(self, total: Total = _alone) -> dict[str, float]:
        """Means since the last call."""
        self.flush()
        sums, self.window = self.window, {}
        return _means(_over_processes(sums, total))

    def take_epoch(self, total: Total = _alone) -> dict[str, float]:
        """Means since the epoch began; starts a new one."""
        self.flush()
        sums, self.epoch = self.epoch, {}
        return _means(_over_processes(sums, total))

    def state_dict(self, total: Total = _alone) -> dict[str, Any]:
        """The sums of all processes, with which the first one goes on."""
        self.flush()
        return {"window": _over_processes(self.window, total), "epoch": _over_processes(self.epoch, total)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.pending.clear()
        self.window, self.epoch = dict(state["window"]), dict(state["epoch"])


class ValidationSums:
    """Sums over a validation set of means over batches, by name; each name with its own count of samples.

    `add` only stores, on the device; every `check_every` calls, and before anything is read, the stored values are
    brought to the CPU in one copy, checked, and summed in float64.
    names: those that count as 0 where nothing is added, so that all processes hold the same names in the same order.
    step: at which the weights are validated, for an error message.
    """

    def __init__(self, names: Iterable[str] = (), check_every: int = 1, step: int = 0) -> None:
        self.check_every, self.step = check_every, step
        self.pending: list[tuple[tuple[str, ...], Tensor]] = []
        self.sums = dict.fromkeys(names, 0.0)
        self.counts = dict.fromkeys(names, 0.0)

    def add(self, values: Mapping[str, Tensor], count: int | Tensor) -> None:
        """values: scalars, means over `count` samples; a tensor where only the device knows how many."""
        if not values:
            return
        scalars = [value.detach().float() for value in values.values()]
        number = count.float() if isinstance(count, Tensor) else torch.full_like(scalars[0], count)
        self.pending.append((tuple(values), torch.stack([*scalars, number])))
        if len(self.pending) >= self.check_every:
            self.flush()

    def flush(self) -> None:
        """Raises NonFiniteLossError for the first stored value that is not finite."""
        pending, self.pending = self.pending, []
        if not pending:
            return
        numbers = iter(torch.cat([row for _, row in pending]).cpu().double().tolist())
        for names, _ in pending:
            means = {name: next(numbers) for name in names}
            count = next(numbers)
            for name, mean in means.items() if count else ():
                if not math.isfinite(mean):
                    raise NonFiniteLossError(f"step {self.step}: {name} not finite in validation")
                self.sums[name] = self.sums.get(name, 0.0) + mean * count
                self.counts[name] = self.counts.get(name, 0.0) + count

    def means(self, total: Total = _alone) -> dict[str, float]:
        """Of the names with samples. total: adds up a float64 tensor over all processes."""
        self.flush()
        both = total(torch.tensor([[*self.sums.values()], [*self.counts.values()]], dtype=torch.float64))
        found = zip(self.sums, *both.tolist(), strict=True)
        return {name: value / count for name, value, count in found if count}


def _over_processes(sums: Mapping[str, float], total: Total) -> dict[str, float]:
    found = total(torch.tensor([*sums.values()], dtype=torch.float64)).tolist()
    return dict(zip(sums, found, strict=True))


def _means(sums: Mapping[str, float]) -> dict[str, float]:
    return {name: value / sums["count"] for name, value in sums.items() if name != "count"}
