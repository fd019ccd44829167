"""What an expression moves, painted on the skin of a face: folds, nostrils, mouth, eyes and brows."""

from __future__ import annotations

import math

import numpy as np

from earface.synthetic.curves import Array, smooth_curve, smoothstep
from earface.synthetic.face_anatomy import LID_PLACES as Q
from earface.synthetic.face_anatomy import Face, vector
from earface.synthetic.face_factors import FaceView
from earface.synthetic.face_painting import LASHES, Paint, hair_colour, iris_colour, oval, ribbon, skin_colour
from earface.synthetic.face_skin import skin

IRIS, PUPIL = 6.0, 2.5  # radii in millimetres
_THROUGH_FOUR = np.stack([smooth_curve(np.stack([row, row], 1), 4)[:, 0] for row in np.eye(4, dtype=np.float32)], 1)


def face_texture(face: Face, view: FaceView, density: float) -> Array:
    """(H, W, 3): the sheet of a face with everything that is painted on it, `density` texels per millimetre."""
    paint = Paint(skin(face, density), face, density)
    _lines(paint)
    _mouth(paint)
    for sign in (-1, 1):
        _eyeball(paint, view, sign)
    _lashes_and_brows(paint)
    return paint.image


def _lines(paint: Paint) -> None:
    """Folds of age and expression, creases of lids and wings, nostrils."""
    face, s, e = paint.face, paint.face.shape, paint.face.expression
    wing, eye, n = face.nose_half, face.eye_x, face.nose_half / 17
    lift, old = 5 * e.smile, max(s.age - 0.15, 0.0)
    cheek = [(wing + 1, 40), (wing + 6, 48), (wing + 12 + lift, 58 - lift / 2), (wing + 13 + lift, 69)]
    lines = [  # through four points, width, strength
        (cheek, 3.0, 0.06 + 0.42 * s.age + 0.30 * e.smile),
        ([(eye - 13, 6), (eye - 6, 11.5), (eye + 3, 12), (eye + 11, 8)], 2.4, 0.06 + 0.4 * s.age + 0.15 * e.smile),
        ([(13.2 * n, 34), (16.6 * n, 38), (17 * n, 44), (13.5 * n, 48)], 2.2, 0.36),
        ([(5, -24), (4.4, -20), (4.2, -15), (4.8, -10)], 1.8, 0.7 * (s.age - 0.25)),
        ([(30, 76), (30.8, 80), (30.6, 85), (29, 89)], 2.0, 0.6 * (s.age - 0.3)),
    ]
    for number, y in enumerate((-36.0, -46.0, -56.0)):
        waves = [(x, y + 2 * math.sin(0.1 * x + number) - 3 * (x / 40) ** 2) for x in (0.0, 14, 28, 42 - 5 * number)]
        lines.append((waves, 1.6, (0.6 * old + 0.3 * e.surprise) * (1 - 0.2 * number)))
    for slope in (-5.0, 0.0, 5.0):
        crow = [(eye + 19 + 3 * step, 1 + (0.35 + 0.35 * step) * slope) for step in range(4)]
        lines.append((crow, 1.5, 0.6 * (s.age - 0.2) + 0.25 * e.smile))
    lines = [line for line in lines if line[2] > 0.03]
    points, widths, strengths = (np.array(column, np.float32) for column in zip(*lines, strict=True))
    curves = np.einsum("ij,njk->nik", _THROUGH_FOUR, points)
    curves[..., 1] = face.personal(curves[..., 1])
    outlines = [*ribbon(curves, widths[:, None] * _taper(len(_THROUGH_FOUR)))]

    upper, _ = face.lids
    rise = (2.4 + 2.6 * s.lid_fold + 0.8 * e.surprise) * (1 - 0.75 * Q * Q) + 0.4
    fold = upper - np.stack([0 * Q, rise], axis=1)
    outlines += [np.concatenate([upper, fold[::-1]]), ribbon(fold[2:-1], 2.0 * np.clip(1.2 - Q[2:-1] ** 2, 0.2, 1))]
    strong = [*strengths.tolist(), 0.22, 0.15 + 0.55 * s.lid_fold]
    paint.areas(outlines, strong, skin_colour(s) * vector(0.46, 0.32, 0.29), 0.6, both=True)

    hole = oval(7.2 * n, float(face.personal(46.8)), 4.0 * n, 1.8 + 0.5 * s.nose_tip)
    hole[:, 1] += 0.22 * (hole[:, 0] - 7.2 * n)
    paint.areas([hole], [0.85], skin_colour(s) * vector(0.13, 0.07, 0.06), 0.5, both=True)


def _taper(count: int) -> Array:
    return np.sin(np.linspace(0.12, np.pi - 0.12, count, dtype=np.float32)) ** 0.7


