"""`last.ckpt`, early stopping, weight averaging, and what a checkpoint says of its run."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    WeightAveraging,
)
from torch import Tensor

from earface.core.notices import show_warnings, warn
from earface.core.stopping import StopRequests, current_requests
from earface.training.best_checkpoints import carry_over_scores
from earface.training.loggers import MetricsCSV
from earface.training.process_count import recount
from earface.training.term_log import NonFiniteLossError
from earface.training.workers import end_workers


class TrainingProgress(Protocol):
    """What these callbacks ask of the module beside Lightning's own hooks."""

    def objective_is_warming_up(self) -> bool: ...

    def images_per_step(self) -> int: ...

    def batches_per_epoch(self) -> int: ...

    def log_training_row(self) -> None: ...


def _trained(module: pl.LightningModule) -> TrainingProgress:
    return module  # type: ignore[return-value]


class LastCheckpoint(Checkpoint):
    """`last.ckpt` after every epoch, after every `every_n_steps`, and when the run is asked to pause.

    It comes last of all callbacks, so the file also holds the others' newest best scores. Signals (see
    `earface.core.stopping`), `max_time` and `stop_after_epoch` pause the run by TrainingPaused at the next optimiser
    step, batch of validation or epoch end: no end-of-epoch hook sees half an epoch. Several processes, which have to
    pause at the same step, ask each other every `ask_every_n_steps` and at the end of an epoch.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every_n_steps: int = 0,
        ask_every_n_steps: int = 1,
        stop_after_epoch: int | None,
        max_time: timedelta | None,
    ) -> None:
        self.path = folder / "last.ckpt"
        self.every_n_steps, self.ask_every_n_steps = every_n_steps, ask_every_n_steps
        self.stop_after_epoch = stop_after_epoch
        self.deadline = time.monotonic() + max_time.total_seconds() if max_time is not None else None
        self.reason: str | None = None
        self.requests = StopRequests()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.requests = current_requests()
        self.requests.listen()  # Lightning has put its own handler of SIGTERM in the way

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.requests.deferred = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.fit_loop._should_accumulate() or trainer.is_last_batch:
            return  # gradients of a half-done step are in no checkpoint; validation follows the last batch
        asks = trainer.world_size == 1 or trainer.global_step % self.ask_every_n_steps == 0
        if asks and self._pause_reason(trainer):
            self._save(trainer)
            self.requests.pause(f"{self.reason} in epoch {trainer.current_epoch + 1}, step {trainer.global_step}")
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._save(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.requests.deferred = True  # of a run that continues here

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Pause as before the validation, which is then repeated from its start."""
        if trainer.world_size > 1 or not self._pause_reason(trainer):  # processes may have unequal numbers of batches
            return
        progress: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        progress.reset()
        for tracker in (progress.total, progress.current):
            tracker.ready = tracker.started = 1  # what Lightning takes for a validation to go back to
        self._save(trainer)
        self.requests.pause(
            f"{self.reason} in the validation of epoch {trainer.current_epoch + 1}, step {trainer.global_step}"
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)
        done = trainer.current_epoch + 1
        if done >= (trainer.max_epochs or 0) or trainer.should_stop:
            return
        if self.stop_after_epoch is not None and done >= self.stop_after_epoch:
            self.reason = f"by `stop_after_epoch` {self.stop_after_epoch}"
        if self._pause_reason(trainer):
            self.requests.pause(f"{self.reason} after epoch {done}, step {trainer.global_step}")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        end_workers()  # before Lightning's teardown waits for each of them

    def _pause_reason(self, trainer: pl.Trainer) -> str | None:
        self.reason = self.reason or self.requests.reason
        if self.reason is None and self.deadline is not None and time.monotonic() > self.deadline:
            self.reason = "by `max_time`"
        if trainer.world_size > 1:  # every process must pause at the same step
            paused = trainer.strategy.reduce(
                torch.tensor(float(self.reason is not None), device=trainer.strategy.root_device), reduce_op="max"
            )
            if paused > 0 and self.reason is None:
                self.reason = "by another process"
        return self.reason

    def _save(self, trainer: pl.Trainer) -> None:
        """Raises NonFiniteLossError instead of replacing good weights: the loss tells of a bad step one step later."""
        weights = dict(trainer.lightning_module.named_parameters())
        finite = torch.stack([each.detach().isfinite().all() for each in weights.values()]).tolist()  # one wait
        if not all(finite):
            first = [*weights][finite.index(False)]
            raise NonFiniteLossError(f"step {trainer.global_step}: weights not finite, the first of them {first}")
        trainer.save_checkpoint(self.path)


