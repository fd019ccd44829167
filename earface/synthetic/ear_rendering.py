"""From a shape and a view to pixels: the relief is put into the image's frame, lit, and laid between hair and head."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.synthetic import ear_surroundings as around
from earface.synthetic.curves import Array, smoothstep
from earface.synthetic.ear_anatomy import EAR_LANDMARKS, EXTENT_X, EXTENT_Y, Relief, relief
from earface.synthetic.ear_factors import EarShape, EarView
from earface.synthetic.noise import tile_window
from earface.synthetic.options import MAX_SIZE, MIN_SIZE

OCCLUDED, VISIBLE = 1, 2  # COCO's visibility flags
_RENDERED_AT_LEAST = 96  # smaller pictures are rendered at a multiple of their size: the structures are about 3 % of it
_RELIEF_STRENGTH = 1.0  # full slopes look like carved wood: skin scatters light sideways
# Skin from deep brown to very fair, sRGB; about the Monk scale's course.
_SKIN = (
    np.array([(62, 40, 31), (98, 63, 45), (141, 94, 66), (186, 132, 100), (219, 168, 138), (240, 203, 183)], np.float32)
    / 255
)


@dataclass(frozen=True)
class EarPicture:
    """One synthetic ear.

    image: (H, W, 3) uint8 RGB. landmarks: (17, 2) float32 x, y in the order of `EAR_LANDMARKS`.
    visibility: (17,) uint8, 1 hidden by hair, jewellery or a device, 2 visible.
    bbox: (4,) float32 x, y, width, height of the whole auricle, hidden parts included.
    outline: (N, 2) float32, the auricle's, closed. auricle: (H, W) float32, how far it covers each pixel.
    Coordinates are pixels; whole numbers are pixel centres, so that the picture spans [-.5, side - .5].
    """

    image: NDArray[np.uint8]
    landmarks: Array
    visibility: NDArray[np.uint8]
    bbox: Array
    outline: Array
    auricle: Array


class Pose:
    """Where the ear frame lies in the picture: an affine map, before which depth shifts points sideways.

    matrix: (2, 3) from the ear frame to pixels. axes: (2, 2) unit columns, the ear frame's x and y in the picture.
    parallax: (2,) shift per depth. The whole ear is in the picture: the shift is cut short where it would not be.
    """

    def __init__(self, view: EarView, ear: Relief, size: int) -> None:
        yaw, pitch, rotation = (math.radians(a) for a in (view.yaw, view.pitch, view.rotation))
        self.parallax = np.array([math.tan(yaw), math.tan(pitch)], np.float32)
        cos, sin = math.cos(rotation), math.sin(rotation)
        self.pixels_per_height = size * view.scale
        linear = (
            self.pixels_per_height * np.array([[cos, -sin], [sin, cos]]) @ np.diag([math.cos(yaw), math.cos(pitch)])
        )
        self.matrix = np.column_stack([linear, (size - 1) / 2 + size * np.array([view.shift_x, view.shift_y])])
        if view.side == "r":
            self.matrix[0] = -self.matrix[0]
            self.matrix[0, 2] += size - 1
        outline = self.project(ear, ear.outline)
        low, high = outline.min(0), outline.max(0)
        self.matrix[:, 2] += np.maximum(-low, 0) - np.maximum(high - (size - 1), 0)
        self.axes = (self.matrix[:, :2] / np.linalg.norm(self.matrix[:, :2], axis=0)).astype(np.float32)
        self.inverse = cv2.invertAffineTransform(self.matrix)

    def project(self, ear: Relief, points: Array) -> Array:
        """Ear frame (N, 2) -> pixels (N, 2)."""
        at = ear.to_grid(points)
        z = cv2.remap(ear.depth, at[:, :1], at[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return ((points + z * self.parallax) @ self.matrix[:, :2].T + self.matrix[:, 2]).astype(np.float32)

    def unproject(self, ear: Relief, size: int) -> tuple[Array, Array]:
        """Every pixel's place in the ear frame: x and y, each (size, size)."""
        steps = np.arange(size, dtype=np.float32)
        a = self.inverse.astype(np.float32)
        x0 = a[0, 0] * steps[None, :] + a[0, 1] * steps[:, None] + a[0, 2]
        y0 = a[1, 0] * steps[None, :] + a[1, 1] * steps[:, None] + a[1, 2]
        x, y = x0, y0
        density = np.float32(ear.density)
        if self.parallax.any():
            for _ in range(4):  # a contraction: the depth's slope times the tangent stays below 1
                column, row = (x + EXTENT_X) * density, (y + EXTENT_Y) * density
                z = cv2.remap(ear.depth, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                x, y = x0 - z * self.parallax[0], y0 - z * self.parallax[1]
        return x, y


@functools.lru_cache(maxsize=16)
def _layers(shape: EarShape, density: int) -> tuple[Relief, Array]:
    """The relief, and for one warp (H, W, 4) of height, silhouette, blood and mottling."""
    ear = relief(shape, density)
    rows, columns = ear.height.shape
    blotches = tile_window(shape.mottling_pattern, max(rows, columns), 0.02 * density)[:rows, :columns]
    freckles = np.clip(
        tile_window(shape.mottling_pattern + 1, max(rows, columns), 0.007 * density)[:rows, :columns] - 1.3, 0, 2
    )
    return ear, np.dstack([ear.height, ear.silhouette, ear.blood, 0.6 * blotches - freckles])


def _skin(shape: EarShape, view: EarView, blood: Array, mottling: Array) -> Array:
    """Albedo (3, S, S) in linear light."""
    place = shape.skin_tone * (len(_SKIN) - 1)
    base = np.array([np.interp(place, np.arange(len(_SKIN)), _SKIN[:, c]) for c in range(3)])
    base = base * (1 + 0.05 * shape.undertone * np.array([0.8, -0.6, 0.3]))
    base = base.astype(np.float32) ** 2
    supply = blood * np.float32((0.15 + 0.85 * view.flush) * (0.4 + 0.6 * shape.skin_tone))
    spots = mottling * np.float32(0.05 * shape.mottling)
    planes = [
        base[c] * (1 - supply * np.float32(reddened)) * (1 + spots * np.float32(pigment))
        for c, (reddened, pigment) in enumerate(((0.05, 0.8), (0.36, 1.1), (0.34, 1.3)))
    ]
    return np.clip(np.stack(planes), 0, 1)


def light_colours(view: EarView) -> tuple[Array, Array]:
    """Lamp and ambient light, (3,) each."""
    warm = np.array([1.22, 0.98, 0.70], np.float32) ** max(view.warmth, 0) * np.array(
        [0.82, 0.98, 1.2], np.float32
    ) ** max(-view.warmth, 0)
    gain = np.float32(2.0**view.exposure)
    return gain * warm, gain * warm**0.5


def _shadow(height: Array, light: Array, pixels: float) -> Array:
    """Cast shadows, 1 where lit: march from each point toward the lamp. height in pixels, light a unit vector."""
    size = height.shape[0]
    half = cv2.resize(height, (size // 2, size // 2), interpolation=cv2.INTER_AREA)
    flat = max(math.hypot(light[0], light[1]), 1e-3)
    blocked = np.full_like(half, -1e3)
    for step in (0.012, 0.025, 0.045, 0.07, 0.10, 0.14):
        length = step * pixels
        shift = np.array([[1, 0, light[0] / flat * length / 2], [0, 1, light[1] / flat * length / 2]], np.float32)
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        moved = cv2.warpAffine(half, shift, half.shape[::-1], flags=how, borderMode=cv2.BORDER_REPLICATE)
        np.maximum(blocked, moved - np.float32(length * light[2] / flat), out=blocked)
    lit = 1 - np.clip((blocked - half) * np.float32(1 / (0.028 * pixels)), 0, 1)
    lit = cv2.GaussianBlur(lit, (0, 0), max(0.006 * pixels, 0.5))
    return cv2.resize(lit, (size, size), interpolation=cv2.INTER_LINEAR)


def _open_sky(height: Array, pixels: float) -> Array:
    """How little each point is sunk below its surroundings, near and wide: 1 open, toward 0 in the concha."""
    near = cv2.GaussianBlur(height, (0, 0), 0.03 * pixels) - height
    quarter = cv2.resize(height, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    quarter = cv2.GaussianBlur(quarter, (0, 0), 0.09 * pixels / 4)
    wide = cv2.resize(quarter, height.shape[::-1], interpolation=cv2.INTER_LINEAR) - height
    sunk = 0.5 * np.clip(near * np.float32(7 / pixels), 0, 1) + 0.8 * np.clip(wide * np.float32(9 / pixels), 0, 1)
    return np.clip(1 - sunk, 0.05, 1)


def _light_direction(view: EarView) -> Array:
    azimuth, elevation = math.radians(view.light_azimuth), math.radians(view.light_elevation)
    flat = math.cos(elevation)
    return np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)], np.float32)


def _shade(albedo: Array, height: Array, x: Array, y: Array, view: EarView, pose: Pose) -> Array:
    """Linear colour (3, S, S) of the skin: wrapped Lambert, a sheen, cast shadows, darker and redder hollows.

    albedo: (3, S, S). height: (S, S) in pixels. x, y: (S, S) in the ear frame.
    """
    pixels, light = pose.pixels_per_height, _light_direction(view)
    # The head is round, and turned with the pose.
    across = np.float32(-0.7 * pose.parallax[0]) - np.float32(0.35) * x
    down = np.float32(-0.7 * pose.parallax[1]) - np.float32(0.25) * y
    slope_x, slope_y = (
        cv2.Sobel(height, cv2.CV_32F, 1 - i, i, ksize=3, scale=_RELIEF_STRENGTH / 8, borderType=cv2.BORDER_REPLICATE)
        + pose.axes[i, 0] * across
        + pose.axes[i, 1] * down
        for i in range(2)
    )
    steepness = slope_x * slope_x + slope_y * slope_y
    facing = (light[2] - light[0] * slope_x - light[1] * slope_y) / np.sqrt(1 + steepness)
    half = light + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half) / np.array([0.5, 0.5, 1], np.float32)  # half the slope: sheen is broad on skin
    gleam = np.clip((half[2] - half[0] * slope_x - half[1] * slope_y) / np.sqrt(1 + 0.25 * steepness), 0, 1)
    gleam = gleam**8
    open_sky, shadow = _open_sky(height, pixels), _shadow(height, light, pixels)
    gloss = (0.4 * gleam + 0.4 * gleam**4) * shadow * open_sky * np.float32(0.04 + 0.20 * view.shine)

    lamp, sky = light_colours(view)
    lamp, sky = 1.45 * (1 - view.ambient) * lamp, 0.95 * view.ambient * sky
    picture = np.empty_like(albedo)
    # Red light goes around bends, under the edge of a shadow, and out of hollows.
    for channel, (wrap, leak, sinking) in enumerate(((0.40, 0.18, 0.72), (0.20, 0.06, 1.12), (0.14, 0.03, 1.3))):
        diffuse = np.clip((facing + np.float32(wrap)) * np.float32(1 / (1 + wrap)), 0, 1)
        dark = cv2.pow(open_sky, sinking)
        direct = diffuse * (shadow * np.float32(1 - leak) + np.float32(leak)) * (0.35 + 0.65 * dark)
        lit = direct * np.float32(lamp[channel]) + dark * np.float32(sky[channel])
        picture[channel] = albedo[channel] * lit + gloss * np.float32(lamp[channel] + sky[channel])
    return picture


