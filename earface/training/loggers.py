"""The logs of a run: TensorBoard, or what the user chose, and a CSV that keeps its rows when the run is resumed."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams

from earface.core.files import atomic_write

PLAIN = (bool, int, float, str)  # what TensorBoard's table of hyper-parameters takes


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

    A new column rewrites the file; a killed run never leaves half a row before the ones that count.
    """

    def __init__(self, log_dir: Path, keep_rows: int = 0) -> None:
        super().__init__()
        self.path = log_dir / "metrics.csv"
        self.columns: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self.keep_rows = keep_rows
        self.ready = False

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
        if new:
            self.columns += new
            self._rewrite()
            return
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def _open(self) -> None:
        if self.ready:
            return
        self.ready = True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.keep_rows and self.path.exists():
            with self.path.open(newline="") as file:
                reader = csv.DictReader(file)
                self.columns = list(reader.fieldnames or [])
                self.rows = [row for row, _ in zip(reader, range(self.keep_rows), strict=False)]
        self.columns = self.columns or ["epoch", "step"]
        self._rewrite()

    def _rewrite(self) -> None:
        with atomic_write(self.path) as temporary, Path(temporary).open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
