"""A run as its log folder holds it: settings, rows of metrics, pictures, and the record that the training kept."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from earface.core.errors import InputError
from earface.core.files import read_json
from earface.core.text import decoded
from earface.data.tables import read_csv
from earface.reports.run_kinds import RunKind, run_kind

METRICS_FILE, SETTINGS_FILE, RECORD_FILE, PAGE_FILE = "metrics.csv", "config.yaml", "run.json", "report.html"
RECORD_FORMAT = 1  # of run.json; a newer one is refused
EPOCH_PICTURE = re.compile(r"epoch_(\d+)\.png")

Row = Mapping[str, float]


@dataclass(frozen=True)
class RunFolder:
    """path: the log folder. record: empty of a run before there were records."""

    path: Path
    settings: Mapping[str, Any]
    rows: Sequence[Row]
    record: Mapping[str, Any]

    @classmethod
    def read(cls, given: str | Path) -> Self:
        """given: a run's folder, its log folder, its checkpoints' folder or one of these.

        Raises InputError where there is no run, or what its training wrote cannot be read.
        """
        path = find_run(Path(given))
        settings = _settings(path / SETTINGS_FILE)
        record = read_json(path / RECORD_FILE) if (path / RECORD_FILE).is_file() else {}
        if not isinstance(record, dict) or not isinstance(record.get("format", 0), int):
            raise InputError(f"{path / RECORD_FILE}: is no record of a run; delete it to report on the rest")
        if record.get("format", 0) > RECORD_FORMAT:
            raise InputError(f"{path / RECORD_FILE}: was written by a newer version of earface; use that one")
        return cls(path, settings, read_rows(path / METRICS_FILE), record)

    @property
    def name(self) -> str:
        """As people tell runs apart: what `name` gave, or the place among the logs."""
        given = self.settings.get("name")
        return str(given) if given else f"{self.path.parent.name}/{self.path.name}"

    @property
    def kind(self) -> RunKind:
        return run_kind(self.path.parent.name)

    @property
    def checkpoints(self) -> Path:
        """Where its checkpoints are: as the settings say, or beside the logs of a run that was moved."""
        stated = Path(str(self.settings.get("checkpoint_dir", "checkpoints")))
        beside = self.path.parents[2] / "checkpoints"
        return beside if not stated.is_dir() and beside.is_dir() else stated

    @property
    def best(self) -> Row | None:
        """The row of metrics of the epoch with the lowest val/loss, which a checkpoint is kept of."""
        return best_row(self.rows)

    def pictures(self) -> dict[str, list[tuple[int, Path]]]:
        """Name -> (epoch from 1, file), by epoch."""
        found: dict[str, list[tuple[int, Path]]] = {}
        for path in sorted(self.path.glob("*/epoch_*.png")):
            if match := EPOCH_PICTURE.fullmatch(path.name):
                found.setdefault(path.parent.name, []).append((int(match[1]) + 1, path))
        return {name: sorted(files) for name, files in found.items()}


def best_row(rows: Sequence[Row]) -> Row | None:
    """The first of those with the lowest val/loss; None where none was validated."""
    return min((row for row in rows if "val/loss" in row), key=lambda row: row["val/loss"], default=None)


def curve(rows: Sequence[Row], column: str) -> list[tuple[float, float]]:
    """(epochs passed, value) of a column; those of an epoch's end stand at whole numbers."""
    return [(row["epoch"] + 1, row[column]) for row in rows if column in row and "epoch" in row]


def by_step(rows: Sequence[Row], column: str) -> list[tuple[float, float]]:
    """As `curve`, the rows within an epoch where they stand in it."""
    last = next((row for row in reversed(rows) if "val/loss" in row and row.get("step", 0) > 0), None)
    if last is None or "epoch" not in last:
        return curve(rows, column)
    epochs_a_step = (last["epoch"] + 1) / last["step"]
    return [(row["step"] * epochs_a_step, row[column]) for row in rows if column in row and "step" in row]


def read_rows(path: Path) -> list[Row]:
    """metrics.csv, without the cells that are empty or no number. A row that a kill cut short counts as far as it goes.

    Raises InputError for a file that is no table.
    """
    with path.open("rb") as file:
        if sum(1 for _ in zip(range(2), file, strict=False)) < 2:  # a run that was paused before its first row
            return []
    return [_numbers(row) for row in read_csv(path)]


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, cell in row.items():
        try:
            value = float(cell)
        except (TypeError, ValueError):
            continue
        if math.isfinite(value):
            found[name] = value
    return found


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        stored = yaml.safe_load(decoded(path.read_bytes(), path))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not readable as YAML ({' '.join(str(error).split())[:80]})") from error
    if not isinstance(stored, dict):
        raise InputError(f"{path}: holds no settings of a run")
    return stored


def find_run(given: Path) -> Path:
    """The log folder of a run, the newest where there are several. Raises InputError."""
    if not given.exists():
        raise InputError(f"{given}: no such run; give the folder that `name` made, a log folder, or a checkpoint")
    if given.suffix == ".ckpt" or (given.is_dir() and (given / "last.ckpt").is_file()):
        return _of_checkpoint(given)
    patterns = (METRICS_FILE, f"version_*/{METRICS_FILE}", f"*/version_*/{METRICS_FILE}")
    found = [path for start in (given, given / "logs") for pattern in patterns for path in start.glob(pattern)]
    if not found:
        raise InputError(f"{given}: holds no run ({METRICS_FILE}); give its log folder, or its checkpoints' folder")
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent


def _of_checkpoint(given: Path) -> Path:
    from earface.nn.checkpoint import read_checkpoint

    path = given if given.is_file() else given / "last.ckpt"
    checkpoint = read_checkpoint(path)
    run, stored = checkpoint.get("run"), checkpoint.get("hyper_parameters", {}).get("options", {})
    if not isinstance(run, dict):
        raise InputError(f"{path}: names no run; give the log folder")
    place = Path(str(run["name"])) / str(run["version"])
    logs = [path.parent.parent / "logs" / place, Path(str(stored.get("log_dir", "logs"))) / place]
    for folder in logs:
        if (folder / METRICS_FILE).is_file():
            return folder
    raise InputError(f"{path}: its logs are not in {logs[1]}; give the log folder")
