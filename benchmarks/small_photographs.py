"""Photographs whose faces are 8 to 32 pixels: are they found, how well are they aligned, and is the person recognised?

    python -m benchmarks.small_photographs --images FOLDER --detector YUNET --recognizer EDGEFACE [--dsr-checkpoint C]

FOLDER has a folder for each person. Every photograph is shrunk (bicubic, antialiased) until the aligned face has so
many pixels a side. The first photograph of each person is enrolled as it is, the others are probes: aligned by the
points that are found in the full photograph, by the way of earface identify from photograph to face, and as a tracker
crops them, by the full photograph's box made square. Intervals: 95 %, resampling people.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsr.upsampler import build_upsampler
from earface.data.degradation import bicubic
from earface.data.face_alignment import Points, align_face, enlargement, face_placement
from earface.data.face_detection import ENLARGED_LOOKS, LOOKS, DetectedFace, FaceDetector, subject_face
from earface.data.face_inspection import FaceFinder
from earface.data.face_rows import faces_from_folder
from earface.data.face_sizes import FACE_SIZE, MIN_VLR, SMALL_FACE, VLRSize
from earface.data.images import Pixels, read_image
from earface.data.pixels import to_model_range, to_uint8
from earface.metrics.resampling import Resampling
from earface.nn.upsampler import Upsampler
from facial_rec.recognizer import FaceRecognizer, load_recognizer
from pipeline.embedding import prepare

SIZES = (8, 10, 12, 14, 16, 20, 24, 32)
WAYS = ("points of the full photograph", "this path", "this path, aligned at its own size", "square crop")


@dataclass(frozen=True)
class Photograph:
    """With its face, as the detector finds it at full size."""

    person: str
    pixels: Pixels
    face: DetectedFace

    def shrunk(self, size: int) -> tuple[Pixels, float]:
        """So that the aligned face has `size` pixels a side, and by what factor that is."""
        height, width = self.pixels.shape[:2]
        factor = size / FACE_SIZE * enlargement(face_placement(self.face.points, (width, height)))
        small = VLRSize(round(width * factor), round(height * factor))
        return to_uint8(bicubic(to_model_range(torch.from_numpy(self.pixels[None])), small))[0].numpy(), factor


def moved(points: Points, factor: float) -> Points:
    """From a photograph to one that is so many times as large."""
    return (points + 0.5) * factor - 0.5


def difference(found: Points, wanted: Points, size: int) -> NDArray[np.float64]:
    """(4,): of two alignments the points' mean distance and the shift of the middle, pixels; turn, degrees; zoom, %."""
    maps = [np.vstack([face_placement(points, (1, 1), size).matrix, [0, 0, 1]]) for points in (found, wanted)]
    between = maps[0] @ np.linalg.inv(maps[1])
    middle = np.array([size / 2, size / 2, 1])
    shift = np.linalg.norm((between @ middle - middle)[:2])
    zoom, turn = np.hypot(*between[0, :2]), np.degrees(np.arctan2(between[1, 0], between[0, 0]))
    return np.array([np.linalg.norm(found - wanted, axis=1).mean(), shift, abs(turn), 100 * abs(zoom - 1)])


def tracked(small: Pixels, face: DetectedFace, factor: float) -> Pixels:
    """The square around the box, in whole pixels, grey where the photograph does not reach."""
    box = face.box * factor
    side = max(1, round(float(box[2:].max())))
    left, top = np.rint(box[:2] + (box[2:] - side) / 2).astype(int).tolist()
    padded = np.pad(small, ((side, side), (side, side), (0, 0)), constant_values=114)
    return padded[top + side : top + 2 * side, left + side : left + 2 * side]


@torch.no_grad()
def embedded(faces: list[Pixels], recognizer: FaceRecognizer, upsampler: Upsampler) -> Tensor:
    """(N, D) of length 1."""
    given = torch.stack([prepare(face, upsampler, recognizer.contract) for face in faces])
    return recognizer.measured(upsampler.enlarge(given), mirrored=False)[0]


def rank1(
    faces: list[Pixels | None],
    templates: Tensor,
    mates: NDArray[np.int64],
    resampling: Resampling,
    recognizer: FaceRecognizer,
    upsampler: Upsampler,
) -> str:
    """In per cent, with its interval. faces: of the probes, None where none was found; mates: their templates."""
    seen = np.array([face is not None for face in faces])
    right = np.zeros(len(faces), bool)
    own = embedded([face for face in faces if face is not None], recognizer, upsampler)
    right[seen] = (own @ templates.T).argmax(1).numpy() == mates[seen]
    share = resampling.share(right)
    between = share.interval()
    return f"{100 * (share.value or 0):.0f}" + (f" ({100 * between[0]:.0f}-{100 * between[1]:.0f})" if between else "")


