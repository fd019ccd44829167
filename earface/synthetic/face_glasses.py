"""Glasses on a synthetic face."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from earface.synthetic.curves import Array
from earface.synthetic.face_anatomy import Face, vector
from earface.synthetic.face_factors import FaceView
from earface.synthetic.face_light import Light, Pose

_TONES = ((18, 18, 20), (70, 40, 22), (170, 130, 70), (150, 152, 158))  # sRGB: black, brown, gold, silver
_LENS_HALF = 25.0
_FORWARD, _BOW = 15.0, 0.0042  # the frame stands before the eyes and bends back toward its sides


def wear_glasses(picture: Array, face: Face, view: FaceView, pose: Pose, light: Light, depth: Array) -> None:
    """Draw rims, bridge and temples over a picture (S, S, 3), where the head's depth (S, S) does not hide them."""
    size = len(depth)
    frame, lenses = np.zeros((2, size, size), np.uint8)
    width = max(1, round((1.2 + 2.2 * (7 * view.glasses % 1.0)) * pose.scale))
    for number, points in enumerate(_wires(face, view.glasses)):
        x, y, near = pose.project(points)
        pixels = np.rint(np.stack([x, y], 1) * 16).astype(np.int32)
        if number < 2:
            cv2.fillPoly(lenses, [pixels], 255, cv2.LINE_AA, shift=4)
        column, row = np.clip(np.rint([x, y]).astype(int), 0, size - 1)
        seen = depth[row, column] < near + 2 * pose.scale
        for run in np.split(np.arange(len(x)), np.flatnonzero(np.diff(seen)) + 1):
            if seen[run[0]] and len(run) > 1:
                cv2.polylines(frame, [pixels[run]], False, 255, width, cv2.LINE_AA, shift=4)
    lens, wire = (mask.astype(np.float32)[..., None] * np.float32(1 / 255) for mask in (lenses, frame))
    below = np.array([[1, 0, 0], [0, 1, 3 * pose.scale]])
    shade = cv2.GaussianBlur(cv2.warpAffine(wire, below, (size, size)), (0, 0), 1.5 * pose.scale)
    picture *= (1 - 0.06 * lens) * (1 - 0.3 * shade)[..., None]
    picture += 0.012 * lens * (light.room + light.lamp)
    tone = (vector(*_TONES[min(int(4 * view.glasses_tone), 3)]) / 255) ** 2
    picture += (tone * (0.5 * light.room + 0.6 * light.lamp) - picture) * wire


def _wires(face: Face, style: float) -> list[Array]:
    """Both rims, then temples and bridge, each (N, 3) in the head frame. style: 0 round, 1 square."""
    angles = np.linspace(0, 2 * np.pi, 41, dtype=np.float32)
    cos, sin, power = np.cos(angles), np.sin(angles), 2 + 3 * style
    radius = (np.abs(cos) ** power + np.abs(sin) ** power) ** (-1 / power)
    high, hinge, ear = 17 + 6 * (1 - style), face.eye_x + _LENS_HALF, face.half_width(0) + 2
    rims, temples = [], []
    for sign in (-1, 1):
        x = sign * face.eye_x + _LENS_HALF * cos * radius
        rims.append(np.stack([x, 4 + high * sin * radius, _FORWARD - _BOW * x * x], 1))
        joints = [
            (hinge, -2, _FORWARD - _BOW * hinge**2), ((hinge + ear) / 2, -3, -35), (ear, -4, -80), (ear, 6, -96)
        ]  # fmt: skip
        temples.append(_dense(joints) * vector(sign, 1, 1))
    inner = face.eye_x - _LENS_HALF
    return [*rims, *temples, _dense([(-inner, -2, 14), (0, -5, 17), (inner, -2, 14)])]


def _dense(joints: Sequence[tuple[float, float, float]]) -> Array:
    at = np.linspace(0, len(joints) - 1, 24)
    return np.stack([np.interp(at, range(len(joints)), column) for column in np.array(joints).T], 1).astype(np.float32)
