"""Ears that Python code gives come into the model's form, and those that have it stay as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ear_teacher import EarVAE
from ear_teacher.ear_reader import NoEarError
from earface.core.errors import InputError
from earface.core.notices import DataWarning
from earface.data.ear_contract import EarAligner
from earface.data.ear_networks import EarLandmarker
from earface.data.folders import list_images
from earface.data.images import Pixels, read_image, resize_image
from tests.support.ear_recognizer import small_recognizer

GREY = np.full((64, 64, 3), 90, np.uint8)


def in_range(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


def test_prepared_ears_are_not_aligned_again_and_others_are(crops: Path, prepared_crops: Path) -> None:
    aligner = EarAligner("canonical", EarLandmarker())
    model = small_recognizer(aligner.contract.id)
    prepared = list_images(prepared_crops / "canonical" / "ears")[:3]
    raw = [path for path in list_images(crops) if not aligner.locate(read_image(path), None).problem][:3]
    aligned = [aligner.image(pixels := read_image(path), aligner.locate(pixels, None), 64) for path in raw]
    for given, wanted in (
        (prepared, [resize_image(read_image(path), 64) for path in prepared]),
        (raw, aligned),
        ([read_image(path) for path in raw], aligned),
    ):
        assert torch.equal(model.embed(given), model.embed_exactly(torch.cat([in_range(each) for each in wanted])))


def test_a_picture_without_an_ear_is_named_with_the_way_to_go_on() -> None:
    model = small_recognizer(EarAligner("canonical", EarLandmarker()).contract.id)
    with pytest.raises(NoEarError, match=r'the picture: .*; misfits="nan" goes on'):
        model.embed(GREY)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_rows_of_pictures_without_an_ear_are_nan_where_asked_and_the_others_as_without_them(
    batch_size: int, crops: Path
) -> None:
    aligner = EarAligner("canonical", EarLandmarker())
    contract = aligner.contract.id
    ears = [p for each in list_images(crops) if not aligner.locate(p := read_image(each), None).problem][:3]
    vae = EarVAE(image_size=64, latent_dim=8, encoder="conv", contract=contract)
    for model in (small_recognizer(contract), vae):
        with pytest.warns(DataWarning, match=r"2 of 5 pictures have no usable ear, their rows are NaN: picture 1: "):
            found = model.embed([ears[0], GREY, *ears[1:], GREY], batch_size=batch_size, misfits="nan")
        assert found.isnan().all(dim=1).tolist() == [False, True, False, False, True]
        assert torch.equal(found[[0, 2, 3]], model.embed(ears))
        with pytest.warns(DataWarning, match="2 of 2"):
            assert model.embed([GREY, GREY], misfits="nan").shape == (2, found.shape[1])
        with pytest.raises(InputError, match='is "refuse" or "nan"'):
            model.embed(ears, misfits="letterbox")