def _compose(
    shape: EarShape, view: EarView, ear: Relief, pose: Pose, x: Array, y: Array, silhouette: Array, skin: Array
) -> tuple[Array, Array]:
    """(picture (3, S, S) in linear light, how far what lies in front of the ear covers each pixel (S, S))."""
    size, soft = len(x), 1 / pose.pixels_per_height
    lamp, sky = light_colours(view)
    light = ((lamp * (1 - view.ambient) + sky * view.ambient) * np.float32(0.9))[:, None, None]
    hair = around.Hair(shape, view, x, y)
    lit_hair = hair.shade * hair.colour[:, None, None] * light
    auricle = smoothstep(silhouette, -0.7 * soft, 0.7 * soft)
    nape = 0.24 + 0.75 * view.head_extent - 0.35 * np.clip(y, 0, None) * (1.2 - view.head_extent)
    head = smoothstep(nape - x, -0.012, 0.012)
    behind = hair.behind() * smoothstep(nape + 0.02 - x + 0.4 * hair.edge, -0.015, 0.015)
    in_ears_shade = 1 - 0.55 * np.clip(1 + silhouette * 12, 0, 1)

    picture = around.background(view, size) * np.float32(2.0**view.exposure)
    around.over(picture, skin, np.maximum(head, auricle))
    around.over(picture, lit_hair * in_ears_shade, behind * (1 - auricle))
    covered = np.zeros_like(x)
    place = dict(zip(EAR_LANDMARKS, ear.landmarks, strict=True))
    for part in (
        around.earring(view, x, y, place["lobule_inferior"], soft),
        around.earbud(view, x, y, place["cavum_concha"], soft),
        around.temple(view, x, y, place["otobasion_superior"], soft),
    ):
        if part is not None:
            around.over(picture, part[0] * light, part[1])
            covered = np.maximum(covered, part[1])
    front = np.maximum(hair.in_front(), hair.strands(pose.matrix, size))
    around.over(picture, lit_hair, front)
    return picture, np.maximum(covered, front)


