"""A trained ear recogniser, and ears of a teacher file in its form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ear_teacher.loading import check_contract
from ear_teacher.recognition.evaluation import TestEars
from ear_teacher.recognition.hub import FORMAT, EarRecognizerProvenance
from ear_teacher.recognition.model import EarRecognizer
from earface.core.errors import InputError
from earface.core.files import CONFIG, is_exported
from earface.data.data_digest import base_folder, ear_pictures, refuse_trained_on
from earface.data.ear_contract import EarContract
from earface.data.given import Pictures
from earface.data.identity_split import identity_digests, person
from earface.data.image_cache import open_image_cache
from earface.data.npy import read_teacher_npy
from earface.nn.checkpoint import find_checkpoint, read_checkpoint
from earface.nn.inference import in_columns
from earface.nn.precision import Precision, autocast


@dataclass(frozen=True)
class TrainedEarRecognizer:
    """A recogniser in evaluation mode on a device, and where it comes from.

    Embeddings may be compared if their `key` is equal.
    """

    modality: ClassVar[Literal["ear"]] = "ear"

    model: EarRecognizer
    source: Path  # the checkpoint, or the folder
    run: dict[str, Any] | None  # the options it was trained with; None for a folder
    device: str = "cpu"
    precision: Precision = "32"
    data: Mapping[str, Any] | None = None  # DataDigest.stored of its training, if the checkpoint has one
    digest: str = field(init=False)  # of the weights, the size and the contract

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", self.model.digest)

    @property
    def name(self) -> str:
        return str(self.source)

    @property
    def contract(self) -> EarContract:
        return EarContract.parse(self.model.config.contract)

    @property
    def key(self) -> tuple[str, str]:
        return self.contract.id, self.digest

    @property
    def provenance(self) -> EarRecognizerProvenance:
        return self.model.provenance

    @property
    def trained_on(self) -> frozenset[str]:
        """Digests of the people it was trained on."""
        return frozenset(self.provenance.trained_on)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Ears in their form, (B, 3, S, S) in [-1, 1] -> (B, D) of length 1, float32, averaged over the flip.

        In 32 bits an ear's embedding is the same bit for bit alone and in any batch.
        """
        with autocast(self.device, self.precision):
            return self.model.embed_exactly(images.to(self.device))

    @torch.no_grad()
    def measured(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same, with each embedding's length before it is brought to 1 and its cosine with the mirror image's."""
        with autocast(self.device, self.precision):
            return self.model.embed_measured(images.to(self.device))

    def embed(self, pictures: Pictures, *, batch_size: int = 64) -> Tensor:
        """EarRecognizer.embed."""
        with autocast(self.device, self.precision):
            return self.model.embed(pictures, batch_size=batch_size)

    def embed_measured(self, pictures: Pictures, *, batch_size: int = 64) -> tuple[Tensor, dict[str, Tensor]]:
        """`embed`, and of each picture, (N,): `norm` and `mirror`, as `measured` gives them."""
        from ear_teacher.given_ears import encode_given  # on first use: it needs OpenCV

        model = self.model
        with autocast(self.device, self.precision):
            found = encode_given(
                model, model.config, lambda ears: in_columns(model.embed_measured(ears)), pictures, batch_size
            )
        return found[:, :-2].contiguous(), {"norm": found[:, -2], "mirror": found[:, -1]}

    @property
    def val_npy(self) -> tuple[str, ...]:
        return tuple(self.run["val_npy"]) if self.run else ()

    def overlap(self, ears: TestEars) -> list[str]:
        """A note where people have names that were trained on, of a set that may be another.

        Raises InputError for people that were trained on.
        """
        if self.run and ears.source in self.val_npy:
            base = base_folder([*self.run["train_npy"], *self.val_npy])
            data = read_teacher_npy(ears.source, self.run["data_root"])
            refuse_trained_on(self.data, ear_pictures(data, base, apart_by_folder=True), ears.source, of_the_run=True)
            return []
        people = {name: identity_digests([person(ears.collection, name)])[0] for name in sorted(set(ears.subjects))}
        shared = [name for name, digest in people.items() if digest in self.trained_on]
        if not shared:
            return []
        line = f"{ears.source}: {len(shared)} subjects, such as {shared[0]},"
        if ears.collection:
            raise InputError(f"{line} were trained on; measure on others")
        return [f"{line} have names that were trained on"]


def is_recognizer(path: str) -> bool:
    """Whether it is a checkpoint, a pattern, a run's folder or an exported folder of an ear recogniser."""
    if is_exported(path):
        config = Path(path) / CONFIG
        try:
            return bool(json.loads(config.read_text(encoding="utf-8")).get("kind") == FORMAT.kind)
        except (OSError, ValueError, AttributeError):  # whoever loads it says what is wrong
            return False
    try:
        checkpoint = find_checkpoint(path)
    except InputError:
        return False
    stored = read_checkpoint(checkpoint) if checkpoint.suffix == ".ckpt" else {}
    return bool(stored.get("hyper_parameters", {}).get("kind") == FORMAT.kind)


def load_recognizer(
    path: str, device: str, weights: str = "averaged", precision: Precision = "32"
) -> TrainedEarRecognizer:
    """path: a checkpoint, a pattern (the newest match), a run's folder (its best), or an exported folder."""
    if is_exported(path):
        model = EarRecognizer.from_pretrained(path, map_location=device)
        return TrainedEarRecognizer(model.eval(), Path(path), None, device, precision)
    checkpoint = find_checkpoint(path)
    content = read_checkpoint(checkpoint)
    model = EarRecognizer.from_checkpoint(content, checkpoint, device, weights)
    return TrainedEarRecognizer(
        model, checkpoint, content["hyper_parameters"]["options"], device, precision, content.get("data")
    )


def open_test_ears(path: str, trained: TrainedEarRecognizer, data_root: str | None, cache_dir: str | None) -> TestEars:
    """The ears of a teacher file that names subjects. Raises InputError, also for ears in another form."""
    run = trained.run or {}
    data = read_teacher_npy(path, data_root or run.get("data_root"))
    check_contract(path, data.contract, trained.model.config.contract)
    if data.subjects is None:
        raise InputError(f"{path}: names no subjects; make it with earface ears prepare, one folder per person")
    cache = open_image_cache(
        data,
        image_size=trained.model.config.image_size,
        channels=3,
        cache_dir=cache_dir or run.get("cache_dir") or Path(path).parent / ".cache",
    )
    kept = cache.kept.tolist()
    subjects = [data.subjects[row] for row in kept]
    if len(set(subjects)) < 2 or len(subjects) == len(set(subjects)):
        raise InputError(f"{path}: two people are needed, one of them with two ears or more, to measure")
    paths: Sequence[object] = data.image_paths or [f"{path} row {row}" for row in range(len(data))]
    names = [str(each) for each in paths]
    sides = data.sides or [""] * len(data)
    names, sides = [names[row] for row in kept], [sides[row] for row in kept]
    return TestEars(path, cache.images, names, subjects, sides, data.collection)
