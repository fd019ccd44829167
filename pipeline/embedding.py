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
from earface.data.aligned_faces import FaceReader, LargeFaces, OtherSizes, small_face_finder
from earface.data.duplicates import picture_signature
from earface.data.face_inspection import NO_FACE, FaceFinder
from earface.data.face_sizes import FACE_SIZE, NONE
from earface.data.images import Pixels
from earface.data.padded_faces import enlarge
from earface.data.pixels import interpolate, to_model_range
from earface.metrics.image_quality import SHARPNESS_SIDE, sharpness
from earface.nn.embedding import Embedded, PictureFile, embed_each
from earface.nn.inference import in_columns
from earface.nn.upsampler import Upsampler
from facial_rec.contract import FaceContract
from facial_rec.recognizer import FaceRecognizer
from pipeline.copies import Signature
from pipeline.ears import EarEmbedder
from pipeline.picture_options import PictureOptions
from pipeline.quality import COMPUTED, Quality

Reader = Callable[[Path], Pixels]  # a file to the aligned face in it
KEEPS_DETAIL = "`upsampler` bicubic or none keeps more of these"


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
    other_sizes: OtherSizes = field(default_factory=OtherSizes)  # likewise

    def picture(self, path: Path) -> Pixels:
        """The aligned face in a file. Raises InputError."""
        return self.face(path)

    def read(self, path: Path) -> Tensor:
        """The upsampler's input. Raises InputError."""
        face = self.face(path)
        self.large.look(path, face)
        if self.upsampler.vlr is not None:
            self.other_sizes.look(path, self.face.size_of(path, face), self.upsampler.vlr)
        if self.signatures is not None:
            self.signatures[path] = picture_signature(face)
        return prepare(face, self.upsampler, self.recognizer.contract)

    def embed(self, prepared: Tensor) -> Tensor:
        """(B, D + 3): the embeddings, and COMPUTED of each."""
        given = prepared.to(self.recognizer.device)
        embeddings, *quality = self.recognizer.measured(self.upsampler.enlarge(given), mirrored=self.mirrored)
        seen = enlarge(given, SHARPNESS_SIDE, padded=self.upsampler.padded)
        return in_columns([embeddings, *quality, sharpness(seen).to(embeddings)])

    @property
    def sizes(self) -> Mapping[Path, float]:
        return self.face.sizes

    def found_of(self, paths: Sequence[Path]) -> list[str]:
        return [self.face.found.get(path, "") for path in paths]

    def sides_of(self, paths: Sequence[Path]) -> None:
        return None


Embedder = FaceEmbedder | EarEmbedder


def face_finder(options: PictureOptions) -> FaceFinder | None:
    """None for aligned faces. Raises InputError if the detector cannot be had."""
    if options.aligned:
        return None
    return small_face_finder(options)


def prepare(face: Pixels, upsampler: Upsampler, contract: FaceContract) -> Tensor:
    """An aligned face (H, W, 3) uint8 to the upsampler's input, (3, h, w) in [-1, 1]; the same shape for every face.

    none: the recogniser's 112 pixels. bicubic: 128, by bicubic interpolation. dsr: the model's input size, resized to
    it if necessary; of a range padded to its grid. Raises InputError for a face that is neither square nor of the
    proportions that dsr takes.
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
        if embedder.upsampler.vlr is not None:
            embedder.other_sizes.warn(len(found.kept), embedder.upsampler.vlr, KEEPS_DETAIL)
        embedder.face.warn(len(pictures))
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
