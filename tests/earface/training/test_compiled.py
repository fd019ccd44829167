"""Runs with a compiled step: one compilation whatever validation brings, the same result, and what is printed of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import pytorch_lightning as pl
import torch
import torch._functorch.config as functorch_config
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils.data import DataLoader

from earface.training.compiled import CompiledSteps


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    with functorch_config.patch(backward_pass_autocast="same_as_forward"):
        yield
    torch._dynamo.reset()


class Small(pl.LightningModule):
    def __init__(self, compiled: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        if compiled:
            self.net.compile(backend="aot_eager")

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.net(batch) - batch.sum(1, keepdim=True)).square().mean()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.net(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(compiled: bool) -> Small:
    """Two epochs of four batches of 4, two to a step; validation in batches of 5, 5 and 2."""
    module = Small(compiled)
    data = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        accumulate_grad_batches=2,
        callbacks=[CompiledSteps("reduce-overhead")] if compiled else [],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, DataLoader(data, 4), DataLoader(data[:12], 5))
    return module


@pytest.mark.runs
def test_a_compiled_run_ends_as_another_and_validation_compiles_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = trained(compiled=False)
    found = trained(compiled=True)
    assert counters["stats"]["unique_graphs"] == 1
    for one, other in zip(found.parameters(), wanted.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    printed = capsys.readouterr().out
    assert "compiling: the first steps" in printed
    assert "compiled: the first 3 steps took" in printed


def test_backward_passes_are_traced_without_the_forwards_autocast() -> None:
    """With it the float32 losses would get gradients in half precision."""
    CompiledSteps("default")
    assert functorch_config.backward_pass_autocast == "off"


def test_what_fails_leaves_no_gradient_of_a_graph_and_compiles_again() -> None:
    module, steps = Small(compiled=False), CompiledSteps("reduce-overhead")
    module.training_step(torch.ones(2, 3), 0).backward()
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    steps.on_validation_start(trainer, module)
    steps.on_exception(trainer, module, RuntimeError())
    assert all(parameter.grad is None for parameter in module.parameters())
    torch.compile(module.net, backend="aot_eager")(torch.ones(2, 3))
    assert counters["stats"]["unique_graphs"] == 1
