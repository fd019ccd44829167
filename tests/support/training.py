"""Looks at training: what its files hold, and what its first step does to the weights."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from earface.nn.checkpoint import read_checkpoint
from earface.training.module import TrainingModule


def metric_rows(folder: Path) -> list[dict[str, float]]:
    """metrics.csv of the first run that logged below folder/logs, empty cells left out."""
    (path,) = (folder / "logs").rglob("version_0/metrics.csv")
    with path.open(newline="") as file:
        return [{key: float(text) for key, text in row.items() if text} for row in csv.DictReader(file)]


def outcome(folder: Path) -> tuple[dict[str, Any], str]:
    """last.ckpt without place and time, and the CSV."""
    checkpoint = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    checkpoint["run"].pop("written")
    checkpoint["hyper_parameters"]["options"] = None
    for state in checkpoint["callbacks"].values():
        for key in ("dirpath", "best_model_path", "kth_best_model_path", "last_model_path"):
            state.pop(key, None)
        if "best_k_models" in state:
            state["best_k_models"] = {Path(path).name: score for path, score in state["best_k_models"].items()}
    checkpoint.pop("loops")
    (metrics,) = (folder / "logs").rglob("version_0/metrics.csv")
    return checkpoint, metrics.read_text()


def assert_same(first: Any, second: Any, where: str = "checkpoint") -> None:
    """Equal dictionaries and lists of tensors, bit for bit, and of anything else."""
    if isinstance(first, Tensor):
        assert torch.equal(first, second), f"{where} differs by {(first - second).abs().max()}"
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}[{key!r}]")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    else:
        assert first == second, f"{where}: {first} and {second}"


@dataclass
class FirstStep:
    """The first step of a training: its module, the parameters that it starts from, and which have a gradient.

    A gradient is zero where a later layer starts at zero.
    """

    module: Any = None
    before: dict[str, Tensor] = field(default_factory=dict)
    reached: set[str] = field(default_factory=set)

    def changed(self) -> set[str]:
        """Names of the parameters that the training has moved; all of them are finite."""
        assert self.module.trainer.global_step > 0, "no step was taken"
        now = {name: value.detach().cpu() for name, value in self.module.named_parameters()}
        assert all(value.isfinite().all() for value in now.values())
        return {name for name, value in now.items() if not torch.equal(value, self.before[name])}


def watch_first_step(monkeypatch: pytest.MonkeyPatch) -> FirstStep:
    """The first step of the next training in this process, whichever package runs it."""
    step = FirstStep()
    start, clip = TrainingModule.on_train_batch_start, TrainingModule.configure_gradient_clipping

    def on_train_batch_start(module: TrainingModule, *given: Any) -> None:
        if step.module is None:
            step.module = module
            step.before = {name: value.detach().cpu().clone() for name, value in module.named_parameters()}
        start(module, *given)

    def configure_gradient_clipping(module: TrainingModule, *given: Any, **options: Any) -> None:
        if not step.reached:
            step.reached = {name for name, value in module.named_parameters() if value.grad is not None}
        clip(module, *given, **options)

    monkeypatch.setattr(TrainingModule, "on_train_batch_start", on_train_batch_start)
    monkeypatch.setattr(TrainingModule, "configure_gradient_clipping", configure_gradient_clipping)
    return step
