"""Loading a face recogniser: a published variant, a file, a fine-tuned folder, or a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from earface.core.errors import InputError
from earface.core.needed import MissingWeightsError, Needed
from earface.data.aligned_faces import each_face
from earface.data.given import Pictures, in_model_range
from earface.data.pixels import to_model_range
from earface.nn.edgeface_weights import VARIANTS
from earface.nn.frozen import FrozenRecognizer
from earface.nn.inference import in_columns, weights_digest
from earface.nn.precision import Precision, autocast
from facial_rec.config import finetuned_folder
from facial_rec.contract import Crop, FaceContract
from facial_rec.embedding import embed_faces, embed_measured
from facial_rec.hub import EdgeFaceProvenance
from facial_rec.model import EdgeFace


@dataclass(frozen=True)
class FaceRecognizer:
    """A recogniser in evaluation mode on a device. Embeddings may be compared if their `key` is equal."""

    modality: ClassVar[Literal["face"]] = "face"

    name: str  # a variant or the path of its weights
    model: EdgeFace
    contract: FaceContract
    device: str = "cpu"
    precision: Precision = "32"
    digest: str = field(init=False)  # of the weights

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", weights_digest(self.model))

    @property
    def provenance(self) -> EdgeFaceProvenance:
        """What it was fine-tuned on; empty for a published one."""
        return self.model.provenance

    @property
    def degradation(self) -> str:
        """How the VLR faces that it was fine-tuned on were made."""
        return self.provenance.degradation

    @property
    def trained_on(self) -> frozenset[str]:
        """Digests of the identities it was fine-tuned on."""
        return frozenset(self.provenance.trained_on)

    @property
    def key(self) -> tuple[str, str]:
        return self.contract.id, self.digest

    @torch.no_grad()
    def __call__(self, crops: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1], as an upsampler gives them -> (B, 512) of length 1, float32.

        In 32 bits a face's embedding is the same bit for bit alone and in any batch.
        """
        with autocast(self.device, self.precision):
            return embed_faces(self.model, crops.to(self.device), self.contract)

    @torch.no_grad()
    def measured(self, crops: Tensor, *, mirrored: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """The same, with each embedding's length before it is brought to 1 and its cosine with the mirrored face's."""
        with autocast(self.device, self.precision):
            return embed_measured(self.model, crops.to(self.device), self.contract, mirrored=mirrored)

    def embed(
        self, pictures: Pictures, *, batch_size: int = 64, detector: str | os.PathLike[str] | None = None
    ) -> Tensor:
        """(N, 512) of length 1, float32 on the CPU, of aligned faces in any form that Python code has them in.

        pictures: one or several, as `earface.data.given` takes them, each square; or a float tensor (B, 3, S, S).
        detector: for photographs, whose faces are found and aligned as earface faces prepare does it: YuNet's ONNX
        file, which `earface.data.face_detection.detector_file(None)` downloads. Raises InputError, also for what is not
        square, and for a photograph without a face.
        """
        return self._of_pictures(self, pictures, batch_size, detector)

    def embed_measured(
        self, pictures: Pictures, *, batch_size: int = 64, detector: str | os.PathLike[str] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """`embed`, and of each picture, (N,): `norm` and `mirror`, as `measured` gives them."""
        found = self._of_pictures(lambda crops: in_columns(self.measured(crops)), pictures, batch_size, detector)
        return found[:, :-2].contiguous(), {"norm": found[:, -2], "mirror": found[:, -1]}

    def _of_pictures(
        self,
        embed: Callable[[Tensor], Tensor],
        pictures: Pictures,
        batch_size: int,
        detector: str | os.PathLike[str] | None,
    ) -> Tensor:
        images = in_model_range(pictures)
        if images is not None and detector is not None:
            raise InputError("`detector`: a float tensor is of aligned faces: give photographs as uint8")
        if images is not None:
            return torch.cat([embed(part).cpu() for part in images.split(batch_size)])
        faces = (torch.from_numpy(face) for _, face in each_face(pictures, detector))
        crops = [self.contract(to_model_range(face[None]))[0] for face in faces]
        starts = range(0, len(crops), batch_size)
        return torch.cat([embed(torch.stack(crops[at : at + batch_size])).cpu() for at in starts])


def load_recognizer(name: str, crop: Crop | None, device: str = "cpu", precision: Precision = "32") -> FaceRecognizer:
    """A published variant, a file of its weights, a fine-tuned folder, a checkpoint of the fine-tuning, or a pattern.

    crop: None: that of a fine-tuned recogniser, and `arcface` for a pretrained one. Raises InputError.
    """
    if not is_finetuned(name):
        return FaceRecognizer(name, load_edgeface(name).to(device), FaceContract(crop or "arcface"), device, precision)
    model = load_finetuned(name, crop)
    return FaceRecognizer(name, model.to(device), FaceContract(model.provenance.crop), device, precision)


def load_frozen_recognizer(flag: str, name: str, crop: Crop) -> FrozenRecognizer | None:
    """name: a published EdgeFace variant, a file of its weights, or `none`. Raises InputError."""
    if name == "none":
        return None
    try:
        network = load_edgeface(name)
    except MissingWeightsError:
        raise
    except InputError as error:
        raise InputError(f"{flag}: {error}") from None
    return FrozenRecognizer(network, FaceContract(crop), network.variant)


class RecognizerOptions(Protocol):
    """Options that name two recognisers, and the crop that both take."""

    @property
    def recognizer(self) -> str: ...
    @property
    def second_recognizer(self) -> str: ...
    @property
    def crop(self) -> Crop: ...


def load_frozen_recognizers(
    options: RecognizerOptions, needed: Needed, without: str = "none"
) -> tuple[FrozenRecognizer | None, FrozenRecognizer | None]:
    """The two of `options`. without: how to go on without the first, for the error's line."""

    def load(option: str, otherwise: str) -> FrozenRecognizer | None:
        name = getattr(options, option)
        advice = f"`{option}` FILE (the authors' {name}.pt), or {otherwise}"
        return needed(lambda: load_frozen_recognizer(f"`{option}`", name, options.crop), advice)

    return load("recognizer", without), load("second_recognizer", "none")


def is_finetuned(name: str) -> bool:
    """Whether it names a fine-tuned recogniser, not a published one."""
    return finetuned_folder(name) is not None or name.endswith(".ckpt")


def load_finetuned(name: str, crop: str | None = None) -> EdgeFace:
    """A fine-tuned recogniser. crop: of the faces; None: any. Raises InputError if it takes another."""
    model = EdgeFace.load(name)
    known = model.provenance.crop
    if crop not in (None, known):
        raise InputError(f"{name}: was fine-tuned on {known} crops, not {crop}: give that crop, or another recogniser")
    return model


def load_edgeface(name: str) -> EdgeFace:
    """A published variant by name (downloaded once), or a file of weights, in evaluation mode. Raises InputError."""
    if name in VARIANTS:
        return EdgeFace.from_weights("pretrained", name)
    if not Path(name).exists():
        raise InputError(f"{name}: neither a file nor one of {', '.join(VARIANTS)}")
    return EdgeFace.from_weights(name)