class EarlyStop(EarlyStopping):
    """Stops when `val/loss` has not improved for `patience` epochs, counted from the end of the KL warm-up.

    The module says by `objective_is_warming_up()` whether its objective still changes.
    """

    def __init__(self, patience: int) -> None:
        super().__init__(monitor="val/loss", mode="min", patience=patience, check_on_train_epoch_end=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if _trained(pl_module).objective_is_warming_up():
            self.wait_count = 0
            return
        super().on_validation_end(trainer, pl_module)


class EMA(WeightAveraging):
    """Exponential moving average of the weights with decay min(decay, (1 + n) / (10 + n)) at update n.

    Validation runs on the average. A checkpoint holds it as `state_dict` and the optimised weights as
    `current_model_state`, also when it is written, or an exception is raised, while the two are swapped.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.swapped = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning copies the model before it moves it. The number of updates stays on the CPU, where it is read."""
        assert self._average_model is not None
        self._average_model.module.to(pl_module.device)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """As AveragedModel.update_parameters, which would copy and wait at every step, in a few kernels."""
        if trainer.global_step <= self._latest_update_step:
            return
        self._latest_update_step = trainer.global_step
        assert self._average_model is not None
        updates = int(self._average_model.n_averaged)
        weight = 1.0 - min(self.decay, (1 + updates) / (10 + updates)) if updates else 1.0
        pairs = [
            (mean.detach(), value.detach())
            for mean, value in zip(_tensors(self._average_model.module), _tensors(pl_module), strict=True)
        ]
        for floating, combine in ((True, _lerp(weight)), (False, torch._foreach_copy_)):
            chosen = [pair for pair in pairs if pair[0].is_floating_point() == floating]
            if chosen:
                combine([mean for mean, _ in chosen], [value for _, value in chosen])
        self._average_model.n_averaged += 1

    def _swap_models(self, pl_module: pl.LightningModule) -> None:
        super()._swap_models(pl_module)
        self.swapped = not self.swapped

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self.swapped:
            self._swap_models(pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self.swapped:
            averaged = checkpoint["current_model_state"]
            checkpoint["current_model_state"], checkpoint["state_dict"] = checkpoint["state_dict"], averaged


def _tensors(module: torch.nn.Module) -> Iterator[Tensor]:
    return itertools.chain(module.parameters(), module.buffers())


def _lerp(weight: float) -> Callable[[list[Tensor], list[Tensor]], object]:
    return lambda means, values: torch._foreach_lerp_(means, values, weight)


class RunState(Callback):
    """Puts into every checkpoint which run it belongs to and how far that has come; see `earface.training.resume`."""

    def __init__(self, name: str, version: str) -> None:
        self.name, self.version = name, version

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        show_warnings()  # the data has been read; the first step comes next

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        carry_over_scores(trainer, checkpoint)
        before, now = checkpoint["run"].get("processes", trainer.world_size), trainer.world_size
        if before != now:
            module = _trained(pl_module)
            recount(checkpoint, before, now, module.batches_per_epoch(), trainer.accumulate_grad_batches)
            if trainer.is_global_zero:
                each = module.images_per_step() // now
                warn(f"the run began with {before} x {each} images a step, and goes on with {now} x {each}")

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        tables = [logger for logger in trainer.loggers if isinstance(logger, MetricsCSV)]
        progress: Any = trainer.fit_loop.epoch_progress.current
        checkpoint["run"] = {
            "name": self.name,
            "version": self.version,
            # `processed` counts the epoch whose end hooks are running, `completed` does not
            "epochs_done": progress.processed,
            "csv_rows": len(tables[0].rows) if tables else 0,
            "processes": trainer.world_size,
            "stopped_early": bool(trainer.should_stop),
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "torch": str(torch.__version__),  # a TorchVersion would not load with weights_only
        }


class TrainingRows(Callback):
    """Has the module log a row every so many optimiser steps, before a checkpoint of that step is written.

    A module's own hooks run after all callbacks', so a row of its own would be lost between save and resume.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.fit_loop._should_accumulate() and trainer.global_step % self.every_n_steps == 0:
            _trained(pl_module).log_training_row()
