"""Training steps under torch.compile: their warm-up, validation without it, and what CUDA graphs must not overwrite."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
import torch
import torch._functorch.config as functorch_config
from pytorch_lightning.callbacks import Callback
from torch import Tensor

WARM_UP_STEPS = 3  # the first compiles; with CUDA graphs the second warms up and the third is recorded


class CompiledSteps(Callback):
    """Of a run whose training step is compiled on a GPU. mode: of torch.compile; all but `default` use CUDA graphs."""

    def __init__(self, mode: str) -> None:
        trace_backward_without_autocast()
        self.graphs = mode != "default"
        self.steps = 0
        self.started = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()  # what the last step returned may be overwritten
        if self.steps == 0:
            self.started = time.monotonic()
            pl_module.print("compiling: the first steps take a minute or more")

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A graph writes the next batch's gradients to the same memory: those that they are added to are copied."""
        if self.graphs and trainer.fit_loop._should_accumulate():
            for parameter in pl_module.parameters():
                if parameter.grad is not None:
                    parameter.grad = parameter.grad.clone()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        self.steps += 1
        if self.steps == WARM_UP_STEPS:
            last = next(parameter for parameter in pl_module.parameters() if parameter.requires_grad)
            wait_for(last)
            pl_module.print(f"compiled: the first {WARM_UP_STEPS} steps took {time.monotonic() - self.started:.0f} s")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.compiler.set_stance("force_eager")  # its batches have other shapes, each a compilation of its own

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.compiler.set_stance("default")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        torch.compiler.set_stance("default")
        pl_module.zero_grad()  # Lightning moves the gradients to the CPU, and a graph's may be overwritten by now


def trace_backward_without_autocast() -> None:
    """As the eager backward runs. Under the forward's autocast the float32 losses get gradients in half precision."""
    if hasattr(functorch_config, "backward_pass_autocast"):  # torch 2.6 has no choice
        functorch_config.backward_pass_autocast = "off"


def wait_for(tensor: Tensor) -> None:
    """Until the device has computed it."""
    tensor.detach().flatten()[:1].cpu()
