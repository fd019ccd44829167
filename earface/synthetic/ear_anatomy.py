"""The auricle as a relief: from the factors of an `EarShape` to a height field, an outline and 17 landmarks.

Ear frame: a left ear seen from its side. x runs from the face to the back of the head, y down, z toward the viewer.
The unit is the height of the ear, the origin the middle of its box. Ridges (helix, antihelix and its crura) are
profiles across smooth curves, the concha is a bowl within a closed one, tragus, antitragus and lobe are mounds.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from earface.synthetic.curves import Array, bump, course, curve_frame, smooth_curve, smoothstep
from earface.synthetic.ear_factors import EarShape

EAR_LANDMARKS: tuple[str, ...] = (
    "otobasion_superior",  # where the helix leaves the head
    "helix_anterior",  # crest of the ascending rim
    "helix_superior",  # crest of the rim, highest point
    "darwin_point",  # crest of the rim, posterosuperior
    "helix_posterior",  # crest of the descending rim
    "helix_tail",  # where the rim runs out into the lobe
    "lobule_inferior",  # lowest point of the outline
    "otobasion_inferior",  # where the lobe meets the cheek
    "tragus",
    "intertragic_notch",
    "antitragus",
    "antihelix_body",  # crest
    "antihelix_bifurcation",  # where the crura part
    "triangular_fossa",  # between the crura
    "cymba_concha",  # concha above the helix's crus
    "cavum_concha",  # concha below it
    "helix_crus",  # near the end of the crus in the concha
)

EXTENT_X, EXTENT_Y = 0.52, 0.62  # half the relief's extent: the ear and a margin of head


@dataclass(frozen=True)
class Relief:
    """A relief on a grid of `density` points per ear height; lengths in ear heights.

    height: (H, W), the cheek at 0. depth: (H, W), the height smoothed, its mean over the ear at 0: what parallax sees.
    silhouette: (H, W) signed distance to the outline, positive inside.
    blood: (H, W) in [0, 1], where skin is thin or well supplied.
    outline: (N, 2) closed, landmarks: (17, 2), both in the ear frame.
    """

    height: Array
    depth: Array
    silhouette: Array
    blood: Array
    outline: Array
    landmarks: Array
    density: int

    def to_grid(self, points: Array) -> Array:
        """Ear frame (N, 2) -> column and row of the grid (N, 2)."""
        return ((points + np.array([EXTENT_X, EXTENT_Y])) * self.density).astype(np.float32)

    def height_at(self, points: Array) -> Array:
        """Heights (N,) at points (N, 2) of the ear frame."""
        at = self.to_grid(points)
        return cv2.remap(self.height, at[:, :1], at[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]


def _rim_inset(s: EarShape) -> float:
    """Distance from the helix's crest to the outline."""
    return 0.029 + 0.028 * s.helix_width


