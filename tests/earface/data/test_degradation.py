"""Very-low-resolution faces: the clean resize against Pillow, the realistic one against its own rules."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from earface.core.errors import InputError
from earface.data.degradation import (
    BLUR_SIGMA,
    CAMERA_ORDER,
    JPEG_QUALITY,
    MOTION_SIGMA,
    NOISE_STD,
    PHOTONS,
    RESIZES,
    Recipe,
    bicubic,
    degrade,
    draw_recipe,
    gaussian_blur,
    picture_key,
    realistic,
    sensor_noise,
)
from earface.data.face_sizes import DEGRADATIONS, VLRSize, parse_vlr_size
from earface.data.images import Pixels
from earface.data.pixels import to_model_range

Draw = Callable[..., Pixels]
SIZES = [VLRSize(32, 32), VLRSize(24, 24), VLRSize(16, 16), VLRSize(14, 16)]
KEYS = [(1, 0, index) for index in range(24)]


@pytest.fixture(scope="module")
def faces() -> Tensor:
    """(24, 3, 128, 128) in [-1, 1], synthetic."""
    from tests.earface.data.conftest import draw_picture

    return to_model_range(torch.from_numpy(np.stack([draw_picture(seed, 128, 128) for seed in range(24)])))


def levels(images: Tensor) -> np.ndarray:
    return ((images.double() + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    ("text", "size"),
    [("32", (32, 32)), ("24", (24, 24)), ("16", (16, 16)), ("14x16", (14, 16)), (" 8x64 ", (8, 64))],
)
def test_sizes_are_read_as_width_by_height(text: str, size: tuple[int, int]) -> None:
    assert parse_vlr_size(text) == size
    assert parse_vlr_size(str(parse_vlr_size(text))) == size


@pytest.mark.parametrize("text", ["", "x", "32x", "x16", "-16", "16.5", "14x16x3", "7", "65", "8x65", "9999", "14 16"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="VLR size"):
        parse_vlr_size(text)


def by_pillow(picture: np.ndarray, size: VLRSize, mode: str) -> np.ndarray:
    channels = [Image.fromarray(picture[..., channel].astype(mode)) for channel in range(3)]
    return np.stack([np.asarray(one.resize(size, Image.Resampling.BICUBIC), float) for one in channels], axis=-1)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bicubic_is_pillows(faces: Tensor, size: VLRSize) -> None:
    """On float pictures; on bytes, Pillow rounds and clips between its two passes as well."""
    ours = levels(bicubic(faces, size))
    exact = np.stack([by_pillow(picture, size, "float32") for picture in levels(faces)]).round().clip(0, 255)
    assert ours.shape == exact.shape == (24, size.height, size.width, 3)
    assert np.abs(ours - exact).max() <= 1
    assert (ours == exact).mean() > 0.999
    soft = faces * 0.6  # nothing to clip
    stored = np.stack([by_pillow(picture, size, "uint8") for picture in levels(soft)])
    assert np.abs(levels(bicubic(soft, size)) - stored).max() <= 1


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_the_result_is_what_a_file_holds(faces: Tensor, kind: str) -> None:
    """Through uint8 and `to_model_range`, nothing changes."""
    vlr = degrade(kind, faces, VLRSize(14, 16), KEYS)
    assert vlr.dtype == torch.float32
    assert vlr.shape == (24, 3, 16, 14)
    stored = ((vlr + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(to_model_range(stored), vlr)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_the_batch_does_not_matter(faces: Tensor, kind: str, size: VLRSize) -> None:
    together = degrade(kind, faces, size, KEYS)
    alone = torch.cat([degrade(kind, faces[i : i + 1], size, KEYS[i : i + 1]) for i in range(24)])
    assert torch.equal(alone, together)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))[:15]
    assert torch.equal(degrade(kind, faces[order], size, [KEYS[i] for i in order]), together[order])
    strided = faces.contiguous(memory_format=torch.channels_last)
    assert torch.equal(degrade(kind, strided, size, KEYS), together)


def test_the_same_key_gives_the_same_bytes_and_another_key_others(faces: Tensor) -> None:
    first, again = (realistic(faces[:1], VLRSize(32, 32), [(3, 1, 4)]) for _ in range(2))
    assert torch.equal(first, again)
    for key in ((4, 1, 4), (3, 2, 4), (3, 1, 5)):
        assert not torch.equal(realistic(faces[:1], VLRSize(32, 32), [key]), first)


def test_a_picture_is_keyed_by_seed_and_name_and_by_no_epoch_of_training() -> None:
    names = [f"person_{number}__{number % 7}" for number in range(500)]
    keys = {picture_key(3, name) for name in names}
    assert len(keys) == 500
    assert picture_key(3, names[0]) == picture_key(3, str(names[0])) != picture_key(4, names[0])
    digest = hashlib.sha256(b"person_0__0").hexdigest()
    assert picture_key(3, names[0]) == (3, 0, int(digest[:14], 16))  # training has epoch + 1 in the middle
    assert torch.tensor(picture_key(2**31 - 1, names[0])).tolist() == list(picture_key(2**31 - 1, names[0]))


def test_global_seeds_and_threads_do_not_matter(faces: Tensor) -> None:
    before = realistic(faces, VLRSize(16, 16), KEYS)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(realistic(faces, VLRSize(16, 16), KEYS), before)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("sigma_x", "sigma_y"), [(0.6, 0.6), (3.0, 3.0), (4.0, 1.5)])
def test_the_blur_is_scipys_along_the_axes(faces: Tensor, sigma_x: float, sigma_y: float) -> None:
    images = faces[:2].double()
    covariance = torch.diag(torch.tensor([sigma_x**2, sigma_y**2], dtype=torch.float64)).expand(2, 2, 2)
    ours = gaussian_blur(images, covariance, 20).numpy()
    theirs = gaussian_filter(images.numpy(), (0, 0, sigma_y, sigma_x), mode="mirror", truncate=6)
    assert np.abs(ours - theirs).max() < (
        2e-3 if sigma_x > 1 else 2e-2
    )  # scipy samples the kernel, which narrow ones feel


def test_a_slanted_blur_has_the_covariance_asked_for() -> None:
    """The second moments of a blurred point, in both axes and across."""
    point = torch.zeros(1, 1, 65, 65, dtype=torch.float64)
    point[..., 32, 32] = 1
    covariance = torch.tensor([[[16.0, 5.0], [5.0, 4.0]]], dtype=torch.float64)
    spot = gaussian_blur(point, covariance, 30)[0, 0]
    place = torch.arange(65, dtype=torch.float64) - 32
    moments = [(spot * weight).sum() for weight in (place**2, place * place[:, None], place[:, None] ** 2)]
    assert spot.sum().item() == pytest.approx(1)
    np.testing.assert_allclose(moments, [16, 5, 4], rtol=1e-3)


def recipe(**changes: object) -> Recipe:
    plain: dict[str, object] = {
        **{"order": CAMERA_ORDER, "sigmas": (0.1, 0.1), "angle": 0.0, "resize": "area", "noise_std": 0.0},
        **{"photons": math.inf, "grey": False, "quality": 95, "noise_key": (1,)},
    }
    return Recipe(**(plain | changes))  # type: ignore[arg-type]


def test_noise_has_the_variance_of_read_and_shot_noise() -> None:
    flat = torch.full((3, 3, 64, 64), 60.0, dtype=torch.float64)
    flat[2] = 200
    recipes = [recipe(noise_std=5.0), *(recipe(noise_std=2.0, photons=300.0, noise_key=(index,)) for index in (2, 3))]
    noise = sensor_noise(flat, recipes, VLRSize(64, 64)) - flat
    expected = [25, 4 + 255 * 60 / 300, 4 + 255 * 200 / 300]
    np.testing.assert_allclose(noise.var((1, 2, 3)), expected, rtol=0.05)
    assert noise.mean().abs() < 0.3


def test_grey_noise_is_alike_in_the_channels() -> None:
    flat = torch.full((2, 3, 16, 16), 128.0, dtype=torch.float64)
    grey, colour = sensor_noise(flat, [recipe(noise_std=5.0, grey=True), recipe(noise_std=5.0)], VLRSize(16, 16))
    assert torch.equal(grey[0], grey[2])
    assert not torch.equal(colour[0], colour[2])


def test_noise_of_two_keys_is_independent() -> None:
    flat = torch.full((2, 3, 64, 64), 128.0, dtype=torch.float64)
    first, second = sensor_noise(flat, [draw_recipe((1, 0, 0)), draw_recipe((1, 0, 1))], VLRSize(64, 64)) - 128
    assert abs(np.corrcoef(first.flatten(), second.flatten())[0, 1]) < 0.05


def test_recipes_keep_to_the_stated_ranges_and_shares() -> None:
    recipes = [draw_recipe((7, 0, index)) for index in range(3000)]
    for one in recipes:
        along, across = one.sigmas
        assert BLUR_SIGMA[0] <= across <= BLUR_SIGMA[1]
        assert across <= along <= MOTION_SIGMA
        assert NOISE_STD[0] <= one.noise_std <= NOISE_STD[1]
        assert one.photons == math.inf or PHOTONS[0] <= one.photons <= PHOTONS[1]
        assert JPEG_QUALITY[0] <= one.quality <= JPEG_QUALITY[1]
        assert {"blur", "resize"} <= set(one.order) <= set(CAMERA_ORDER)
        assert len(set(one.order)) == len(one.order)
    assert {one.quality for one in recipes} == set(range(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1))
    shares = Counter(one.resize for one in recipes)
    assert all(abs(shares[name] / 3000 - share) < 0.03 for name, share in RESIZES.items())
    complete = Counter(one.order for one in recipes if len(one.order) == 4)
    assert len(complete) == 24
    assert 0.4 < complete[CAMERA_ORDER] / 3000 < 0.47  # .81 x (.5 + .5 / 24)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_realistic_loses_more_than_bicubic_but_keeps_the_face(faces: Tensor, size: VLRSize) -> None:
    clean, poor = bicubic(faces, size), realistic(faces, size, KEYS)
    shared = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(clean.numpy(), poor.numpy(), strict=True)]
    assert min(shared) > 0.7
    assert np.mean(shared) < 0.995
    assert (poor.mean((1, 2, 3)) - clean.mean((1, 2, 3))).abs().max() < 0.05


def test_faces_keep_their_place(faces: Tensor) -> None:
    """No step moves the picture: the correlation with the clean one is best without a shift, on the whole."""
    clean, poor = bicubic(faces, VLRSize(32, 32)), realistic(faces, VLRSize(32, 32), KEYS)

    def likeness(shift: int, axis: int) -> float:
        moved = torch.roll(poor, shift, axis)[..., 2:-2, 2:-2]
        return float(np.corrcoef(moved.flatten(), clean[..., 2:-2, 2:-2].flatten())[0, 1])

    for axis in (2, 3):
        before, here, after = (likeness(shift, axis) for shift in (-1, 0, 1))
        peak = 0.5 * (before - after) / (before - 2 * here + after)
        assert abs(peak) < 0.05


def test_another_number_of_keys_is_refused(faces: Tensor) -> None:
    with pytest.raises(AssertionError, match="one key"):
        realistic(faces, VLRSize(16, 16), KEYS[:3])
