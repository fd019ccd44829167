"""Averaging, stopping, pausing and checkpoint names, in real fits of the smallest module that can be trained."""

from __future__ import annotations

import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from earface.core.stopping import TrainingPaused
from earface.nn.checkpoint import read_checkpoint
from earface.training.best_checkpoints import best_checkpoints
from earface.training.callbacks import EMA, EarlyStop, LastCheckpoint, RunState
from earface.training.checkpoint_io import AtomicCheckpointIO
from earface.training.term_log import NonFiniteLossError

STEPS = 4  # an epoch


class Line(pl.LightningModule):
    """One weight per input, pulled towards the data; validation repeats a given list of losses."""

    def __init__(self, val_losses: tuple[float, ...] = (1.0,), warm_up: int = 0) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
        self.val_losses, self.warm_up = val_losses, warm_up

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.net(batch) - batch.sum(1, keepdim=True)).square().mean()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        loss = self.val_losses[min(self.current_epoch, len(self.val_losses) - 1)]
        self.log_dict({"val/loss": loss, "val/ssim": 1.0 - loss})

    def objective_is_warming_up(self) -> bool:
        return self.current_epoch < self.warm_up

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: pl.LightningModule, *callbacks: Callback, epochs: int = 2, resume: Path | None = None) -> pl.Trainer:
    torch.manual_seed(0)
    data = torch.randn(STEPS * 5, 3)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_checkpointing=any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, DataLoader(data, 5), DataLoader(data, 5), ckpt_path=resume)
    return trainer


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_average_follows_the_model_to_its_device_and_its_count_stays_on_the_cpu() -> None:
    """Lightning copies the model while it is on the CPU. Meta stands in for a GPU."""
    ema, module = EMA(0.9), Line()
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    ema.setup(trainer, module, "fit")
    module.to("meta")
    ema.on_fit_start(trainer, module)
    average = ema._average_model
    assert average is not None
    assert {tensor.device.type for tensor in (*average.module.parameters(), *average.module.buffers())} == {"meta"}
    assert average.n_averaged.device.type == "cpu"


