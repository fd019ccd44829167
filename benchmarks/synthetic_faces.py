"""How many faces one core makes a second, in memory and as PNG: `python -m benchmarks.synthetic_faces [side]`."""

from __future__ import annotations

import sys
import time

import cv2

from earface.synthetic.face_factors import sample_shape, sample_view
from earface.synthetic.face_rendering import draw_face
from earface.synthetic.face_set import FaceSet, view_codes
from earface.synthetic.workers import PNG_FLAGS

SUBJECTS, IMAGES_PER_SUBJECT, ROUNDS = 10, 10, 3


def main() -> None:
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 128
    cv2.setNumThreads(0)
    draw_face(sample_shape(1, 0), sample_view(1, 0), side)  # the noise tiles are made once
    for round_ in range(ROUNDS):
        # Other people: what is kept of a person's pictures is not there yet.
        faces = FaceSet(SUBJECTS, IMAGES_PER_SUBJECT, side, seed=100 + round_)
        people = [(number, sample_shape(faces.seed, number)) for number in range(1, SUBJECTS + 1)]
        views = [
            (shape, sample_view(faces.seed, number, code))
            for number, shape in people
            for code in view_codes(faces, number)
        ]
        wall, cpu = time.perf_counter(), time.process_time()
        pictures = [draw_face(shape, view, side) for shape, view in views]
        rendered, rendered_cpu = time.perf_counter() - wall, time.process_time() - cpu
        for picture in pictures:
            cv2.imencode(".png", picture.image, PNG_FLAGS)
        encoded = time.perf_counter() - wall
        rates = (len(views) / seconds for seconds in (rendered, rendered_cpu, encoded))
        print("{} px: {:.0f} pictures/s ({:.0f} by CPU time), with PNG encoding {:.0f}".format(side, *rates))


if __name__ == "__main__":
    main()