def read_photographs(folder: Path, detector: FaceDetector) -> list[Photograph]:
    """Those in which a face is found."""
    found = []
    for row in faces_from_folder(folder):
        pixels = read_image(row.path)
        if faces := detector(pixels):
            face = subject_face(faces, (pixels.shape[1], pixels.shape[0]))
            found.append(Photograph(row.identity, pixels, detector.refined(pixels, face)))
    return found


def corners(photograph: Pixels, side: int = 64) -> list[Pixels]:
    """The four squares in which the subject's face is not, though another may be."""
    return [part for row in (photograph[:side], photograph[-side:]) for part in (row[:, :side], row[:, -side:])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--detector", type=Path, required=True, help="YuNet's ONNX file")
    parser.add_argument("--recognizer", default="edgeface_xxs")
    parser.add_argument("--dsr-checkpoint")
    args = parser.parse_args()
    torch.set_num_threads(1)
    detector, recognizer = FaceDetector(args.detector), load_recognizer(args.recognizer, "arcface", "cpu")
    enlarging = FaceFinder(detector, SMALL_FACE, enlarging=True)
    finder = replace(enlarging, centred_crops=True)
    upsamplers = [build_upsampler("bicubic", "")]
    upsamplers += [build_upsampler("dsr", args.dsr_checkpoint)] if args.dsr_checkpoint else []

    photographs = read_photographs(args.images, detector)
    people = [each.person for each in photographs]
    first = [people.index(person) for person in dict.fromkeys(people)]
    probes = [place for place in range(len(people)) if place not in first]
    enrolled = embedded(
        [align_face(photographs[place].pixels, photographs[place].face.points) for place in first],
        recognizer, upsamplers[0],
    )  # fmt: skip
    resampling = Resampling([people[place] for place in probes])
    parts = [np.ascontiguousarray(part) for each in photographs for part in corners(each.pixels)]
    without = [part for part in parts if not detector(part)]
    enlarged_alone = sum(not isinstance(enlarging(part)[0], str) for part in without)
    print(f"faces in {len(parts)} corners: {len(parts) - len(without)} as they are, {enlarged_alone} more enlarged")
    print(f"{len(photographs)} photographs of {len(first)} people; rank-1 of {len(probes)} probes\n")
    print("| px | found as it is | enlarged, too | points | shift | turn | zoom |")
    print("|---|---|---|---|---|---|---|")
    mates = np.array([list(dict.fromkeys(people)).index(people[place]) for place in probes])
    table = []
    for size in SIZES:
        as_it_is, errors = 0, []
        faces: dict[str, list[Pixels | None]] = {way: [] for way in WAYS}
        for place, each in enumerate(photographs):
            small, factor = each.shrunk(size)
            height, width = small.shape[:2]
            wanted = moved(each.face.points, factor)
            found, looks = detector(small), LOOKS
            as_it_is += bool(found)
            if not found:
                found, looks = detector.enlarged(small), ENLARGED_LOOKS
            if found:
                face = detector.refined(small, subject_face(found, (width, height)), looks)
                errors.append(difference(face.points, wanted, size))
            if place in probes:
                aligned, _ = finder(small)
                path = None if isinstance(aligned, str) else aligned
                own_size = path
                if found:
                    enlarged = enlargement(face_placement(face.points, (width, height)))
                    own_size = align_face(small, face.points, max(MIN_VLR, round(FACE_SIZE / enlarged)))
                pictures = align_face(small, wanted), path, own_size, tracked(small, each.face, factor)
                for way, picture in zip(WAYS, pictures, strict=True):
                    faces[way].append(picture)
        spread = np.quantile(errors, [0.5, 0.9], axis=0).T
        cells = [f"{middle:.2f}, {most:.2f}" for middle, most in spread[:2]]
        cells += [f"{middle:.1f}, {most:.1f}" for middle, most in spread[2:]]
        shares = [f"{count / len(photographs):.0%}" for count in (as_it_is, len(errors))]
        print(f"| {' | '.join([str(size), *shares, *cells])} |", flush=True)
        row = [str(size)]
        for upsampler in upsamplers:
            for way in WAYS:
                row.append(rank1(faces[way], enrolled, mates, resampling, recognizer, upsampler))
        table.append(row)
    print(f"\n| px | {' | '.join(f'{upsampler.name}: {way}' for upsampler in upsamplers for way in WAYS)} |")
    print(f"|{'---|' * (1 + len(WAYS) * len(upsamplers))}")
    for row in table:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