def _mouth(paint: Paint) -> None:
    face, mouth = paint.face, paint.face.mouth
    s, e, bare = face.shape, face.expression, skin_colour(face.shape)
    natural, red = bare * vector(0.86, 0.58, 0.58), vector(0.50, 0.075, 0.085) * (0.45 + 0.55 * s.skin_tone)
    lip = natural + (red - natural) * np.float32(0.75 * s.lip_colour)
    paint.area(mouth.lower, lip * 1.02, 0.92, 0.35)
    paint.area(mouth.upper, lip * 0.80, 0.92, 0.35)
    edge = mouth.inside[: len(mouth.inside) // 2]
    if mouth.gap > 0.6:
        opening, region = paint.mask([mouth.inside], [1.0], 0.25)
        paint.cover(region, vector(0.035, 0.008, 0.008), opening)
        inner = edge[4:-4]
        reach = min(0.78 * mouth.gap, 6.5 if e.smile > e.surprise else 3.4)
        drop = reach * np.clip(1.15 - (inner[:, 0] / inner[-1, 0]) ** 2, 0, 1)
        teeth = np.concatenate([inner - vector(0, 1.5), (inner + np.stack([0 * drop, drop], 1))[::-1]])
        floor = float(mouth.inside[:, 1].max())
        for outline, colour, soft in (
            (oval(0, floor - 1.5, 0.55 * face.mouth_half, 4.5), vector(0.30, 0.07, 0.07), 0.9),
            (teeth, vector(0.72, 0.68, 0.60), 0.25),
        ):
            paint.cover(region, colour, opening * paint.mask([outline], [0.9], soft, region=region)[0])
    else:
        line = ribbon(edge, 1.5 * _taper(len(edge)) + 0.3)
        paint.area(line, lip * vector(0.16, 0.10, 0.10), 0.85, 0.3)
    x, y = mouth.corner
    paint.areas([oval(x, y, 1.8, 1.8)], [0.45], bare * 0.25, 0.9, both=True)
    shine = oval(0, float(mouth.lower[len(edge) // 2, 1]) + 2.6 + 2.2 * s.lower_lip, 0.3 * face.mouth_half, 1.3)
    paint.area(shine, np.minimum(lip * 1.5 + 0.03, 1), 0.35, 0.9)


def _eyeball(paint: Paint, view: FaceView, sign: int) -> None:
    """White, iris, pupil and glint within the opening of one eye; sign: 1 at the picture's right."""
    face, density = paint.face, np.float32(paint.density)
    side = vector(sign, 1)
    upper, lower = (lid * side for lid in face.lids)
    opening, region = paint.mask([np.concatenate([upper, lower[::-1]])], [1.0], 0.15)
    rows, columns = (np.arange(part.start, part.stop, dtype=np.float32)[:, None] / density for part in region)
    centre = paint.texels(np.array([[sign * face.eye_x + 2.0 * view.gaze_x, 1.2 * view.gaze_y]], np.float32))[0]
    dx, dy = columns.T - centre[0] / density, rows - centre[1] / density
    r, edge = np.sqrt(dx * dx + dy * dy), 0.6 / paint.density

    inner = np.clip((-sign * dx - 9) / 4, 0, 1)[..., None]
    ball = vector(0.57, 0.54, 0.52) * (1 - 0.3 * np.clip(np.abs(dx) / 14, 0, 1) ** 2)[..., None]
    ball = ball * (1 - inner * vector(0.15, 0.5, 0.5))
    rays = np.clip(0.55 + 0.9 * np.clip(1 - np.abs(r - 3.8) / 2.4, 0, 1) + 0.15 * np.clip(dy / 6, -1, 1), 0, 1.6)
    in_iris = smoothstep(IRIS + edge - r, 0, 2 * edge + 0.5)[..., None]
    ball = ball + (iris_colour(face.shape) * rays[..., None] - ball) * in_iris
    ball = ball * (1 - 0.55 * np.clip(1 - np.abs(r - IRIS + 0.2) / 0.9, 0, 1))[..., None]
    ball = ball * (1 - 0.97 * smoothstep(PUPIL + edge - r, 0, 2 * edge))[..., None]
    lid = paint.texels(upper)[::sign] / density
    below = np.clip(rows - np.interp(columns[:, 0], lid[:, 0], lid[:, 1]).astype(np.float32), 0, None)
    ball = ball * (1 - 0.5 * np.exp(-below / 2))[..., None]
    toward = min(max((view.flash_azimuth - view.yaw) / 45, -1.0), 1.0) if view.flash else 0.0
    glint = np.hypot(dx - 2.4 * toward, dy + 2.6)
    ball = ball + 0.8 * smoothstep(1.0 + edge - glint, 0, 2 * edge)[..., None]
    paint.cover(region, ball.astype(np.float32), opening)


def _lashes_and_brows(paint: Paint) -> None:
    face, s, e = paint.face, paint.face.shape, paint.face.expression
    upper, lower = face.lids
    lash = ribbon(upper - vector(0, 0.5), 1.1 + (0.8 + 1.1 * s.lashes) * smoothstep(Q, -1.0, 0.6))
    hair = hair_colour(s)
    below = ribbon(lower[3:] + vector(0, 0.2), 0.9)
    paint.areas([lash, below], [0.9, 0.4], LASHES + 0.06 * hair, 0.3, both=True)

    q = (Q + 1) / 2
    arch = np.interp(q, (0, 0.3, 0.62, 0.85, 1), (0, 0.55, 1, 0.72, 0.25))
    y = -19.5 - 3.5 * s.brow_height - 6 * e.surprise - (2.5 + 5 * s.brow_arch) * arch - 3 * s.brow_slant * (q - 0.5)
    curve = np.stack([face.eye_x - 17.5 + 37 * q, y], axis=1).astype(np.float32)
    thick = (2.8 + 5.4 * s.brow_thickness) * np.interp(q, (0, 0.15, 0.5, 0.8, 1), (0.35, 1.0, 0.95, 0.6, 0.1))
    brow = [ribbon(curve, thick * 1.15), ribbon(curve, thick * 0.7)]
    strengths = [0.35 + 0.35 * s.brow_thickness, 0.6 + 0.3 * s.brow_thickness]
    paint.areas(brow, strengths, 0.55 * hair + LASHES, 0.6, both=True)
