"""The configurations of an evaluation of ears, the recogniser and HOG beside it, and their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ear_teacher.ear_reader import EarReader, EarSource
from ear_teacher.metrics.baselines import hog_features
from ear_teacher.recognition.loading import TrainedEarRecognizer
from earface.data.face_sizes import NONE
from earface.data.images import Pixels
from earface.data.npy import TeacherData
from earface.data.pixels import to_model_range
from earface.metrics.image_quality import sharpness
from earface.nn.embedding import PictureFile, embed_each
from pipeline.ear_protocol import EarPicture
from pipeline.quality import COMPUTED, Quality

if TYPE_CHECKING:
    from pipeline.evaluation import ConditionResult, Failure

HOG, RECOGNIZER = "HOG", "recogniser"
EAR_OF_SIDE = {"l": ", left", "r": ", right", "": ""}


@dataclass(frozen=True)
class EarCondition:
    """The form that all ears are in."""

    contract: str  # EarContract.id
    slug = "ears"  # for names of files

    def __str__(self) -> str:
        return "ears"

    def plain(self) -> dict[str, str]:
        """For report.json and probes.csv."""
        return {"form": self.contract}


@dataclass(frozen=True)
class EarConfiguration:
    """The recogniser, or HOG without training."""

    name: str  # HOG or RECOGNIZER
    recognizer: TrainedEarRecognizer | None

    def plain(self) -> dict[str, str]:
        """For report.json."""
        return {"recognizer": HOG if self.recognizer is None else self.recognizer.name}

    def scored_by(self) -> dict[str, str]:
        """What its scores depend on; HOG enrols nobody."""
        contract, digest = ("", "") if self.recognizer is None else self.recognizer.key
        return {"contract": contract, "digest": digest, "upsampler": "none", "upsampler_digest": ""}

    def models(self) -> dict[str, dict[str, str]]:
        """Name -> kind, digest and contract."""
        if self.recognizer is None:
            return {}
        model = self.recognizer
        kind = f"ear recogniser, {model.model.config.backbone}"
        return {model.name: {"kind": kind, "digest": model.digest, "contract": model.contract.id}}


def ear_configurations(recognizer: TrainedEarRecognizer) -> dict[EarCondition, list[EarConfiguration]]:
    """The recogniser last: failures are those of the last one."""
    own = [EarConfiguration(HOG, None), EarConfiguration(RECOGNIZER, recognizer)]
    return {EarCondition(recognizer.contract.id): own}


class EarEmbeddings:
    """Embeddings of the ears of an evaluation, by the recogniser and by HOG, each picture read once."""

    def __init__(self, recognizer: TrainedEarRecognizer, batch_size: int, workers: int) -> None:
        self.recognizer, self.batch_size, self.workers = recognizer, batch_size, max(1, workers)
        self.reader = EarReader(recognizer.model.config)
        self._found: dict[Path, dict[str, Tensor]] = {}
        self._quality: dict[Path, Tensor] = {}  # COMPUTED

    def embed(self, rows: Sequence[EarPicture], progress: Callable[[int], None] = lambda done: None) -> dict[Path, str]:
        """Embed these; returns those that cannot be used, and why. Raises InputError as embed_each does."""
        row_of = {row.path: row for row in rows}
        width = 0

        def embed(ears: Tensor) -> Tensor:
            nonlocal width
            given = to_model_range(ears)
            own, *quality = (part.cpu() for part in self.recognizer.measured(given))
            width = own.shape[1]
            measures = torch.stack([*quality, sharpness(given)], dim=1)
            return torch.cat([measures, own, F.normalize(torch.from_numpy(hog_features(ears.numpy())))], dim=1)

        found = embed_each(
            [PictureFile(row.path, row.identity) for row in rows],
            lambda path: torch.from_numpy(np.ascontiguousarray(self.picture(row_of[path]))),
            embed,
            batch_size=self.batch_size,
            workers=self.workers,
            progress=progress,
        )
        for place, all_of_it in zip(found.kept, torch.from_numpy(found.embeddings), strict=True):
            self._quality[rows[place].path], both = all_of_it[: len(COMPUTED)], all_of_it[len(COMPUTED) :]
            self._found[rows[place].path] = {RECOGNIZER: both[:width], HOG: both[width:]}
        return {Path(name): reason for name, reason in found.skipped}

    def picture(self, row: EarPicture) -> Pixels:
        """(S, S, 3) in the recogniser's form. Raises InputError."""
        box = None if row.box is None else np.array([row.box], np.float32)
        data = TeacherData(row.path, [row.path], None, box, None, None, contract=row.contract)
        return self.reader(EarSource(data, 0, crop=False))

    def enrolled(self, configuration: EarConfiguration, rows: Sequence[EarPicture]) -> Tensor:
        """(N, D) of length 1, on the CPU."""
        found = [self._found[row.path][configuration.name] for row in rows]
        width = next(iter(self._found.values()))[configuration.name].numel()
        return torch.stack(found) if found else torch.empty(0, width)

    def of_configurations(
        self, configurations: Sequence[EarConfiguration], rows: Sequence[EarPicture], condition: EarCondition
    ) -> Mapping[str, Tensor]:
        """Configuration -> (N, D) of the probes, on the CPU."""
        return {each.name: self.enrolled(each, rows) for each in configurations}

    def quality(
        self, configuration: EarConfiguration, rows: Sequence[EarPicture], condition: EarCondition | None
    ) -> Quality:
        """By the recogniser's embeddings, for HOG too."""
        own = torch.stack([self._quality[row.path] for row in rows]) if rows else torch.empty(0, len(COMPUTED))
        return dict(zip(COMPUTED, own.numpy().T, strict=True))

    def enlarged(self, rows: Sequence[EarPicture], result: ConditionResult) -> list[dict[str, Pixels]]:
        """Of each probe the picture that the recogniser sees, under `none`."""
        return [{NONE: self.picture(row)} for row in rows]

    def pictures_of(self, failures: Sequence[Failure], result: ConditionResult) -> list[dict[str, Pixels]]:
        """By caption, as the recogniser sees them: the probe, the person it was taken for, and its mate."""
        return [
            {
                f"{name}{EAR_OF_SIDE[row.side]}": self.picture(row)
                for name, row in (
                    ("probe", failure.probe),
                    (f"taken for {failure.wrong.identity}", failure.wrong),
                    (f"is {failure.right.identity}", failure.right),
                )
                if isinstance(row, EarPicture)
            }
            for failure in failures
        ]
