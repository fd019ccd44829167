"""What a start is worth for ears with few labels: `python -m benchmarks.transfer --teacher CKPT`.

Rows are starts (random weights, ear VAEs, published weights), columns tasks with few pictures: landmarks and detection,
trained by the detector's own command with equal steps and rates, and identification by frozen features. Tests are on
the people of `--ears`, whom no start has seen. A finished cell is kept in `--out`; what is missing is named.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.transfer.options import BASELINES, Cell, TransferBenchmark, chosen
from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import atomic_write, require_file
from earface.core.first_imports import first_imports
from earface.core.progress import progress

if TYPE_CHECKING:
    from benchmarks.transfer.starts import Start

NEEDED = {"landmarks": ("ibug", "crops"), "detection": ("photographs",), "identification": ()}  # options of data
SETTINGS = {  # options that decide a cell of each task
    "landmarks": ("lr", "steps", "ear_size", "ears", "ibug", "crops"),
    "detection": ("lr", "steps", "image_size", "ears", "photographs"),
    "identification": ("draws", "ear_size", "ears"),
}


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(TransferBenchmark, argv, prog="python -m benchmarks.transfer")
    require_file(options.ears, "make it with earface ears prepare, and give it by `ears`")
    with first_imports():
        from benchmarks.transfer import few_shot
        from benchmarks.transfer.people import TestPeople
        from benchmarks.transfer.starts import starts_of
        from benchmarks.transfer.table import markdown
    people = TestPeople.read(options.ears)
    starts = {start.name: start for start in starts_of(options)}
    baselines = [name for names in BASELINES.values() for name in names]
    rows = chosen([*starts, *baselines], options.starts)
    few_shot.check_data(options, people.names)
    cells = cells_of(options, list(starts))
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    results: dict[Cell, dict[str, Any]] = {}
    for cell in cells:
        metrics = finished(out / cell.file, cell, settings_of(cell, starts.get(cell.start), options))
        if metrics is not None:
            results[cell] = metrics
    began = time.monotonic()
    for cell in cells:
        late = options.minutes and time.monotonic() - began > options.minutes * 60
        if cell in results or late or cell.start not in rows or lacking(cell.task, options):
            continue
        start, clock = starts.get(cell.start), time.monotonic()
        with progress(str(cell), bar=False):
            if cell.task == "identification":
                metrics = people.identified(cell, start, options)
            else:
                metrics = few_shot.TASKS[cell.task](cell, start, options, people.names)
        results[cell] = metrics
        seconds = round(time.monotonic() - clock, 1)
        keep(out / cell.file, cell, settings_of(cell, start, options), metrics, seconds)
        values = ", ".join(f"{key} {value:.3f}" for key, value in metrics.items() if isinstance(value, float))
        print(f"{cell}: {values} ({seconds} s)", flush=True)
    table = markdown(cells, results)
    for task in dict.fromkeys(cell.task for cell in cells):
        if names := lacking(task, options):
            table += f"{task}: give its data by {' and '.join(f'`{name}`' for name in names)}\n"
    (out / "results.md").write_text(table, encoding="utf-8")
    print(table)
    return 0


def cells_of(options: TransferBenchmark, starts: Sequence[str]) -> list[Cell]:
    """In the order in which they are run: seed by seed, column by column, row by row."""
    cells = []
    for seed in options.seeds:
        for task, shots in options.columns:
            rates: tuple[float | None, ...] = (None,) if task == "identification" else options.rates
            cells += [Cell(task, shots, start, rate, seed) for start in starts for rate in rates]
            cells += [Cell(task, shots, name, None, seed) for name in BASELINES.get(task, ())]
    return cells


def lacking(task: str, options: TransferBenchmark) -> list[str]:
    """The options of the data of a task that are not given."""
    return [name for name in NEEDED[task] if getattr(options, name) is None]


def settings_of(cell: Cell, start: Start | None, options: TransferBenchmark) -> dict[str, Any]:
    """What decides a cell beside its place in the table."""
    return {name: getattr(options, name) for name in SETTINGS[cell.task]} | {"start": start and start.digest}


def finished(path: Path, cell: Cell, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The metrics of a finished cell; None where it is another's. Raises InputError for a file that is no cell."""
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        own = stored["cell"] == cell.stored() and stored["settings"] == settings
        return dict(stored["metrics"]) if own else None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not a finished cell of this benchmark; delete it") from None


def keep(path: Path, cell: Cell, settings: dict[str, Any], metrics: dict[str, Any], seconds: float) -> None:
    content = {"cell": cell.stored(), "settings": settings, "metrics": metrics, "seconds": seconds}
    with atomic_write(path, sync=False) as temporary:
        temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
