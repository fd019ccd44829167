"""The batched JPEG against Pillow's and OpenCV's encoder and decoder."""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from earface.data.images import Pixels
from earface.data.jpeg import jpeg

Draw = Callable[..., Pixels]
QUALITIES = (5, 30, 40, 49, 50, 60, 75, 85, 95, 100)
SIZES = ((128, 128), (32, 32), (24, 24), (16, 14), (27, 33), (8, 8))  # height, width


def batch(picture: Pixels) -> Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]


def by_tensors(picture: Pixels, quality: int, subsample: bool = True) -> Pixels:
    return jpeg(batch(picture), torch.tensor([quality]), subsample)[0].permute(1, 2, 0).numpy().astype(np.uint8)


def by_pillow(picture: Pixels, quality: int, subsample: bool = True) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality, subsampling=2 if subsample else 0)
    return np.asarray(Image.open(stream), np.uint8)


def by_opencv(picture: Pixels, quality: int) -> Pixels:
    encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8)


def psnr(a: Pixels, b: Pixels) -> float:
    error = float(np.square(a.astype(float) - b).mean())
    return 10 * np.log10(255**2 / max(error, 1e-9))


@pytest.mark.parametrize("subsample", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_what_an_encoder_and_decoder_make(draw: Draw, size: tuple[int, int], subsample: bool) -> None:
    """A rounding tie that falls the other way moves a whole block by a step, which small pictures feel: most must be
    near, none far."""
    errors, nearness = [], []
    for seed in range(6):
        picture = draw(seed, *size)
        for quality in QUALITIES:
            ours, theirs = by_tensors(picture, quality, subsample), by_pillow(picture, quality, subsample)
            errors.append(np.abs(ours.astype(float) - theirs).mean())
            nearness.append(psnr(ours, theirs))
    assert np.mean(errors) < 0.3
    assert np.quantile(nearness, 0.1) > 41
    assert np.median(nearness) > 52
    assert min(nearness) > 32


def test_opencv_agrees_with_it(draw: Draw) -> None:
    for quality in (30, 60, 90):
        assert psnr(by_tensors(draw(5, 64, 48), quality), by_opencv(draw(5, 64, 48), quality)) > 45


def test_the_nearness_is_far_above_the_loss(draw: Draw) -> None:
    picture = draw(2, 32, 32)
    for quality in (30, 60, 90):
        assert psnr(by_tensors(picture, quality), by_pillow(picture, quality)) > 15 + psnr(
            picture, by_pillow(picture, quality)
        )


def test_each_picture_of_a_batch_has_its_own_quality(draw: Draw) -> None:
    pictures = torch.cat([batch(draw(seed, 33, 40)) for seed in range(4)])
    qualities = torch.tensor([30, 95, 55, 80])
    together = jpeg(pictures, qualities)
    for index in range(4):
        assert torch.equal(together[index], jpeg(pictures[index : index + 1], qualities[index : index + 1])[0])


def test_flat_pictures_and_extremes_stay() -> None:
    for level in (0, 77, 255):
        flat = np.full((20, 20, 3), level, np.uint8)
        assert np.abs(by_tensors(flat, 90).astype(int) - level).max() <= 1
    checks = np.kron(np.indices((4, 4)).sum(0) % 2, np.ones((8, 8)))[..., None].repeat(3, 2).astype(np.uint8) * 255
    result = jpeg(batch(checks), torch.tensor([10]))
    assert result.min() >= 0
    assert result.max() <= 255
    assert torch.equal(result, result.round())


def test_less_quality_loses_more(draw: Draw) -> None:
    picture = draw(1, 64, 64)
    losses = [psnr(picture, by_tensors(picture, quality)) for quality in (10, 30, 60, 90)]
    assert losses == sorted(losses)
