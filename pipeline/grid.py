"""The rows of an evaluation: how probes are enlarged and by whom they are recognised; and their embeddings.

All rows of one condition see the same VLR copies of the same probes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data.degradation import parse_vlr_size
from data.errors import InputError
from data.face_rows import FaceRow
from facial_rec.config import parse_mixture
from facial_rec.inputs import Route
from facial_rec.model import EMBEDDING_DIM
from pipeline.recognizer import HR, SHARP, Recognizer
from training.faces import FaceDataset, with_vlr
from training.pixels import to_model_range

Model = TypeVar("Model", Route, Recognizer)


@dataclass(frozen=True)
class Condition:
    """How the probes were made small."""

    vlr_size: str
    degradation: str

    def __str__(self) -> str:
        return f"{self.vlr_size} px, {self.degradation}"

    @property
    def slug(self) -> str:
        """For names of files."""
        return f"{self.vlr_size}_{self.degradation}"


@dataclass(frozen=True)
class GridRow:
    """One way to recognise a VLR probe; the gallery is HR, by the same recogniser."""

    name: str
    route: Route
    recognizer: Recognizer


def rows_of(
    condition: Condition,
    stock: Recognizer,
    tuned: Sequence[Recognizer],
    super_resolvers: Sequence[Route],
    interpolation: Route,
) -> list[GridRow]:
    """HR; interpolation + stock; interpolation + tuned; DSR + stock; DSR + tuned: those that there are models for."""
    rows = [GridRow("HR", SHARP, stock), GridRow("interpolation + stock", interpolation, stock)]
    own = _tuned_for(condition, "interpolation", tuned)
    rows += [GridRow("interpolation + tuned", interpolation, own)] if own else []
    dsr = _super_resolver_for(condition, super_resolvers)
    if dsr is not None:
        rows.append(GridRow("DSR + stock", dsr, stock))
        own = _tuned_for(condition, "dsr", tuned)
        rows += [GridRow("DSR + tuned", dsr, own)] if own else []
    return rows


def _super_resolver_for(condition: Condition, made: Sequence[Route]) -> Route | None:
    size = parse_vlr_size(condition.vlr_size)
    return _only([(each, each.source) for each in made if each.vlr == size], condition)


def _tuned_for(condition: Condition, route: str, tuned: Sequence[Recognizer]) -> Recognizer | None:
    size = parse_vlr_size(condition.vlr_size)
    shown = [each for each in tuned if route in parse_mixture(each.inputs)]
    return _only([(each, each.name) for each in shown if parse_vlr_size(each.vlr_size) == size], condition)


def _only(fitting: Sequence[tuple[Model, str]], condition: Condition) -> Model | None:
    """Of models with their names the one for that degradation, else the one there is. Raises InputError for several."""
    own = [each for each in fitting if each[0].degradation == condition.degradation] or fitting
    if len(own) > 1:
        raise InputError(f"{own[0][1]} and {own[1][1]} are both for {condition}: give one of them")
    return own[0][0] if own else None


@dataclass(frozen=True)
class Faces:
    """How pictures are read for every row: a batch at a time, the same VLR copies each time."""

    seed: int
    batch_size: int
    num_workers: int
    device: str

    def batches(self, rows: Sequence[FaceRow], condition: Condition | None) -> DataLoader[dict[str, Tensor]]:
        dataset = FaceDataset(rows, seed=self.seed, files=condition is not None and condition.degradation == "files")
        return DataLoader(dataset, self.batch_size, num_workers=self.num_workers)

    def ready(self, batch: dict[str, Tensor], condition: Condition | None) -> dict[str, Tensor]:
        """A batch on the device with `hr`, or for a condition also `vlr`, in [-1, 1]."""
        moved = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        if condition is None:
            return {"hr": to_model_range(moved["image"])}
        return with_vlr(moved, condition.degradation, parse_vlr_size(condition.vlr_size))


class Embeddings:
    """Embeddings of the faces of an evaluation, each made once: HR ones do not change with the condition."""

    def __init__(self, faces: Faces, progress: Callable[[int], None] = lambda done: None) -> None:
        """progress: called with how many embeddings were made since the last call."""
        self.faces, self.progress = faces, progress
        self._sharp: dict[tuple[tuple[str, str], str], Tensor] = {}

    @torch.no_grad()
    def sharp(self, recognizer: Recognizer, rows: Sequence[FaceRow]) -> Tensor:
        """(N, 512) of HR faces, on the CPU."""
        wanted = [row for row in rows if (recognizer.key, str(row.path)) not in self._sharp]
        wanted = list({row.path: row for row in wanted}.values())
        at = 0
        for batch in self.faces.batches(wanted, None) if wanted else ():
            found = recognizer(self.faces.ready(batch, None)["hr"]).cpu()
            for row, embedding in zip(wanted[at : at + len(found)], found, strict=True):
                self._sharp[recognizer.key, str(row.path)] = embedding
            at += len(found)
            self.progress(len(found))
        empty = torch.empty(0, EMBEDDING_DIM)
        return torch.stack([self._sharp[recognizer.key, str(row.path)] for row in rows]) if rows else empty

    @torch.no_grad()
    def of_rows(self, grid: Sequence[GridRow], rows: Sequence[FaceRow], condition: Condition) -> Mapping[str, Tensor]:
        """row's name -> (N, 512) of the probes, on the CPU. Each route runs once, whoever recognises what it gives."""
        tables: dict[str, list[Tensor]] = {row.name: [] for row in grid if row.route.name != HR}
        for batch in self.faces.batches(rows, condition) if rows else ():
            vlr = self.faces.ready(batch, condition)["vlr"]
            enlarged: dict[str, Tensor] = {}
            for row in grid:
                if row.route.name == HR:
                    continue
                if row.route.name not in enlarged:
                    enlarged[row.route.name] = row.route.enlarge(vlr).float().clamp(-1, 1)
                tables[row.name].append(row.recognizer(enlarged[row.route.name]).cpu())
                self.progress(len(vlr))
        made = {name: torch.cat([torch.empty(0, EMBEDDING_DIM), *parts]) for name, parts in tables.items()}
        sharp = {row.name: self.sharp(row.recognizer, rows) for row in grid if row.route.name == HR}
        return {row.name: (sharp | made)[row.name] for row in grid}
