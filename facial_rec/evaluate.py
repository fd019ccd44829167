"""Measure recognisers on low-resolution faces of unseen people: `python -m facial_rec.evaluate`, or as a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.files import atomic_write
from earface.core.options import check_options, option
from earface.data.degradation import parse_vlr_size
from earface.data.face_dataset import FaceDataset, faces_to_score, usable_faces, with_vlr
from earface.data.face_rows import FaceRow
from earface.nn.inference import choose_device
from facial_rec.contract import FaceContract
from facial_rec.datamodule import HR
from facial_rec.embedding import embed_faces
from facial_rec.hub import is_tuned, load_tuned_for
from facial_rec.input_cache import Route
from facial_rec.metrics import by_route
from facial_rec.model import EdgeFace, load_edgeface
from facial_rec.routes import enlarging, routes_of

TABLE_WIDTH = 120
CONVENTION = (
    "the first HR face of each identity with two or more is the gallery, its other faces are the probes, by each "
    "route; rank1: closed set; tar: at a false accept rate of 1e-3, every probe with every gallery face; eer: likewise"
)


@dataclass(frozen=True)
class EvaluationOptions:
    """Measure recognisers on people they were not tuned on, by HR, interpolated and super-resolved faces."""

    weights: tuple[str, ...] = option(
        ("edgeface_xxs", "facial_rec/checkpoints/tuned"),
        "published EdgeFace variants, files of their weights, tuned folders, or checkpoints (quoted patterns)",
    )
    face_crop: Literal["arcface", "center"] = option("arcface", "where their template lies in the 128 px")
    inputs: str = option("interpolation", "how VLR faces are enlarged: interpolation, dsr, or both with a comma")
    dsr_checkpoint: str = option("dsr/checkpoints/last.ckpt", "the super-resolver of dsr inputs, or a quoted pattern")
    vlr_size: str = option("32", "of the VLR faces: 32, 24, 16 or 14x16 (width x height)")
    degradation: Literal["bicubic", "realistic", "files"] = option("bicubic", "how they are made")
    dataset_root: str = option("dataset", "a face set as python -m data.prepare_faces makes it")
    split: Literal["train", "val", "test"] = option("test", "which of its splits")
    seed: int = option(42, "of realistic degradation; with that of data.prepare_faces VLR is as in its files", low=0)
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto: the GPU if there is one")
    batch_size: int = option(32, "faces at once", low=1)
    num_workers: int = option(2, "loader processes", low=0)
    out: str = option("facial_rec/evaluation", "folder for metrics.json")

    def check(self) -> None:
        check_options(self)
        if not self.weights:
            raise InputError("--weights: give one or more recognisers")
        routes_of(self.inputs)
        if Path(self.out).exists() and not Path(self.out).is_dir():
            raise InputError(f"--out {self.out}: is a file; give a folder")


@dataclass(frozen=True)
class Measured:
    """A recogniser, and digests of the people it was tuned on."""

    model: EdgeFace
    contract: FaceContract
    trained_on: frozenset[str]


def load_measured(name: str, crop: Literal["arcface", "center"]) -> Measured:
    """A published variant, a file of weights, a tuned folder, a checkpoint or a pattern. Raises InputError."""
    if is_tuned(name):
        model, tuning = load_tuned_for(name, crop)
        return Measured(model, FaceContract(crop), frozenset(tuning.trained_on))
    return Measured(load_edgeface(name), FaceContract(crop), frozenset())


@torch.no_grad()
def measure(
    measured: Mapping[str, Measured], routes: Sequence[Route], rows: Sequence[FaceRow], options: EvaluationOptions
) -> dict[str, dict[str, float]]:
    """recogniser -> `by_route` figures; those of an unseen probe's route are against the HR gallery."""
    device, files = choose_device(options.device), options.degradation == "files"
    size = parse_vlr_size(options.vlr_size)
    dataset = FaceDataset(rows, seed=options.seed, files=files)
    loader = DataLoader(dataset, options.batch_size, num_workers=options.num_workers)
    tables: dict[tuple[str, str], list[Tensor]] = {}
    for batch in track(loader, "measuring", disable=not sys.stdout.isatty(), transient=True):
        moved = {name: value.to(device) for name, value in batch.items()}
        ready = with_vlr(moved, options.degradation, size)
        faces = {HR: ready["hr"]} | {route.name: route.enlarge(ready["vlr"]).float().clamp(-1, 1) for route in routes}
        for name, each in measured.items():
            for route, crops in faces.items():
                found = embed_faces(each.model.to(device), each.contract(crops)).cpu()
                tables.setdefault((name, route), []).append(found)
    identities = [row.identity for row in rows]
    return {
        name: by_route({route: torch.cat(tables[name, route]) for route in faces}, HR, identities) for name in measured
    }


def print_table(title: str, found: Mapping[str, Mapping[str, float]], routes: Sequence[str]) -> None:
    table = Table("recogniser", "faces", "rank-1", "TAR at FAR 1e-3", "EER", box=None, header_style="bold")
    for name, own in found.items():
        for route in routes:
            values = [own.get(f"{figure}_{route}") for figure in ("rank1", "tar", "eer")]
            table.add_row(name, route, *("insufficient data" if v is None else f"{v:.2%}" for v in values))
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    console.print(title, highlight=False)
    console.print(table)


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EvaluationOptions, argv, prog="python -m facial_rec.evaluate")
    measured = {name: load_measured(name, options.face_crop) for name in options.weights}
    routes = enlarging(
        routes_of(options.inputs), options.dsr_checkpoint, options.vlr_size, choose_device(options.device)
    )
    known = {Path(name): each.trained_on for name, each in measured.items()}
    known |= {Path(options.dsr_checkpoint): route.trained_on for route in routes if route.name == "dsr"}
    rows = faces_to_score(options.dataset_root, options.split, known)
    rows = usable_faces(rows, parse_vlr_size(options.vlr_size) if options.degradation == "files" else None)
    try:
        found = measure(measured, routes, rows, options)
    except torch.OutOfMemoryError as error:
        raise InputError("out of GPU memory: lower --batch-size, or use --device cpu") from error
    people = len({row.identity for row in rows})
    content = {
        "faces": len(rows),
        "identities": people,
        **{name: getattr(options, name) for name in ("vlr_size", "degradation", "inputs", "dsr_checkpoint")},
        "convention": CONVENTION,
        "figures": found,
    }
    with atomic_write(Path(options.out) / "metrics.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    title = f"{options.vlr_size} px, {options.degradation}: {len(rows)} faces of {people} people"
    print_table(title, found, [HR, *(route.name for route in routes)])
    Console().print(f"metrics.json: {options.out}", soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
