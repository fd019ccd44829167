"""run.json: what a run is, on what it ran, how fast, and how it ended, for its page and for comparisons."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only

from earface.core.errors import InputError
from earface.core.files import read_json, write_json
from earface.core.notices import warn, warnings_given
from earface.core.options import result_fields, to_plain
from earface.core.stopping import TrainingPaused
from earface.data.data_digest import DataDigest
from earface.reports.run_folder import RECORD_FILE, RECORD_FORMAT, best_row, read_rows
from earface.training.config import RunOptions
from earface.training.loggers import MetricsCSV, QuietTensorBoard, going_on

if TYPE_CHECKING:
    from earface.training.resume import Run


WORSE = 0.1  # of val/loss: a tiny run that learned nothing wiggles by a fiftieth
USUALLY_COMPARED = ("epochs", "lr", "batch_size", "seed")  # in TensorBoard's table, beside what is not at its default


class RunRecorder(Callback):
    """Keeps the record up to date at every epoch's end; that of a run that goes on is continued."""

    def __init__(self, run: Run, options: RunOptions) -> None:
        self.path, self.options = run.log_dir / RECORD_FILE, options
        self.began = self.epoch_began = self.trained = time.monotonic()
        self.before = 0.0  # seconds of the run's earlier parts
        self.batches = 0
        self.record: dict[str, Any] = {"format": RECORD_FORMAT, "name": run.name, "started": _now(), "speed": []}
        if run.checkpoint is not None and (earlier := self._earlier()):
            self.before = float(earlier.get("seconds", 0.0))
            speed = [each for each in earlier.get("speed", []) if each["epoch"] <= run.epoch]
            self.record |= {"started": earlier.get("started", _now()), "speed": speed}
        self.record |= {
            "defaults": to_plain(type(options)()),
            "versions": {
                "earface": importlib.metadata.version("earface"),
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in ("torch", "pytorch-lightning")},
            },
        }
        self.reasons = {"precision": run.precision, "threads": run.threads}

    def _earlier(self) -> dict[str, Any]:
        """What the run's last part kept; nothing where that is not there or damaged, which stops no training."""
        if not self.path.is_file():
            return {}
        try:
            found = read_json(self.path)
        except InputError as error:
            warn(f"{error}; it is written anew, and the run's page lacks what it held")
            return {}
        return found if isinstance(found, dict) else {}

    @rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.record |= {
            "groups": _groups(pl_module),
            "data": _data(trainer),
            "machine": self._machine(trainer),
        }
        self.epoch_began = self.trained = time.monotonic()
        self._write("running")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epoch_began, self.batches = time.monotonic(), 0

    def on_train_batch_end(self, *args: Any) -> None:
        self.batches += 1
        self.trained = time.monotonic()

    @rank_zero_only
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module: Any = pl_module
        seconds = max(self.trained - self.epoch_began, 1e-9)
        self.record["speed"].append(
            {
                "epoch": trainer.current_epoch + 1,
                "seconds": round(time.monotonic() - self.epoch_began, 3),
                "images_per_second": round(self.batches * module.images_per_step() / seconds, 2),
            }
        )
        self._write("running")

    @rank_zero_only
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module: Any = pl_module
        if "baselines" not in self.record:
            self.record["baselines"] = module.baselines()
        if worse := divergence(trainer):
            self.record["reason"] = worse
        ended = "stopped early" if trainer.should_stop and not _all_epochs(trainer) else "complete"
        self._write("diverged" if worse else ended)
        tables = [each for each in trainer.loggers if isinstance(each, MetricsCSV)]
        best = None
        with suppress(InputError, OSError):  # of logs that are gone
            best = best_row(read_rows(tables[0].path)) if tables and tables[0].rows else None
        usual, kept = self.record["defaults"], result_fields(self.options)
        settings = {
            name: value
            for name, value in to_plain(self.options).items()
            if name in USUALLY_COMPARED or (name in kept and value != usual[name])
        }
        for logger in trainer.loggers:
            if isinstance(logger, QuietTensorBoard) and best is not None:
                metrics = {name.removeprefix("val/"): value for name, value in best.items() if name.startswith("val/")}
                with going_on(self.path.parent, [logger]):
                    logger.log_result(settings, metrics, trainer.global_step)

    @rank_zero_only
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.record["reason"] = " ".join(str(exception).split())[:300]
        self._write("paused" if isinstance(exception, TrainingPaused) else "failed")

    def _machine(self, trainer: pl.Trainer) -> dict[str, Any]:
        device = trainer.strategy.root_device
        kind = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {platform.machine()}"
        several = f"{trainer.world_size} x " if trainer.world_size > 1 else ""
        values = {"precision": trainer.precision, "threads": torch.get_num_threads()}
        reasons = {name: f" ({reason})" if reason else "" for name, reason in self.reasons.items()}
        return {"device": several + kind} | {name: f"{value}{reasons[name]}" for name, value in values.items()}

    def _write(self, state: str) -> None:
        seconds = self.before + time.monotonic() - self.began
        self.record |= {"state": state, "seconds": round(seconds, 1), "written": _now(), "warnings": warnings_given()}
        if torch.cuda.is_available():
            used = torch.cuda.max_memory_allocated() / 2**30
            self.record.setdefault("machine", {})["GPU memory at most"] = f"{used:.1f} GiB"
        with going_on(self.path.parent, []):
            write_json(self.path, self.record)


def divergence(trainer: pl.Trainer) -> str:
    """Of a run whose last validation is worse than its first, by more than epochs differ: both values; else empty."""
    rows = [row for logger in trainer.loggers if isinstance(logger, MetricsCSV) for row in logger.rows]
    losses = [float(row["val/loss"]) for row in rows if row.get("val/loss")]
    if len(losses) < 2 or losses[-1] - losses[0] <= WORSE * abs(losses[0]):
        return ""
    return f"val/loss {losses[-1]:.4g} after the last epoch, {losses[0]:.4g} after the first"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _all_epochs(trainer: pl.Trainer) -> bool:
    progress: Any = trainer.fit_loop.epoch_progress.current
    return bool(progress.processed >= (trainer.max_epochs or 0))


def _groups(module: Any) -> list[dict[str, Any]]:
    """Name, number of parameters and peak rate of each optimiser group, and of what is frozen."""
    found: dict[str, dict[str, Any]] = {}
    for group in module.parameter_groups():
        name = group["name"].removesuffix(".no_decay")
        row = found.setdefault(name, {"name": name, "parameters": 0, "lr": group["lr"]})
        row["parameters"] += sum(each.numel() for each in group["params"])
    frozen = sum(each.numel() for each in module.parameters() if not each.requires_grad)
    return [*found.values(), *([{"name": "frozen", "parameters": frozen, "lr": None}] if frozen else [])]


def _data(trainer: pl.Trainer) -> dict[str, Any]:
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    digest: DataDigest = datamodule.digest
    found: dict[str, Any] = {
        "training_samples_per_epoch": len(datamodule.train_set),
        "validation_samples": len(datamodule.val_set),
    }
    if digest.of_people:
        found |= {"people_trained_on": len(digest.train), "people_validated_on": len(digest.val)}
    return found | {"digest": _short(digest.train), "digest_of_validation": _short(digest.val)}


def _short(entries: Mapping[int, int]) -> str:
    """The same for the same people, or pictures, with the same pictures."""
    return hashlib.sha256(json.dumps(sorted(entries.items())).encode()).hexdigest()[:12]
