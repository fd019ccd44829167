"""Colours of people, and the canvas on which a face's sheet is painted. Colours are RGB in linear light."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from earface.synthetic.canvas import Canvas, Region
from earface.synthetic.curves import Array
from earface.synthetic.face_anatomy import BOTTOM, SIDE, TOP, Face, vector
from earface.synthetic.face_factors import FaceShape
from earface.synthetic.noise import TILE, tile_window

# sRGB. Skin from deep brown to very fair, about the Monk scale's course; irises from dark brown to grey.
_SKIN = [(70, 45, 35), (104, 68, 49), (146, 99, 71), (189, 137, 105), (220, 171, 141), (240, 205, 185)]
_IRISES = [(38, 22, 14), (82, 50, 26), (118, 88, 44), (92, 112, 72), (78, 118, 158), (140, 156, 166)]
LASHES = np.array([0.012, 0.009, 0.008], np.float32)


def _graded(palette: Sequence[tuple[int, int, int]], place: float) -> Array:
    at, colours = place * (len(palette) - 1), np.array(palette, np.float32)
    return np.array([np.interp(at, range(len(palette)), colours[:, c]) / 255 for c in range(3)], np.float32) ** 2


def skin_colour(shape: FaceShape) -> Array:
    return _graded(_SKIN, shape.skin_tone) * (1 + shape.undertone * vector(0.05, -0.06, -0.02))


def iris_colour(shape: FaceShape) -> Array:
    return _graded(_IRISES, shape.eye_colour)


def hair_colour(shape: FaceShape) -> Array:
    dark, fair, grey = vector(0.09, 0.07, 0.06), vector(0.82, 0.65, 0.43), vector(0.64, 0.63, 0.62)
    red = vector(1.18, 0.80, 0.60) ** (1.5 * shape.hair_redness * (1 - shape.hair_greyness))
    colour = (dark + (fair - dark) * shape.hair_tone) * red
    return np.asarray((colour + (grey - colour) * shape.hair_greyness) ** 2, np.float32)


def texture_size(density: float) -> tuple[int, int]:
    """Rows and columns of a sheet's texture with `density` texels per millimetre."""
    return round((BOTTOM - TOP) * density) + 1, round(2 * SIDE * density) + 1


def grain(pattern: int, sigma: float, rows: int, columns: int) -> Array:
    """Noise (rows, columns) over a sheet, the same at every density. sigma: in millimetres."""
    per_millimetre = (TILE - 1) / (2 * SIDE)
    high, wide = round((BOTTOM - TOP) * per_millimetre) + 1, TILE
    noise = tile_window(pattern, TILE, sigma * per_millimetre)[:high, :wide]
    return cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_LINEAR)


def ribbon(curves: Array, width: Array | float) -> Array:
    """The outlines (..., 2N, 2) of strokes along curves (..., N, 2); width: (..., N) or one for all."""
    tangent = np.empty_like(curves)
    tangent[..., 1:-1, :] = curves[..., 2:, :] - curves[..., :-2, :]
    tangent[..., 0, :] = curves[..., 1, :] - curves[..., 0, :]
    tangent[..., -1, :] = curves[..., -1, :] - curves[..., -2, :]
    half = np.asarray(width, np.float32) / (2 * np.hypot(tangent[..., 0], tangent[..., 1]) + np.float32(1e-6))
    aside = np.stack([-tangent[..., 1] * half, tangent[..., 0] * half], axis=-1)
    return np.concatenate([curves + aside, (curves - aside)[..., ::-1, :]], axis=-2)


def oval(x: float, y: float, rx: float, ry: float) -> Array:
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False, dtype=np.float32)
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


class Paint(Canvas):
    """The texture of a face's sheet, painted in linear light by outlines in millimetres, x and y from the front."""

    def __init__(self, image: Array, face: Face, density: float) -> None:
        super().__init__(image)
        self.face, self.density = face, density

    def texels(self, points: Array) -> Array:
        at = self.face.to_sheet(points)
        return (at + vector(SIDE, -TOP)) * np.float32(self.density)

    def mask(
        self,
        outlines: Sequence[Array],
        strengths: Sequence[float],
        soft: float,
        *,
        both: bool = False,
        region: Region | None = None,
    ) -> tuple[Array, Region]:
        """How far closed outlines (N, 2) cover each texel of a region: the given one, or the one around them.

        soft: sigma of their edges in millimetres. both: their mirror images too.
        """
        points, sigma = self.texels(np.concatenate(outlines)), soft * self.density
        mirrored = vector(2 * SIDE * self.density, 0) + points * vector(-1, 1)
        sides = (points, mirrored) if both else (points,)
        if region is None:
            region = self.region(np.concatenate(sides), 2 + 2.5 * sigma)
            assert region is not None, "painted beside the face"
        mask: Array = np.zeros(self.owner[region].shape, np.uint8)
        ends = np.cumsum([len(outline) for outline in outlines])[:-1]
        for side in sides:
            cells = np.rint((side - vector(region[1].start, region[0].start)) * 16).astype(np.int32)
            for piece, strength in zip(np.split(cells, ends), strengths, strict=True):
                cv2.fillPoly(mask, [piece], round(255 * min(max(strength, 0.0), 1.0)), cv2.LINE_AA, shift=4)
        if sigma > 0.3:
            mask = cv2.GaussianBlur(mask, (0, 0), sigma)
        return mask.astype(np.float32) * np.float32(1 / 255), region

    def areas(
        self, outlines: Sequence[Array], strengths: Sequence[float], colour: Array, soft: float, *, both: bool = False
    ) -> None:
        """Fill closed outlines with one colour, each as strongly as said."""
        mask, region = self.mask(outlines, strengths, soft, both=both)
        self.cover(region, colour, mask)

    def area(self, outline: Array, colour: Array, strength: float, soft: float) -> None:
        self.areas([outline], [strength], colour, soft)
