"""Where the 17 landmarks lie in the frame of the 55: `python -m benchmarks.ear_template POINTS.npz --images FOLDER`.

POINTS.npz: 55 points of each crop. Each ear is brought into the frame by its 55 points; the template is the median of
where the landmarker puts its 17. `--draw FILE.svg` draws both mean shapes instead, with their numbers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from earface.data.ear_alignment import FRAME_WIDTH, fit_ear, mean_ear
from earface.data.ear_networks import EarLandmarker
from earface.data.images import read_ahead, read_image
from earface.data.plots import BLUE, ORANGE, as_bytes
from earface.data.points_npz import read_points_npz
from earface.synthetic.ear_anatomy import EAR_LANDMARKS

COUNT, MAX_RESIDUAL = 2000, 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("points", type=Path, nargs="?")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--landmarker", type=Path, help="landmarks.onnx of 17 points; default: earface's own")
    parser.add_argument("--draw", type=Path, help="SVG file of the two templates")
    args = parser.parse_args()
    if args.draw:
        args.draw.write_bytes(as_bytes(drawn(), "svg"))
        return
    photographs = read_points_npz(args.points, args.images).photographs
    chosen = np.linspace(0, len(photographs) - 1, COUNT).round().astype(int)
    landmarker = EarLandmarker(args.landmarker)

    def in_frame(index: int) -> np.ndarray | None:
        photograph = photographs[index]
        points = photograph.keypoints[0]
        if not points[:, 2].all():
            return None
        fit = fit_ear(points[:, :2])
        if fit.residual > MAX_RESIDUAL:
            return None
        found = landmarker(read_image(photograph.path)).points
        return found @ fit.similarity[:, :2].T + fit.similarity[:, 2]

    frames = [each for each in read_ahead(in_frame, chosen.tolist()) if each is not None]
    template = np.median(frames, axis=0)
    spread = np.median(np.linalg.norm(np.array(frames) - template, axis=2), axis=0)
    print(
        f"{len(frames)} ears, thousandths of the frame's height; in brackets how far an ear's own lies, in the median"
    )
    for name, (x, y), own in zip(EAR_LANDMARKS, template * 1000, spread * 1000, strict=True):
        print(f"{name:24} ({x:.0f}, {y:.0f})  [{own:.0f}]")
    np.save("runs/ear_template.npy", template)


def drawn() -> Figure:
    figure = Figure(figsize=(7.2, 7.2), layout="constrained")
    axes = figure.add_subplot()
    for count, colour, size in ((55, BLUE, 3), (17, ORANGE, 5)):
        points = mean_ear(count)
        axes.plot(*points.T, "o", color=colour, markersize=size, label=f"{count} landmarks")
        for number, (x, y) in enumerate(points):
            axes.annotate(str(number), (x, y), (3, 3), textcoords="offset points", fontsize=7, color=colour)
    half = FRAME_WIDTH / 2
    axes.plot([-half, half, half, -half, -half], [-0.5, -0.5, 0.5, 0.5, -0.5], color="0.7", linewidth=0.8)
    axes.set(xlim=(-0.55, 0.55), ylim=(0.55, -0.55), aspect="equal")
    axes.set_axis_off()
    axes.legend(frameon=False, loc="lower left")
    return figure


if __name__ == "__main__":
    main()