class Recorder(Callback):
    """The weights after each step, and those that validation runs on."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        self.steps.append(state_of(pl_module))

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        self.validated.append(state_of(pl_module))


@pytest.mark.parametrize("decay", [0.25, 0.999])
def test_ema_is_the_hand_written_loop(decay: float) -> None:
    recorder = Recorder()
    fit(Line(), EMA(decay), recorder)
    assert len(recorder.steps) == 2 * STEPS
    average = {name: value.double() for name, value in recorder.steps[0].items()}  # the first weights as they are
    for n, weights in enumerate(recorder.steps[1:], start=1):
        kept = min(decay, (1 + n) / (10 + n))
        for name, value in weights.items():
            average[name] = kept * average[name] + (1 - kept) * value if value.is_floating_point() else value.double()
    for name, value in recorder.validated[-1].items():
        assert torch.allclose(value.double(), average[name], rtol=1e-6), name
    assert not torch.equal(recorder.validated[-1]["net.1.weight"], recorder.steps[-1]["net.1.weight"])


def test_averaging_does_not_change_what_the_optimiser_does() -> None:
    plain, averaged = Recorder(), Recorder()
    for callbacks in ([plain], [EMA(0.9), averaged]):
        torch.manual_seed(1)
        fit(Line(), *callbacks)
    assert all(same(first, second) for first, second in zip(plain.steps, averaged.steps, strict=True))
    assert not same(plain.validated[-1], averaged.validated[-1])


class SaveWithin(Callback):
    """Saves while validation runs on the average, then fails if told to."""

    def __init__(self, path: Path, fail: bool = False) -> None:
        self.path, self.fail = path, fail

    def on_validation_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        trainer.save_checkpoint(self.path)
        if self.fail:
            raise RuntimeError("validation broke")


def test_a_checkpoint_holds_both_sets_also_when_written_during_validation(tmp_path: Path) -> None:
    recorder = Recorder()
    fit(Line(), EMA(0.9), recorder, SaveWithin(tmp_path / "within.ckpt"), epochs=1)
    checkpoint = read_checkpoint(tmp_path / "within.ckpt")
    assert same(checkpoint["current_model_state"], recorder.steps[-1])
    assert same(checkpoint["state_dict"], recorder.validated[-1])
    assert not same(recorder.steps[-1], recorder.validated[-1])


def test_an_exception_in_validation_leaves_the_raw_weights_in_the_module(tmp_path: Path) -> None:
    recorder, module = Recorder(), Line()
    with pytest.raises(RuntimeError, match="validation broke"):
        fit(module, EMA(0.9), recorder, SaveWithin(tmp_path / "within.ckpt", fail=True))
    assert same(state_of(module), recorder.steps[-1])
    assert not same(state_of(module), recorder.validated[-1])


def test_after_training_the_module_holds_the_average() -> None:
    recorder, module = Recorder(), Line()
    fit(module, EMA(0.9), recorder)
    assert same(state_of(module), recorder.validated[-1])


@pytest.mark.parametrize(
    ("warm_up", "val_losses", "epochs_run"),
    [
        (0, (1.0,), 3),  # first counts as better than nothing, then two without improvement
        (4, (1.0,), 7),
        (4, (1.0, 0.1, 0.1, 0.1, 5.0, 4.0, 4.0), 8),  # a low loss of the warm-up is not the one to beat
        (0, (5.0, 4.0, 3.0, 3.5, 2.0, 2.0, 2.0), 7),
        (99, (1.0,), 9),
    ],
)
def test_early_stopping_counts_from_the_end_of_the_warm_up(
    warm_up: int, val_losses: tuple[float, ...], epochs_run: int
) -> None:
    assert fit(Line(val_losses, warm_up), EarlyStop(patience=2), epochs=9).current_epoch == epochs_run


def test_the_best_three_by_loss_and_the_best_by_ssim_without_a_slash_in_any_name(tmp_path: Path) -> None:
    fit(Line((0.5, 0.1, 0.4, 0.2, 0.3)), *best_checkpoints(str(tmp_path), "ear_vae", {"ssim": "max"}), epochs=5)
    assert {path.name for path in tmp_path.rglob("*")} == {
        "ear_vae-epoch=001-val_loss=0.1000.ckpt",
        "ear_vae-epoch=003-val_loss=0.2000.ckpt",
        "ear_vae-epoch=004-val_loss=0.3000.ckpt",
        "best-ssim-epoch=001-val_ssim=0.9000.ckpt",
    }


def last(folder: Path, *, every_n_steps: int = 0, stop: int | None = None, time: int | None = None) -> LastCheckpoint:
    max_time = None if time is None else timedelta(seconds=time)
    return LastCheckpoint(folder, every_n_steps=every_n_steps, stop_after_epoch=stop, max_time=max_time)


@pytest.mark.parametrize(
    ("options", "step", "reason"),
    [({"time": 0}, 1, "`max_time` in epoch 1, step 1"), ({"stop": 1}, STEPS, "`stop_after_epoch` 1 after epoch 1")],
)
def test_a_pause_comes_after_the_state_is_saved(
    tmp_path: Path, options: dict[str, int], step: int, reason: str
) -> None:
    module = Line()
    with pytest.raises(TrainingPaused, match=reason):
        fit(module, last(tmp_path, **options))
    checkpoint = read_checkpoint(tmp_path / "last.ckpt")
    assert checkpoint["global_step"] == step
    assert same(checkpoint["state_dict"], state_of(module))


def test_time_enough_and_a_later_epoch_pause_nothing(tmp_path: Path) -> None:
    trainer = fit(Line(), last(tmp_path, stop=2, time=86400))
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == trainer.global_step == 2 * STEPS


class StepsSaved(Callback):
    """The step that last.ckpt holds when each batch starts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps: list[int | None] = []

    def on_train_batch_start(self, *arguments: Any) -> None:
        self.steps.append(read_checkpoint(self.path)["global_step"] if self.path.exists() else None)


@pytest.mark.parametrize(
    ("every", "steps"), [(0, [None] * 4 + [4] * 4), (1, [None, 1, 2, 3, 4, 5, 6, 7]), (3, [None] * 3 + [3, 4, 4, 6, 6])]
)
def test_last_is_written_every_epoch_and_every_n_steps(tmp_path: Path, every: int, steps: list[int | None]) -> None:
    saved = StepsSaved(tmp_path / "last.ckpt")
    fit(Line(), saved, last(tmp_path, every_n_steps=every))
    assert saved.steps == steps


