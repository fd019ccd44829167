"""How well trained super-resolvers restore faces and preserve identity, beside bicubic interpolation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import default_collate

from dsr.comparison_grid import comparison_errors, comparison_rows
from dsr.config import HR_SIZE, DSRConfig
from dsr.metrics import CONVENTION, HR, MeasuredFaces, Upscale, mean_metrics, measure
from dsr.options import FACES, DSREvaluationOptions
from earface.core.errors import InputError
from earface.core.files import atomic_write
from earface.core.notices import warnings_given
from earface.core.progress import tracked
from earface.data.face_dataset import FaceBatch, FaceDataset, FacePixels, on_device, usable_faces, with_vlr
from earface.data.face_rows import FaceRow
from earface.data.face_sizes import FILES, VLRRange, VLRSize, check_vlr
from earface.data.image_grid import save_image_grid
from earface.data.padded_faces import enlarge, padded
from earface.data.tables import write_csv
from earface.data.vlr_rule import VLRRule
from earface.metrics.image_quality import warn_if_too_good
from earface.nn.frozen import FrozenRecognizer
from earface.nn.inference import choose_device
from earface.training.workers import WorkerLoader

GRID_FACES = 8
BICUBIC = "bicubic"
TABLE_WIDTH = 120


def short_names(paths: Sequence[Path]) -> list[str]:
    """The shortest parts that distinguish paths: small and full for r/small/checkpoints/last.ckpt and r/full/..."""
    parts = [path.with_suffix("").parts for path in paths]
    shared = 0  # parts at the end
    while len(paths) > 1 and shared < min(map(len, parts)) and len({own[-shared - 1] for own in parts}) == 1:
        shared += 1
    ends = [own[: len(own) - shared] for own in parts]
    for count in range(1, max(map(len, ends)) + 1):
        names = ["/".join(own[-count:]) for own in ends]
        if len(set(names)) == len(names):
            return names
    raise InputError(f"`checkpoint`: {paths[0]} is given twice")


class EvaluationFaces:
    """The faces of a split as batches on a device; may be iterated more than once."""

    def __init__(
        self, rows: Sequence[FaceRow], shape: DSRConfig, degradation: str, options: DSREvaluationOptions
    ) -> None:
        files, sizes = degradation == FILES, shape.vlr
        check_vlr(shape.vlr_size, degradation)
        self.rows = usable_faces(rows, sizes if files and isinstance(sizes, VLRSize) else None)
        self.padded = isinstance(sizes, VLRRange)
        self.dataset = FaceDataset(
            self.rows,
            seed=options.seed,
            files=files,
            rule=VLRRule(degradation, sizes) if self.padded else None,
            collated=partial(padded, side=shape.grid) if self.padded else None,
        )
        self.loader = WorkerLoader(self.dataset, batch_size=options.batch_size, num_workers=options.num_workers)
        self.shape, self.degradation, self.device = shape, degradation, choose_device(options.device)

    def __iter__(self) -> Iterator[FaceBatch]:
        for batch in tracked(self.loader, "measuring, batches"):
            yield self._ready(batch)

    def evenly(self, count: int) -> FaceBatch:
        """A batch of about `count` faces from all over the list."""
        chosen = np.unique(np.linspace(0, len(self.rows) - 1, count).round().astype(int))
        return self._ready(default_collate([self.dataset[int(place)] for place in chosen]))

    def _ready(self, batch: FacePixels) -> FaceBatch:
        return with_vlr(on_device(batch, self.device), self.degradation, self.shape.vlr)


def evaluate(
    methods: Mapping[str, Upscale], faces: EvaluationFaces, recognizers: Sequence[FrozenRecognizer], out: Path
) -> dict[str, dict[str, float]]:
    """The metrics of bicubic interpolation, of each method and of HR; writes per_face.csv into `out`."""
    methods = {BICUBIC: partial(enlarge, side=HR_SIZE, padded=faces.padded), **methods}
    by_name = {each.name: each for each in recognizers}
    measured = measure(methods, faces, by_name, HR_SIZE // faces.shape.grid)
    write_per_face(out / "per_face.csv", faces.rows, measured)
    identities = [row.identity for row in faces.rows]
    return {name: mean_metrics(own, measured[HR], identities) for name, own in measured.items()}


@torch.no_grad()
def save_faces(path: Path, methods: Mapping[str, Upscale], faces: EvaluationFaces) -> None:
    """An image grid of some faces by each method, beside bicubic interpolation, with the errors of all."""
    shown = faces.evenly(GRID_FACES)
    results = {name: upscale(shown["vlr"]) for name, upscale in methods.items()}
    rows = comparison_rows(shown["vlr"], results, shown["hr"], padded=faces.padded)
    save_image_grid(path, rows, comparison_errors(rows))


def write_per_face(path: Path, rows: Sequence[FaceRow], measured: Mapping[str, MeasuredFaces]) -> None:
    """CSV: one row for each face and method."""
    cosines = (f"cosine[{name}]" for name in measured[HR].embeddings)
    cells = []
    for name, own in measured.items():
        if name == HR:
            continue
        columns = [*own.quality.values(), *own.cosines(measured[HR]).values()]
        for row, values in zip(rows, zip(*columns, strict=True), strict=True):
            cells.append([row.name, row.identity, name, *(f"{value:.6g}" for value in values)])
    write_csv(path, ["file", "identity", "method", "psnr", "psnr_y", "ssim", *cosines], cells)


def print_table(console: Console, title: str, found: Mapping[str, Mapping[str, float]]) -> None:
    columns = list(dict.fromkeys(name for values in reversed(list(found.values())) for name in values))
    table = Table("method", box=None, header_style="bold")
    for column in columns:
        name, _, recognizer = column.rstrip("]").partition("[")
        table.add_column(f"{name}\n{recognizer.removeprefix('edgeface_')}", justify="right", no_wrap=True)
    for method, values in found.items():
        if values:  # HR has none without a recogniser
            table.add_row(method, *(_cell(column, values.get(column)) for column in columns))
    console.print(title, highlight=False)
    console.print(table)


def _cell(column: str, value: float | None) -> str:
    if value is None:
        return "-"
    if column.startswith("rank1"):
        return f"{value:.2%}"
    return f"{value:.2f}" if column.startswith("psnr") else f"{value:.4f}"


def report(
    found: Mapping[str, Mapping[str, float]], faces: EvaluationFaces, made_of: Mapping[str, str], out: Path
) -> None:
    """Print the table and write metrics.json, which completes the evaluation."""
    shape, console = faces.shape, Console()
    console.width = max(console.width, TABLE_WIDTH)
    people = len({row.identity for row in faces.rows})
    for name, values in found.items():
        warn_if_too_good(values.get("psnr"), name)
    title = f"{shape.vlr_size} px, {faces.degradation}: {len(faces.rows)} faces of {people} identities"
    content = {
        "faces": len(faces.rows),
        "identities": people,
        "vlr_size": shape.vlr_size,
        "degradation": faces.degradation,
        "checkpoints": dict(made_of),
        "convention": CONVENTION,
        "figures": found,
        "warnings": warnings_given(),
    }
    with atomic_write(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print_table(console, title, found)
    files = ["metrics.json", "per_face.csv", *([FACES] if (out / FACES).exists() else [])]
    console.print(f"{', '.join(files[:-1])} and {files[-1]}: {out}", soft_wrap=True, highlight=False)
