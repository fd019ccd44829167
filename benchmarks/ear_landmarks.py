"""Landmarkers against annotations of real ears: `python -m benchmarks.ear_landmarks FILE.onnx ... --ears FOLDER`.

Side: right where the landmarks fit the mean shape, or its mirror image, as the `side` of index.csv says. Tragus: its
distance from the annotated point, as a share of the crop's height. NME: of the points of .pts files, by the diagonal of
their box, which the landmarker is given; only for landmarkers of as many points.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from earface.data.annotations import read_pts_folder
from earface.data.ear_alignment import TRAGUS, fit_ear
from earface.data.ear_networks import EarLandmarker
from earface.data.images import read_image
from earface.data.tables import read_csv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("landmarkers", nargs="+", type=Path, help="landmarks.onnx of earface export detector")
    parser.add_argument("--ears", type=Path, required=True, help="crops with index.csv: file, side, tragus_x, tragus_y")
    parser.add_argument("--pts", type=Path, help="photographs with .pts files")
    args = parser.parse_args()
    rows = read_csv(args.ears / "index.csv")
    pictures = [read_image(args.ears / row["file"]) for row in rows]
    tragus = np.array([[float(row["tragus_x"]), float(row["tragus_y"])] for row in rows])
    heights = np.array([len(picture) for picture in pictures])
    print("| landmarker | points | side | tragus, median | 90 % | residual | disagreement | NME | ms a crop | kB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for path in args.landmarkers:
        landmarker = EarLandmarker(path)
        start = time.perf_counter()
        found = [landmarker(picture) for picture in pictures]
        milliseconds = (time.perf_counter() - start) / len(rows) * 1000
        fits = [fit_ear(each.points) for each in found]
        side = np.mean([fit.side == row["side"] for fit, row in zip(fits, rows, strict=True)])
        places = np.array([each.points[TRAGUS[landmarker.num_landmarks]] for each in found])
        errors = np.linalg.norm(places - tragus, axis=1) / heights
        residual = np.percentile([fit.residual for fit in fits], [50, 95])
        apart = np.percentile([each.disagreement for each in found], [50, 95])
        nme = "-" if args.pts is None else point_error(landmarker, args.pts)
        print(
            f"| {path} | {landmarker.num_landmarks} | {side:.3f} | {np.median(errors):.3f} | "
            f"{np.percentile(errors, 90):.3f} | {residual[0]:.1f}, 95 % {residual[1]:.1f} | {apart[0]:.3f}, 95 % "
            f"{apart[1]:.3f} | {nme} | {milliseconds:.1f} | {path.stat().st_size / 1000:.0f} |",
            flush=True,
        )


def point_error(landmarker: EarLandmarker, folder: Path) -> str:
    photographs = read_pts_folder(folder).photographs
    if photographs[0].keypoints.shape[1] != landmarker.num_landmarks:
        return "-"
    errors = []
    for photograph in photographs:
        truth = photograph.keypoints[0, :, :2]
        found = landmarker(read_image(photograph.path), photograph.boxes[0]).points
        errors.append(np.linalg.norm(found - truth, axis=1).mean() / np.linalg.norm(np.ptp(truth, axis=0)))
    return f"{np.mean(errors):.3f}"


if __name__ == "__main__":
    main()
