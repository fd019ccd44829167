"""What the form of ears is worth: identity of people by HOG and by pixel PCA, nearest neighbour, leave one out.

    python -m benchmarks.ear_forms --images FOLDER --first 097 --last 110 --each 20

Nothing is trained, but for the means and the PCA, which come from the people outside the range. Where the folder's
index.csv has sides, left ears are mirrored in every form; EarVN's has none.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ear_teacher.metrics.baselines import PixelPCA, hog_features
from earface.core.errors import InputError
from earface.data.ear_contract import EarAligner, Fit
from earface.data.ear_networks import EarLandmarker
from earface.data.images import Pixels, read_ahead, read_image
from earface.data.pixels import to_model_range
from earface.data.tables import read_csv
from earface.metrics.identification import identify, unit_rows

FORMS: tuple[Fit, ...] = ("stretch", "letterbox", "canonical")
PCA_ROWS, COMPONENTS = 2000, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder with index.csv: file, subject, perhaps side")
    parser.add_argument("--first", required=True, help="of the people who are measured, by name")
    parser.add_argument("--last", required=True)
    parser.add_argument("--each", type=int, default=1000, help="pictures of each person, evenly over theirs")
    parser.add_argument("--landmarker", type=Path, help="landmarks.onnx; default: earface's own")
    parser.add_argument("--size", type=int, default=128)
    args = parser.parse_args()
    rows = read_csv(args.images / "index.csv")
    measured = [row for row in rows if args.first <= row["subject"] <= args.last]
    people = sorted({row["subject"] for row in measured})
    test = [row for person in people for row in evenly([r for r in measured if r["subject"] == person], args.each)]
    others = evenly([row for row in rows if not args.first <= row["subject"] <= args.last], PCA_ROWS)
    landmarker = EarLandmarker(args.landmarker)
    print(f"{len(test)} ears of {len(people)} people; means and PCA of {len(others)} ears of others")
    print("| form | HOG rank-1 | EER | pixel PCA rank-1 | EER |")
    print("|---|---|---|---|---|")
    for form in FORMS:
        aligner = EarAligner(form, landmarker if form == "canonical" else None)
        images, fitted = (in_form(aligner, args.images, part, args.size) for part in (test, others))
        subjects = [row["subject"] for row in test]
        hog = identify(unit_rows(hog_features(images), hog_features(fitted).mean(axis=0)), subjects)
        pca = PixelPCA.fit(fitted, COMPONENTS)
        codes = pca.encode(to_model_range(as_tensor(images))).numpy()
        pixel = identify(unit_rows(codes), subjects)
        print(f"| {form} | {hog.rank1:.3f} | {hog.eer:.3f} | {pixel.rank1:.3f} | {pixel.eer:.3f} |", flush=True)


def evenly(rows: list[dict[str, str]], count: int) -> list[dict[str, str]]:
    if len(rows) <= count:
        return rows
    return [rows[index] for index in np.linspace(0, len(rows) - 1, count).round().astype(int)]


def as_tensor(images: Pixels):  # type: ignore[no-untyped-def]
    import torch

    return torch.from_numpy(images)


def in_form(aligner: EarAligner, folder: Path, rows: list[dict[str, str]], size: int) -> NDArray[np.uint8]:
    """(N, size, size, 3); an ear whose landmarks are of no use is aligned by them all the same."""

    def read(row: dict[str, str]) -> Pixels:
        picture = read_image(folder / row["file"])
        located = aligner.locate(picture)
        if located.fit is None and aligner.contract.fit == "canonical":
            raise InputError(f"{row['file']}: {located.problem}")
        image = aligner.image(picture, located, size)
        return image[:, ::-1] if located.fit is None and row.get("side") == "l" else image

    return np.stack(list(read_ahead(read, rows)))


if __name__ == "__main__":
    main()
