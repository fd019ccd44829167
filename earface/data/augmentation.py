"""Augmentation of uint8 images by albumentations, a function of (seed, epoch, index) and of nothing else.

albumentations' own generator repeats itself across workers and epochs, so every sample seeds the pipeline anew.
This is the one module that knows albumentations.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Any, Literal

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask the network for a newer version

import albumentations as A
import cv2
import numpy as np

Strength = Literal["none", "slight", "light", "full"]
PixelStrength = Literal["none", "light", "full", "strong"]
DOWN_AND_UP = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_CUBIC}


def geometric(strength: Strength) -> list[Any]:
    """Mirror images and small changes of pose; `full` adds perspective and elastic bending."""
    if strength == "none":
        return []
    border = cv2.BORDER_REFLECT_101
    if strength == "slight":
        return [
            A.HorizontalFlip(p=0.5),
            A.Affine(
                scale=(0.97, 1.03),
                translate_percent=(-0.015, 0.015),
                rotate=(-3, 3),
                interpolation=cv2.INTER_CUBIC,  # a linear one would teach a model to blur
                border_mode=border,
                p=0.8,
            ),
        ]
    steps: list[Any] = [
        A.HorizontalFlip(p=0.5),
        A.Affine(
            scale=(0.9, 1.1),
            translate_percent=(-0.06, 0.06),
            rotate=(-10, 10),
            shear=(-4, 4),
            border_mode=border,
            p=0.9 if strength == "full" else 0.8,
        ),
    ]
    if strength == "full":
        steps += [
            A.Perspective(scale=(0.02, 0.06), border_mode=border, p=0.25),
            A.ElasticTransform(alpha=20, sigma=8, approximate=True, border_mode=border, p=0.1),
        ]
    return steps


def photometric(strength: Strength) -> list[Any]:
    """Light and colour; `full` is wider."""
    if strength in ("none", "slight"):
        return []
    if strength == "light":
        return [
            A.ColorJitter(brightness=(0.9, 1.1), contrast=(0.9, 1.1), saturation=(0.9, 1.1), hue=(-0.02, 0.02), p=0.5)
        ]
    return [
        A.ColorJitter(brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=(-0.03, 0.03), p=0.5),
        A.RandomBrightnessContrast(brightness_limit=0.15, contrast_limit=0.15, p=0.2),
        A.HueSaturationValue(hue_shift_limit=5, sat_shift_limit=15, val_shift_limit=10, p=0.2),
    ]


def degrading(strength: Strength) -> list[Any]:
    """Noise, blur, shadow, fog and dropout: what a denoising input suffers."""
    if strength != "full":
        return [A.GaussNoise(std_range=(0.01, 0.04), p=0.3)] if strength == "light" else []
    return [
        A.RandomShadow(shadow_roi=(0, 0, 1, 1), p=0.08),
        A.RandomFog(fog_coef_range=(0.05, 0.2), alpha_coef=0.08, p=0.01),  # the slow one: 50 ms
        A.OneOf([A.GaussianBlur(blur_limit=(3, 5)), A.MotionBlur(blur_limit=(3, 5))], p=0.1),
        A.GaussNoise(std_range=(0.01, 0.04), p=0.15),
        A.CoarseDropout(num_holes_range=(1, 3), hole_height_range=(0.05, 0.15), hole_width_range=(0.05, 0.15), p=0.1),
    ]


def camera(strength: Strength) -> list[Any]:
    """What a camera and its file format do to a photograph: nothing that moves a landmark."""
    if strength == "none":
        return []
    full = strength == "full"
    return [
        A.OneOf(
            # as they stand, both would move the picture by some pixels
            [A.GaussianBlur(blur_limit=(3, 5)), A.MotionBlur((3, 7), allow_shifted=False, direction_range=(0, 0))],
            p=0.2 if full else 0.1,
        ),
        A.GaussNoise(std_range=(0.01, 0.06 if full else 0.03), p=0.25 if full else 0.1),
        A.ImageCompression(quality_range=(30 if full else 60, 95), p=0.3 if full else 0.1),
        *([A.ToGray(p=0.05)] if full else []),
    ]


FaceStrength = Literal["light", "full", "recognition"]


class FaceAugmentation:
    """`(pictures, key) -> pictures`: an aligned face, (H, W, 3) uint8, mirrored, moved and recoloured.

    light: mirrored (p .5), turned by at most 6 degrees (p .65), brightness and contrast changed by 7 %, saturation by
        4 % (p .3).
    full, for small sets: mirrored, turned by 10 degrees, each axis zoomed by 10 % and shifted by 5 % (p .8), brightness
        and contrast changed by 25 %, saturation by 30 %, hue by 7 degrees (p .6).
    recognition: mirrored (p .5), and always turned by at most 5 degrees, brightness and contrast changed by 7 %,
        saturation by 5 %, hue by 7 degrees.
    mirror_only: several pictures of one face, of any size, are mirrored or not together, and nothing else.
    """

    def __init__(self, strength: FaceStrength = "light", mirror_only: bool = False) -> None:
        border = {"interpolation": cv2.INTER_CUBIC, "border_mode": cv2.BORDER_REFLECT_101}
        steps: dict[FaceStrength, list[Any]] = {
            "light": [
                A.Rotate((-6, 6), **border, p=0.65),
                A.ColorJitter(brightness=(0.93, 1.07), contrast=(0.93, 1.07), saturation=(0.96, 1.04), hue=0.0, p=0.3),
            ],
            "full": [
                A.Affine(scale=(0.9, 1.1), translate_percent=(-0.05, 0.05), rotate=(-10, 10), **border, p=0.8),
                A.ColorJitter(brightness=(0.75, 1.25), contrast=(0.75, 1.25), saturation=(0.7, 1.3), hue=0.02, p=0.6),
            ],
            "recognition": [
                A.Rotate((-5, 5), **border, p=1.0),
                A.ColorJitter(brightness=(0.93, 1.07), contrast=(0.93, 1.07), saturation=(0.95, 1.05), hue=0.02, p=1.0),
            ],
        }
        self.steps = A.Compose([A.HorizontalFlip(p=0.5), *([] if mirror_only else steps[strength])])

    def __call__(self, pictures: Sequence[np.ndarray], key: Sequence[int]) -> list[np.ndarray]:
        return [_run(self.steps, picture, key) for picture in pictures]


def any_camera() -> list[Any]:
    """Light, colours, cameras and occlusions far beyond what photographs have: from synthetic pictures to real ones.

    Nothing that moves a landmark.
    """
    return [
        A.OneOf(
            [
                A.ColorJitter(brightness=(0.5, 1.5), contrast=(0.5, 1.5), saturation=(0.2, 1.8), hue=(-0.1, 0.1)),
                A.RandomToneCurve(scale=0.3, per_channel=True),
                A.RandomGamma(gamma_limit=(50, 180)),
                A.CLAHE(clip_limit=(1, 6)),
                A.ChannelShuffle(),
            ],
            p=0.8,
        ),
        A.RandomShadow(shadow_roi=(0, 0, 1, 1), p=0.15),
        A.CoarseDropout(
            num_holes_range=(1, 4),
            hole_height_range=(0.08, 0.3),
            hole_width_range=(0.08, 0.3),
            fill="random_uniform",
            p=0.35,
        ),
        A.OneOf([A.Sharpen(), A.UnsharpMask(), A.Posterize(num_bits=(3, 6))], p=0.15),
        A.Downscale(scale_range=(0.12, 0.6), interpolation_pair=DOWN_AND_UP, p=0.5),
        A.OneOf(
            [A.GaussianBlur(blur_limit=(3, 9)), A.MotionBlur((3, 11), allow_shifted=False, direction_range=(0, 0))],
            p=0.25,
        ),
        A.GaussNoise(std_range=(0.01, 0.1), p=0.35),
        A.ImageCompression(quality_range=(15, 95), p=0.4),
        A.ToGray(p=0.15),
    ]


class EarAugmentation:
    """`(image, key) -> image`, (H, W, 3) uint8, an ear in its form, for recognition.

    light: mirrored (p .5), turned by 5 degrees, light changed a little.
    strong: mirrored, turned by 8 degrees, each axis scaled by 10 % and shifted by 4 %, light, contrast and colour
        changed, grey (p .2), downsampled to a sixth to a half (p .3), noise (p .3), and an occluding box (p .5).
    """

    def __init__(self, strength: Literal["none", "light", "strong"]) -> None:
        border = {"border_mode": cv2.BORDER_REPLICATE, "p": 1.0}
        light = [
            A.HorizontalFlip(p=0.5),
            A.Affine(rotate=(-5, 5), translate_percent=(-0.02, 0.02), **border),
            A.RandomBrightnessContrast(0.15, 0.15, p=0.5),
        ]
        strong = [
            A.HorizontalFlip(p=0.5),
            A.Affine(
                scale={"x": (0.9, 1.1), "y": (0.9, 1.1)},
                rotate=(-8, 8),
                translate_percent=(-0.04, 0.04),
                keep_ratio=False,
                **border,
            ),
            A.RandomBrightnessContrast(0.3, 0.3, p=0.8),
            A.HueSaturationValue(hue_shift_limit=8, sat_shift_limit=30, val_shift_limit=0, p=0.4),
            A.ToGray(p=0.2),
            A.Downscale(scale_range=(0.18, 0.57), interpolation_pair=DOWN_AND_UP, p=0.3),
            A.GaussNoise(std_range=(0.01, 0.06), p=0.3),
            A.CoarseDropout(
                num_holes_range=(1, 1),
                hole_height_range=(0.1, 0.4),
                hole_width_range=(0.1, 0.4),
                fill="random_uniform",
                p=0.5,
            ),
        ]
        self.steps = A.Compose({"none": [], "light": light, "strong": strong}[strength])

    def __call__(self, image: np.ndarray, key: Sequence[int]) -> np.ndarray:
        return _run(self.steps, image, key)


class PixelAugmentation:
    """`(image, key) -> image`, (H, W, C) uint8: light, colour, blur, noise and JPEG; every pixel stays in its place."""

    def __init__(self, strength: PixelStrength) -> None:
        steps = any_camera() if strength == "strong" else [*photometric(strength), *camera(strength)]
        self.steps = A.Compose(steps)

    def __call__(self, image: np.ndarray, key: Sequence[int]) -> np.ndarray:
        channels = image.shape[2]
        if channels == 1:
            image = np.repeat(image, 3, axis=2)
        return _run(self.steps, image, key)[..., :channels]


class Augmentation:
    """`(image, key) -> (view, source)`: the augmented view, and what the encoder sees of it.

    image: (H, W, C) uint8, C 1 or 3; key: any integers, such as (seed, epoch, index). Both outputs are like the
    image. The two are the same array unless `denoise`, where only `source` is degraded; without it `full` degrades
    the view itself.
    """

    def __init__(self, strength: Strength, denoise: bool = False, mirror: bool = True) -> None:
        """mirror: False keeps sides apart, where pictures are mirrored to one side already."""
        moves = [step for step in geometric(strength) if mirror or not isinstance(step, A.HorizontalFlip)]
        clean = [*moves, *photometric(strength)]
        spoil = degrading(strength)
        self.view = A.Compose(clean if denoise or strength != "full" else [*clean, *spoil])
        self.spoil = A.Compose(spoil) if denoise else None

    def __call__(self, image: np.ndarray, key: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        channels = image.shape[2]
        if channels == 1:
            image = np.repeat(image, 3, axis=2)  # several transforms know RGB only
        view = _run(self.view, image, key)
        source = _run(self.spoil, view, (*key, 1)) if self.spoil is not None else view
        return view[..., :channels], source[..., :channels]


def _run(pipeline: A.Compose, image: np.ndarray, key: Sequence[int]) -> np.ndarray:
    if not pipeline.transforms:
        return image
    # one stream for all steps: set_random_seed would give each step the same numbers, so that all act or none does
    words = np.random.SeedSequence(key).generate_state(2)
    pipeline.set_random_state(np.random.default_rng(words[0]), random.Random(int(words[1])))
    return np.ascontiguousarray(pipeline(image=image)["image"])
