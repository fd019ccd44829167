"""Where a head is in the picture and what light falls on it: pose, lamp, shading of skin and hair, cast shadows."""

from __future__ import annotations

import math

import cv2
import numpy as np

from earface.data.face_alignment import face_template, similarity
from earface.synthetic.curves import Array
from earface.synthetic.face_factors import FaceView
from earface.synthetic.face_hair import Strands
from earface.synthetic.face_raster import EMPTY

CAMERA_DISTANCE = 1200.0  # millimetres
_PIVOT = np.array([0, 20, -70], np.float32)  # about which a head turns
_WRAP, _LEAK = (0.34, 0.18, 0.13), (0.16, 0.06, 0.03)  # red light goes around bends and under shadows' edges


class Pose:
    """From the head frame to pixels: turned, seen in perspective, then aligned by the five landmarks.

    The picture of `rendered_size` pixels is to be shrunk to `image_size`, where the template is.
    rotation: (3, 3) to the camera's frame. turn: (2, 2) what the alignment does to directions. scale: pixels per
    millimetre.
    """

    def __init__(self, view: FaceView, landmarks: Array, image_size: int, rendered_size: int) -> None:
        (cy, sy), (cp, sp), (cr, sr) = (
            (math.cos(angle), math.sin(angle)) for angle in (math.radians(a) for a in (view.yaw, view.pitch, view.roll))
        )
        yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        pitch = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        self.rotation = (roll @ pitch @ yaw).astype(np.float32)
        template = (face_template(image_size) + 0.5) * (rendered_size / image_size) - 0.5
        self.matrix = similarity(self._seen(landmarks)[:, :2].astype(np.float64), template)
        self.scale = float(np.sqrt(np.linalg.det(self.matrix[:, :2])))
        self.turn = self.matrix[:, :2] / self.scale

    def _seen(self, points: Array) -> Array:
        points = (points - _PIVOT) @ self.rotation.T
        points[:, :2] *= CAMERA_DISTANCE / (CAMERA_DISTANCE - points[:, 2:])
        return points

    def project(self, points: Array) -> Array:
        """(N, 3) of the head frame -> (3, N): x and y in pixels, depth toward the camera in pixels."""
        seen = self._seen(points)
        flat = seen[:, :2] @ self.matrix[:, :2].T + self.matrix[:, 2]
        return np.stack([flat[:, 0], flat[:, 1], seen[:, 2] * self.scale]).astype(np.float32)


class Light:
    """A lamp and the room's light. lamp, room: (3,) colours. The directions are those of the head frame.

    toward: the lamp, halfway: between it and the camera, camera, up. in_picture: the lamp in the picture's frame.
    """

    def __init__(self, view: FaceView, pose: Pose) -> None:
        place = (view.flash_azimuth, view.flash_elevation) if view.flash else (0.0, 0.0)  # a dark lamp is nowhere
        azimuth, elevation = (math.radians(angle) for angle in place)
        flat = math.cos(elevation)
        lamp = np.array([math.sin(azimuth) * flat, -math.sin(elevation), math.cos(azimuth) * flat], np.float32)
        self.toward, self.camera, self.up = (
            pose.rotation.T @ np.array(way, np.float32) for way in (lamp, (0, 0, 1), (0, -1, 0))
        )
        halfway = self.toward + self.camera
        self.halfway = halfway / np.linalg.norm(halfway)
        self.in_picture = np.append(pose.turn @ lamp[:2], lamp[2]).astype(np.float32)
        warm = np.array([1.14, 0.99, 0.80]) ** max(view.warmth, 0) * np.array([0.88, 0.99, 1.14]) ** max(
            -view.warmth, 0
        )
        gain = 2.0**view.exposure
        self.lamp = (gain * 1.15 * view.flash * warm**0.5).astype(np.float32)
        self.room = (gain * view.ambient * warm).astype(np.float32)


def cast_shadow(depth: Array, light: Light) -> Array:
    """(S, S), 1 where the lamp reaches: from each point of a depth map a march toward the lamp."""
    size, (x, y, z) = len(depth), light.in_picture.tolist()
    half = cv2.resize(depth, (size // 2, size // 2), interpolation=cv2.INTER_NEAREST)
    flat = max(math.hypot(x, y), 1e-3)
    blocked: Array = np.full(half.shape, EMPTY, np.float32)
    for length in (0.02 * size, 0.04 * size, 0.065 * size, 0.10 * size, 0.15 * size, 0.21 * size):
        shift = np.array([[1, 0, x / flat * length / 2], [0, 1, y / flat * length / 2]])
        how = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        moved = cv2.warpAffine(half, shift, half.shape[::-1], flags=how, borderMode=cv2.BORDER_REPLICATE)
        np.maximum(blocked, moved - np.float32(length * max(z, 0.0) / flat), out=blocked)
    lit: Array = 1 - np.clip((blocked - half) * np.float32(40 / size) - np.float32(0.3), 0, 1)
    lit = cv2.GaussianBlur(lit, (0, 0), 0.010 * size)
    return cv2.resize(lit, (size, size), interpolation=cv2.INTER_LINEAR)


def shade_skin(surface: Array, albedo: Array, light: Light, shadow: Array, shine: float) -> Array:
    """(S, S, 3): wrapped Lambert, a dome of room light, a sheen. surface: (S, S, 4) normals and openness."""
    directions = np.stack([light.toward, light.camera, light.up, light.halfway])
    facing, frontal, upward, gleam = cv2.split(cv2.transform(surface[..., :3], directions))
    openness = surface[..., 3]
    frontal = np.clip(frontal, 0, 1)
    gleam = np.clip(gleam, 0, 1) ** 12
    gleam = (0.55 * gleam + 0.45 * gleam**3) * openness * np.float32(0.03 + 0.14 * shine)
    rim = 0.03 * (1 - frontal) ** 3
    dome = (0.70 + 0.30 * upward) * (0.35 + 0.65 * openness) * (0.72 + 0.28 * frontal)
    reach = 0.5 + 0.5 * openness
    planes = []
    for plane, wrap, leak, lamp, room in zip(cv2.split(albedo), _WRAP, _LEAK, light.lamp, light.room, strict=True):
        diffuse = np.clip((facing + np.float32(wrap)) * np.float32(1 / (1 + wrap)), 0, 1)
        direct = diffuse * (shadow * np.float32(1 - leak) + np.float32(leak)) * reach
        sheen = gleam * (shadow * lamp + np.float32(0.25) * room) + rim * room
        planes.append(plane * (direct * lamp + dome * room) + sheen)
    return cv2.merge(planes)


def shade_hair(normals: Array, strands: Strands, colour: Array, light: Light, gloss: float) -> Array:
    """(S, S, 3). normals: (S, S, 3)."""
    directions = np.stack([light.toward, light.up, light.halfway])
    facing, upward, gleam = cv2.split(cv2.transform(normals, directions))
    body = np.clip(0.80 + 0.22 * strands.fine + 0.20 * strands.coarse, 0.15, 1.7)
    diffuse = np.clip((facing + 0.3) * np.float32(1.05 / 1.3), 0, 1.05) * body
    dome = (0.65 + 0.40 * upward) * body
    sheen = np.clip(gleam, 0, 1) ** 10 * np.clip(0.5 + 0.5 * strands.fine, 0, 1.5) * np.float32(gloss)
    return cv2.merge([
        diffuse * (tone * lamp) + dome * (tone * room) + sheen * (lamp + np.float32(0.4) * room)
        for tone, lamp, room in zip(colour, light.lamp, light.room, strict=True)
    ])  # fmt: skip
