"""What is around and in front of a synthetic ear: background, hair, earring, glasses, earbud.

Colours are RGB in linear light, pictures planar (3, S, S), masks (S, S) in [0, 1]; `x` and `y` are each pixel's place
in the ear frame, (S, S). All float32.
"""

from __future__ import annotations

import cv2
import numpy as np

from earface.synthetic.curves import Array, smoothstep
from earface.synthetic.ear_factors import EarShape, EarView
from earface.synthetic.noise import TILE, noise_tile, offsets


def over(picture: Array, colour: Array, alpha: Array) -> None:
    """Lay a colour (3, S, S) over a picture (3, S, S) in place."""
    picture += (colour - picture) * alpha


def background(view: EarView, size: int) -> Array:
    """A blurred room, (3, size, size): a few soft patches around one hue."""
    rng = np.random.default_rng(view.background_pattern)
    patches = np.empty((5, 5, 3), np.float32)
    patches[..., 0] = (360 * view.background_hue + 25 * rng.standard_normal((5, 5))) % 360
    patches[..., 1] = np.clip(view.background_saturation + 0.08 * rng.standard_normal((5, 5)), 0, 1)
    patches[..., 2] = np.clip(view.background_value + 0.16 * rng.standard_normal((5, 5)), 0.02, 1)
    colours = cv2.cvtColor(patches, cv2.COLOR_HSV2RGB)
    planes = [
        cv2.resize(np.ascontiguousarray(colours[..., c]), (size, size), interpolation=cv2.INTER_CUBIC) for c in range(3)
    ]
    return np.clip(np.stack(planes), 0, 1) ** 2


def hair_colour(shape: EarShape) -> Array:
    """(3,) RGB."""
    dark, fair = np.array([0.06, 0.045, 0.04], np.float32), np.array([0.80, 0.62, 0.40], np.float32)
    colour = dark + (fair - dark) * shape.hair_tone
    red = np.array([1.15, 0.80, 0.62], np.float32) ** (1.5 * shape.hair_redness * (1 - shape.hair_greyness))
    grey = np.array([0.62, 0.61, 0.60], np.float32)
    return (colour * red * (1 - shape.hair_greyness) + grey * shape.hair_greyness) ** 2


class Hair:
    """The hair of one picture: a mass behind the ear, locks in front of its top, loose strands across it."""

    def __init__(self, shape: EarShape, view: EarView, x: Array, y: Array) -> None:
        self.view = view
        self.colour = hair_colour(shape)
        angle = 0.55 + 0.45 * view.hair_flow + 0.5 * view.hair_length
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        along = x * cos + y * sin
        across = y * cos - x * sin + 0.30 * along * along
        dx, dy, cx, cy = offsets(view.hair_pattern, 4)
        clumps = self._sample(noise_tile(24.0, 3.0), along * 64 + cx, across * 90 + cy)
        fine = self._sample(noise_tile(24.0, 0.8), along * 70 + dx, across * 130 + dy + 2.0 * clumps)
        self.edge = 0.016 * fine + 0.010 * clumps
        gloss = np.exp(-(((along + 0.35 + 0.03 * clumps) / 0.16) ** 2))
        self.shade = np.clip(0.50 + 0.20 * fine + 0.14 * clumps, 0.08, 1.2) + 0.55 * gloss * np.clip(
            fine * 0.4 + 0.4, 0, 1
        )
        self.x, self.y = x, y

    @staticmethod
    def _sample(tile: Array, u: Array, v: Array) -> Array:
        return cv2.remap(
            tile,
            u + np.float32(TILE / 2),
            v + np.float32(TILE / 2),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )

    def behind(self) -> Array:
        """Where hair lies on the head, under the ear."""
        cover, length = self.view.hair_cover, self.view.hair_length
        x, y = self.x, self.y
        sideburn = (0.10 + 0.45 * cover) * np.exp(-(((x + 0.34) / 0.11) ** 2))
        front = -0.60 + 0.42 * cover + sideburn - 0.7 * np.clip(-0.36 - x, 0, None)
        back = -0.30 + 1.5 * length * length + 0.5 * length
        line = front + (back - front) * smoothstep(x, -0.05, 0.28)
        return smoothstep(line - y + 1.6 * self.edge, -0.02, 0.035)

    def in_front(self) -> Array:
        """Where hair lies on the ear."""
        cover = self.view.hair_cover
        if cover < 0.35:
            return np.zeros_like(self.x)
        line = -0.62 + 0.55 * (cover - 0.35) - (0.10 + 0.25 * cover) * (self.x + 0.05)
        return smoothstep(line - self.y + 2.2 * self.edge, -0.01, 0.03)

    def strands(self, to_image: Array, size: int) -> Array:
        """Loose strands across the ear. to_image: (2, 3) affine map from the ear frame to pixels."""
        mask = np.zeros((size, size), np.uint8)
        count = round(self.view.strands * 28)
        if count:
            rng = np.random.default_rng(self.view.hair_pattern)
            start = np.stack([rng.uniform(-0.5, 0.2, count), rng.uniform(-0.75, -0.55, count)], 1)
            drop = rng.uniform(0.2, 0.8, count)
            reach = np.stack([drop * (0.35 + 0.45 * self.view.hair_flow + 0.10 * rng.standard_normal(count)), drop], 1)
            bow = (0.06 + 0.04 * rng.standard_normal((count, 1))) * np.array([[1.0, -0.3]])
            t = np.linspace(0, 1, 12)[None, :, None]
            curves = (
                start[:, None]
                + reach[:, None] * t
                + bow[:, None] * (4 * t * (1 - t))
                + 0.15 * reach[:, None, ::-1] * t * t
            )
            pixels = curves @ to_image[:, :2].T + to_image[:, 2]
            width = max(1, round(size / 220))
            cv2.polylines(mask, list(np.round(pixels * 16).astype(np.int32)), False, 190, width, cv2.LINE_AA, shift=4)
        return mask.astype(np.float32) * np.float32(1 / 255)