def _structures(s: EarShape) -> dict[str, Array]:
    """The points of each curve, (N, 2), before the warps of the whole ear: y from 0 to 1, the otobasia near x = .1."""
    corner, tip = 0.035 * s.corner, 0.012 * s.darwin_tubercle
    low, wide, joined = 0.050 * s.lobe_length, 0.035 * s.lobe_width, s.lobe_attachment
    rim = [
        (0.125, 0.225), (0.150, 0.125), (0.235, 0.035), (0.350, 0.000), (0.460 + corner, 0.022 - 0.4 * corner),
        (0.540 + corner, 0.100), (0.578 + tip, 0.205), (0.583, 0.330), (0.565, 0.455), (0.530, 0.570), (0.485, 0.675),
        (0.440 + 0.5 * wide, 0.770 + 0.3 * low), (0.402 + wide, 0.860 + 0.7 * low),
    ]  # fmt: skip
    lobe = [
        (0.345 + wide, 0.942 + low), (0.270 + 0.5 * wide, 0.988 + low - 0.02 * joined),
        (0.195, 0.985 + low - 0.05 * joined), (0.138, 0.945 + 0.7 * low - 0.055 * joined),
        (0.102 + 0.010 * joined, 0.880 + 0.4 * low), (0.116 - 0.008 * joined, 0.805 + 0.03 * joined),
    ]  # fmt: skip
    front = [(0.090, 0.760), (0.072, 0.660), (0.062, 0.560), (0.070, 0.450), (0.095, 0.330)]

    k, spread = 0.034 * s.antihelix_curvature, 0.055 * s.crura_spread
    tragus, anti = 0.042 * (s.tragus_size - 0.5), 0.026 * (s.antitragus_size - 0.5)
    notch = 0.022 * (s.notch_width - 0.5)
    concha = [  # clockwise from the intertragic notch
        (0.128 + notch / 2, 0.690 + notch / 2), (0.100 - notch / 2, 0.665), (0.115, 0.625), (0.145 + tragus, 0.585),
        (0.163 + tragus, 0.535), (0.150 + tragus / 2, 0.482), (0.132, 0.435), (0.142, 0.385),
        (0.158, 0.340 + spread / 2), (0.200, 0.335 + spread / 2), (0.255, 0.352 + spread / 2), (0.308 + 0.6 * k, 0.395),
        (0.336 + k, 0.455), (0.338 + k, 0.525), (0.308 + 0.6 * k, 0.585), (0.262, 0.622 - anti / 2),
        (0.215 + notch / 2, 0.622 - anti), (0.172 + notch, 0.655 - anti / 2),
    ]  # fmt: skip
    antihelix = [  # from the antitragus up into the superior crus
        (0.235, 0.668), (0.290, 0.662), (0.342, 0.635), (0.382 + 0.6 * k, 0.585), (0.404 + k, 0.515),
        (0.404 + k, 0.440), (0.392 + 0.7 * k, 0.370), (0.380 + 0.4 * k, 0.300), (0.372 + spread / 2, 0.225),
        (0.375 + spread, 0.150), (0.385 + spread, 0.105),
    ]  # fmt: skip
    inferior_crus = [
        (0.395 + 0.7 * k, 0.375), (0.345 + 0.4 * k, 0.318 + spread / 3), (0.285, 0.290 + spread / 2),
        (0.220, 0.278 + spread / 2), (0.165, 0.275 + spread / 2),
    ]  # fmt: skip
    reach = 0.09 * (s.crus_length - 0.5)
    crus = [
        (0.285 + reach, 0.482), (0.238 + reach / 2, 0.478), (0.190, 0.450), (0.152, 0.395), (0.134, 0.320),
        (0.140, 0.245),
    ]  # fmt: skip
    # The crest runs beside the rim, nearer to the edge toward the lobe.
    edge = smooth_curve(np.array(rim, np.float32), 4)
    tangent = np.gradient(edge, axis=0)
    inward = np.stack([-tangent[:, 1], tangent[:, 0]], 1) / np.linalg.norm(tangent, axis=1, keepdims=True)
    inset = _rim_inset(s) * course(np.linspace(0, 1, len(edge)), (0, 1.15), (0.25, 1.1), (0.6, 0.95), (1, 0.75))
    crest = (edge + inward * inset[:, None])[6::4]
    curves = {
        "rim": rim + lobe,
        "front": front,
        "crest": crus + [(float(x), float(y)) for x, y in crest],
        "concha": concha,
        "antihelix": antihelix,
        "inferior_crus": inferior_crus,
        "tragus": [(0.135 + tragus, 0.535)],
        "antitragus": [(0.225 + notch / 2, 0.648 - anti)],
        "lobe": [(0.245 + wide / 2, 0.865 + low / 2)],
        "fossa": [(0.285, 0.215 + spread / 4)],
        "cymba": [(0.225, 0.405)],
        "cavum": [(0.245, 0.555)],
        "canal": [(0.165, 0.545)],
    }
    return {name: _warp(s, np.array(points, np.float32)) for name, points in curves.items()}


