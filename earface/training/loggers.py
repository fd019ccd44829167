"""The two logs of a run: TensorBoard, and a CSV that keeps its rows when the run is resumed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from earface.core.files import atomic_write


class QuietTensorBoard(TensorBoardLogger):
    """TensorBoard events in exactly `log_dir`, without Lightning's empty hyper-parameter metric.

    purge_step: events from this step on, left by a run that was killed, are hidden.
    """

    def __init__(self, log_dir: Path, purge_step: int | None = None) -> None:
        super().__init__(log_dir.parent, name="", version=log_dir.name, default_hp_metric=False, purge_step=purge_step)


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
