import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr

from earface.metrics.image_quality import luma, psnr, ssim

SIZES = [(11, 11), (64, 64), (37, 53), (128, 96)]


def natural_pairs(height, width, channels=3, count=3, seed=0):
    """Smooth structure plus texture, and the same with blur and noise: (count, C, H, W) float64 in [0, 1]."""
    rng = np.random.default_rng(seed)
    clean, degraded = [], []
    for index in range(count):
        coarse = gaussian_filter(rng.normal(size=(channels, height, width)), (0, 6, 6))
        fine = gaussian_filter(rng.normal(size=(channels, height, width)), (0, 1, 1))
        image = coarse / np.abs(coarse).max() + 0.3 * fine / np.abs(fine).max()
        image = (image - image.min()) / np.ptp(image)
        worse = gaussian_filter(image, (0, 0.5 + index, 0.5 + index)) + 0.03 * rng.normal(size=image.shape)
        clean.append(image)
        degraded.append(np.clip(worse, 0, 1))
    return torch.tensor(np.stack(degraded)), torch.tensor(np.stack(clean))


def skimage_ssim(prediction, target):
    return [
        structural_similarity(
            p, t, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=0
        )
        for p, t in zip(prediction.double().numpy(), target.double().numpy(), strict=True)
    ]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_scikit_images(size, channels):
    prediction, target = natural_pairs(*size, channels)
    expected = skimage_ssim(prediction, target)
    np.testing.assert_allclose(ssim(prediction, target).numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(ssim(prediction.float(), target.float()).numpy(), expected, atol=1e-6)


def test_ssim_in_float32_holds_where_the_variance_is_far_below_the_squared_mean():
    prediction, target = (0.9 + 0.02 * images for images in natural_pairs(64, 64))
    np.testing.assert_allclose(
        ssim(prediction.float(), target.float()).numpy(), skimage_ssim(prediction, target), atol=3e-6
    )


def test_ssim_of_black_and_white_and_of_an_image_and_itself():
    black, white = torch.zeros(2, 3, 16, 16), torch.ones(2, 3, 16, 16)
    # Constant images: structure is C2 / C2, luminance C1 / (1 + C1) with C1 = 1e-4.
    torch.testing.assert_close(ssim(black, white), torch.full((2,), 1e-4 / 1.0001))
    image = natural_pairs(32, 32)[0]
    torch.testing.assert_close(ssim(image, image), torch.ones(3, dtype=torch.float64))


def test_ssim_gradient():
    prediction, target = natural_pairs(12, 13, channels=2, count=2)
    assert torch.autograd.gradcheck(lambda p: ssim(p, target), prediction.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("metric", [psnr, ssim])
def test_quality_is_computed_in_float32_whatever_autocast_and_the_images_are(metric, dtype):
    prediction, target = (images.to(dtype) for images in natural_pairs(32, 48))
    expected = metric(prediction.float(), target.float())
    for autocast_dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype=autocast_dtype):
            found = metric(prediction, target=target)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("size", SIZES)
def test_psnr_is_scikit_images_and_torchmetrics(size):
    prediction, target = natural_pairs(*size)
    expected = [
        peak_signal_noise_ratio(t, p, data_range=1.0) for p, t in zip(prediction.numpy(), target.numpy(), strict=True)
    ]
    np.testing.assert_allclose(psnr(prediction, target).numpy(), expected, rtol=1e-12)
    torch.testing.assert_close(
        psnr(prediction, target).mean(),
        torchmetrics_psnr(prediction, target, data_range=1.0, dim=(1, 2, 3), reduction="elementwise_mean"),
    )


def test_psnr_leaves_out_the_border_and_nothing_else():
    target = torch.full((1, 3, 10, 12), 0.5)
    prediction = target + 0.1
    prediction[..., 2:-2, 2:-2] = 0.51
    assert psnr(prediction, target, crop_border=2).item() == pytest.approx(40.0, abs=1e-3)  # -20 log10 .01
    assert psnr(prediction, target).item() < 25
    prediction[..., 2, 2] = 0.6
    assert psnr(prediction, target, crop_border=2).item() < 39


def test_psnr_of_identical_images_is_infinite():
    image = natural_pairs(16, 16)[0]
    assert psnr(image, image).tolist() == [math.inf] * 3


def test_images_that_cannot_be_compared_are_refused():
    image = torch.zeros(1, 3, 10, 40)
    with pytest.raises(ValueError, match="11 pixels"):
        ssim(image, image)
    with pytest.raises(ValueError, match="leaves nothing"):
        psnr(image, image, crop_border=5)
    for metric in (psnr, ssim):
        with pytest.raises(ValueError, match="batches"):
            metric(torch.zeros(1, 3, 16, 16), torch.zeros(2, 3, 16, 16))  # would broadcast


@pytest.mark.parametrize("size", SIZES)
def test_luma_is_scikit_images(size):
    images = natural_pairs(*size)[1]
    theirs = rgb2ycbcr(images.numpy(), channel_axis=1)[:, :1] / 255
    np.testing.assert_allclose(luma(images).numpy(), theirs, atol=1e-12)
    assert luma(images.bfloat16()).dtype == torch.float32


def test_luma_of_black_white_and_the_primaries():
    """BT.601 in studio range: 16 to 235 of 255."""
    colours = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    found = luma(colours.view(5, 3, 1, 1)).flatten() * 255
    expected = torch.tensor([16.0, 235.0, 16 + 219 * 0.299, 16 + 219 * 0.587, 16 + 219 * 0.114], dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