def _warp(s: EarShape, points: Array) -> Array:
    """The warps of the whole ear: width, taper, bend and lean."""
    x, y = points[:, 0] - 0.09, points[:, 1] - 0.5
    x = x * (s.aspect / 0.56) * (1 - 0.16 * s.taper * y)
    x = x + 0.1 * s.bend * (1 - 4 * y * y) * x - s.lean * y
    return np.stack([x, y], 1).astype(np.float32)


@functools.lru_cache(maxsize=16)
def relief(shape: EarShape, density: int) -> Relief:
    """The relief of an ear on a grid of `density` points per ear height."""
    s = shape
    points = _structures(s)
    outline = smooth_curve(np.concatenate([points["rim"], points["front"]]), closed=True)
    low, high = outline.min(0), outline.max(0)
    unit, middle = high[1] - low[1], (low + high) / 2
    points = {name: (value - middle) / unit for name, value in points.items()}
    outline = (outline - middle) / unit
    crest, body = smooth_curve(points["crest"]), smooth_curve(points["antihelix"])

    x = np.arange(round(2 * EXTENT_X * density), dtype=np.float32) / np.float32(density) - np.float32(EXTENT_X)
    y = np.arange(round(2 * EXTENT_Y * density), dtype=np.float32) / np.float32(density) - np.float32(EXTENT_Y)
    around, silhouette = curve_frame(outline, x, y, closed=True)
    _, in_concha = curve_frame(smooth_curve(points["concha"], 5, closed=True), x, y, closed=True)
    gx, gy = x[None, :], y[:, None]

    def mound(name: str, before: float, behind: float, ry: float) -> Array:
        cx, cy = points[name][0]
        across = np.where(gx < cx, (gx - cx) / np.float32(before), (gx - cx) / np.float32(behind))
        return np.exp(-(across**2)) * np.exp(-(((gy - cy) / np.float32(ry)) ** 2))

    helix, groove = _helix(s, *curve_frame(crest, x, y))
    antihelix = _antihelix(s, *curve_frame(body, x, y))
    inferior = _inferior_crus(s, *curve_frame(smooth_curve(points["inferior_crus"], 5), x, y))
    ridges = np.cbrt(helix**3 + antihelix**3 + inferior**3)  # a union without creases
    tragus = (0.045 + 0.035 * s.tragus_size) * mound("tragus", 0.075, 0.05, 0.075)
    antitragus = (0.025 + 0.035 * s.antitragus_size) * mound("antitragus", 0.055, 0.075, 0.045)
    bowl = (0.12 + 0.07 * s.concha_depth) * np.sin(np.float32(np.pi / 2) * np.clip(in_concha / 0.10, 0, 1))
    bowl += 0.05 * mound("canal", 0.04, 0.04, 0.05) * smoothstep(in_concha, 0, 0.03)

    # The auricle stands off the head more and more toward its back.
    stand = (0.05 + 0.09 * s.protrusion) * np.clip((gx + 0.24) / 0.5, 0, 1.1)
    fossa = (0.015 + 0.03 * s.fossa_depth) * mound("fossa", 0.075, 0.075, 0.075)
    ear = stand + 0.035 * mound("lobe", 0.16, 0.16, 0.14) - fossa + ridges - groove - bowl + tragus + antitragus

    # The edge is round where it is free, and runs into the cheek in front.
    end = len(points["rim"]) / len(np.concatenate([points["rim"], points["front"]]))
    lobe_free = 1 - 0.9 * s.lobe_attachment
    free = course(around, (0, 0), (0.04, 1), (end - 0.09, 1), (end - 0.02, lobe_free), (end, 0), (1, 0))
    rolled = np.clip(1 - np.abs(silhouette) / 0.04, 0, 0.995)
    ear -= (0.02 + 0.5 * stand) * free * (1 - np.sqrt(1 - rolled * rolled))
    knots = ((0, 0.8), (0.03, 0), (end - 0.06, 0), (end, 1), (end + 0.06, 0.4), (end + 0.1, 0), (0.94, 0.2), (1, 0.8))
    ear -= 0.014 * course(around, *knots) * bump(silhouette / 0.03)
    inside = smoothstep(silhouette, -0.5 / density, 0.5 / density)
    share = free * inside + (1 - free) * smoothstep(silhouette, -0.07, 0.05)
    head = tragus * (1 - inside) * (gx < 0)
    height = cv2.GaussianBlur(head + (ear - head) * share, (0, 0), max(0.008 * density, 0.4))

    # Parallax must be gentle to have an inverse: the ear's plane goes on behind its edge.
    depth = stand + cv2.GaussianBlur(0.7 * (height - stand) * inside, (0, 0), 0.06 * density)
    depth -= depth[silhouette > 0].mean()

    thin = 0.7 * free * bump(silhouette / 0.10) + 0.5 * mound("lobe", 0.15, 0.15, 0.13)
    blood = inside * np.clip(thin + 0.8 * np.clip(in_concha / 0.06, 0, 1), 0, 1)

    def on(curve: Array, along: float) -> Array:
        return curve[round(along * (len(curve) - 1))]

    landmarks = [
        points["rim"][0], on(crest, 0.36), crest[np.argmin(crest[:, 1])], on(crest, 0.63), on(crest, 0.78),
        on(crest, 0.93), outline[np.argmax(outline[:, 1])], points["rim"][-1], points["tragus"][0],
        points["concha"][0], points["antitragus"][0], on(body, 0.42), on(body, 0.63), points["fossa"][0],
        points["cymba"][0], points["cavum"][0], on(crest, 0.08),
    ]  # fmt: skip
    fields = (height, depth, silhouette, blood, outline, np.stack(landmarks))
    height, depth, silhouette, blood, outline, placed = (np.ascontiguousarray(f, np.float32) for f in fields)
    return Relief(height, depth, silhouette, blood, outline, placed, density)


