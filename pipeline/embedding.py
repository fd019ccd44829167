"""Faces to embeddings by a named route and a recogniser, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from dsr.upscale import at_size
from earface.core.errors import InputError
from earface.data.face_alignment import FACE_SIZE
from earface.data.face_inspection import FaceFinder
from earface.data.images import Pixels, read_image
from earface.data.pixels import interpolate, to_model_range
from earface.nn.inference import autocast, weights_digest
from facial_rec.contract import Crop, FaceContract
from facial_rec.embedding import Embedded, Face, embed_each, embed_faces
from facial_rec.hub import is_tuned, load_tuned, load_tuned_for
from facial_rec.input_cache import Route
from facial_rec.model import EdgeFace, load_edgeface
from facial_rec.routes import enlarging
from pipeline.face_options import FaceOptions

HR = "hr"
SHARP = Route(HR, lambda faces: faces)

Precision = Literal["32", "16", "bf16"]
Reader = Callable[[Path], Pixels]  # a file to the aligned face in it


@dataclass(frozen=True)
class Recognizer:
    """A recogniser in evaluation mode on a device. Embeddings of equal `key` may be compared, by whatever route."""

    name: str  # a variant or the path of its weights
    model: EdgeFace
    contract: FaceContract
    device: str = "cpu"
    precision: Precision = "32"
    inputs: str = ""  # what it was tuned on, facial_rec.config; empty: as published, as are the next three
    vlr_size: str = ""
    degradation: str = ""
    trained_on: frozenset[str] = frozenset()  # digests of the people it knows
    digest: str = field(init=False)  # of the weights

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", weights_digest(self.model))

    @property
    def key(self) -> tuple[str, str]:
        return self.contract.id, self.digest

    @torch.no_grad()
    def __call__(self, crops: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1], as a route gives them -> (B, 512) of length 1, float32.

        In 32 bits a face's embedding is the same bit for bit alone and in any batch.
        """
        with autocast(self.device, self.precision):
            return embed_faces(self.model, self.contract(crops.to(self.device))).float()


def load_recognizer(name: str, crop: Crop | None, device: str = "cpu", precision: Precision = "32") -> Recognizer:
    """A published variant, a file of its weights, a tuned folder, a checkpoint of the fine-tuning, or a pattern.

    crop: None: that of the tuned one, and `arcface` for one as published. Raises InputError.
    """
    if not is_tuned(name):
        return Recognizer(name, load_edgeface(name).to(device), FaceContract(crop or "arcface"), device, precision)
    model, tuning = load_tuned(name) if crop is None else load_tuned_for(name, crop)
    contract = FaceContract(tuning.crop)  # type: ignore[arg-type]
    about = (tuning.inputs, tuning.vlr_size, tuning.degradation, frozenset(tuning.trained_on))
    return Recognizer(name, model.to(device), contract, device, precision, *about)


def route_named(name: str, dsr_checkpoint: str, device: str = "cpu", precision: Precision = "32") -> Route:
    """One of hr, interpolation and dsr. Raises InputError for the super-resolver."""
    return SHARP if name == HR else enlarging([name], dsr_checkpoint, None, device, precision)[0]


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


def prepare(face: Pixels, route: Route, contract: FaceContract) -> Tensor:
    """An aligned face (H, W, 3) uint8 as the route takes it, (3, h, w) in [-1, 1]: of every face the same shape.

    Faces are square and of any size; those of the size that dsr takes need not be square. hr: the recogniser's own 112
    pixels. interpolation: 128, by bicubic interpolation. dsr: the size it takes, resized to it if it has another.
    Raises InputError for any other face.
    """
    height, width, _ = face.shape
    if height != width and (width, height) != route.vlr:
        raise InputError(f"{width}x{height} is not square; an aligned face is")
    if route.vlr is not None:
        return to_model_range(torch.from_numpy(at_size(face, route.vlr))[None])[0]
    faces = to_model_range(torch.from_numpy(face)[None])
    return contract(faces)[0] if route.name == HR else interpolate(faces, FACE_SIZE).clamp(-1, 1)[0]


def embed_with_progress(
    recognizer: Recognizer, route: Route, read: Reader, options: FaceOptions, faces: Sequence[Face], console: Console
) -> Embedded:
    """The faces that `read` finds by a route. Raises InputError if none can be used."""
    columns = (TextColumn("faces"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("faces", total=len(faces))
        return embed_each(
            faces,
            lambda path: prepare(read(path), route, recognizer.contract),
            lambda prepared: recognizer(route.enlarge(prepared.to(recognizer.device))),
            batch_size=options.batch_size,
            workers=options.workers,
            max_skipped=1.0,
            progress=lambda done: bar.update(task, completed=done),
        )


def say_skipped(skipped: Sequence[tuple[str, str]], count: int, console: Console) -> None:
    if skipped:
        console.print(f"{len(skipped)} of {count} pictures cannot be used and are left out:", highlight=False)
    for name, reason in skipped:
        console.print(f"  {name}: {reason}", soft_wrap=True, highlight=False, markup=False)
