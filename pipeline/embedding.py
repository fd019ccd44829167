"""Faces to embeddings by an upsampler and a recogniser, and pictures of faces or ears a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from dsr.inference import at_size
from earface.core.errors import InputError
from earface.core.notices import warn
from earface.core.progress import progress
from earface.data.aligned_faces import LargeFaces
from earface.data.duplicates import picture_signature
from earface.data.face_detection import FaceDetector, detector_file
from earface.data.face_inspection import NO_FACE, FaceFinder
from earface.data.face_sizes import FACE_SIZE, NONE
from earface.data.images import Pixels, read_image
from earface.data.pixels import interpolate, to_model_range
from earface.metrics.image_quality import sharpness
from earface.nn.embedding import Embedded, PictureFile, embed_each
from earface.nn.inference import in_columns
from earface.nn.upsampler import Upsampler
from facial_rec.contract import FaceContract
from facial_rec.recognizer import FaceRecognizer
from pipeline.copies import Signature
from pipeline.ears import EarEmbedder
from pipeline.picture_options import MIN_SCORE, PictureOptions
from pipeline.quality import COMPUTED, Quality

Reader = Callable[[Path], Pixels]  # a file to the aligned face in it


@dataclass(frozen=True)
class FaceReader:
    """A file to the aligned face in it, (H, W, 3) uint8.

    finder: for photographs; None: each picture is an aligned face. Raises InputError for a file that cannot be read or
    has no face.
    """

    finder: FaceFinder | None
    sizes: dict[Path, float] = field(default_factory=dict)  # pixels of the file on a side of each face that was read

    def __call__(self, path: Path) -> Pixels:
        picture = read_image(path)
        if self.finder is None:
            self.sizes[path] = float(min(picture.shape[:2]))
            return picture
        face, found = self.finder(picture)
        if isinstance(face, str) or isinstance(found, str):
            raise InputError(f"{path}: {found}")
        self.sizes[path] = FACE_SIZE / found["enlargement"]
        return face


@dataclass(frozen=True)
class EmbeddedPictures(Embedded):
    """With what is known of the quality of each picture that could be used."""

    quality: Quality


@dataclass(frozen=True)
class FaceEmbedder:
    """Pictures of faces to embeddings."""

    what: ClassVar[str] = "faces"

    recognizer: FaceRecognizer
    upsampler: Upsampler
    face: FaceReader
    signatures: dict[Path, Signature] | None = None  # where they are wanted, of each face that was read
    mirrored: bool = True  # whether faces are compared with their mirror images, which takes twice as long
    large: LargeFaces = field(default_factory=LargeFaces)  # of the faces that were read

    def picture(self, path: Path) -> Pixels:
        """The aligned face in a file. Raises InputError."""
        return self.face(path)

    def read(self, path: Path) -> Tensor:
        """The upsampler's input. Raises InputError."""
        face = self.face(path)
        self.large.look(path, face)
        if self.signatures is not None:
            self.signatures[path] = picture_signature(face)
        return prepare(face, self.upsampler, self.recognizer.contract)

    def embed(self, prepared: Tensor) -> Tensor:
        """(B, D + 3): the embeddings, and COMPUTED of each."""
        given = prepared.to(self.recognizer.device)
        embeddings, *quality = self.recognizer.measured(self.upsampler.enlarge(given), mirrored=self.mirrored)
        return in_columns([embeddings, *quality, sharpness(given).to(embeddings)])

    @property
    def sizes(self) -> Mapping[Path, float]:
        return self.face.sizes

    def sides_of(self, paths: Sequence[Path]) -> None:
        return None


Embedder = FaceEmbedder | EarEmbedder


def face_finder(options: PictureOptions) -> FaceFinder | None:
    """None for aligned faces. Raises InputError if the detector cannot be had."""
    if options.aligned:
        return None
    path = detector_file(None if options.detector is None else Path(options.detector))
    return FaceFinder(FaceDetector(path, options.min_score or MIN_SCORE["face"]), options.min_face)


def prepare(face: Pixels, upsampler: Upsampler, contract: FaceContract) -> Tensor:
    """An aligned face (H, W, 3) uint8 to the upsampler's input, (3, h, w) in [-1, 1]; the same shape for every face.

    none: the recogniser's 112 pixels. bicubic: 128, by bicubic interpolation. dsr: the model's input size, resized to
    it if necessary; of a range padded to its grid. Raises InputError for a
    face that is neither square nor of the proportions that dsr takes.
    """
    if upsampler.vlr is not None:
        small = torch.from_numpy(at_size(face, upsampler.vlr))
        return to_model_range(small[None])[0] if upsampler.collated is None else upsampler.collated(small)
    height, width, _ = face.shape
    if height != width:
        raise InputError(f"{width}x{height} is not square; an aligned face is (earface faces prepare)")
    faces = to_model_range(torch.from_numpy(face)[None])
    return contract(faces)[0] if upsampler.name == NONE else interpolate(faces, FACE_SIZE).clamp(-1, 1)[0]


def embed_with_progress(
    embedder: Embedder, options: PictureOptions, pictures: Sequence[PictureFile]
) -> EmbeddedPictures:
    """The embeddings of the faces or ears that are found. Raises InputError if none can be used."""
    try:
        with progress(f"embedding {embedder.what}", len(pictures)) as state:
            found = embed_each(
                pictures,
                embedder.read,
                embedder.embed,
                batch_size=options.batch_size,
                workers=options.num_workers,
                max_skipped=1.0,
                progress=state.update,
            )
    except InputError as error:
        if isinstance(embedder, FaceEmbedder) and f": {NO_FACE} " in str(error):
            raise InputError(f"{error}; if they are aligned faces, give `aligned`") from None
        raise
    if isinstance(embedder, FaceEmbedder):
        embedder.large.warn(len(pictures), "leave out `aligned`, and faces are found in them")
    width = found.embeddings.shape[1] - len(COMPUTED)
    quality = dict(zip(COMPUTED, found.embeddings[:, width:].T.copy(), strict=True))
    quality["size"] = np.array([embedder.sizes[pictures[place].path] for place in found.kept], np.float32)
    return EmbeddedPictures(found.kept, np.ascontiguousarray(found.embeddings[:, :width]), found.skipped, quality)


def print_skipped(skipped: Sequence[tuple[str, str]], count: int, console: Console) -> None:
    if skipped:
        warn(f"{len(skipped)} of {count} pictures cannot be used and are left out, such as {skipped[0][0]}")
        console.print(f"{len(skipped)} of {count} pictures cannot be used and are left out:", highlight=False)
    for name, reason in skipped:
        console.print(f"  {name}: {reason}", soft_wrap=True, highlight=False, markup=False)
