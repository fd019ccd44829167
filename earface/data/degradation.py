"""Very-low-resolution (VLR) faces made from aligned ones: by a clean resize, or as a poor camera would have taken them.

Tensors on any device, (B, 3, H, W) in [-1, 1]; the result holds only what an 8-bit file can, as a VLR face is a file.
Each sample's degradation is a function of its key alone, such as (seed, epoch, index): the same key gives the same
bytes in any batch. The work is done in float64, so that no rounding depends on how a device adds up; of a device
without it (MPS) on the CPU.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from earface.data.face_sizes import DEGRADATIONS, VLRSize
from earface.data.jpeg import jpeg
from earface.data.pixels import to_float64

# The ranges are chosen by hand for faces in surveillance video; lengths are in pixels of the VLR face.
BLUR_SIGMA = (0.1, 0.8)  # from in focus to a fixed lens out of focus; wider blurs are what motion does
MOTION_SIGMA = 1.2  # along the motion, at most: who walks across at 1/50 s is smeared over 4 of 32 pixels
MOTION_SHARE = 0.5
RESIZES = {"area": 0.3, "bilinear": 0.3, "bicubic": 0.3, "aliased": 0.1}  # by shares; the last skips pixels, as some do
NOISE_STD = (1.0, 10.0)  # levels of 255: read noise, by day and after an indoor gain
PHOTONS = (150.0, 3000.0)  # of a white pixel, log-uniform: 21 to 5 levels of shot noise there
SHOT_SHARE = 0.5
GREY_SHARE = 0.4  # noise alike in the three channels, as after a camera's chroma denoising; Real-ESRGAN's share
NOISE_SHARE = 0.9
JPEG_QUALITY = (40, 95)  # network cameras send 50 to 80; below 40 nothing of a face this small is left
JPEG_SHARE = 0.9
CAMERA_ORDER = ("blur", "resize", "noise", "jpeg")  # lens, sensor's grid, its noise, its file
CAMERA_ORDER_SHARE = 0.5  # else any order: a file is often resized, and compressed, again (Zhang et al. 2021)
FINEST_GRID = 8  # a face is halved while it has this many pixels to one of the VLR face: more only costs time
MIXED = {"bicubic": 0.3, "area": 0.2, "realistic": 0.5}  # by shares; the last is the widest and the hardest
KIND = 4  # ends the key of which of them; the others' ends are 1 here, and in vlr_rule.py
REACH = 3.0  # standard deviations of the blur beyond the border


@dataclass(frozen=True)
class Recipe:
    """What happens to one face."""

    order: tuple[str, ...]  # of CAMERA_ORDER, those that happen
    sigmas: tuple[float, float]  # of the blur along its axis and across it, VLR pixels
    angle: float  # of that axis, radians
    resize: str
    noise_std: float  # levels
    photons: float  # of white; infinite for no shot noise
    grey: bool
    quality: int
    noise_key: tuple[int, ...]


def picture_key(seed: int, name: str, draw: int = 0) -> tuple[int, int, int]:
    """The key of a picture that is always degraded alike; name: its file name without extension.

    draw: which of several degradations of it.
    """
    return seed, draw, int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:7])


def degrade(kind: str, hr: Tensor, size: VLRSize, keys: Sequence[Sequence[int]]) -> Tensor:
    """One of DEGRADATIONS; keys: one per sample, which bicubic and area have no use for."""
    if kind not in DEGRADATIONS:
        raise ValueError(f"degradation {kind!r}: expected one of {', '.join(DEGRADATIONS)}")
    if kind == "mixed":
        return mixed(hr, size, keys)
    if kind == "realistic":
        return realistic(hr, size, keys)
    return bicubic(hr, size) if kind == "bicubic" else area(hr, size)


@torch.no_grad()
def mixed(hr: Tensor, size: VLRSize, keys: Sequence[Sequence[int]]) -> Tensor:
    """(B, 3, H, W) -> (B, 3, size.height, size.width) float32: each face by one of MIXED, which its key decides."""
    assert len(keys) == len(hr), "one key per sample"
    kinds = [str(np.random.default_rng([*key, KIND]).choice(list(MIXED), p=list(MIXED.values()))) for key in keys]
    made = hr.new_empty(len(hr), 3, size.height, size.width, dtype=torch.float32)
    for kind in sorted(set(kinds)):
        members = [place for place, own in enumerate(kinds) if own == kind]
        made[members] = degrade(kind, hr[members], size, [keys[place] for place in members])
    return made


@torch.no_grad()
def area(hr: Tensor, size: VLRSize) -> Tensor:
    """(B, 3, H, W) -> (B, 3, size.height, size.width) float32: means of the whole pixels that each one covers."""
    return _to_range(_resized(_to_levels(hr), size, "area")).to(hr.device)


@torch.no_grad()
def bicubic(hr: Tensor, size: VLRSize) -> Tensor:
    """(B, 3, H, W) -> (B, 3, size.height, size.width) float32, antialiased: Pillow's BICUBIC, or MATLAB's imresize."""
    return _to_range(_resized(_to_levels(hr), size, "bicubic")).to(hr.device)


@torch.no_grad()
def realistic(hr: Tensor, size: VLRSize, keys: Sequence[Sequence[int]]) -> Tensor:
    """(B, 3, H, W) -> (B, 3, size.height, size.width) float32: blur, resize, noise and JPEG in an order of chance.

    keys: of each sample, whole numbers from 0 on. About 5 ms a face of 128 pixels on one CPU core.
    """
    assert len(keys) == len(hr), "one key per sample"
    faces = list(_coarsened(_to_levels(hr), size).split(1))
    recipes = [draw_recipe(key) for key in keys]
    for step in range(len(CAMERA_ORDER)):
        alike: dict[tuple[str, torch.Size, str], list[int]] = {}
        for index, recipe in enumerate(recipes):
            if step < len(recipe.order):
                name = recipe.order[step]
                variant = recipe.resize if name == "resize" else ""
                alike.setdefault((name, faces[index].shape, variant), []).append(index)
        for (name, *_), members in alike.items():
            batch = torch.cat([faces[index] for index in members])
            changed = STEPS[name](batch, [recipes[index] for index in members], size)
            for index, face in zip(members, changed.split(1), strict=True):
                faces[index] = face
    return _to_range(torch.cat(faces)).to(hr.device)


def draw_recipe(key: Sequence[int]) -> Recipe:
    """The degradation that `key` stands for."""
    rng = np.random.default_rng(list(key))
    across = rng.uniform(*BLUR_SIGMA)
    along = rng.uniform(across, MOTION_SIGMA) if rng.random() < MOTION_SHARE else across
    angle = rng.uniform(0, math.pi)
    resize = str(rng.choice(list(RESIZES), p=list(RESIZES.values())))
    noisy, shot = rng.random() < NOISE_SHARE, rng.random() < SHOT_SHARE
    std, photons = rng.uniform(*NOISE_STD), math.exp(rng.uniform(*np.log(PHOTONS)))
    grey = rng.random() < GREY_SHARE
    compressed, quality = rng.random() < JPEG_SHARE, int(rng.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1))
    order = CAMERA_ORDER if rng.random() < CAMERA_ORDER_SHARE else tuple(map(str, rng.permutation(CAMERA_ORDER)))
    left_out = {"noise": not noisy, "jpeg": not compressed}
    return Recipe(
        order=tuple(name for name in order if not left_out.get(name)),
        sigmas=(along, across),
        angle=angle,
        resize=resize,
        noise_std=std,
        photons=photons if shot else math.inf,
        grey=grey,
        quality=quality,
        noise_key=(*key, 1),
    )


def gaussian_blur(images: Tensor, covariance: Tensor, reach: int) -> Tensor:
    """(B, C, H, W) float64 blurred by Gaussians of covariance (B, 2, 2) of x and y, pixels; reflected at the border.

    By their Fourier transform exp(-2 pi^2 f' Sigma f): exact for any width and direction, narrow ones too.
    reach: pixels of border, below H and W; three standard deviations are enough.
    """
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    height, width = padded.shape[2:]
    y = torch.fft.fftfreq(height, device=images.device, dtype=images.dtype)[:, None]
    x = torch.fft.rfftfreq(width, device=images.device, dtype=images.dtype)
    xx, xy, yy = (covariance[:, i, j, None, None] for i, j in ((0, 0), (0, 1), (1, 1)))
    transfer = torch.exp(-2 * math.pi**2 * (xx * x**2 + 2 * xy * x * y + yy * y**2))
    blurred = torch.fft.irfft2(torch.fft.rfft2(padded) * transfer[:, None], s=(height, width))
    return blurred[:, :, reach : height - reach, reach : width - reach]


def _blur(faces: Tensor, recipes: Sequence[Recipe], size: VLRSize) -> Tensor:
    """Before the resize, the same blur covers more pixels."""
    scale = np.array([faces.shape[3] / size.width, faces.shape[2] / size.height])
    covariances = []
    for recipe in recipes:
        cos, sin = math.cos(recipe.angle), math.sin(recipe.angle)
        axes = scale[:, None] * np.array([[cos, -sin], [sin, cos]]) * recipe.sigmas
        covariances.append(axes @ axes.T)
    reach = min(math.ceil(REACH * MOTION_SIGMA * scale.max()), min(faces.shape[2:]) - 1)
    return gaussian_blur(faces, torch.from_numpy(np.stack(covariances)).to(faces.device), reach)


def _resize(faces: Tensor, recipes: Sequence[Recipe], size: VLRSize) -> Tensor:
    return _resized(faces, size, recipes[0].resize)


def sensor_noise(faces: Tensor, recipes: Sequence[Recipe], size: VLRSize) -> Tensor:
    """Read noise and shot noise, whose variance is level / photons: Poisson's, by the normal law that it nears."""
    shape = faces.shape[1:]
    samples = [
        np.random.default_rng(recipe.noise_key).standard_normal((1 if recipe.grey else shape[0], *shape[1:]))
        for recipe in recipes
    ]
    noise = torch.from_numpy(np.stack([np.broadcast_to(one, shape) for one in samples])).to(faces.device)
    read = faces.new_tensor([recipe.noise_std**2 for recipe in recipes]).view(-1, 1, 1, 1)
    shot = faces.new_tensor([255.0 / recipe.photons for recipe in recipes]).view(-1, 1, 1, 1)
    return faces + noise * (read + shot * faces.clamp(0, 255)).sqrt()


def _jpeg(faces: Tensor, recipes: Sequence[Recipe], size: VLRSize) -> Tensor:
    return jpeg(faces, torch.tensor([recipe.quality for recipe in recipes]))


STEPS: dict[str, Callable[[Tensor, Sequence[Recipe], VLRSize], Tensor]] = {
    "blur": _blur,
    "resize": _resize,
    "noise": sensor_noise,
    "jpeg": _jpeg,
}


def _coarsened(levels: Tensor, size: VLRSize) -> Tensor:
    while levels.shape[3] >= FINEST_GRID * size.width and levels.shape[2] >= FINEST_GRID * size.height:
        levels = F.avg_pool2d(levels, 2)
    return levels


def _resized(levels: Tensor, size: VLRSize, method: str) -> Tensor:
    shape = (size.height, size.width)
    if method == "area":
        return F.interpolate(levels, shape, mode="area")
    mode = "bilinear" if method == "aliased" else method
    return F.interpolate(levels, shape, mode=mode, align_corners=False, antialias=method != "aliased")


def _to_levels(images: Tensor) -> Tensor:
    return ((to_float64(images).contiguous() + 1) * 127.5).round().clamp(0, 255)


def _to_range(levels: Tensor) -> Tensor:
    """What `earface.data.pixels.to_model_range` makes of a file's uint8 values, to the bit."""
    return levels.round().clamp(0, 255).float().div_(127.5).sub_(1.0)
