"""Parameter groups with names and rates of their own, and learning rates as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR


def named_group(name: str, modules: Iterable[nn.Module], lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Optimiser groups `name` (matrices, decayed) and `name.no_decay` (biases, norms), each with its own `lr`.

    Frozen parameters are left out; a group without parameters is left out.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    parts = (
        (name, [p for p in parameters if _decays(p)], weight_decay),
        (f"{name}.no_decay", [p for p in parameters if not _decays(p)], 0.0),
    )
    return [
        {"name": title, "params": members, "lr": lr, "weight_decay": decay}
        for title, members, decay in parts
        if members
    ]


def mark_matrices(module: nn.Module) -> None:
    """Note which parameters are decayed, before a strategy that shards them flattens all to one dimension."""
    for parameter in module.parameters():
        parameter.decays = parameter.ndim >= 2  # type: ignore[attr-defined]


def _decays(parameter: Parameter) -> bool:
    return bool(getattr(parameter, "decays", parameter.ndim >= 2))


def backbone_groups(
    layer_groups: Sequence[Sequence[nn.Module]],
    lr: float,
    layer_decay: float,
    weight_decay: float,
    name: str = "backbone",
) -> list[dict[str, Any]]:
    """The backbone's groups: one, or one a layer when `layer_decay` < 1.

    The last layer learns at `lr`, the one below at `lr * layer_decay`, and so on (BEiT, Bao et al. 2022).
    """
    if layer_decay == 1.0:
        return named_group(name, [module for group in layer_groups for module in group], lr, weight_decay)
    groups = []
    for index, modules in enumerate(layer_groups):
        rate = lr * layer_decay ** (len(layer_groups) - 1 - index)
        groups += named_group(f"{name}.{index}", modules, rate, weight_decay)
    return groups


def check_groups(groups: Sequence[dict[str, Any]], trainable: Iterable[Parameter]) -> None:
    """Every trainable parameter is in exactly one group. Raises ValueError otherwise."""
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    wanted = {id(parameter) for parameter in trainable if parameter.requires_grad}
    if len(listed) != len(set(listed)) or set(listed) != wanted:
        raise ValueError("a parameter stands in two optimiser groups, in none, or is frozen and in one")


class LearningRate:
    """Factor on every group's rate at an optimiser step.

    Warm-up rises linearly from a tenth; `cosine` falls to a hundredth at `total_steps`; `onecycle` is cosine up over
    the first tenth and down (Smith & Topin 2018); `plateau` halves after `patience` epochs without a better val/loss.
    Its attributes are plain numbers, which LambdaLR saves and restores with a checkpoint.
    """

    def __init__(self, schedule: str, warmup_steps: int, total_steps: int, patience: int) -> None:
        self.schedule = schedule
        self.warmup_steps = warmup_steps
        self.total_steps = max(total_steps, 1)
        self.patience = patience
        self.scale = 1.0
        self.best = math.inf
        self.bad_epochs = 0

    def __call__(self, step: int) -> float:
        if self.schedule == "onecycle":
            rise = max(1, round(0.1 * self.total_steps))
            if step < rise:
                return 0.04 + 0.96 * _half_cosine(step / rise)
            return 1.0 - (1.0 - 1e-4) * _half_cosine((step - rise) / max(self.total_steps - rise, 1))
        if step < self.warmup_steps:
            return self.scale * (0.1 + 0.9 * step / self.warmup_steps)
        if self.schedule == "cosine":
            progress = (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1)
            return 1.0 - 0.99 * _half_cosine(progress)
        return self.scale

    def observe(self, val_loss: float) -> None:
        """Once an epoch: what `plateau` decides by, as torch's ReduceLROnPlateau(factor=.5, threshold=1e-4)."""
        if self.schedule != "plateau":
            return
        if val_loss < self.best * (1.0 - 1e-4):
            self.best, self.bad_epochs = val_loss, 0
            return
        self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            self.scale, self.bad_epochs = self.scale * 0.5, 0


def _half_cosine(progress: float) -> float:
    """0 -> 0, 1 -> 1, smooth at both ends."""
    return 0.5 - 0.5 * math.cos(math.pi * min(max(progress, 0.0), 1.0))


def adamw_with_schedule(groups: list[dict[str, Any]], rate: LearningRate) -> dict[str, Any]:
    """What `configure_optimizers` returns: AdamW in one kernel where there is one, and the schedule of each step."""
    fused = groups[0]["params"][0].device.type in ("cpu", "cuda")
    optimizer = AdamW(groups, fused=fused)
    # Gradients are unscaled before they are clipped, so the kernel must not: Lightning takes its word for it
    optimizer._step_supports_amp_scaling = False
    optimizer.register_load_state_dict_pre_hook(_with_own_kernel)
    optimizer.register_load_state_dict_post_hook(_with_own_strides)
    scheduler = LambdaLR(optimizer, [rate] * len(groups))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _with_own_kernel(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A stored state, perhaps of another device or precision, goes on with this optimiser's kernel."""
    own = {name: optimizer.param_groups[0][name] for name in ("fused", "foreach")}
    return {**state, "param_groups": [{**group, **own} for group in state["param_groups"]]}


def _with_own_strides(optimizer: Optimizer) -> None:
    """The fused kernel needs moments laid out as their parameter, which a file of another device may not hold."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter).copy_(value)
