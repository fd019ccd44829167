"""What is the same bit for bit alone and in any batch is so by construction: with kernels that round by rows, too.

tests/pipeline/test_search.py has the scores of a gallery; that the real kernels agree is tested beside each function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dsr.config import DSRConfig
from dsr.inference import super_resolve
from dsr.model import DSR
from dsr.upsampler import build_upsampler
from ear_teacher.ear_reader import EarReader, image_sources
from ear_teacher.encoding import encode_sources
from ear_teacher.model import EarVAE
from ear_teacher.recognition.model import EarRecognizer
from earface.data.degradation import degrade
from earface.data.face_sizes import DEGRADATIONS, parse_vlr_size
from earface.data.folders import list_images
from earface.nn.embedding import pictures_of
from facial_rec.contract import FaceContract
from facial_rec.embedding import embed_faces, embed_pictures
from facial_rec.model import EdgeFace
from facial_rec.recognizer import FaceRecognizer
from tests.row_dependent import RowDependentKernels

pytestmark = pytest.mark.runs

COUNT = 21  # more than any fixed batch
Function = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def row_dependent() -> Iterator[None]:
    with RowDependentKernels(), torch.no_grad():
        yield


def lively(network: nn.Module) -> nn.Module:
    """In evaluation mode, with random weights under which every layer tells in the result."""
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if not value.is_floating_point() or name.endswith("running_mean"):
            continue
        if name.endswith(("running_var", "stds")) or "gamma" in name or (value.ndim == 1 and name.endswith("weight")):
            value.copy_(torch.rand(value.shape, generator=generator) * 0.5 + 0.5)
        else:
            value.copy_(torch.randn(value.shape, generator=generator) / max(1, value[0].numel()) ** 0.5)
    return network.eval()


def ear_vae(encoder: str, path: int) -> EarVAE:
    options = {"base_channels": 4, "latent_dim": 8, "image_size": 64, "linear_path_size": path}
    model = EarVAE(encoder=encoder, **options)  # type: ignore[arg-type]
    if encoder in ("dinov2", "sam"):  # two blocks, one of which has SAM's global attention, stand for twelve
        blocks = model.encoder.backbone.net.blocks
        for index in {*range(len(blocks))} - {1, 2}:
            blocks[index] = nn.Identity()
    return lively(model)  # type: ignore[return-value]


def edgeface() -> EdgeFace:
    return lively(EdgeFace("edgeface_xxs"))  # type: ignore[return-value]


def ear_recognizer(backbone: str) -> EarRecognizer:
    options = {} if backbone.startswith("edgeface") else {"image_size": 64, "base_channels": 4, "embedding_dim": 16}
    return lively(EarRecognizer(backbone=backbone, **options))  # type: ignore[arg-type, return-value]


def dsr() -> DSR:
    return lively(DSR(DSRConfig(base_channels=8, residual_blocks=2, vlr_size="14x16")))  # type: ignore[return-value]


def noise(channels: int, height: int, width: int) -> Tensor:
    return torch.rand(COUNT, channels, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def ears() -> Tensor:
    return noise(3, 64, 64)


def faces() -> Tensor:
    return noise(3, 128, 128)


def small_faces() -> Tensor:
    return noise(3, 16, 14)


def logvar_by(model: EarVAE) -> Function:
    return lambda images: model.encode_posterior(images)[1]


def assert_same_in_any_batch(function: Function, rows: Tensor) -> None:
    """function: of (B, ...), each row of the result made of the same row."""
    together = function(rows)
    assert together.isfinite().all()
    assert not torch.equal(together[0], together[1])
    for size in (1, 8, 20):
        apart = torch.cat([function(part) for part in rows.split(size)])
        assert torch.equal(apart, together), f"batches of {size}"


# What makes a function of rows, and the rows
PROMISES: dict[str, tuple[Callable[[], Function], Callable[[], Tensor]]] = {
    "an ear's embedding, EdgeFace": (lambda: ear_recognizer("edgeface_xxs").embed_exactly, lambda: noise(3, 112, 112)),
    "an ear's embedding, conv": (lambda: ear_recognizer("conv").embed_exactly, ears),
    **{
        f"an ear's latents, {encoder}": (lambda encoder=encoder: ear_vae(encoder, 16).encode, ears)
        for encoder in ("conv", "resnet18", "timm:convnext_atto", "timm:test_vit", "dinov2", "sam")
    },
    "an ear's logvar": (lambda: logvar_by(ear_vae("conv", 0)), ears),
    "a face's embedding": (lambda: partial(embed_faces, edgeface(), contract=FaceContract()), faces),
    "a face's embedding with that of its mirror image": (
        lambda: partial(embed_faces, edgeface(), contract=FaceContract("center"), flip=True),
        faces,
    ),
    "the recogniser of a gallery": (lambda: FaceRecognizer("random", edgeface(), FaceContract("center")), faces),
    "a super-resolved face": (lambda: partial(super_resolve, dsr()), small_faces),
    "a super-resolved face in bfloat16": (lambda: partial(super_resolve, dsr(), precision="bf16"), small_faces),
    "an interpolated face": (lambda: build_upsampler("bicubic", "").enlarge, small_faces),
}


@pytest.mark.parametrize(("function", "rows"), PROMISES.values(), ids=PROMISES)
def test_a_row_does_not_depend_on_the_others(function: Callable[[], Function], rows: Callable[[], Tensor]) -> None:
    assert_same_in_any_batch(function(), rows())


@pytest.mark.parametrize(
    ("network", "rows"),
    [(lambda: ear_vae("timm:test_vit", 0).features, ears), (edgeface, lambda: noise(3, 112, 112)), (dsr, small_faces)],
    ids=["ears", "faces", "small faces"],
)
def test_the_stand_in_shows_in_what_is_not_cut_to_one_shape(
    network: Callable[[], Any], rows: Callable[[], Tensor]
) -> None:
    """Or the tests above would prove nothing."""
    own, images = network(), rows()
    alone, together = (own(images[:count]) for count in (1, COUNT))
    alone, together = (each[-1] if isinstance(each, list) else each for each in (alone, together))
    assert not torch.equal(alone, together[:1])


def test_a_table_of_ears_does_not_depend_on_the_batch(ear_set: Path) -> None:
    model, sources = ear_vae("conv", 16), image_sources(list_images(ear_set / "images")[:COUNT], ear_set)
    encode, reader = model.encode_posterior, EarReader(model.config)
    wanted = encode_sources(encode, sources, reader, batch_size=COUNT, device="cpu").values
    for size in (1, 5):
        found = encode_sources(encode, sources, reader, batch_size=size, device="cpu").values
        assert all(np.array_equal(*pair) for pair in zip(found, wanted, strict=True))


def test_a_recognisers_table_of_ears_does_not_depend_on_the_batch(ear_set: Path) -> None:
    model = ear_recognizer("conv")
    encode, reader = (lambda ears: (model.embed_exactly(ears),)), EarReader(model.config)
    sources = image_sources(list_images(ear_set / "images")[:COUNT], ear_set)
    (wanted,) = encode_sources(encode, sources, reader, batch_size=COUNT, device="cpu").values
    for size in (1, 5):
        (found,) = encode_sources(encode, sources, reader, batch_size=size, device="cpu").values
        assert np.array_equal(found, wanted)


def test_a_table_of_faces_does_not_depend_on_the_batch(face_set: Path) -> None:
    model, faces = edgeface(), pictures_of(str(face_set / "train_processed" / "hr_images"))[:COUNT]
    wanted = embed_pictures(model, faces, FaceContract(), batch_size=COUNT).embeddings
    for size in (1, 5):
        assert np.array_equal(embed_pictures(model, faces, FaceContract(), batch_size=size).embeddings, wanted)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_a_degraded_face_does_not_depend_on_the_batch(kind: str) -> None:
    faces, keys = noise(3, 128, 128), [(0, 0, index) for index in range(COUNT)]

    def degraded(part: Tensor, own: Sequence[tuple[int, ...]]) -> Tensor:
        return degrade(kind, part, parse_vlr_size("16"), own)

    together = degraded(faces, keys)
    for index, key in enumerate(keys):
        assert torch.equal(degraded(faces[index : index + 1], [key])[0], together[index])
