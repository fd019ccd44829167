"""Faces to embeddings by a named upsampler and a recogniser, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from dsr.inference import at_size
from earface.core.errors import InputError
from earface.core.progress import progress
from earface.data.face_detection import FaceDetector, detector_file
from earface.data.face_inspection import FaceFinder
from earface.data.face_sizes import FACE_SIZE
from earface.data.images import Pixels, read_image
from earface.data.pixels import interpolate, to_model_range
from earface.nn.upsampler import NONE, Upsampler
from facial_rec.contract import FaceContract
from facial_rec.embedding import Embedded, FaceFile, embed_each
from facial_rec.recognizer import FaceRecognizer
from pipeline.face_options import FaceOptions

Reader = Callable[[Path], Pixels]  # a file to the aligned face in it


def face_finder(options: FaceOptions) -> FaceFinder | None:
    """None for aligned faces. Raises InputError if the detector cannot be had."""
    if options.aligned:
        return None
    path = detector_file(None if options.detector is None else Path(options.detector))
    return FaceFinder(FaceDetector(path, options.min_score), options.min_face)


def face_reader(finder: FaceFinder | None) -> Reader:
    """A file to the aligned face in it, (H, W, 3) uint8. finder: for photographs; None: each picture is such a face.

    What it returns raises InputError for a file that cannot be read or has no face.
    """

    def read(path: Path) -> Pixels:
        picture = read_image(path)
        if finder is None:
            return picture
        face, found = finder(picture)
        if isinstance(face, str):
            raise InputError(f"{path}: {found}")
        return face

    return read


def prepare(face: Pixels, upsampler: Upsampler, contract: FaceContract) -> Tensor:
    """An aligned face (H, W, 3) uint8 as the upsampler takes it, (3, h, w) in [-1, 1]: of every face the same shape.

    Faces are square and of any size; those of the size that dsr takes need not be square. hr: the recogniser's own 112
    pixels. interpolation: 128, by bicubic interpolation. dsr: the size it takes, resized to it if it has another.
    Raises InputError for any other face.
    """
    height, width, _ = face.shape
    if height != width and (width, height) != upsampler.vlr:
        raise InputError(f"{width}x{height} is not square; an aligned face is")
    if upsampler.vlr is not None:
        return to_model_range(torch.from_numpy(at_size(face, upsampler.vlr))[None])[0]
    faces = to_model_range(torch.from_numpy(face)[None])
    return contract(faces)[0] if upsampler.name == NONE else interpolate(faces, FACE_SIZE).clamp(-1, 1)[0]


def embed_with_progress(
    recognizer: FaceRecognizer,
    upsampler: Upsampler,
    read: Reader,
    options: FaceOptions,
    faces: Sequence[FaceFile],
    console: Console,
) -> Embedded:
    """The faces that `read` finds by a upsampler. Raises InputError if none can be used."""
    with progress("embedding faces", len(faces)) as state:
        return embed_each(
            faces,
            lambda path: prepare(read(path), upsampler, recognizer.contract),
            lambda prepared: recognizer(upsampler.enlarge(prepared.to(recognizer.device))),
            batch_size=options.batch_size,
            workers=options.num_workers,
            max_skipped=1.0,
            progress=state.update,
        )


def say_skipped(skipped: Sequence[tuple[str, str]], count: int, console: Console) -> None:
    if skipped:
        console.print(f"{len(skipped)} of {count} pictures cannot be used and are left out:", highlight=False)
    for name, reason in skipped:
        console.print(f"  {name}: {reason}", soft_wrap=True, highlight=False, markup=False)
