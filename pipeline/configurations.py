"""The rows of an evaluation: how probes are enlarged and by whom they are recognised; and their embeddings.

All rows of one condition see the same VLR copies of the same probes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dsr.upsampler import build_upsampler
from earface.core.errors import InputError
from earface.data.face_dataset import FaceDataset, with_vlr
from earface.data.face_rows import FaceRow
from earface.data.face_sizes import VLRSize, parse_vlr_size
from earface.data.pixels import to_model_range
from earface.nn.upsampler import NO_UPSAMPLER, NONE, Upsampler
from facial_rec.config import parse_mixture
from facial_rec.model import EMBEDDING_DIM
from facial_rec.recognizer import FaceRecognizer
from pipeline.options import FILES

ROWS = ("HR", "bicubic + pretrained", "bicubic + tuned", "DSR + pretrained", "DSR + tuned")
USUAL_SIZE = "32"  # where no super-resolver says another

Model = TypeVar("Model", Upsampler, FaceRecognizer)


@dataclass(frozen=True)
class Condition:
    """How the probes were downsampled."""

    vlr_size: str
    degradation: str

    def __str__(self) -> str:
        return f"{self.vlr_size} px, {self.degradation}"

    @property
    def slug(self) -> str:
        """For names of files."""
        return f"{self.vlr_size}_{self.degradation}"

    @property
    def vlr(self) -> VLRSize:
        return parse_vlr_size(self.vlr_size)


def conditions_of(sizes: Sequence[str], degradations: Sequence[str]) -> list[Condition]:
    """Every size under every degradation, each once. Raises InputError for files of several sizes: there are none."""
    spelled = list(dict.fromkeys(str(parse_vlr_size(size)) for size in sizes))
    if FILES in degradations and len(spelled) > 1:
        raise InputError(
            f"`degradation` {FILES}: a set's own VLR pictures have one size: give one `vlr_size`, "
            f"not {', '.join(spelled)}"
        )
    return [Condition(size, degradation) for degradation in dict.fromkeys(degradations) for size in spelled]


@dataclass(frozen=True)
class Configuration:
    """One way to recognise a VLR probe; the gallery is HR, by the same recogniser."""

    name: str  # of ROWS
    upsampler: Upsampler
    recognizer: FaceRecognizer


Grids = Mapping[Condition, Sequence[Configuration]]


@dataclass(frozen=True)
class Models:
    """What the rows are made of: the fine-tuned ones and the super-resolvers are of any sizes and degradations."""

    pretrained: FaceRecognizer
    finetuned: Sequence[FaceRecognizer] = ()
    super_resolvers: Sequence[Upsampler] = ()

    @property
    def sizes(self) -> tuple[str, ...]:
        """That the super-resolvers take, the usual one without any."""
        return tuple(dict.fromkeys(str(each.vlr) for each in self.super_resolvers)) or (USUAL_SIZE,)

    def rows_of(self, condition: Condition) -> list[Configuration]:
        """Those of ROWS that there are models for. Raises InputError where two are for the same."""
        interpolation = build_upsampler("bicubic", "")
        dsr = _only([(each, each.source) for each in self.super_resolvers if each.vlr == condition.vlr], condition)
        made = (
            (NO_UPSAMPLER, self.pretrained),
            (interpolation, self.pretrained),
            (interpolation, self._finetuned_for(condition, "bicubic")),
            (dsr, self.pretrained),
            (dsr, self._finetuned_for(condition, "dsr") if dsr is not None else None),
        )
        return [
            Configuration(name, upsampler, recognizer)
            for name, (upsampler, recognizer) in zip(ROWS, made, strict=True)
            if upsampler is not None and recognizer is not None
        ]

    def _finetuned_for(self, condition: Condition, upsampler: str) -> FaceRecognizer | None:
        shown = [each for each in self.finetuned if upsampler in parse_mixture(each.provenance.upsampler)]
        return _only(
            [(each, each.name) for each in shown if parse_vlr_size(each.provenance.vlr_size) == condition.vlr],
            condition,
        )

    def notes(self, grids: Grids) -> list[str]:
        """Models in no row or of another degradation, rows without one, and models that do not tell their people."""
        rows = [row for own in grids.values() for row in own]
        used = {id(row.recognizer) for row in rows} | {id(row.upsampler) for row in rows}
        notes = [
            f"{each.name} is in no row: {about_recognizer(each)}" for each in self.finetuned if id(each) not in used
        ]
        notes += [
            f"{each.source} is in no row: {about_upsampler(each)}"
            for each in self.super_resolvers
            if id(each) not in used
        ]
        notes += [
            f"{name} does not tell whom it was trained on: that it knows nobody here cannot be checked"
            for name in dict.fromkeys(
                row.upsampler.source for row in rows if row.upsampler.source and not row.upsampler.trained_on
            )
        ]
        for condition, own in grids.items():
            present = {row.name for row in own}
            if absent := [name for name in ROWS if name not in present]:
                notes.append(f"{condition}: no model for {', '.join(absent)}")
            known = [(row.upsampler.source, row.upsampler.degradation) for row in own]
            known += [(row.recognizer.name, row.recognizer.degradation) for row in own]
            notes += [
                f"{condition}: {name} was trained on {degradation} faces"
                for name, degradation in dict.fromkeys(known)
                if degradation and degradation != condition.degradation
            ]
        return notes


def _only(fitting: Sequence[tuple[Model, str]], condition: Condition) -> Model | None:
    """Of models with their names the one for that degradation, else the one there is. Raises InputError for several."""
    own = [each for each in fitting if each[0].degradation == condition.degradation] or fitting
    if len(own) > 1:
        raise InputError(f"{own[0][1]} and {own[1][1]} are both for {condition}: give one of them")
    return own[0][0] if own else None


def about_recognizer(recognizer: FaceRecognizer) -> str:
    """In words what it is."""
    about = recognizer.provenance
    if not about.upsampler:
        return "recogniser, as published"
    return f"recogniser, finetuned on {about.upsampler} of {about.vlr_size} px, {about.degradation}"


def about_upsampler(upsampler: Upsampler) -> str:
    """In words what a super-resolver is."""
    return f"super-resolver, {upsampler.vlr} px" + (f", {upsampler.degradation}" if upsampler.degradation else "")


def known_people(grids: Grids) -> dict[Path, frozenset[str]]:
    """Of each model, digests of the people it was trained on."""
    rows = [row for own in grids.values() for row in own]
    known = {Path(row.recognizer.name): row.recognizer.trained_on for row in rows}
    return known | {Path(row.upsampler.source): row.upsampler.trained_on for row in rows if row.upsampler.source}


@dataclass(frozen=True)
class FaceLoader:
    """How pictures are read for every row: a batch at a time, the same VLR copies each time."""

    seed: int
    batch_size: int
    num_workers: int
    device: str

    def batches(self, rows: Sequence[FaceRow], condition: Condition | None) -> DataLoader[dict[str, Tensor]]:
        dataset = FaceDataset(rows, seed=self.seed, files=condition is not None and condition.degradation == FILES)
        return DataLoader(dataset, self.batch_size, num_workers=self.num_workers)

    def ready(self, batch: dict[str, Tensor], condition: Condition | None) -> dict[str, Tensor]:
        """A batch on the device with `hr`, or for a condition also `vlr`, in [-1, 1]."""
        moved = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        if condition is None:
            return {"hr": to_model_range(moved["image"])}
        return with_vlr(moved, condition.degradation, condition.vlr)


class EmbeddingCache:
    """Embeddings of the faces of an evaluation, each made once: HR ones do not change with the condition."""

    def __init__(self, faces: FaceLoader, progress: Callable[[int], None] = lambda done: None) -> None:
        """progress: called with how many embeddings were made since the last call."""
        self.faces, self.progress = faces, progress
        self._sharp: dict[tuple[tuple[str, str], str], Tensor] = {}

    @torch.no_grad()
    def hr(self, recognizer: FaceRecognizer, rows: Sequence[FaceRow]) -> Tensor:
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
    def of_rows(
        self, grid: Sequence[Configuration], rows: Sequence[FaceRow], condition: Condition
    ) -> Mapping[str, Tensor]:
        """row's name -> (N, 512) of the probes, on the CPU. Each upsampler runs once for all recognisers."""
        low = [row for row in grid if row.upsampler.name != NONE]
        upsamplers = {row.upsampler.name: row.upsampler for row in low}
        made = {row.name: [torch.empty(0, EMBEDDING_DIM)] for row in low}
        for batch in self.faces.batches(rows, condition) if rows else ():
            vlr = self.faces.ready(batch, condition)["vlr"]
            enlarged = {name: upsampler.enlarge(vlr).float().clamp(-1, 1) for name, upsampler in upsamplers.items()}
            for row in low:
                made[row.name].append(row.recognizer(enlarged[row.upsampler.name]).cpu())
                self.progress(len(vlr))
        return {
            row.name: torch.cat(made[row.name]) if row.name in made else self.hr(row.recognizer, rows) for row in grid
        }
