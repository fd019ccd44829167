"""Heads for scenes: synthetic ears on a profile or a face, between hair, jaw and shoulders.

A head is painted in a frame whose unit is the height of its ear. The origin of a profile is the middle of the ear, and
the face looks to -x; the origin of a face lies between the ears.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from earface.synthetic.backdrops import Random, any_colour
from earface.synthetic.canvas import Canvas, Frame, outline_mask
from earface.synthetic.curves import Array, smoothstep
from earface.synthetic.ear_factors import EarShape, EarView
from earface.synthetic.ear_rendering import EarPicture, draw_ear, light_colours
from earface.synthetic.ear_surroundings import hair_colour
from earface.synthetic.noise import noise_tile

PATCH_SCALE = 0.72  # the ear's share of its patch
PATCH_SIZES = (96, 160, 256)

_PROFILE = [
    (-0.2, -1.95), (-0.85, -1.8), (-1.32, -1.4), (-1.5, -0.95), (-1.53, -0.62), (-1.46, -0.42), (-1.68, 0.0),
    (-1.82, 0.15), (-1.72, 0.26), (-1.55, 0.3), (-1.63, 0.45), (-1.57, 0.53), (-1.6, 0.65), (-1.5, 0.77), (-1.53, 0.98),
    (-1.36, 1.13), (-0.95, 1.05), (-0.42, 0.84), (-0.22, 0.62), (0.1, 0.8), (0.62, 0.66), (1.05, 0.15), (1.2, -0.55),
    (1.02, -1.25), (0.5, -1.78),
]  # fmt: skip
_PROFILE_NECK = [(-0.95, 0.9), (-0.7, 1.3), (-0.75, 1.9), (-0.6, 2.6), (0.9, 2.4), (0.72, 1.5), (0.75, 0.5), (0, 0.2)]
_PROFILE_CLOTHES = [
    (-2.0, 4.5), (-1.7, 2.9), (-0.85, 1.95), (0.2, 1.95), (0.85, 1.65), (1.9, 2.3), (2.3, 3.8), (2.4, 12), (-2.1, 12),
]  # fmt: skip
_FACE = [
    (0, -1.95), (0.6, -1.82), (1.0, -1.35), (1.16, -0.6), (1.13, 0.1), (0.98, 0.7), (0.62, 1.15), (0.25, 1.38),
]  # fmt: skip
_FACE_NECK = [(-0.66, 0.6), (-0.62, 1.7), (-0.9, 2.4), (0.9, 2.4), (0.62, 1.7), (0.66, 0.6)]
_FACE_CLOTHES = [
    (-3.5, 5.0), (-3.2, 2.9), (-2.2, 2.3), (-0.75, 1.85), (0, 2.2), (0.75, 1.85), (2.2, 2.3), (3.2, 2.9), (3.5, 5.0),
    (3.6, 12), (-3.6, 12),
]  # fmt: skip


@dataclass(frozen=True)
class PaintedEar:
    """An ear of a scene, before what is laid over it; pixels, whole numbers at pixel centres."""

    number: int  # its owner on the canvas
    side: str
    outline: Array  # (N, 2)
    landmarks: Array  # (17, 2)
    visibility: Array  # (17,) uint8, with what belongs to the ear itself


class Person:
    """The person and the light of a head."""

    def __init__(self, rng: Random, shape: EarShape, view: EarView, ear_height: float, frontal: bool) -> None:
        size = next((size for size in PATCH_SIZES if size * PATCH_SCALE >= 0.9 * ear_height), PATCH_SIZES[-1])
        yaw = rng.uniform(15, 35) if frontal else view.yaw
        if frontal:  # the head's own hair falls about the ear
            view = dataclasses.replace(view, hair_cover=0.0, hair_length=0.0, strands=0.0)
        self.view = dataclasses.replace(
            view, side="l", scale=PATCH_SCALE, shift_x=0.0, shift_y=0.0, rotation=0.5 * view.rotation, yaw=yaw,
            head_extent=1.0, blur=0.0, noise=0.0,
        )  # fmt: skip
        self.ear: EarPicture = draw_ear(shape, self.view, size)
        column, row = (int((size - 1) / 2 + size * PATCH_SCALE * at) for at in (-0.5, 0.3))
        self.skin = np.median(self.ear.image[row - 2 : row + 3, column : column + 5], axis=(0, 1)).astype(np.float32)
        lamp, sky = light_colours(self.view)
        light = 0.5 * (lamp * (1 - self.view.ambient) + sky * self.view.ambient)
        self.hair = np.sqrt(np.clip(hair_colour(shape) * light, 0.002, 1)) * 255
        self.clothes = any_colour(rng, (0.05, 0.9))


def paint_ear(canvas: Canvas, person: Person, frame: Frame, number: int, alone: bool) -> PaintedEar:
    """Lay the synthetic ear into a frame; unless `alone`, the skin and hair about it go over into the head's."""
    ear, size = person.ear, len(person.ear.image)
    step, middle = 1 / (size * PATCH_SCALE), (size - 1) / 2
    to_frame = np.array([[step, 0, -middle * step], [0, step, -middle * step], [0, 0, 1]])
    matrix = frame.matrix @ to_frame

    def moved(points: Array) -> Array:
        return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float32)

    corners = moved(np.array([[0, 0], [size, 0], [0, size], [size, size]], np.float32))
    region, outline = canvas.region(corners, 0), moved(ear.outline)
    if region is not None:
        alpha = ear.auricle
        if not alone:
            near = cv2.GaussianBlur(alpha, (0, 0), 0.055 * size)
            alpha = np.maximum(alpha, smoothstep(near, 0.02, 0.42))
        layers = np.dstack([ear.image.astype(np.float32), alpha])
        rows, columns = region
        fewer = float(np.clip(np.linalg.norm(matrix[:, :2], axis=0).max() * 1.2, 0.05, 1))
        if fewer < 0.8:  # merge pixels first: a small ear would be a sample of the large one
            layers = cv2.resize(layers, None, fx=fewer, fy=fewer, interpolation=cv2.INTER_AREA)
        step = size / len(layers)
        shrunk = matrix @ np.array([[step, 0, step / 2 - 0.5], [0, step, step / 2 - 0.5], [0, 0, 1]])
        shrunk[:, 2] -= (columns.start, rows.start)
        window = (columns.stop - columns.start, rows.stop - rows.start)
        layers = cv2.warpAffine(layers, shrunk, window, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        canvas.cover(region, layers[..., :3], layers[..., 3])
        canvas.owner[region][outline_mask(outline, region) > 0.5] = number
    side = "r" if np.linalg.det(frame.matrix[:, :2]) < 0 else "l"
    return PaintedEar(number, side, outline, moved(ear.landmarks), ear.visibility)


def paint_profile(canvas: Canvas, rng: Random, frame: Frame, person: Person, number: int) -> list[PaintedEar]:
    """A head from its side, one ear."""
    skin, dark = person.skin, person.skin * 0.55
    long = person.view.hair_length > 0.62 and rng.random() < 0.7
    bald = not long and rng.random() < 0.12
    if long:
        back = [(0.1, -1.9), (1.0, -1.4), (1.4, -0.5), (1.35, 0.6), (1.25, 2.0), (0.3, 2.2), (0.1, 0.5)]
        paint_hair(canvas, rng, frame, frame.curve(back, True), person.hair * 0.8)
    canvas.shape(frame.curve(_PROFILE_NECK, True), skin * 0.88, round_shade=0.3)
    canvas.shape(frame.curve(_PROFILE_CLOTHES, True), person.clothes, round_shade=0.4)
    points = np.array(_PROFILE) + 0.025 * rng.standard_normal((len(_PROFILE), 2))
    canvas.shape(frame.curve(points, True), skin, soft=0.03 * frame.unit, round_shade=0.4)
    # jaw, eye, brow, nostril, mouth
    canvas.line(frame.curve([(-0.2, 0.6), (-0.45, 0.86), (-0.95, 1.04), (-1.3, 1.1)]), dark, 0.05 * frame.unit, 0.4)
    canvas.line(
        frame.curve([(-1.63, 0.53), (-1.45, 0.54), (-1.3, 0.58)]), dark * (1.0, 0.7, 0.7), 0.05 * frame.unit, 0.8
    )
    canvas.line(frame.curve([(-1.58, 0.24), (-1.5, 0.16), (-1.44, 0.2)]), dark, 0.04 * frame.unit, 0.7)
    canvas.shape(
        frame.curve([(-1.42, -0.33), (-1.28, -0.42), (-1.1, -0.33), (-1.28, -0.27)], True),
        np.array([225.0, 220, 215]) * 0.8,
    )
    canvas.shape(frame.curve([(-1.4, -0.34), (-1.33, -0.42), (-1.26, -0.34), (-1.33, -0.27)], True), dark * 0.4)
    canvas.line(frame.curve([(-1.44, -0.34), (-1.28, -0.44), (-1.08, -0.33)]), dark * 0.5, 0.04 * frame.unit)
    canvas.line(frame.curve([(-1.48, -0.6), (-1.3, -0.7), (-1.05, -0.62)]), person.hair * 0.8, 0.09 * frame.unit, 0.8)
    if rng.random() < 0.25 and not long:
        beard = [
            (-0.4, 0.2),
            (-0.9, 0.5),
            (-1.2, 0.45),
            (-1.62, 0.62),
            (-1.62, 1.1),
            (-1.3, 1.3),
            (-0.7, 1.1),
            (-0.3, 0.75),
        ]
        paint_hair(canvas, rng, frame, frame.curve(beard, True), person.hair)
    if not bald:
        paint_hair(canvas, rng, frame, frame(_profile_hair(person, rng)), person.hair)
    ears = [paint_ear(canvas, person, frame, number, alone=bald)]
    cover = rng.random()
    if cover < 0.12:  # a strand or the whole side falls over the ear
        drop, wide = rng.uniform(-0.4, 1.2), rng.uniform(0.1, 0.5)
        lock = [(-0.5, -1.4), (0.3, -1.5), (0.35, -0.5), (0.3 + wide / 2, drop), (0.1 - wide, drop + 0.2), (-0.4, -0.5)]
        paint_hair(canvas, rng, frame, frame.curve(lock, True), person.hair)
    elif cover < 0.2:
        brim = [
            (-2.3, -0.95),
            (-1.4, -1.1),
            (0, -0.95),
            (1.2, -0.75),
            (1.25, -1.4),
            (0.4, -2.2),
            (-0.9, -2.1),
            (-1.5, -1.3),
        ]
        low = np.array([0, rng.uniform(-0.1, 0.4)])
        canvas.shape(frame.curve(np.array(brim) + low, True), any_colour(rng), round_shade=0.4)
    return ears


def paint_face(canvas: Canvas, rng: Random, frame: Frame, person: Person, number: int) -> list[PaintedEar]:
    """A head from the front, a little turned; an ear at either side unless it is turned away or under hair."""
    skin, dark, unit = person.skin, person.skin * 0.55, frame.unit
    turn = rng.uniform(-1, 1)
    long = rng.random() < 0.4
    if long:
        behind = [(-1.2, -1.6), (0, -2.3), (1.2, -1.6), (1.5, 0), (1.4, 2.2), (-1.4, 2.2), (-1.5, 0)]
        paint_hair(canvas, rng, frame, frame.curve(behind, True), person.hair * 0.75)
    canvas.shape(frame.curve(_FACE_NECK, True), skin * 0.8, round_shade=0.3)
    canvas.shape(frame.curve(_FACE_CLOTHES, True), person.clothes, round_shade=0.4)
    ears: list[PaintedEar] = []
    for sign in (1, -1):  # 1: at the picture's right, the person's left ear
        squeeze = 0.5 - 0.38 * sign * turn + rng.uniform(-0.05, 0.05)
        if squeeze < 0.2:
            continue
        at = frame([(sign * (1.1 + 0.22 * squeeze), rng.uniform(-0.03, 0.03))])[0]
        own = Frame((float(at[0]), float(at[1])), unit, 0.0, 1.0)
        own.matrix[:, :2] = frame.matrix[:, :2] @ np.diag([sign * squeeze, 1.0])
        ears.append(paint_ear(canvas, person, own, number + len(ears), alone=True))
    half = np.array(_FACE) * (1, 1 + 0.05 * rng.standard_normal()) + 0.02 * rng.standard_normal((len(_FACE), 2))
    outline = np.concatenate([half, (half * (-1, 1))[::-1]])
    canvas.shape(frame.curve(outline, True), skin, soft=0.012 * unit, round_shade=0.4)
    aside = -0.45 * turn  # the face looks to where the ear is hidden
    for sign in (1, -1):
        x = aside + 0.46 * sign
        canvas.shape(
            frame.curve([(x - 0.2, -0.35), (x, -0.44), (x + 0.2, -0.35), (x, -0.28)], True),
            np.array([215.0, 210, 205]) * 0.85,
        )
        canvas.shape(frame.curve([(x - 0.08, -0.36), (x, -0.44), (x + 0.08, -0.36), (x, -0.28)], True), dark * 0.4)
        canvas.line(frame.curve([(x - 0.22, -0.36), (x, -0.46), (x + 0.22, -0.36)]), dark * 0.5, 0.04 * unit)
        canvas.line(frame.curve([(x - 0.27, -0.6), (x, -0.7), (x + 0.27, -0.6)]), person.hair * 0.8, 0.09 * unit, 0.8)
    canvas.line(
        frame.curve(
            [(aside * 1.2 + 0.05, -0.3), (aside * 1.35 + 0.12, 0.12), (aside * 1.3, 0.22), (aside * 1.3 - 0.14, 0.16)]
        ),
        dark,
        0.06 * unit,
        0.5,
    )
    canvas.line(
        frame.curve([(aside - 0.33, 0.62), (aside, 0.64), (aside + 0.33, 0.6)]),
        dark * (1.0, 0.65, 0.65),
        0.1 * unit,
        0.8,
    )
    if rng.random() > 0.12:
        low = rng.uniform(-0.75, -0.3)
        cap = [(-1.2, low), (-1.3, -1.2), (-0.85, -2.1), (0, -2.3), (0.85, -2.1), (1.3, -1.2), (1.2, low)]
        front = rng.uniform(-1.5, -1.0)
        line = [
            (1.02, low),
            (0.92, -0.95),
            (0.5, front),
            (-0.5, front + rng.uniform(-0.1, 0.1)),
            (-0.92, -0.95),
            (-1.02, low),
        ]
        paint_hair(canvas, rng, frame, frame.curve(cap + line, True), person.hair)
    if long and rng.random() < 0.6:  # over the ears
        for sign in (1, -1):
            side = [(0.7, -1.5), (1.3, -1.3), (1.5, 0), (1.45, 1.6), (0.95, 1.7), (1.0, 0.2), (0.9, -0.8)]
            paint_hair(canvas, rng, frame, frame.curve(np.array(side) * (sign, 1), True), person.hair)
    return ears


def paint_hair(canvas: Canvas, rng: Random, frame: Frame, outline: Array, colour: Array) -> None:
    """Hair within an outline of pixels, combed away from a whorl at the back of the head's top."""
    region = canvas.region(outline, 2 + 0.08 * frame.unit)
    if region is None:
        return
    x, y = frame.back(region)
    dx, dy = x - np.float32(rng.uniform(0.0, 0.6)), y + np.float32(rng.uniform(1.6, 2.4))
    dense = np.float32(min(100.0, 1.2 * frame.unit))  # no finer than the pixels
    along = np.sqrt(dx * dx + dy * dy)
    across = cv2.phase(dx, dy) * np.float32(1.8) + np.float32(0.25) * along
    offset = rng.uniform(0, 400, 2).astype(np.float32)
    fine = _wrapped(noise_tile(24.0, 0.8), along * dense * 0.5 + offset[0], across * dense + offset[1])
    clumps = _wrapped(noise_tile(24.0, 3.0), along * 50 + offset[1], across * 60 + offset[0])
    mask = outline_mask(outline, region)
    mask = cv2.GaussianBlur(mask, (0, 0), max(0.04 * frame.unit, 0.6))
    mask = smoothstep(mask + (0.10 * fine + 0.06 * clumps) * (mask > 0.02), 0.38, 0.62)
    light = np.clip(0.85 + 0.16 * fine + 0.14 * clumps - 0.12 * (y + 0.8), 0.25, 1.7)
    canvas.cover(region, colour * light[..., None], mask)


def _wrapped(tile: Array, x: Array, y: Array) -> Array:
    return cv2.remap(tile, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def _profile_hair(person: Person, rng: Random) -> Array:
    """The outline of the hair on a head from its side, as it is near the synthetic ear (`Hair.behind`)."""
    cover, length = person.view.hair_cover, person.view.hair_length
    x = np.linspace(-0.55, 0.95, 26)
    front = -0.60 + 0.42 * cover + (0.10 + 0.45 * cover) * np.exp(-(((x + 0.34) / 0.11) ** 2))
    front -= 0.7 * np.clip(-0.36 - x, 0, None)
    back = min(-0.30 + 1.5 * length * length + 0.5 * length, 0.9)
    line = front + (back - front) * smoothstep(x, -0.05, 0.28)
    thick = rng.uniform(0.03, 0.25)
    recede = rng.uniform(-0.25, 0.15)
    forehead = [(-1.36 - thick / 2, -1.2 + recede), (-1.12, -1.1 + recede), (-0.92, -0.9), (-0.72, -0.72)]
    nape = [(1.12 + thick / 2, min(back, 0.2))]
    outer = np.array([(1.22, -0.55), (1.05, -1.3), (0.5, -1.82), (-0.25, -2.0), (-0.9, -1.85), (-1.3, -1.5)])
    outer = outer * (1 + thick / 2) + (0, -0.02)
    return np.concatenate([forehead, np.stack([x, line], axis=1), nape, outer]).astype(np.float32)
