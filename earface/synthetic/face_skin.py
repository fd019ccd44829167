"""The skin of a face at rest: blood, shade, freckles, moles, stubble and beard."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from earface.synthetic.curves import Array, smooth_curve, smoothstep
from earface.synthetic.face_anatomy import BOTTOM, SIDE, STEP, TOP, Face, mound, row_map, vector
from earface.synthetic.face_factors import FaceShape
from earface.synthetic.face_painting import Paint, grain, hair_colour, oval, skin_colour, texture_size
from earface.synthetic.face_parts import STARTS, atlas_rows
from earface.synthetic.noise import noise_tile, offsets


def skin(face: Face, density: float) -> Array:
    """(H, W, 3): the skin under one expression, to be painted on, on the atlas of `face_parts.Skin`."""
    rest = _resting_skin(face.shape, density)
    image = rest.copy()
    if not face.expression.jaw_drop:
        return image
    # What lies above the nose's base stays, and so do ears and neck, below the face on the atlas.
    first, last = (round((y - TOP) * density) for y in (float(face.rest[3]), BOTTOM))
    y = np.arange(first, last, dtype=np.float32) / np.float32(density) + np.float32(TOP)
    rows = (np.interp(y, face.anchors, face.rest) - TOP) * density
    image[first:last] = cv2.remap(rest, *row_map(rows, rest.shape[1]), cv2.INTER_LINEAR)
    return image


@functools.lru_cache(maxsize=8)
def _resting_skin(shape: FaceShape, density: float) -> Array:
    s, face = shape, Face(shape)
    rows, columns = texture_size(density)
    x = np.abs(np.arange(columns, dtype=np.float32) / np.float32(density) - np.float32(SIDE))[None]
    y = face.average(np.arange(rows) / density + TOP)[:, None]
    spot = functools.partial(mound, x, y)
    blood = 0.75 * spot(36, 34, 17, 15) + 0.6 * spot(0, 38, 12, 10) + 0.35 * spot(0, 104, 16, 10)
    blood = (blood + 0.2 * spot(0, -40, 30, 12)) * np.float32((0.1 + 0.75 * s.flush) * (0.35 + 0.65 * s.skin_tone))
    shade = 0.2 * spot(face.eye_x - 3, 4, 17, 11) + 0.1 * (0.4 + s.age) * spot(face.eye_x - 2, 14, 11, 4)
    shade = shade + 0.1 * smoothstep(x, 70, 120)
    spots = 0.035 * grain(s.marks_pattern, 3.2, rows, columns) + 0.022 * grain(s.marks_pattern + 1, 0.9, rows, columns)
    if s.freckles > 0:
        speckles = np.clip(grain(s.marks_pattern + 2, 0.9, rows, columns) - (1.4 - 0.6 * s.freckles), 0, 1.5)
        where = np.clip(spot(26, 30, 24, 16) + 0.7 * spot(0, 30, 20, 14) + 0.3 * spot(30, -40, 40, 20), 0, 1)
        spots = spots - 0.3 * s.freckles * where * speckles
    planes = [
        tone * (1 - np.float32(reddened) * blood) * (1 - np.float32(dark) * shade) * (1 + np.float32(pigment) * spots)
        for tone, reddened, dark, pigment in zip(
            skin_colour(s), (0.06, 0.42, 0.38), (0.9, 1.2, 1.15), (0.9, 1.15, 1.4), strict=True
        )
    ]
    atlas = np.empty((atlas_rows(density), columns, 3), np.float32)
    atlas[:rows] = cv2.merge([plane.astype(np.float32) for plane in planes])
    atlas[rows:] = skin_colour(s)
    atlas[rows : round((STARTS[3] - 1) * STEP * density)] *= vector(0.97, 0.82, 0.82)  # ears
    paint = Paint(atlas, face, density)
    _moles(paint)
    if max(s.beard, s.moustache) > 0.05:
        _beard(paint)
    return paint.image


def _moles(paint: Paint) -> None:
    s, face = paint.face.shape, paint.face
    rng = np.random.default_rng(s.marks_pattern)
    for _ in range(round(4 * s.moles)):
        x, y, radius = rng.uniform(-56, 56), float(face.personal(rng.uniform(-52, 98))), rng.uniform(0.9, 1.9)
        colour = skin_colour(s) * vector(1.0, 0.75, 0.7) * np.float32(rng.uniform(0.12, 0.4))
        paint.area(oval(x, y, radius, radius), colour, 0.9, 0.3)


def _beard(paint: Paint) -> None:
    """Hair on jaw, chin and upper lip: stubble below about a half, grown above."""
    s, face, density = paint.face.shape, paint.face, paint.density
    jaw = face.half_width(70)
    cheek = [
        (98, -6), (84, 6), (74, 30), (0.80 * jaw, 50), (0.66 * jaw, 62), (0.55 * jaw, 68), (31, 72), (29, 79),
        (22, 85), (9, 87), (0, 86),
    ]  # fmt: skip
    low = [(0, 127), (40, 127), (110, 127), (110, -6)]
    whiskers = np.concatenate([smooth_curve(np.array(cheek, np.float32), 4), np.array(low, np.float32)])
    lip = [(0, 55), (6, 53.5), (14, 54), (24, 60), (31, 72), (28, 78), (25, 73), (16, 67.5), (6, 66), (0, 66)]
    moustache = smooth_curve(np.array(lip, np.float32), 4)
    mask: Array = np.zeros(paint.owner.shape, np.float32)
    for outline, amount in ((whiskers, s.beard), (moustache, s.moustache)):
        for sign in (-1, 1):  # x beyond the face's outline is meant as s: around the head
            at = np.stack([sign * outline[:, 0] + SIDE, face.personal(outline[:, 1]) - TOP], axis=1) * density
            one = np.zeros(mask.shape, np.uint8)
            cv2.fillPoly(one, [np.rint(at * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
            np.maximum(mask, one.astype(np.float32) * np.float32(amount / 255), out=mask)
    mask = cv2.GaussianBlur(mask, (0, 0), 2.2 * density)
    rows, columns = mask.shape
    mask *= smoothstep(face.average(np.arange(rows) / density + TOP), -8, 26)[:, None]  # thin beside the ears
    dx, dy = offsets(s.hair_pattern, 2)
    down, across = row_map(np.arange(rows) / density, columns)[1], row_map(np.arange(columns) / density, rows)[1].T
    down, across = down * np.float32(1.6) + dx, across * np.float32(2.2) + dy
    hairs = cv2.remap(noise_tile(6.0, 0.9), down, across, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    stubble = np.clip(mask / 0.45, 0, 0.9) * (1 + 0.3 * hairs) * np.float32(0.42)
    grown = np.float32(0.94) * smoothstep(mask + 0.06 * hairs * (mask > 0.05), 0.36, 0.66)
    hair = hair_colour(s)
    for colour, cover in (
        (0.35 * hair + 0.30 * skin_colour(s) * vector(0.85, 0.95, 1.0), np.clip(stubble, 0, 0.8)),
        (hair * np.clip(0.78 + 0.22 * hairs, 0.2, 1.6)[..., None], grown),
    ):
        paint.image += (colour - paint.image) * cover[..., None]
