"""What an ear adds to a face of 16 pixels.

    python -m benchmarks.chimeric --ears AWE --calibration EARVN --faces LFW --ear-recognizer C --face-recognizer F

No set has both of the same people, so they are chimeric: each person of the ears is paired with one of the faces, many
times over. Enrolled are one HR face and one ear of each; probes are another face, downsampled, and another ear. Scores
are joined by logistic regression, fitted on chimeric people of the calibration ears and of other faces.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from ear_teacher.recognition.loading import load_recognizer as load_ear_recognizer
from ear_teacher.recognition.loading import open_test_ears
from earface.data.folders import list_images
from earface.data.images import read_image
from earface.data.pixels import interpolate, to_model_range
from earface.metrics.verification import equal_error_rate
from facial_rec.recognizer import FaceRecognizer, load_recognizer

Floats = NDArray[np.float64]
FACES_EACH, MOST_FACES = 3, 6  # pictures of an identity
BATCH = 64


@dataclass(frozen=True)
class People:
    """Embeddings of each person; the first is enrolled."""

    enrolled: list[NDArray[np.float32]]  # (D,)
    probes: list[NDArray[np.float32]]  # (P, D), P >= 1

    def __len__(self) -> int:
        return len(self.enrolled)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ears", type=Path, required=True, help="prepared folder: its validation people are measured")
    parser.add_argument("--calibration", type=Path, required=True, help="another: its validation people fit the fusion")
    parser.add_argument("--faces", type=Path, required=True, help="aligned faces of 128 px, one folder per identity")
    parser.add_argument("--ear-recognizer", required=True)
    parser.add_argument("--face-recognizer", required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 24, 128])
    parser.add_argument("--pairings", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    measured, fitted = (ears_of(folder, args.ear_recognizer) for folder in (args.ears, args.calibration))
    faces = load_recognizer(args.face_recognizer, "arcface")
    print(f"{len(measured)} people, {len(fitted)} others for the fusion, {args.pairings} pairings with LFW")
    print("| probe's face | scores | rank-1 | EER |")
    print("|---|---|---|---|")
    for size in args.sizes:
        report(size, faces_of(args.faces, faces, size, len(measured) + len(fitted)), measured, fitted, args)


def report(size: int, faces: People, measured: People, fitted: People, args: argparse.Namespace) -> None:
    found: dict[str, list[tuple[float, float]]] = {}
    for pairing in range(args.pairings):
        rng = np.random.default_rng((args.seed, pairing))
        order = rng.permutation(len(faces))
        own, others = order[: len(measured)], order[len(measured) :][: len(fitted)]
        fusion = fitted_fusion(*scores(fitted, faces, others, rng))
        face, ear, mates = scores(measured, faces, own, rng)
        joined = fusion.decision_function(np.stack([face.ravel(), ear.ravel()], axis=1)).reshape(face.shape)
        for name, values in (("face", face), ("ear", ear), ("face and ear", joined)):
            found.setdefault(name, []).append(measures(values, mates))
    for name, rows in found.items():
        low, middle, high = np.percentile(rows, [2.5, 50, 97.5], axis=0)
        cells = " | ".join(f"{m:.3f} ({a:.3f} to {b:.3f})" for a, m, b in zip(low, middle, high, strict=True))
        print(f"| {size} px | {name} | {cells} |", flush=True)


def scores(ears: People, faces: People, partners: NDArray[np.int64], rng: np.random.Generator) -> tuple[Floats, ...]:
    """Of each ear probe and a face probe of its person's partner: cosines with all enrolled (P, N) each, and mates."""
    ear_gallery = np.stack(ears.enrolled)
    face_gallery = np.stack([faces.enrolled[partner] for partner in partners])
    face_rows, ear_rows, mates = [], [], []
    for person, partner in enumerate(partners):
        for probe in ears.probes[person]:
            face = faces.probes[partner][rng.integers(len(faces.probes[partner]))]
            face_rows.append(face_gallery @ face)
            ear_rows.append(ear_gallery @ probe)
            mates.append(person)
    return np.stack(face_rows).astype(float), np.stack(ear_rows).astype(float), np.array(mates)


def fitted_fusion(face: Floats, ear: Floats, mates: Floats) -> LogisticRegression:
    same = np.arange(face.shape[1]) == mates[:, None]
    return LogisticRegression(class_weight="balanced").fit(np.stack([face.ravel(), ear.ravel()], axis=1), same.ravel())


def measures(values: Floats, mates: Floats) -> tuple[float, float]:
    """Rank-1 and EER of scores (P, N)."""
    same = np.arange(values.shape[1]) == mates[:, None]
    return float((values.argmax(axis=1) == mates).mean()), equal_error_rate(values[same], values[~same])


def ears_of(folder: Path, checkpoint: str) -> People:
    trained = load_ear_recognizer(checkpoint, "cpu")
    ears = open_test_ears(str(folder / "val_teacher.npy"), trained, None, None).evenly(20)
    rows = np.asarray(ears.subjects)
    embeddings = np.concatenate(
        [
            trained(to_model_range(torch.from_numpy(np.array(ears.images[start : start + BATCH])))).numpy()
            for start in range(0, len(ears), BATCH)
        ]
    )
    own = [embeddings[rows == person] for person in sorted(set(ears.subjects))]
    return People([each[0] for each in own if len(each) > 1], [each[1:] for each in own if len(each) > 1])


def faces_of(folder: Path, recognizer: FaceRecognizer, size: int, count: int) -> People:
    """The first identities that have FACES_EACH pictures; the enrolled one is HR, the others are of `size` pixels."""
    identities = [each for each in sorted(folder.iterdir()) if each.is_dir()]
    several = [pictures for each in identities if len(pictures := list_images(each)) >= FACES_EACH]
    chosen = [several[int(place)] for place in np.linspace(0, len(several) - 1, 2 * count)]
    enrolled, probes = [], []
    for pictures in chosen:
        stack = np.stack([read_image(path) for path in pictures[:MOST_FACES]])
        images = to_model_range(torch.from_numpy(stack))
        if size < images.shape[-1]:
            small = interpolate(interpolate(images[1:], size), images.shape[-1]).clamp(-1, 1)
            images = torch.cat([images[:1], small])
        embeddings = recognizer(images).numpy()
        enrolled.append(embeddings[0])
        probes.append(embeddings[1:])
    return People(enrolled, probes)


if __name__ == "__main__":
    main()
