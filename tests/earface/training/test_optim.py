"""Learning rates at points worked out by hand or by torch's own schedules; parameter groups."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from earface.training.optim import LearningRate, adamw_with_schedule, backbone_groups, check_groups, named_group


def rate(schedule: str, warmup: int = 10, total: int = 110, patience: int = 0) -> LearningRate:
    return LearningRate(schedule, warmup, total, patience)


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        ("cosine", 0, 0.1),
        ("cosine", 5, 0.55),
        ("cosine", 10, 1.0),
        ("cosine", 35, 1 - 0.99 * (1 - 0.5**0.5) / 2),  # an eighth of a turn
        ("cosine", 60, 0.505),
        ("cosine", 110, 0.01),
        ("cosine", 500, 0.01),
        ("constant", 0, 0.1),
        ("constant", 5, 0.55),
        ("constant", 10, 1.0),
        ("constant", 500, 1.0),
        ("plateau", 0, 0.1),
        ("plateau", 10, 1.0),
        ("onecycle", 0, 0.04),
        ("onecycle", 11, 1.0),
        ("onecycle", 110, 1e-4),
    ],
)
def test_a_schedule_passes_through_its_named_points(schedule: str, step: int, factor: float) -> None:
    assert rate(schedule)(step) == pytest.approx(factor, rel=1e-9)


@pytest.mark.parametrize("schedule", ["cosine", "constant", "plateau"])
def test_no_warm_up_starts_at_the_peak(schedule: str) -> None:
    assert rate(schedule, warmup=0)(0) == 1.0


def test_onecycle_is_torchs() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    # torch rises until step pct_start * total - 1 and ends at total - 1
    oracle = OneCycleLR(optimizer, 1.0, 101, pct_start=11 / 101, div_factor=25, final_div_factor=400)
    mine = rate("onecycle", total=100)
    for step in range(101):
        assert mine(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        if step < 100:
            oracle.step()


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_plateau_is_torchs_reduce_on_plateau(patience: int) -> None:
    losses = 5 + np.random.default_rng(patience).normal(-0.02, 0.1, 60).cumsum()
    losses[20:24] = losses[19] * (1 - np.array([0.5e-4, 0.9e-4, 1.1e-4, 0.0]))  # on both sides of the threshold
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    oracle = ReduceLROnPlateau(optimizer, factor=0.5, threshold=1e-4, patience=patience, eps=0)
    mine, factors = rate("plateau", patience=patience), []
    for loss in losses:
        mine.observe(loss)
        oracle.step(loss)
        factors.append(mine(1000))
        assert factors[-1] == optimizer.param_groups[0]["lr"]
    assert len(set(factors)) > 2


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "constant"])
def test_only_plateau_heeds_the_validation_loss(schedule: str) -> None:
    mine = rate(schedule)
    before = [mine(step) for step in range(120)]
    for _ in range(5):
        mine.observe(1.0)
    assert [mine(step) for step in range(120)] == before


def groups_of_two_layers() -> list[dict[str, Any]]:
    return named_group("low", [nn.Linear(2, 3)], 0.1, 0.5) + named_group("high", [nn.Linear(3, 1)], 0.01, 0.5)


def test_every_group_follows_the_schedule_from_its_own_rate() -> None:
    made = adamw_with_schedule(groups_of_two_layers(), rate("cosine"))
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    for _ in range(60):
        optimizer.step()
        scheduler.step()
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == pytest.approx(
        {"low": 0.0505, "low.no_decay": 0.0505, "high": 0.00505, "high.no_decay": 0.00505}, rel=1e-9
    )


def test_a_plateau_goes_on_from_a_checkpoint() -> None:
    first = rate("plateau", patience=1)
    scheduler = adamw_with_schedule(groups_of_two_layers(), first)["lr_scheduler"]["scheduler"]
    for loss in (1.0, 2.0, 2.0, 2.0):  # halved once, one bad epoch since
        first.observe(loss)
    buffer = io.BytesIO()
    torch.save(scheduler.state_dict(), buffer)
    buffer.seek(0)

    second = rate("plateau", patience=1)
    resumed = adamw_with_schedule(groups_of_two_layers(), second)["lr_scheduler"]["scheduler"]
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    assert second(1000) == first(1000) == 0.5
    second.observe(2.0)
    assert second(1000) == 0.25


def test_biases_and_norms_are_not_decayed() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    decayed, kept = named_group("net", [net], 0.1, 0.5)
    assert (decayed["name"], kept["name"]) == ("net", "net.no_decay")
    assert (decayed["lr"], kept["lr"]) == (0.1, 0.1)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.5, 0.0)
    assert [id(p) for p in decayed["params"]] == [id(net[0].weight), id(net[2].weight)]
    assert [id(p) for p in kept["params"]] == [id(p) for p in (net[0].bias, net[1].weight, net[1].bias, net[2].bias)]


def test_frozen_parameters_are_in_no_group() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].requires_grad_(False)
    listed = [id(p) for group in named_group("net", [net], 0.1, 0.0) for p in group["params"]]
    assert listed == [id(net[1].weight), id(net[1].bias)]
    assert named_group("net", [net[0]], 0.1, 0.0) == []


def test_layer_decay_gives_each_layer_below_the_last_a_smaller_rate() -> None:
    layers = [[nn.Linear(2, 2)], [nn.Linear(2, 2), nn.Linear(2, 2)], [nn.Linear(2, 2, bias=False)]]
    rates = {group["name"]: group["lr"] for group in backbone_groups(layers, 0.8, 0.5, 0.1)}
    assert rates == {
        "backbone.0": 0.2,
        "backbone.0.no_decay": 0.2,
        "backbone.1": 0.4,
        "backbone.1.no_decay": 0.4,
        "backbone.2": 0.8,
    }


def test_without_layer_decay_the_backbone_is_one_group() -> None:
    layers = [[nn.Linear(2, 2)], [nn.Linear(2, 2)]]
    assert [group["name"] for group in backbone_groups(layers, 0.8, 1.0, 0.1)] == ["backbone", "backbone.no_decay"]


def test_groups_that_hold_every_parameter_once_pass() -> None:
    net = nn.Linear(2, 2)
    frozen = nn.Linear(2, 2).requires_grad_(False)
    check_groups(named_group("net", [net], 0.1, 0.0), [*net.parameters(), *frozen.parameters()])


@pytest.mark.parametrize("fault", ["missing", "doubled", "frozen", "foreign"])
def test_a_parameter_in_two_groups_in_none_or_frozen_in_one_is_refused(fault: str) -> None:
    net = nn.Linear(2, 2)
    groups = named_group("net", [net], 0.1, 0.0)
    wanted = list(net.parameters())
    if fault == "missing":
        wanted.append(nn.Parameter(torch.zeros(2)))
    elif fault == "doubled":
        groups += named_group("again", [net], 0.1, 0.0)
    elif fault == "frozen":
        net.bias.requires_grad_(False)
    else:
        wanted.pop()
    with pytest.raises(ValueError, match="two optimiser groups"):
        check_groups(groups, wanted)


# AdamW


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))


def steps(network: nn.Module, optimizer: torch.optim.Optimizer, count: int, first: int = 0) -> None:
    for step in range(first, first + count):
        images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()


def own(network: nn.Module) -> torch.optim.Optimizer:
    groups = named_group("net", [network], 1e-2, 0.1)
    optimizer: torch.optim.Optimizer = adamw_with_schedule(groups, rate("constant", warmup=0))["optimizer"]
    return optimizer


def plain(network: nn.Module) -> torch.optim.AdamW:
    """PyTorch's loop over parameters, which has no kernel of its own."""
    return torch.optim.AdamW(named_group("net", [network], 1e-2, 0.1), foreach=False, fused=False)