def test_last_also_holds_the_other_callbacks_newest_scores(tmp_path: Path) -> None:
    fit(Line((0.5, 0.1)), *best_checkpoints(str(tmp_path), "ear_vae", {"ssim": "max"}), last(tmp_path))
    states = read_checkpoint(tmp_path / "last.ckpt")["callbacks"].values()
    assert sorted(float(state["best_model_score"]) for state in states if "best_model_score" in state) == [
        pytest.approx(0.1),
        pytest.approx(0.9),
    ]


def test_after_a_resume_a_checkpoint_holds_the_same_scores(tmp_path: Path) -> None:
    """That of the last best file by SSIM too, which no later epoch betters."""
    losses = (0.1, 0.5)
    fit_in(tmp_path / "whole", losses, 2)
    fit_in(tmp_path / "resumed", losses, 1)
    fit_in(tmp_path / "resumed", losses, 2, resume=True)
    scores = []
    for folder in ("whole", "resumed"):
        (path,) = (tmp_path / folder).glob("run-epoch=001-*")
        states = read_checkpoint(path)["callbacks"].values()
        scores.append([float(state["current_score"]) for state in states if "current_score" in state])
    assert scores[1] == scores[0] == [pytest.approx(0.5), pytest.approx(0.9)]


class Ruin(Callback):
    """One weight becomes NaN in the third step, whose loss is finite."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        if trainer.global_step == 3:
            with torch.no_grad():
                next(pl_module.parameters()).view(-1)[0] = float("nan")


def test_weights_that_are_not_finite_replace_no_good_ones(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match=r"step 3: weights not finite, the first of them net\.0\.weight"):
        fit(Line(), Ruin(), last(tmp_path, every_n_steps=1))
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 2


# A run that was moved


def fit_in(folder: Path, losses: tuple[float, ...], epochs: int, resume: bool = False) -> dict[str, dict[str, float]]:
    """Each ModelCheckpoint's best files and their scores, by what it monitors; all of them lie in the folder."""
    last = LastCheckpoint(folder, stop_after_epoch=None, max_time=None)
    kept = best_checkpoints(str(folder), "run", {"ssim": "max"})
    fit(Line(losses), RunState("run", "version_0"), *kept, last, epochs=epochs, resume=last.path if resume else None)
    found: dict[str, dict[str, float]] = {}
    for each in kept:
        assert isinstance(each, ModelCheckpoint)
        assert Path(each.best_model_path).parent == folder
        found[str(each.monitor)] = {Path(path).name: float(score) for path, score in each.best_k_models.items()}
    return found


@pytest.mark.parametrize("losses", [(0.1, 0.5, 0.3, 0.2, 0.9, 0.4), (0.9, 0.5, 0.1, 0.8, 0.05, 0.7)])
def test_a_run_that_goes_on_in_another_folder_keeps_its_best(losses: tuple[float, ...], tmp_path: Path) -> None:
    """Lightning forgets the scores: the worse epoch became the best, and what was there before stayed beside it."""
    whole = fit_in(tmp_path / "whole", losses, len(losses))
    fit_in(tmp_path / "begun", losses, 3)
    (tmp_path / "begun").rename(tmp_path / "moved")
    assert fit_in(tmp_path / "moved", losses, len(losses), resume=True) == whole
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in (tmp_path / "moved").iterdir()} == names


def test_of_a_folder_that_was_moved_in_part_only_what_is_there_counts(tmp_path: Path) -> None:
    losses = (0.1, 0.5, 0.3, 0.2)
    fit_in(tmp_path / "begun", losses, 3)
    (tmp_path / "begun").rename(tmp_path / "moved")
    for path in (tmp_path / "moved").glob("*epoch=000*"):
        path.unlink()
    found = fit_in(tmp_path / "moved", losses, 4, resume=True)
    assert list(found["val/loss"].values()) == pytest.approx([0.5, 0.3, 0.2])
    assert list(found["val/ssim"].values()) == pytest.approx([0.8])
