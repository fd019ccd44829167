"""How many ears one core makes a second, in memory and as PNG: `python -m benchmarks.synthetic_ears [side]`."""

from __future__ import annotations

import sys
import time

import cv2

from earface.synthetic.ear_factors import sample_shape, sample_view
from earface.synthetic.ear_rendering import draw_ear
from earface.synthetic.workers import PNG_FLAGS

SUBJECTS, IMAGES_PER_SUBJECT, ROUNDS = 20, 10, 3


def main() -> None:
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 128
    cv2.setNumThreads(0)
    pairs = [(subject, index) for subject in range(SUBJECTS) for index in range(IMAGES_PER_SUBJECT)]
    draw_ear(sample_shape(1, 0), sample_view(1, 0, 0), side)  # the noise tiles are made once
    for round_ in range(ROUNDS):
        seed = 100 + round_  # other people: their reliefs are not cached
        wall, cpu = time.perf_counter(), time.process_time()
        pictures = [draw_ear(sample_shape(seed, s), sample_view(seed, s, i), side) for s, i in pairs]
        rendered, rendered_cpu = time.perf_counter() - wall, time.process_time() - cpu
        for picture in pictures:
            cv2.imencode(".png", picture.image, PNG_FLAGS)
        encoded = time.perf_counter() - wall
        rates = (len(pairs) / seconds for seconds in (rendered, rendered_cpu, encoded))
        print("{} px: {:.0f} pictures/s ({:.0f} by CPU time), with PNG encoding {:.0f}".format(side, *rates))


if __name__ == "__main__":
    main()
