"""What stands behind the heads of a scene, and what is laid over them: rooms, patterns, clutter that is no ear."""

from __future__ import annotations

import cv2
import numpy as np

from earface.synthetic.canvas import Canvas, Frame
from earface.synthetic.curves import Array
from earface.synthetic.noise import TILE, noise_tile

Random = np.random.Generator


def any_colour(rng: Random, value: tuple[float, float] = (0.1, 0.95), saturation: float = 0.6) -> Array:
    """(3,) sRGB in [0, 255]."""
    hsv = np.array([[[360 * rng.random(), saturation * rng.random() ** 1.5, rng.uniform(*value)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] * 255


def skin_like(rng: Random) -> Array:
    """(3,) sRGB: wood, cardboard, hands, so that colour alone does not identify an ear."""
    return np.array([226, 178, 148], np.float32) * np.float32(rng.uniform(0.35, 1.05)) * rng.uniform(0.93, 1.07, 3)


def backdrop(rng: Random, width: int, height: int) -> Array:
    """(H, W, 3) float32: soft light, texture, clutter, out of focus or not."""
    grid = (int(rng.integers(2, 6)), int(rng.integers(2, 6)))
    base, spread = any_colour(rng), rng.uniform(5, 60)
    patches = (base + spread * rng.standard_normal((*grid, 1)) + 0.4 * spread * rng.standard_normal((*grid, 3))).clip(
        0, 255
    )
    canvas = Canvas(cv2.resize(patches.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC))
    if rng.random() < 0.5:
        _texture(rng, canvas)
    for _ in range(int(rng.integers(0, 14))):
        clutter(rng, canvas, skin_like(rng) if rng.random() < 0.3 else any_colour(rng))
    sigma = rng.choice([0.0, 1.0, 3.0, 8.0]) * rng.random() * width / 480
    if sigma > 0.3:
        shrink = 4 if sigma > 3 else 1  # as blurred at a quarter of the size, for a sixteenth of the time
        small = cv2.resize(canvas.image, (width // shrink, height // shrink), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma / shrink)
        canvas = Canvas(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))
    return canvas.image.clip(0, 255)


def _texture(rng: Random, canvas: Canvas) -> None:
    """Foliage, cloth, wood or wall: noise with or without a direction."""
    height, width = canvas.owner.shape
    tile = noise_tile(*((6.0, 6.0), (24.0, 3.0), (24.0, 0.8))[int(rng.integers(3))])
    turn, scale = rng.uniform(0, np.pi), rng.uniform(0.4, 1.6)
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    matrix = np.array([[cos, -sin, rng.uniform(0, TILE)], [sin, cos, rng.uniform(0, TILE)]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    noise = cv2.warpAffine(tile, matrix, (width, height), flags=how, borderMode=cv2.BORDER_REFLECT_101)
    colour = rng.uniform(4, 40) * rng.uniform(0.6, 1.0, 3).astype(np.float32)
    canvas.image += noise[..., None] * colour.astype(np.float32)


def clutter(rng: Random, canvas: Canvas, colour: Array, unit: float | None = None) -> None:
    """One thing that is no ear: a board, a ball, a ring, a hook, stripes, a line, a hand."""
    height, width = canvas.owner.shape
    unit = float(width * np.exp(rng.uniform(np.log(0.03), np.log(0.5)))) if unit is None else unit
    frame = Frame((width * rng.random(), height * rng.random()), unit, rng.uniform(-3.2, 3.2), rng.uniform(0.4, 1.0))
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) / 2
    dark = colour * rng.uniform(0.3, 0.8)
    match int(rng.integers(7)):
        case 0:
            board = np.array([[-1, -0.7], [1, -0.7], [1, 0.7], [-1, 0.7]]) / 2
            canvas.shape(frame(board), colour)
            if rng.random() < 0.5:
                canvas.shape(frame(board * rng.uniform(0.6, 0.95)), any_colour(rng))
        case 1:
            canvas.shape(frame(circle), colour, round_shade=rng.uniform(0, 0.7))
        case 2:
            canvas.shape(frame(circle), colour, round_shade=0.3)
            canvas.shape(frame(circle * rng.uniform(0.4, 0.9)), dark)
        case 3:  # open rings nested like a helix, without an ear in them
            for radius in (1.0, 0.7, 0.4)[: int(rng.integers(1, 4))]:
                arc = circle[: int(rng.integers(10, 24))] * radius
                canvas.line(frame.curve(arc), colour * rng.uniform(0.5, 1.1), unit * rng.uniform(0.03, 0.12))
        case 4:
            for x in np.linspace(-1, 1, int(rng.integers(4, 12))):
                canvas.line(frame([[x, -1], [x, 1]]), colour, unit * rng.uniform(0.01, 0.06))
        case 5:
            wave = np.cumsum(rng.uniform(-0.4, 0.5, (6, 2)), axis=0) - 0.5
            canvas.line(frame.curve(wave), dark, unit * rng.uniform(0.01, 0.1))
        case _:
            hand(rng, canvas, frame, skin_like(rng))


def hand(rng: Random, canvas: Canvas, frame: Frame, colour: Array) -> None:
    """A palm and four fingers."""
    palm = [(-0.35, 0.1), (-0.3, -0.2), (0.3, -0.25), (0.35, 0.15), (0.2, 0.6), (0.25, 1.2), (-0.25, 1.2), (-0.2, 0.6)]
    canvas.shape(frame.curve(palm, closed=True), colour, round_shade=0.35)
    for number, x in enumerate((-0.27, -0.09, 0.09, 0.27)):
        length = (0.5, 0.62, 0.58, 0.42)[number] * rng.uniform(0.5, 1.1)
        lean = 0.25 * x + rng.uniform(-0.06, 0.06)
        finger = [
            (x - 0.09, -0.1),
            (x - 0.08 + lean, -0.2 - length),
            (x + 0.08 + lean, -0.2 - length),
            (x + 0.09, -0.1),
        ]
        canvas.shape(frame.curve(finger, closed=True), colour * rng.uniform(0.9, 1.05), round_shade=0.4)
