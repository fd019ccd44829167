"""How a run's progress is shown: a bar on a terminal, else lines within an epoch, and a line for each epoch."""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar

from earface.core.progress import Progress, progress
from earface.training.callbacks import _trained


class EpochLines(Callback):
    """One line an epoch; with `within`, for terminals that show no bar and for logs, lines in its course too."""

    def __init__(self, within: bool) -> None:
        self.within = within
        self.shown: Progress | None = None
        self.showing = contextlib.ExitStack()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restart(trainer)  # an epoch that is resumed in its middle has no start of its own

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batches += 1
        if self.shown is not None:
            self.shown.update(batch_idx + 1)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show(f"epoch {trainer.current_epoch + 1}, validation", None)

    def on_validation_batch_end(self, trainer: pl.Trainer, *rest: Any, **named: Any) -> None:
        if self.shown is not None:
            self.shown.advance()

    def _restart(self, trainer: pl.Trainer) -> None:
        self.started, self.batches = time.monotonic(), 0
        total = trainer.num_training_batches
        self._show(f"epoch {trainer.current_epoch + 1}, batches", None if total == float("inf") else int(total))

    def _show(self, what: str, total: int | None) -> None:
        self.showing.close()
        if self.within:
            self.shown = self.showing.enter_context(progress(what, total))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restart(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.showing.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.showing.close()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        seconds, batches = time.monotonic() - self.started, self.batches
        self.showing.close()
        if not trainer.is_global_zero:
            return
        values = [
            f"{name.removeprefix('val/')} {float(value):.4g}"
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/")
        ]
        rate = batches * _trained(pl_module).images_per_step() / max(seconds, 1e-9)
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        print(f"{epoch}  {'  '.join(values)}  {seconds:.1f} s  {rate:.0f} img/s", flush=True)


class ProgressBar(RichProgressBar):
    """Rich's bar with steps a second, images a second, and the time to the end of the run."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.started, self.first_step = time.monotonic(), trainer.fit_loop.total_batch_idx

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        done = trainer.fit_loop.total_batch_idx - self.first_step
        if done > 0 and trainer.num_training_batches != float("inf"):
            per_step = (time.monotonic() - self.started) / done
            total = int(trainer.num_training_batches) * int(trainer.max_epochs or 0)
            left = (total - trainer.fit_loop.total_batch_idx - 1) * per_step
            metrics["img/s"] = f"{_trained(pl_module).images_per_step() / per_step:.0f}"
            metrics["run ends in"] = str(timedelta(seconds=int(max(left, 0))))
        return metrics
