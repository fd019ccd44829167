"""How well a recogniser identifies the ears of a file, with intervals by person, beside HOG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ear_teacher.metrics.baselines import hog_features
from ear_teacher.recognition.metrics import FAR
from ear_teacher.recognition.model import EarRecognizer
from earface.core.progress import tracked
from earface.data.image_grid import FONT, tile_images
from earface.data.images import Pixels, write_image
from earface.data.names import printable
from earface.data.pixels import to_model_range
from earface.metrics.identification import BLOCK_ROWS, nearest_other, unit_rows
from earface.metrics.resampling import Estimate, Resampling, TradeOff

FAILURES, TILE = 12, 128


@dataclass(frozen=True)
class TestEars:
    """N ears of one file in the model's form."""

    __test__ = False  # of pytest

    source: str
    images: NDArray[np.uint8]  # (N, S, S, 3)
    names: list[str]
    subjects: list[str]
    sides: list[str]  # l, r or empty
    collection: str = ""  # whose subjects they are

    def __len__(self) -> int:
        return len(self.names)

    def evenly(self, per_subject: int) -> TestEars:
        """At most so many ears of each person, evenly over theirs; 0: all."""
        if not per_subject:
            return self
        subjects = np.asarray(self.subjects)
        kept: list[int] = []
        for subject in sorted(set(self.subjects)):
            own = np.flatnonzero(subjects == subject)
            count = min(per_subject, len(own))
            kept += own[np.linspace(0, len(own) - 1, count).round().astype(int)].tolist()
        return self.rows(sorted(kept))

    def rows(self, kept: Sequence[int]) -> TestEars:
        names, subjects, sides = ([values[row] for row in kept] for values in (self.names, self.subjects, self.sides))
        return TestEars(self.source, self.images[list(kept)], names, subjects, sides, self.collection)


@torch.no_grad()
def embed_ears(model: EarRecognizer, images: NDArray[np.uint8], batch_size: int, device: str) -> NDArray[np.float32]:
    """(N, S, S, 3) -> (N, D) of length 1."""
    parts = []
    for start in tracked(range(0, len(images), batch_size), "embedding ears, batches"):
        batch = to_model_range(torch.from_numpy(np.array(images[start : start + batch_size])).to(device))
        parts.append(model.embed_exactly(batch).cpu())
    return torch.cat(parts).numpy()


@dataclass(frozen=True)
class Recognition:
    """Leave one out: an ear's nearest other ear, and all pairs."""

    rank1: Estimate
    eer: Estimate
    tar: Estimate  # at a false accept rate of FAR
    nearest: NDArray[np.int64]  # (N,) the most similar other ear
    units: NDArray[np.float64]

    def plain(self) -> dict[str, Any]:
        """Of metrics.json."""
        return {
            name: {"value": found.value, "interval": found.interval(), "samples": found.samples, "reason": found.reason}
            for name, found in (("rank1", self.rank1), ("eer", self.eer), (f"tar_at_far_{FAR:g}", self.tar))
        }


def recognise(embeddings: NDArray[np.floating], subjects: Sequence[str], replicates: int) -> Recognition:
    """embeddings: (N, D), N >= 2. The bootstrap draws people, each with all their ears."""
    units = unit_rows(embeddings)
    owner = np.unique(np.asarray(subjects), return_inverse=True)[1]
    counts = np.bincount(owner)
    nearest = nearest_other(units)
    people = Resampling(subjects, replicates)
    hits = owner[nearest] == owner
    rank1 = people.share(hits, counts[owner] > 1)
    genuine, genuine_of, impostor, impostor_of = [], [], [], []
    for start in range(0, len(units), BLOCK_ROWS):
        block = np.arange(start, min(start + BLOCK_ROWS, len(units)))
        similarity = (units[block] @ units.T).astype(np.float32)
        for row, scores in zip(block, similarity, strict=True):
            others = np.arange(row + 1, len(units))
            same = owner[others] == owner[row]
            genuine.append(scores[others[same]])
            impostor.append(scores[others[~same]])
            genuine_of.append(np.full(int(same.sum()), row))
            impostor_of.append(np.full(int((~same).sum()), row))
    positive, positive_of, negative, negative_of = map(np.concatenate, (genuine, genuine_of, impostor, impostor_of))
    trade_off = TradeOff(positive, positive_of, negative, negative_of, people)
    missed = trade_off.false_negatives_at_rate(FAR)
    tar = Estimate(
        None if missed.value is None else 1.0 - missed.value,
        None if missed.replicates is None else 1.0 - missed.replicates,
        missed.samples,
        missed.reason,
    )
    return Recognition(rank1, trade_off.equal_error_rate(), tar, nearest, units)


def evaluate(
    model: EarRecognizer, ears: TestEars, batch_size: int, replicates: int, device: str
) -> tuple[Recognition, Recognition, dict[str, Recognition]]:
    """The recogniser's, HOG's, and the recogniser's by side, where each side has enough ears."""
    own = recognise(embed_ears(model, ears.images, batch_size, device), ears.subjects, replicates)
    hog = recognise(hog_features(ears.images), ears.subjects, replicates)
    sides = {}
    for side in ("l", "r"):
        rows = [row for row, each in enumerate(ears.sides) if each == side]
        subjects = [ears.subjects[row] for row in rows]
        if len(set(subjects)) > 1 and len(rows) > len(set(subjects)):
            sides[side] = recognise(own.units[rows], subjects, replicates)
    return own, hog, sides


def failure_grid(ears: TestEars, found: Recognition) -> Pixels | None:
    """Rows of the most confident errors: the probe, the wrong ear that is nearest, and the best of the right ones."""
    owner = np.asarray(ears.subjects)
    scores = np.einsum("nd,nd->n", found.units, found.units[found.nearest])
    several = np.array([ears.subjects.count(name) > 1 for name in ears.subjects])
    wrong = np.flatnonzero((owner[found.nearest] != owner) & several)
    if not len(wrong):
        return None
    tiles = []
    for row in wrong[np.argsort(-scores[wrong], kind="stable")][:FAILURES]:
        same = np.flatnonzero((owner == owner[row]) & (np.arange(len(owner)) != row))
        right = same[(found.units[same] @ found.units[row]).argmax()]
        for each, text in (
            (row, f"{owner[row]}"),
            (found.nearest[row], f"{owner[found.nearest[row]]}  {scores[row]:.2f}"),
            (right, f"{owner[right]}  {found.units[right] @ found.units[row]:.2f}"),
        ):
            tiles.append(_captioned(ears.images[each], text))
    return tile_images(tiles, 6)


def save_failures(path: Path, ears: TestEars, found: Recognition) -> None:
    """No file where there are none."""
    grid = failure_grid(ears, found)
    if grid is not None:
        write_image(path, grid)


def _captioned(image: NDArray[np.uint8], text: str) -> Pixels:
    picture = cv2.resize(np.asarray(image), (TILE, TILE), interpolation=cv2.INTER_AREA)
    caption = np.full((20, TILE, 3), 255, np.uint8)
    cv2.putText(caption, printable(text)[:22], (4, 14), FONT[0], FONT[1] * 0.8, (40, 40, 40), 1, cv2.LINE_AA)
    return np.concatenate([picture, caption])