def draw_ear(shape: EarShape, view: EarView, image_size: int = 128) -> EarPicture:
    """Render one ear. image_size: side of the square picture in pixels, 32 to 512.

    The picture depends on the arguments alone, bit for bit. Raises InputError on a size out of range.
    """
    if not (isinstance(image_size, int) and MIN_SIZE <= image_size <= MAX_SIZE):
        raise InputError(f"`image_size` {image_size}: must be a whole number from {MIN_SIZE} to {MAX_SIZE}")
    factor = -(-_RENDERED_AT_LEAST // image_size)
    size = image_size * factor
    ear, fields = _layers(shape, min(round(0.75 * size), 256))
    pose = Pose(view, ear, size)
    x, y = pose.unproject(ear, size)
    columns, rows = (x + EXTENT_X) * np.float32(ear.density), (y + EXTENT_Y) * np.float32(ear.density)
    warped = cv2.remap(fields, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    height, silhouette, blood, mottling = cv2.split(warped)
    albedo = _skin(shape, view, blood, mottling)
    skin = _shade(albedo, height * np.float32(pose.pixels_per_height), x, y, view, pose)
    picture, covered = _compose(shape, view, ear, pose, x, y, silhouette, skin)

    landmarks, outline = pose.project(ear, ear.landmarks), pose.project(ear, ear.outline)
    visibility = np.where(around.coverage_at(covered, landmarks) > 0.5, OCCLUDED, VISIBLE).astype(np.uint8)
    # Merging pixels moves their centres.
    landmarks, outline = (
        (points + np.float32(0.5)) / np.float32(factor) - np.float32(0.5) for points in (landmarks, outline)
    )
    bbox = np.concatenate([outline.min(0), np.ptp(outline, axis=0)])
    auricle = smoothstep(silhouette, -0.7 / pose.pixels_per_height, 0.7 / pose.pixels_per_height)
    if factor > 1:
        auricle = cv2.resize(auricle, (image_size, image_size), interpolation=cv2.INTER_AREA)
    return EarPicture(_expose(picture, view, size, image_size), landmarks, visibility, bbox, outline, auricle)


def _expose(picture: Array, view: EarView, size: int, image_size: int) -> NDArray[np.uint8]:
    """Linear light -> sRGB-like uint8, with the lens' blur and the sensor's noise."""
    tone = np.sqrt(np.clip(picture, 0, 1.0)) * np.float32(255)
    sigma = 0.01 * view.blur * size
    planes = []
    for channel, plane in enumerate(tone):
        if sigma > 0.25:
            plane = cv2.GaussianBlur(plane, (0, 0), sigma)
        if size != image_size:
            plane = cv2.resize(plane, (image_size, image_size), interpolation=cv2.INTER_AREA)
        planes.append(plane + np.float32(8 * view.noise) * tile_window(view.noise_pattern + channel, image_size))
    return cv2.merge([np.clip(np.rint(plane), 0, 255).astype(np.uint8) for plane in planes])