def earring(view: EarView, x: Array, y: Array, lobe: Array, soft: float) -> tuple[Array, Array] | None:
    """(colour (3, S, S), mask) of an earring at the lobe's landmark, or None. soft: one pixel in ear heights."""
    if view.earring == 0:
        return None
    metal = np.array([0.85, 0.62, 0.25] if view.earring % 0.25 < 0.125 else [0.75, 0.76, 0.80], np.float32)
    if view.earring <= 0.5:
        radius = 0.022 + 0.05 * view.earring
        cx, cy = lobe[0] - 0.005, lobe[1] - 0.085
        dx, dy = (x - cx) / radius, (y - cy) / radius
        r = np.sqrt(dx * dx + dy * dy)
        mask = smoothstep(1 - r, -soft / radius, soft / radius)
        light = 0.25 + 0.75 * np.clip(-0.45 * dx - 0.6 * dy + 0.4, 0, 1) ** 2
        light = light + 1.2 * np.exp(-((dx + 0.3) ** 2 + (dy + 0.35) ** 2) * 12)
    else:
        radius, thick = 0.05 + 0.10 * (view.earring - 0.5), 0.012
        cx, cy = lobe[0] - 0.005, lobe[1] - 0.07 + radius
        dx, dy = (x - cx) / (0.8 * radius), (y - cy) / radius
        r = np.sqrt(dx * dx + dy * dy)
        ring = 1 - np.abs(r - 1) * (radius / thick)
        mask = smoothstep(ring, -soft / thick, soft / thick)
        light = (
            0.2
            + 0.6 * np.clip(ring, 0, 1) * (0.6 - 0.4 * dy)
            + 0.9 * np.clip(ring - 0.5, 0, 1) * (np.abs(dx + 0.5) < 0.25)
        )
    return np.clip(light, 0, 1.6) * metal[:, None, None], mask


def temple(view: EarView, x: Array, y: Array, root: Array, soft: float) -> tuple[Array, Array] | None:
    """(colour, mask) of the temple of glasses that runs from the face over the helix's root, or None."""
    if view.temple == 0:
        return None
    thick = 0.010 + 0.022 * view.temple
    line = root[1] - 0.035 + 0.10 * (x - root[0]) + 0.9 * np.clip(x - root[0] - 0.03, 0, None) ** 2
    d = (y - line) / thick
    mask = smoothstep(1 - np.abs(d), -soft / thick, soft / thick) * smoothstep(root[0] + 0.07 - x, 0, 2 * soft)
    tint = np.array([0.03, 0.03, 0.035] if view.temple % 0.2 < 0.1 else [0.16, 0.08, 0.04], np.float32)
    light = 0.7 + 3.0 * np.exp(-((d + 0.45) ** 2) * 14)
    return light * tint[:, None, None], mask


def earbud(view: EarView, x: Array, y: Array, cavum: Array, soft: float) -> tuple[Array, Array] | None:
    """(colour, mask) of an earbud in the concha with its stem down, or None."""
    if view.earbud == 0:
        return None
    shade = np.float32(0.03 if view.earbud <= 0.5 else 0.80)
    radius = 0.075 + 0.03 * (view.earbud % 0.5)
    dx, dy = (x - cavum[0] + 0.03) / radius, (y - cavum[1] - 0.01) / radius
    bud = 1 - np.sqrt(dx * dx + dy * dy)
    stem_x = (x - cavum[0] + 0.055 + 0.18 * (y - cavum[1])) / 0.028
    stem = np.minimum(1 - np.abs(stem_x), np.minimum((y - cavum[1]) / 0.028, (cavum[1] + 0.27 - y) / 0.028))
    mask = np.maximum(smoothstep(bud, -soft / radius, soft / radius), smoothstep(stem, -soft / 0.028, soft / 0.028))
    light = 0.35 + 0.5 * np.clip(0.6 - 0.4 * dx - 0.5 * dy, 0, 1.4)
    light = np.where(bud > 0, light, 0.55 - 0.3 * stem_x * (np.abs(stem_x) < 1)) + (0.06 / shade) * np.exp(
        -((dx + 0.35) ** 2 + (dy + 0.4) ** 2) * 10
    )
    return np.stack([np.clip(light * shade, 0, 1.2)] * 3), mask


def coverage_at(mask: Array, points: Array) -> Array:
    """Coverage (N,) of a mask at pixels (N, 2), the nearest pixel's."""
    size = mask.shape[0]
    at = np.clip(np.rint(points).astype(int), 0, size - 1)
    return mask[at[:, 1], at[:, 0]]
