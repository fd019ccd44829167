"""The configurations of an evaluation, each an upsampler and a recogniser, and their embeddings of the probes.

All configurations under one condition see the same VLR copies of the same probes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import Tensor

from dsr.upsampler import build_upsampler
from earface.core.errors import InputError
from earface.data.face_dataset import FaceDataset, FacePixels, on_device, with_vlr
from earface.data.face_rows import FaceRow
from earface.data.face_sizes import FILES, NONE, VLRRange, VLRSize, parse_vlr_size, parse_vlr_sizes
from earface.data.images import Pixels, read_image
from earface.data.picture_rows import PictureRow
from earface.data.pixels import to_model_range, to_uint8
from earface.data.vlr_rule import Movement
from earface.nn.upsampler import NO_UPSAMPLER, UPSAMPLER_NAMES, Upsampler
from earface.training.workers import WorkerLoader
from facial_rec.config import parse_mixture
from facial_rec.recognizer import FaceRecognizer
from pipeline.protocol import Protocol

if TYPE_CHECKING:
    from pipeline.evaluation import ConditionResult, Failure

CONFIGURATIONS = ("HR", "bicubic + pretrained", "bicubic + fine-tuned", "DSR + pretrained", "DSR + fine-tuned")
USUAL_SIZE = "32"  # if there is no super-resolver, which has a size of its own

Model = TypeVar("Model", Upsampler, FaceRecognizer)


@dataclass(frozen=True)
class Condition:
    """How the probes were downsampled, and moved before if they were."""

    vlr_size: str
    degradation: str
    movement: Movement | None = None  # None: aligned

    def __str__(self) -> str:
        return f"{self.vlr_size} px, {self.degradation}" + (f", {self.movement}" if self.movement else "")

    @property
    def slug(self) -> str:
        """For names of files."""
        moved = f"_{self.movement.kind}{self.movement.amount:g}" if self.movement else ""
        return f"{self.vlr_size}_{self.degradation}{moved}"

    @property
    def vlr(self) -> VLRSize:
        return parse_vlr_size(self.vlr_size)

    def plain(self) -> dict[str, str]:
        """For report.json and probes.csv."""
        return {
            "vlr_size": self.vlr_size,
            "degradation": self.degradation,
            "movement": "" if self.movement is None else str(self.movement),
        }


def conditions_of(
    sizes: Sequence[str], degradations: Sequence[str], movements: Sequence[Movement] = ()
) -> list[Condition]:
    """Every size under every degradation, each aligned and by each movement, and each once.

    Raises InputError for `files` with several sizes, or with a movement.
    """
    spelled = list(dict.fromkeys(str(parse_vlr_size(size)) for size in sizes))
    if FILES in degradations and len(spelled) > 1:
        raise InputError(
            f"`degradation` {FILES}: a set's own VLR pictures have one size: give one `vlr_size`, "
            f"not {', '.join(spelled)}"
        )
    if FILES in degradations and movements:
        raise InputError(f"`{movements[0].kind}`: VLR pictures of a set (`degradation` {FILES}) stay as they are")
    ways = [None, *dict.fromkeys(movements)]
    return [Condition(size, kind, way) for kind in dict.fromkeys(degradations) for size in spelled for way in ways]


@dataclass(frozen=True)
class Configuration:
    """How a VLR probe is enlarged and recognised; the gallery is HR, by the same recogniser."""

    name: str  # of CONFIGURATIONS
    upsampler: Upsampler
    recognizer: FaceRecognizer

    def plain(self) -> dict[str, str]:
        """For report.json."""
        return {"upsampler": self.upsampler.name, "recognizer": self.recognizer.name}

    def scored_by(self) -> dict[str, str]:
        """What its scores depend on."""
        contract, digest = self.recognizer.key
        own, origin = self.upsampler.name, self.upsampler.origin
        return {"contract": contract, "digest": digest, "upsampler": own, "upsampler_digest": origin}

    def models(self) -> dict[str, dict[str, str]]:
        """Name -> kind, digest and contract."""
        recognizer, upsampler = self.recognizer, self.upsampler
        models = {
            recognizer.name: {
                "kind": describe_recognizer(recognizer),
                "digest": recognizer.digest,
                "contract": recognizer.contract.id,
            }
        }
        if upsampler.source:
            kind = describe_upsampler(upsampler)
            models[upsampler.source] = {"kind": kind, "digest": upsampler.origin, "contract": ""}
        return models


Configurations = Mapping[Condition, Sequence[Configuration]]


@dataclass(frozen=True)
class Models:
    """The models to evaluate; fine-tuned recognisers and super-resolvers may be of several sizes and degradations."""

    pretrained: FaceRecognizer
    finetuned: Sequence[FaceRecognizer] = ()
    super_resolvers: Sequence[Upsampler] = ()

    @property
    def sizes(self) -> tuple[str, ...]:
        """The VLR sizes of the super-resolvers, of a range some examples; USUAL_SIZE if there is none."""
        taken = [each.vlr for each in self.super_resolvers]
        own = [size for vlr in taken for size in (vlr.examples if isinstance(vlr, VLRRange) else (vlr,))]
        return tuple(dict.fromkeys(map(str, own))) or (USUAL_SIZE,)

    def configurations_of(self, condition: Condition) -> list[Configuration]:
        """Those of CONFIGURATIONS that there are models for. Raises InputError if two models fit the same one."""
        bicubic = build_upsampler("bicubic", "")
        taken = [(each, each.source, each.vlr) for each in self.super_resolvers if each.vlr is not None]
        dsr = _only(taken, condition)
        parts = (
            (NO_UPSAMPLER, self.pretrained),
            (bicubic, self.pretrained),
            (bicubic, self._finetuned_for(condition, "bicubic")),
            (dsr, self.pretrained),
            (dsr, self._finetuned_for(condition, "dsr") if dsr is not None else None),
        )
        return [
            Configuration(name, upsampler, recognizer)
            for name, (upsampler, recognizer) in zip(CONFIGURATIONS, parts, strict=True)
            if upsampler is not None and recognizer is not None
        ]

    def _finetuned_for(self, condition: Condition, upsampler: str) -> FaceRecognizer | None:
        shown = [each for each in self.finetuned if upsampler in parse_mixture(each.provenance.upsampler)]
        return _only([(each, each.name, parse_vlr_sizes(each.provenance.vlr_size)) for each in shown], condition)

    def notes(self, configurations: Configurations) -> list[str]:
        """Configurations without a model; models that are unused, of another degradation, or of unknown identities."""
        every = [each for own in configurations.values() for each in own]
        used = {id(each.recognizer) for each in every} | {id(each.upsampler) for each in every}
        unused = [(each.name, describe_recognizer(each)) for each in self.finetuned if id(each) not in used]
        unused += [(each.source, describe_upsampler(each)) for each in self.super_resolvers if id(each) not in used]
        notes = [f"{name} is in no configuration: {description}" for name, description in unused]
        anonymous = [each.upsampler.source for each in every if not each.upsampler.trained_on]
        notes += [
            f"{name} does not say which identities it was trained on: whether it knows any of these cannot be checked"
            for name in dict.fromkeys(anonymous)
            if name
        ]
        for condition, own in configurations.items():
            present = {each.name for each in own}
            if absent := [name for name in CONFIGURATIONS if name not in present]:
                notes.append(f"{condition}: no model for {', '.join(absent)}")
            known = [(each.upsampler.source, each.upsampler.degradation) for each in own]
            known += [(each.recognizer.name, each.recognizer.degradation) for each in own]
            notes += [
                f"{condition}: {name} was trained on {degradation} faces"
                for name, degradation in dict.fromkeys(known)
                if degradation and degradation not in (condition.degradation, "mixed")
            ]
        return notes


def _only(models: Sequence[tuple[Model, str, VLRSize | VLRRange]], condition: Condition) -> Model | None:
    """The model trained on that degradation, else on mixed ones, else the only one; one of that size before a range's.

    Raises InputError for several. models: with their names and the sizes that they take.
    """
    fitting = [each for each in models if each[2].takes(condition.vlr)]
    kinds = (condition.degradation, "mixed")
    trained = ([each for each in fitting if each[0].degradation == kind] for kind in kinds)
    own = next(filter(None, trained), fitting)
    own = [each for each in own if each[2] == condition.vlr] or own
    if len(own) > 1:
        raise InputError(f"{own[0][1]} and {own[1][1]} are both for {condition}: give one of them")
    return own[0][0] if own else None


def describe_recognizer(recognizer: FaceRecognizer) -> str:
    """Pretrained, or what it was fine-tuned on, in words."""
    about = recognizer.provenance
    if not about.upsampler:
        return "recogniser, pretrained"
    return f"recogniser, fine-tuned on {about.upsampler} of {about.vlr_size} px, {about.degradation}"


def describe_upsampler(upsampler: Upsampler) -> str:
    """The size and degradation of a super-resolver, in words."""
    return f"super-resolver, {upsampler.vlr} px" + (f", {upsampler.degradation}" if upsampler.degradation else "")


def known_identities(configurations: Configurations) -> dict[Path, frozenset[str]]:
    """Model -> digests of the identities it was trained on."""
    every = [each for own in configurations.values() for each in own]
    known = {Path(each.recognizer.name): each.recognizer.trained_on for each in every}
    return known | {Path(each.upsampler.source): each.upsampler.trained_on for each in every if each.upsampler.source}


def count_embeddings(protocol: Protocol, configurations: Configurations) -> int:
    """How many embeddings an evaluation computes."""
    probes = len(protocol.test.probes) + len(protocol.calibration.probes)
    gallery = len(protocol.test.gallery) + len(protocol.calibration.gallery)
    every = list(itertools.chain(*configurations.values()))
    hr = {each.recognizer.key for each in every if each.upsampler.name == NONE}
    low = sum(each.upsampler.name != NONE for each in every)
    return gallery * len({each.recognizer.key for each in every}) + probes * (len(hr) + low)


@dataclass(frozen=True)
class FaceLoader:
    """Reads faces a batch at a time, with the same VLR copies each time."""

    seed: int
    batch_size: int
    num_workers: int
    device: str

    def batches(self, rows: Sequence[PictureRow], condition: Condition | None) -> WorkerLoader:
        moved = None
        if condition is not None and condition.movement is not None:
            moved = partial(condition.movement, size=condition.vlr)
        dataset = FaceDataset(
            cast(Sequence[FaceRow], rows),
            seed=self.seed,
            files=condition is not None and condition.degradation == FILES,
            moved=moved,
        )
        return WorkerLoader(dataset, batch_size=self.batch_size, num_workers=self.num_workers)

    def hr(self, batch: FacePixels) -> Tensor:
        """(B, 3, 128, 128) in [-1, 1], on the device."""
        return to_model_range(on_device(batch, self.device)["hr_pixels"])

    def vlr(self, batch: FacePixels, condition: Condition) -> Tensor:
        """(B, 3, h, w) in [-1, 1], on the device."""
        return with_vlr(on_device(batch, self.device), condition.degradation, condition.vlr)["vlr"]

    @torch.no_grad()
    def enlarged(self, rows: Sequence[PictureRow], result: ConditionResult) -> list[dict[str, Pixels]]:
        """Of each probe the VLR face, under NONE, and what each upsampler makes of it, by its name."""
        condition = cast(Condition, result.condition)
        configurations = cast(Sequence[Configuration], result.configurations)
        upsamplers = {each.name: each for each in (NO_UPSAMPLER, *(own.upsampler for own in configurations))}
        found: list[dict[str, Pixels]] = []
        for batch in self.batches(rows, condition) if rows else ():
            vlr = self.vlr(batch, condition)
            made = {name: to_uint8(each.enlarge(vlr)).cpu().numpy() for name, each in upsamplers.items()}
            found += [{name: pixels[place] for name, pixels in made.items()} for place in range(len(vlr))]
        return found

    def pictures_of(self, failures: Sequence[Failure], result: ConditionResult) -> list[dict[str, Pixels]]:
        """By caption: the probe, VLR and enlarged by each upsampler, its mate, and the person it was taken for."""
        size = cast(Condition, result.condition).vlr_size
        found = []
        for failure, own in zip(failures, self.enlarged([each.probe for each in failures], result), strict=True):
            found.append(
                {
                    f"probe, {size} px": own.pop(NONE),
                    **{UPSAMPLER_NAMES[name]: pixels for name, pixels in own.items()},
                    "HR": read_image(failure.probe.path),
                    f"taken for {failure.wrong.identity}": read_image(failure.wrong.path),
                    f"is {failure.right.identity}": read_image(failure.right.path),
                }
            )
        return found
