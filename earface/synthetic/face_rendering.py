"""From a shape and a view to pixels: skin, hair and glasses are laid over a background and photographed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.synthetic.curves import Array, smoothstep
from earface.synthetic.face_anatomy import STEP, Expression, Face, vector
from earface.synthetic.face_factors import FaceShape, FaceView
from earface.synthetic.face_features import face_texture
from earface.synthetic.face_glasses import wear_glasses
from earface.synthetic.face_hair import SHAVED, Strands, shell, strands
from earface.synthetic.face_light import Light, Pose, cast_shadow, shade_hair, shade_skin
from earface.synthetic.face_painting import hair_colour
from earface.synthetic.face_parts import Skin
from earface.synthetic.face_raster import EMPTY, rasterise
from earface.synthetic.noise import tile_window
from earface.synthetic.options import MAX_SIZE, MIN_SIZE

OCCLUDED, VISIBLE = 1, 2  # COCO's visibility flags
_RENDERED_AT_LEAST = 192  # and at 1.5 times the size: edges have half pixels
_MILLIMETRE = 0.64 / 128  # of a frontal face, in sides of the picture
_TEXELS = 1.35  # per pixel of a frontal face


@dataclass(frozen=True)
class FacePicture:
    """One synthetic face.

    image: (H, W, 3) uint8 RGB. landmarks: (5, 2) float32 x, y in the order of `FACE_LANDMARKS`; whole numbers are pixel
    centres. visibility: (5,) uint8, 1 hidden by the face itself or by hair, 2 visible.
    """

    image: NDArray[np.uint8]
    landmarks: Array
    visibility: NDArray[np.uint8]


def draw_face(shape: FaceShape, view: FaceView, image_size: int = 128) -> FacePicture:
    """Render one face, aligned to ArcFace's template by its five landmarks.

    image_size: side of the square picture in pixels, 32 to 512. The picture depends on the arguments alone, bit for
    bit. Raises InputError on a size out of range.
    """
    if not (isinstance(image_size, int) and MIN_SIZE <= image_size <= MAX_SIZE):
        raise InputError(f"`image_size` {image_size}: must be a whole number from {MIN_SIZE} to {MAX_SIZE}")
    size = max(round(1.5 * image_size), _RENDERED_AT_LEAST)
    face = Face(shape, Expression(view.smile, view.surprise))
    pose = Pose(view, face.landmarks, image_size, size)
    light = Light(view, pose)

    skin = Skin(face)
    depth, column, row = rasterise(np.concatenate([pose.project(skin.points), skin.places]), skin.triangles, size)
    density = round(_TEXELS * size * _MILLIMETRE, 4)
    texel = np.float32(STEP * density)
    texture = face_texture(face, view, density)
    albedo = cv2.remap(texture, column * texel, row * texel, cv2.INTER_LINEAR)
    surface = cv2.remap(skin.surface, column, row, cv2.INTER_LINEAR)
    on_skin = _edge(depth)
    hair = _Hair(shape, pose, light, size) if shell(shape) else None
    nearest = depth if hair is None else np.where(hair.cover > 0.5, np.maximum(depth, hair.depth), depth)
    shadow = cast_shadow(nearest, light)

    picture = background(view, size)
    if hair is not None and shape.hair_length >= SHAVED:
        _over(picture, *hair.behind(light))
    _over(picture, shade_skin(surface, albedo, light, shadow, view.shine), on_skin)
    if hair is not None:
        in_front = hair.cover * smoothstep(hair.depth - depth, -2.0 * pose.scale, 0.5 * pose.scale)
        under = cv2.GaussianBlur(in_front, (0, 0), 3.0 * pose.scale) * (1 - in_front) * on_skin
        picture *= (1 - 0.45 * under)[..., None]
        _over(picture, hair.shaded * (0.45 + 0.55 * shadow)[..., None], in_front)
    if view.glasses > 0:
        wear_glasses(picture, face, view, pose, light, nearest)

    x, y, near = pose.project(face.landmarks)
    place = np.clip(np.rint([y, x]).astype(int), 0, size - 1)
    hidden = nearest[place[0], place[1]] > near + 4.0 * pose.scale
    shrink = np.float32(image_size / size)
    landmarks = (np.stack([x, y], axis=1) + np.float32(0.5)) * shrink - np.float32(0.5)
    visibility = np.where(hidden, OCCLUDED, VISIBLE).astype(np.uint8)
    return FacePicture(_photograph(picture, view, image_size), landmarks, visibility)


def _edge(depth: Array) -> Array:
    """(S, S): 1 on a surface, falling to 0 within its last pixel."""
    on = (depth > EMPTY / 2).astype(np.float32)
    return np.clip(1.6 * cv2.GaussianBlur(on, (3, 3), 0.8) - 0.6, 0, 1)


def _over(picture: Array, colour: Array, cover: Array) -> None:
    """Lay a colour (S, S, 3) over a picture in place."""
    picture += (colour - picture) * cover[..., None]


class _Hair:
    """The hair of one picture, (S, S) each: depth, cover in [0, 1], and its shaded colour (S, S, 3)."""

    def __init__(self, shape: FaceShape, pose: Pose, light: Light, size: int) -> None:
        found = shell(shape)
        assert found is not None
        self.shape, self.shell, self.size = shape, found, size
        self.colour = hair_colour(shape)
        rows, columns = found.sheet.points.shape[:2]
        places = np.stack(np.meshgrid(np.arange(columns), np.arange(rows))).reshape(2, -1)
        self.vertices = np.concatenate([pose.project(found.sheet.points.reshape(-1, 3)), places]).astype(np.float32)
        self.depth, column, row, look, self.cover = self._seen(self.vertices, size, front=True)
        normals = cv2.remap(found.sheet.normals, column, row, cv2.INTER_LINEAR)
        gloss = (0.05 + 0.25 * float(self.colour.mean())) * (1 - 0.7 * shape.hair_curl)
        self.shaded = shade_hair(normals, look, self.colour, light, gloss)

    def _seen(self, vertices: Array, size: int, front: bool) -> tuple[Array, Array, Array, Strands, Array]:
        depth, column, row = rasterise(vertices, self.shell.triangles, size, front=front)
        look = strands(self.shape, self.shell.line, column, row)
        return depth, column, row, look, look.cover * _edge(depth)

    def behind(self, light: Light) -> tuple[Array, Array]:
        """Colour and cover of the inside of the hair, as seen beside the neck. It is dark: half the pixels do."""
        half = self.vertices * vector(0.5, 0.5, 1, 1, 1)[:, None] - vector(0.25, 0.25, 0, 0, 0)[:, None]
        _, _, _, look, cover = self._seen(half, self.size // 2, front=False)
        shade, cover = (
            cv2.resize(at, (self.size, self.size)) for at in (np.clip(0.25 + 0.06 * look.fine, 0.08, 0.5), cover)
        )
        return self.colour * light.room * shade[..., None], cover


def background(view: FaceView, size: int) -> Array:
    """(S, S, 3): a blurred room."""
    rng = np.random.default_rng(view.background_pattern)
    patches = np.empty((5, 5, 3), np.float32)
    patches[..., 0] = (360 * view.background_hue + 25 * rng.standard_normal((5, 5))) % 360
    patches[..., 1] = np.clip(view.background_saturation + 0.05 * rng.standard_normal((5, 5)), 0, 1)
    patches[..., 2] = np.clip(view.background_value + 0.12 * rng.standard_normal((5, 5)), 0.02, 1)
    colours = cv2.cvtColor(patches, cv2.COLOR_HSV2RGB) ** 2 * np.float32(2.0**view.exposure)
    return cv2.resize(colours, (size, size), interpolation=cv2.INTER_CUBIC)


def _photograph(picture: Array, view: FaceView, image_size: int) -> NDArray[np.uint8]:
    """Linear light -> sRGB-like uint8, with the lens' blur and the sensor's noise."""
    tone = np.sqrt(np.clip(picture, 0, 1)) * np.float32(255)
    sigma = 0.01 * view.blur * len(tone)
    if sigma > 0.25:
        tone = cv2.GaussianBlur(tone, (0, 0), sigma)
    if len(tone) != image_size:
        tone = cv2.resize(tone, (image_size, image_size), interpolation=cv2.INTER_AREA)
    noise = cv2.merge([tile_window(view.noise_pattern + channel, image_size) for channel in range(3)])
    return np.clip(np.rint(tone + np.float32(8 * view.noise) * noise), 0, 255).astype(np.uint8)
