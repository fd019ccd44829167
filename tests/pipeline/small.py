"""Small real models, sets and evaluations that the evaluation's tests share, and the slow loops they compare with."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dsr import DSR, DSRConfig
from dsr.hub import Provenance
from earface.data.degradation import degrade, picture_key
from earface.data.face_rows import FaceRow
from earface.data.face_sizes import parse_vlr_size
from earface.data.identity_split import identity_digests
from earface.data.images import read_image
from earface.data.pixels import interpolate, to_model_range
from earface.synthetic.face_set import FaceSet, write_face_set
from facial_rec.contract import FaceContract
from facial_rec.hub import EdgeFaceProvenance
from facial_rec.model import EdgeFace
from pipeline.configurations import Condition, FaceLoader, Models
from pipeline.enrolment_searches import Settings
from pipeline.evaluate_dataset import main
from pipeline.evaluation import ConditionResult, Stages, evaluate
from pipeline.face_embeddings import EmbeddingCache
from pipeline.protocol import Protocol

SEED = 42


def dsr_folder(
    folder: Path, size: str, *, seed: int = 0, people: Iterable[str] = ("stranger",), degradation: str = "bicubic"
) -> Path:
    """A super-resolver of random weights that visibly changes a face and was trained on these identities."""
    torch.manual_seed(seed)
    model = DSR(DSRConfig(8, 1, size))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.provenance = Provenance(tuple(identity_digests(people)), degradation)
    model.save_pretrained(folder)
    return folder


def finetuned_folder(
    folder: Path,
    weights: Path,
    upsampler: str,
    size: str,
    *,
    seed: int = 1,
    people: Iterable[str] = (),
    degradation: str = "bicubic",
    crop: Literal["arcface", "center"] = "arcface",
) -> Path:
    """The weights with another head, fine-tuned on these identities."""
    model = EdgeFace.from_weights(weights)
    noise = torch.randn(model.model.head.fc.weight.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        model.model.head.fc.weight.add_(noise * 0.05)
    model.provenance = EdgeFaceProvenance(crop, upsampler, size, degradation, tuple(identity_digests(people)))
    model.save_pretrained(folder)
    return folder


def draw_faces(folder: Path, subjects: int, pictures: int, seed: int = 3) -> Path:
    """A folder of synthetic faces with Multi-PIE names."""
    write_face_set(folder, FaceSet(subjects, pictures, 128, seed=seed))
    return folder / "images"


def arguments(dataset: Path | str, weights: Path, out: Path, *more: str | Path) -> list[str]:
    """Of a quick evaluation with the pretrained recogniser alone."""
    given = ["--dataset-root", str(dataset), "--recognizer", str(weights), "--out", str(out), "--num-workers", "0"]
    given += ["--bootstrap", "100", "--device", "cpu"]
    for flag in ("--finetuned", "--dsr-checkpoint"):
        given += [] if flag in more else [flag, "none"]
    return given + list(map(str, more))


def run(dataset: Path | str, weights: Path, out: Path, *more: str | Path) -> dict[str, Any]:
    """report.json of an evaluation that succeeds."""
    assert main(arguments(dataset, weights, out, *more)) == 0
    return read_report(out)


def read_report(out: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((out / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)


def read_probes(out: Path) -> list[dict[str, str]]:
    with (out / "probes.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def evaluated(
    protocol: Protocol, models: Models, conditions: Sequence[Condition], *, replicates: int = 100, failures: int = 3
) -> tuple[list[ConditionResult], FaceLoader]:
    """The results without a report."""
    faces = FaceLoader(SEED, 16, 0, "cpu")
    configurations = {condition: models.configurations_of(condition) for condition in conditions}
    settings = Settings(0.35, replicates, SEED, failures)
    return evaluate(protocol, configurations, EmbeddingCache(faces), settings, Stages()), faces


# -- the slow loop: one face after the other, by the parts of each configuration ---------------------------------------


def slow_embeddings(
    rows: Sequence[FaceRow], weights: Path, upsampler: str, condition: Condition | None = None, dsr: Path | None = None
) -> NDArray[np.float32]:
    """(N, 512). upsampler: none, bicubic or dsr."""
    model, contract = EdgeFace.from_weights(weights), FaceContract("arcface")
    resolver = DSR.from_pretrained(dsr) if dsr is not None else None
    found = []
    for row in rows:
        pixels = read_image(row.path)
        size, keys = parse_vlr_size(condition.vlr_size if condition else "32"), [picture_key(SEED, row.path.stem)]
        if condition is not None and condition.movement is not None and upsampler != "none":
            pixels = condition.movement(pixels, keys[0], size)
        face = to_model_range(torch.from_numpy(pixels[None]))
        if condition is not None and upsampler != "none":
            face = degrade(condition.degradation, face, size, keys)
            with torch.no_grad():
                face = resolver(face) if upsampler == "dsr" and resolver is not None else interpolate(face, 128)
        with torch.no_grad():
            found.append(model.embed(contract(face.clamp(-1, 1)))[0].numpy())
    return np.stack(found)


def slow_limit(negative: Sequence[float], rate: float) -> float | None:
    """The score that must be exceeded so that at most `rate` of these match; None where fewer than ten would."""
    allowed = int(rate * len(negative) + 1e-9)
    return sorted(negative, reverse=True)[allowed] if allowed >= 10 else None


def slow_equal_error_rate(mated: Sequence[float], impostor: Sequence[float]) -> float:
    """Where the lines between the errors at all thresholds cross."""
    before = after = (0.0, 1.0)
    for threshold in sorted({*mated, *impostor}, reverse=True):
        before, after = after, (
            sum(score >= threshold for score in impostor) / len(impostor),
            sum(score < threshold for score in mated) / len(mated),
        )  # fmt: skip
        if after[0] >= after[1]:
            break
    gaps = before[1] - before[0], after[0] - after[1]
    return before[0] + (after[0] - before[0]) * gaps[0] / sum(gaps)


def slow_best_threshold(scores: Sequence[float], same: Sequence[bool]) -> float:
    """Halfway below the lowest of the scores, or infinity, that classifies most pairs correctly."""

    def correct(threshold: float) -> int:
        return sum((score >= threshold) == own for score, own in zip(scores, same, strict=True))

    best = max(sorted({*scores, float("inf")}), key=correct)
    below = max((score for score in scores if score < best), default=best)
    return best if best == float("inf") else (best + below) / 2


def slow_fold_accuracy(scores: Sequence[float], same: Sequence[bool], folds: Sequence[int]) -> float:
    right = 0
    for held_out in set(folds):
        rest = [place for place, fold in enumerate(folds) if fold != held_out]
        threshold = slow_best_threshold([scores[place] for place in rest], [same[place] for place in rest])
        right += sum((scores[p] >= threshold) == same[p] for p, fold in enumerate(folds) if fold == held_out)
    return right / len(scores)
