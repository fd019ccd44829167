"""Logs that vanish or fill up while a run trains: it goes on, and says so once."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ear_teacher.train import main
from earface.training.module import TrainingModule
from tests.support.disk import run_with_small_disk
from tests.support.training import metric_rows

pytestmark = pytest.mark.runs
HERE = "tests.earface.training.test_logs_that_fail"


class LogsVanish(Callback):
    """When the second epoch begins."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        if trainer.current_epoch == 1:
            for logger in trainer.loggers:
                logger.save()
            shutil.rmtree(pl_module.log_dir)


def warnings_in(text: str, about: Path) -> set[str]:
    return {line for line in text.splitlines() if line.startswith(f"warning: {about}")}


def test_a_run_whose_logs_vanish_goes_on(tiny: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*tiny, "--epochs", "3", "--callback", f"{HERE}:LogsVanish"]) == 0
    error = capfd.readouterr().err
    assert "Traceback" not in error
    assert len(warnings_in(error, tmp_path / "logs")) == 1
    assert [row["epoch"] for row in metric_rows(tmp_path) if "val/loss" in row] == [0, 1, 2]
    (log,) = {path.parent for path in tmp_path.rglob("events.out.*")}
    events = EventAccumulator(str(log)).Reload()
    assert [event.step for event in events.Scalars("val/loss")][-1] == 30


@pytest.mark.slow
def test_a_run_whose_logs_are_full_goes_on(tiny: list[str], tmp_path: Path) -> None:
    """Its pictures and curves need more than the disk has."""
    logs = tmp_path / "small"
    command = [sys.executable, "-m", "ear_teacher.train", *tiny, "--log-dir", str(logs), "--epochs", "2"]
    ended = run_with_small_disk(logs, "64k", " ".join(command))
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(warnings_in(ended.stderr, logs)) == 1
    assert "No space left on device" in ended.stderr
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