def _helix(s: EarShape, along: Array, inward: Array) -> tuple[Array, Array]:
    """(height of the rim, depth of the groove it curls over), from the tip of the crus to the tail."""
    width, curl = _rim_inset(s) + 0.001, 1.4 - 0.35 * s.helix_curl
    outer = width * course(along, (0, 0.9), (0.25, 1.3), (0.5, 1.9), (1, 1.6))
    inner = width * course(along, (0, 1.0), (0.25, 1.0), (0.4, curl), (0.8, curl + 0.15), (1, 1.3))
    rise = course(
        along, (0, 0.35), (0.12, 0.6), (0.22, 0.75), (0.3, 0.9), (0.45, 1.1), (0.75, 1.0), (0.92, 0.5), (1, 0)
    )
    rim = (0.06 + 0.03 * s.helix_curl) * rise * bump(np.where(inward < 0, inward / outer, inward / inner))
    depth = course(along, (0.2, 0), (0.32, 0.7), (0.45, 1.2), (0.7, 0.8), (0.95, 0)) * (inward > 0)
    return rim, (0.012 + 0.045 * s.helix_curl) * depth * bump((inward / width - 1.3) / 0.9)


def _antihelix_height(s: EarShape) -> float:
    return 0.045 + 0.045 * s.antihelix_prominence


def _antihelix(s: EarShape, along: Array, backward: Array) -> Array:
    """Height of body and superior crus: steep toward the concha, gentle toward the scapha."""
    gentle = course(along, (0, 0.05), (0.2, 0.075), (0.5, 0.100), (0.75, 0.080), (1, 0.065))
    steep = course(along, (0, 0.05), (0.5, 0.075), (0.65, 0.065), (1, 0.060))
    rise = course(along, (0, 0.4), (0.15, 0.9), (0.5, 1.0), (0.7, 0.9), (0.88, 0.5), (1, 0.0))
    return _antihelix_height(s) * rise * bump(np.where(backward > 0, backward / gentle, backward / steep))


def _inferior_crus(s: EarShape, along: Array, across: Array) -> Array:
    return _antihelix_height(s) * course(along, (0, 0.0), (0.3, 0.8), (0.6, 0.85), (1, 0.45)) * bump(across / 0.055)