def weights_of(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_the_fused_optimizer_is_pytorchs_loop() -> None:
    networks = [small_network(), small_network()]
    steps(networks[0], own(networks[0]), 20)
    steps(networks[1], plain(networks[1]), 20)
    assert torch.allclose(weights_of(networks[0]), weights_of(networks[1]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_optimizer_state_of_an_earlier_kernel_and_layout_goes_on_in_this_one(layout: torch.memory_format) -> None:
    before, whole = small_network(), small_network()
    earlier = plain(before)
    steps(before, earlier, 5)
    steps(whole, plain(whole), 10)

    resumed = small_network().to(memory_format=layout)
    resumed.load_state_dict(before.state_dict())
    optimizer = own(resumed)
    optimizer.load_state_dict(earlier.state_dict())
    assert all(group["fused"] for group in optimizer.param_groups)
    for parameter, state in optimizer.state.items():
        assert state["exp_avg"].stride() == state["exp_avg_sq"].stride() == parameter.stride()
    steps(resumed, optimizer, 5, first=5)
    assert torch.allclose(weights_of(resumed), weights_of(whole), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_gradients_are_clipped_in_every_precision(precision: str) -> None:
    """Lightning refuses to clip for a fused optimiser that unscales gradients itself; this one does not."""

    class Steep(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.norms = small_network(), []

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            return (100 * self.net(batch[0])).square().mean()

        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            # clipping follows this hook, so what is left of a gradient is seen at the next step's start
            self.before = [parameter.grad for parameter in self.net.parameters()]

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.norms.append(torch.stack([grad.norm() for grad in self.before if grad is not None]).norm().item())

        def configure_optimizers(self) -> Any:
            return adamw_with_schedule(named_group("net", [self.net], 1e-4, 0.0), rate("constant", warmup=0))

    module = Steep()
    # 16-mixed by its plugin: Lightning would run it in bfloat16 on a CPU
    chosen: dict[str, Any] = {"precision": precision}
    if precision == "16-mixed":
        chosen = {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=4.0))]}
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=3,
        gradient_clip_val=0.5,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **chosen,
    )
    trainer.fit(module, DataLoader(TensorDataset(torch.randn(12, 3, 8, 8)), 4))
    assert module.norms == pytest.approx([0.5] * 3, rel=1e-2)
