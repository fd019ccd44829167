"""PSNR and SSIM of image batches, per image, by the project's measuring convention: [0, 1] pixels, RGB."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from earface.core.notices import warn
from earface.data.pixels import interpolate
from earface.nn.precision import float32_island

MAX_CREDIBLE_PSNR = 60.0  # dB: rounding to 8 bits alone leaves 59
SHARPNESS_SIDE = 112
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # Wang et al. 2004, K1 and K2 at data range 1


@float32_island
def luma(images: Tensor) -> Tensor:
    """RGB (B, 3, H, W) in [0, 1] -> Y of BT.601 with its studio range, (B, 1, H, W) in [16/255, 235/255].

    As MATLAB's rgb2ycbcr, by which super-resolution is usually measured.
    """
    weights = torch.cat([images.new_full((1, 1, 1, 1), weight) for weight in (65.481, 128.553, 24.966)], 1) / 255.0
    return (images * weights).sum(dim=1, keepdim=True) + 16.0 / 255.0


@float32_island
def psnr(prediction: Tensor, target: Tensor, crop_border: int = 0) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image, from its error over all channels.

    prediction, target: (B, C, H, W) in [0, 1]. Returns (B,).
    crop_border: pixels left out on each side, as super-resolution is usually measured.
    Identical images give infinity, as in scikit-image and torchmetrics.
    """
    _check_pair(prediction, target)
    if crop_border:
        inner = (..., slice(crop_border, -crop_border), slice(crop_border, -crop_border))
        prediction, target = prediction[inner], target[inner]
    if not prediction.numel():
        raise ValueError(f"crop_border {crop_border} leaves nothing of the images")
    return -10.0 * (prediction - target).square().mean(dim=(1, 2, 3)).log10()


def warn_if_too_good(found: float | None, source: str) -> None:
    """Where a mean PSNR in dB, if it was measured, is beyond what a network reaches on pictures. source: of these."""
    if found is not None and found > MAX_CREDIBLE_PSNR:
        warn(
            f"{source}: a PSNR above {MAX_CREDIBLE_PSNR:g} dB: they are of one colour, or nearly; look at them, and at "
            "their boxes"
        )


@float32_island
def ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of each image: the mean over channels and over the windows that lie inside it.

    prediction, target: (B, C, H, W) in [0, 1], at least 11 pixels a side. Returns (B,), at most 1; differentiable.
    Wang et al. 2004: Gaussian 11x11, sigma 1.5, population covariance; as scikit-image's structural_similarity with
    gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1 and a channel axis.
    """
    _check_pair(prediction, target)
    if min(prediction.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs {SSIM_WINDOW} pixels a side, the images are {tuple(prediction.shape[-2:])}")
    prediction, target = prediction - 0.5, target - 0.5  # nearer 0, variances lose fewer digits to squared means
    # The denominator needs only the sum of the two variances, so four maps are filtered instead of five.
    maps = torch.cat([prediction, target, prediction.square() + target.square(), prediction * target], dim=1)
    mean_p, mean_t, sum_of_squares, product = _gaussian_window(maps).chunk(4, dim=1)
    covariance = product - mean_p * mean_t
    sum_of_variances = sum_of_squares - mean_p.square() - mean_t.square()
    mean_p, mean_t = mean_p + 0.5, mean_t + 0.5
    luminance = (2.0 * mean_p * mean_t + SSIM_C1) / (mean_p.square() + mean_t.square() + SSIM_C1)
    structure = (2.0 * covariance + SSIM_C2) / (sum_of_variances + SSIM_C2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def _gaussian_window(maps: Tensor) -> Tensor:
    """Gaussian means over every whole window: (B, C, H, W) -> (B, C, H - 10, W - 10)."""
    channels = maps.shape[1]
    offsets = torch.arange(SSIM_WINDOW, dtype=maps.dtype, device=maps.device) - SSIM_WINDOW // 2
    kernel = torch.exp(-offsets.square() / (2.0 * SSIM_SIGMA**2))
    kernel = kernel / kernel.sum()
    # Depthwise: these kernels never run in TF32, whose 10 bits would not survive the subtraction of squared means.
    columns = F.conv2d(maps, kernel.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
    return F.conv2d(columns, kernel.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)


def _check_pair(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape or prediction.ndim != 4:
        raise ValueError(f"two (B, C, H, W) batches are needed, not {tuple(prediction.shape)}, {tuple(target.shape)}")


# What ears are measured by, in training and in evaluation: (B, C, H, W) twice, in [0, 1] -> (B,).
IMAGE_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"psnr": psnr, "ssim": ssim}


@float32_island
def sharpness(images: Tensor) -> Tensor:
    """The deviation of the Laplacian of each image's brightness at SHARPNESS_SIDE pixels: (B, 3, H, W) -> (B,).

    images: in [-1, 1]. Comparable among pictures that were enlarged in the same way.
    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000.
    """
    grey = interpolate(images.mean(dim=1, keepdim=True), SHARPNESS_SIDE)
    around = grey[..., :-2, 1:-1] + grey[..., 2:, 1:-1] + grey[..., 1:-1, :-2] + grey[..., 1:-1, 2:]
    return (around - 4 * grey[..., 1:-1, 1:-1]).flatten(1).std(dim=1, correction=0)
