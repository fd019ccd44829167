"""The logs of a run: TensorBoard, or what the user chose, and a CSV that keeps its rows when the run is resumed."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only
from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread
from torch.utils.tensorboard.summary import hparams

from earface.core.files import atomic_write
from earface.core.notices import warn_at_once

PLAIN = (bool, int, float, str)  # what TensorBoard's table of hyper-parameters takes


@contextmanager
def going_on(folder: Path, loggers: Sequence[Logger]) -> Iterator[None]:
    """Around what writes logs and pictures into `folder`: that it cannot is noted once, and stops no run."""
    try:
        yield
    except Exception as error:
        refusal: BaseException | None = error
        while refusal is not None and not (isinstance(refusal, OSError) and refusal.strerror):
            refusal = refusal.__cause__ or refusal.__context__  # Lightning takes it for a value that cannot be logged
        if refusal is None:
            raise
        for logger in loggers:
            if isinstance(logger, QuietTensorBoard):
                logger.start_again()
        warn_at_once(f"{folder}: {refusal.strerror}: logs and pictures have gaps from here on; the run goes on")


_usual_hook = threading.excepthook


def _hook(given: threading.ExceptHookArgs) -> None:
    """TensorBoard's threads print what ends them, which whoever writes next is told anyway."""
    if not isinstance(given.thread, _AsyncWriterThread):
        _usual_hook(given)


class QuietTensorBoard(TensorBoardLogger):
    """TensorBoard events in exactly `log_dir`: scalars in groups, and one row in its table of hyper-parameters.

    train has an epoch's means and the learning rates, those that are always equal as one curve; within_epoch has the
    means since the row before, val_best what a complete run reached.
    purge_step: events from this step on, left by a run that was killed, are hidden.
    """

    def __init__(self, log_dir: Path, purge_step: int | None = None) -> None:
        super().__init__(log_dir.parent, name="", version=log_dir.name, default_hp_metric=False, purge_step=purge_step)
        self.tags: dict[str, str] = {}  # of learning rates, decided by the first row that has them
        self.drawn: dict[str, int | None] = {}  # the last step of each curve
        threading.excepthook = _hook

    def start_again(self) -> None:
        """With the next row in a new file: a writer that has failed once writes nothing more."""
        writer, self._experiment = self._experiment, None
        if writer is not None:
            with suppress(OSError):
                writer.close()

    def save(self) -> None:
        with going_on(Path(self.log_dir), [self]):
            super().save()

    def finalize(self, status: str) -> None:
        with going_on(Path(self.log_dir), [self]):
            super().finalize(status)

    def log_hyperparams(self, *given: Any, **named: Any) -> None:
        with going_on(Path(self.log_dir), [self]):
            super().log_hyperparams(*given, **named)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        rates = {name: value for name, value in metrics.items() if name.startswith("lr/")}
        if rates and not self.tags:
            self.tags = _rate_tags(rates)
        shown: dict[str, float] = {}
        for name, value in metrics.items():
            if name != "epoch":
                shown[self.tags.get(name) or _grouped(name)] = value
        # a step that ends an epoch has two rows, both with the rates
        shown = {name: value for name, value in shown.items() if step is None or self.drawn.get(name) != step}
        self.drawn |= dict.fromkeys(shown, step)
        super().log_metrics(shown, step)

    @rank_zero_only
    def log_result(self, settings: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        """Of a run that is complete: its settings, and its metrics as the scalars `val_best/NAME`."""
        plain = {name: value if isinstance(value, PLAIN) else str(value) for name, value in settings.items()}
        results = {f"val_best/{name}": value for name, value in metrics.items()}
        super().log_metrics(results, step)
        for summary in hparams(plain, results):
            self.experiment._get_file_writer().add_summary(summary)


def _rate_tags(rates: Mapping[str, float]) -> dict[str, str]:
    """`train/lr` where all are the same, else with the names of the groups with each rate."""
    together: dict[float, list[str]] = {}
    for name, value in rates.items():
        together.setdefault(value, []).append(name.removeprefix("lr/"))
    tags = {f"lr/{name}": f"train/lr_{'+'.join(names)}" for names in together.values() for name in names}
    return dict.fromkeys(rates, "train/lr") if len(together) == 1 else tags


def _grouped(name: str) -> str:
    return f"within_epoch/{name.removeprefix('train/').removesuffix('_step')}" if name.endswith("_step") else name


class MetricsCSV(Logger):
    """`metrics.csv`: one row per call, the first `keep_rows` of an earlier part of the run kept.

    A new column, or a row that could not be written, rewrites the file; a killed run never leaves half a
    row before the ones that count.
    """

    def __init__(self, log_dir: Path, keep_rows: int = 0) -> None:
        super().__init__()
        self.path = log_dir / "metrics.csv"
        self.columns: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self.keep_rows = keep_rows
        self.ready = False
        self.whole = True  # whether the file holds all rows; one that could not be written comes with the next

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return self.path.parent.name

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Hyper-parameters are in hparams.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._open()
        row: dict[str, Any] = {k: f"{v:.7g}" if isinstance(v, float) else v for k, v in metrics.items()}
        row["step"] = step
        new = [key for key in row if key not in self.columns]
        self.rows.append(row)
        self.columns += new
        rewrite, self.whole = bool(new) or not self.whole, False
        if rewrite:
            self._rewrite()
        else:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(row)
        self.whole = True

    def _open(self) -> None:
        if self.ready:
            return
        self.ready = True
        if self.keep_rows and self.path.exists():
            with self.path.open(newline="") as file:
                reader = csv.DictReader(file)
                self.columns = list(reader.fieldnames or [])
                self.rows = [row for row, _ in zip(reader, range(self.keep_rows), strict=False)]
        self.columns = self.columns or ["epoch", "step"]
        self.whole = False

    def _rewrite(self) -> None:
        with atomic_write(self.path) as temporary, Path(temporary).open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
