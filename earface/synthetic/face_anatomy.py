"""The head as sheets of points: from a `FaceShape` and an expression to a loft with the relief of a face on it.

Head frame, in millimetres: x toward the picture's right, y down, z toward a camera in front; the origin lies between
the pupils of an average face. The face is a loft of horizontal cross-sections; nose, sockets, cheeks and lips are
mounds upon it in z. A sheet's columns go around the head by s, which in front is about x, its rows down by y.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from earface.synthetic.curves import Array, bump, smoothstep
from earface.synthetic.face_factors import FaceShape

FACE_LANDMARKS = ("eye_left", "eye_right", "nose_tip", "mouth_left", "mouth_right")  # left and right in the picture
SIDE, TOP, BOTTOM = 144.0, -128.0, 128.0  # the sheet: s from -SIDE to SIDE, y from TOP to BOTTOM
STEP = 2.0  # between the points of a sheet
_GIRTH = 66.0  # s per radian
_FLATNESS = 2.4  # exponent of the cross-sections: 2 is an ellipse
S = np.arange(-SIDE, SIDE + STEP / 2, STEP, dtype=np.float32)
Y = np.arange(TOP, BOTTOM + STEP / 2, STEP, dtype=np.float32)
LID_PLACES = np.linspace(-1, 1, 25, dtype=np.float32)  # along an eye, from its inner to its outer corner

# Heights of the average face between which a person's are interpolated: brows, eyes, nose's base, mouth, chin.
_ANCHORS = (-160.0, -20.0, 0.0, 49.0, 70.0, 116.0, 130.0)
# y; half width of the cross-section; depth of its front and of its widest place.
_LOFT = np.array([
    (-128, 0, -80, -80), (-124, 26, -52, -78), (-112, 52, -24, -80), (-92, 67, -7, -83), (-70, 74, 3, -85),
    (-45, 75.5, 9, -87), (-20, 74, 10, -87), (0, 72.5, 4, -87), (20, 71, 1, -87), (40, 68.5, 0, -86),
    (56, 65, 0, -82), (70, 60.5, -1, -77), (84, 53.5, -3, -67), (97, 43.5, -4, -55), (107, 31, -8, -46),
    (113, 17, -16, -42), (116, 6, -30, -40), (117, 0, -36, -38), (128, 0, -36, -38),
], np.float32)  # fmt: skip


@dataclass(frozen=True)
class Expression:
    """smile and surprise in [0, 1], as in `FaceView`."""

    smile: float = 0.0
    surprise: float = 0.0

    @property
    def jaw_drop(self) -> float:
        """Millimetres."""
        return 17.0 * self.surprise + 2.0 * self.smile


NEUTRAL = Expression()


@dataclass(frozen=True)
class Sheet:
    """A surface on a grid. points: (H, W, 3) in the head frame. normals: (H, W, 3) of length 1, outward."""

    points: Array
    normals: Array

    @classmethod
    def through(cls, points: Array) -> Sheet:
        """Outward is to the viewer of a sheet whose columns run to the right and whose rows run down."""
        points = np.ascontiguousarray(points, np.float32)
        along, down = (
            cv2.Sobel(points, cv2.CV_32F, 1 - i, i, ksize=3, borderType=cv2.BORDER_REPLICATE) for i in range(2)
        )
        (ax, ay, az), (dx, dy, dz) = cv2.split(along), cv2.split(down)
        normals = cv2.merge([ay * dz - az * dy, az * dx - ax * dz, ax * dy - ay * dx])
        x, y, z = cv2.split(normals)
        return cls(points, normals / (np.sqrt(x * x + y * y + z * z) + np.float32(1e-6))[..., None])


def vector(*values: float) -> Array:
    return np.array(values, np.float32)


def cross_section(angle: Array) -> tuple[Array, Array]:
    """A head's outline at angles from its front: how far across, how far ahead of its widest place; -1 to 1 each."""
    sin, cos = np.sin(angle), np.cos(angle)
    radius = (np.abs(sin) ** _FLATNESS + np.abs(cos) ** _FLATNESS) ** (-1 / _FLATNESS)
    return (sin * radius).astype(np.float32), (cos * radius).astype(np.float32)


_ACROSS, _AHEAD = cross_section(S / np.float32(_GIRTH))


class Face:
    """The measurements of one face with one expression, and its sheet."""

    def __init__(self, shape: FaceShape, expression: Expression = NEUTRAL) -> None:
        self.shape, self.expression = shape, expression
        s, e = shape, expression
        nose_base = 49.0 * (1 + 0.13 * s.nose_length)
        mouth = nose_base + 21.0 * (1 + 0.22 * s.mouth_height)
        chin = mouth + 46.0 * (1 + 0.17 * s.chin_length)
        self.rest = np.array((-160.0, -20.0, 0.0, nose_base, mouth, chin, chin + 14), np.float32)
        self.anchors = self.rest + e.jaw_drop * np.array((0, 0, 0, 0, 0.25, 1.0, 1.0), np.float32)
        self.eye_x = 31.5 * (1 + 0.13 * s.eye_distance)  # from the midline to a pupil
        self.eye_half = 14.5 * (1 + 0.13 * s.eye_size)
        self.nose_half = 17.0 * (1 + 0.25 * s.nose_width)  # from the midline to a wing
        self.mouth_half = 25.5 * (1 + 0.16 * s.mouth_width) + 6.5 * e.smile - 4.5 * e.surprise

    def personal(self, y: Array | float) -> Array:
        """Heights of the average face -> this face's."""
        return np.asarray(np.interp(y, _ANCHORS, self.anchors), np.float32)

    def average(self, y: Array | float) -> Array:
        """Heights of this face -> the average face's."""
        return np.asarray(np.interp(y, self.anchors, _ANCHORS), np.float32)

    @functools.cached_property
    def loft(self) -> tuple[Array, Array, Array]:
        """Half width, depth of the front, depth of the widest place, each (H,), of the cross-sections at `Y`."""
        s, y = self.shape, self.average(Y)
        width, front, middle = (np.interp(y, _LOFT[:, 0], _LOFT[:, k]) for k in (1, 2, 3))

        def around(centre: float, spread: float) -> Array:
            return np.exp(-(((y - centre) / spread) ** 2))

        wide = 1.02 + 0.075 * s.face_width + 0.10 * s.jaw_width * around(78, 26)
        wide = wide + 0.09 * (s.jaw_corner - 0.4) * around(88, 13) + 0.16 * s.chin_width * around(106, 12)
        wide = wide + 0.045 * s.cheek_fullness * around(60, 24)
        front = front - 0.11 * s.forehead_slope * np.clip(-18 - y, 0, 90) + 4.5 * s.chin_forward * around(104, 16)
        width, front, middle = (smoothed(values, 3.0) for values in (width * wide, front, middle))
        return width, front, middle

    def half_width(self, y: float) -> float:
        """Half the head's width at a height of the average face."""
        return float(np.interp(self.personal(y), Y, self.loft[0]))

    @functools.cached_property
    def relief(self) -> Array:
        """(H, W) what nose, sockets, cheeks and lips add to the loft's z."""
        e, relief = self.expression, resting_relief(self.shape)
        if e.jaw_drop:  # the lower face moves with the jaw
            rows = (np.interp(Y, self.anchors, self.rest) - TOP) / STEP
            relief = cv2.remap(relief, *row_map(rows, len(S)), cv2.INTER_LINEAR)
        if e.smile:
            relief = relief + np.float32(e.smile) * smiling_relief(self.shape)
        return relief + self.mouth.relief(self)

    @property
    def seen_from_front(self) -> tuple[Array, Array]:
        """|x| (H, W) and the average face's y (H, 1) of the sheet's points."""
        return np.abs(self.loft[0][:, None] * _ACROSS), self.average(Y)[:, None]

    @functools.cached_property
    def sheet(self) -> Sheet:
        width, front, middle = (values[:, None] for values in self.loft)
        x, y, z = width * _ACROSS, np.repeat(Y[:, None], len(S), 1), middle + (front - middle) * _AHEAD
        softer = Sheet.through(cv2.merge([x, y, z + np.float32(0.75) * self.relief]))  # skin scatters light sideways
        return Sheet(cv2.merge([x, y, z + self.relief]), softer.normals)

    def to_sheet(self, points: Array) -> Array:
        """(N, 2) of x and y as seen from the front -> s and y."""
        width = np.interp(points[:, 1], Y, self.loft[0])
        across = np.clip(points[:, 0] / np.maximum(width, 1e-3), -0.999, 0.999)
        angle = np.arctan2(across, (1 - np.abs(across) ** _FLATNESS) ** (1 / _FLATNESS))
        return np.stack([_GIRTH * angle, points[:, 1]], axis=1).astype(np.float32)

    def on_surface(self, points: Array) -> Array:
        """(N, 2) of x and y as seen from the front -> (N, 3) upon the sheet."""
        at = (self.to_sheet(points) + vector(SIDE, -TOP)) / np.float32(STEP)
        return cv2.remap(self.sheet.points, at[:, :1], at[:, 1:], cv2.INTER_LINEAR)[:, 0]

    @functools.cached_property
    def mouth(self) -> Mouth:
        return Mouth(self)

    @functools.cached_property
    def lids(self) -> tuple[Array, Array]:
        """Upper and lower edge of the right eye's opening, (N, 2) of x and y, from its inner to its outer corner."""
        s, e, q = self.shape, self.expression, LID_PLACES
        size = 1 + 0.13 * s.eye_size
        up = (4.9 + 1.5 * s.eye_opening) * size + 2.3 * e.surprise - 0.5 * e.smile
        low = (4.0 + 0.8 * s.eye_opening) * size + 0.4 * e.surprise - 1.4 * e.smile
        slant = 0.6 - (0.6 + 2.9 * s.eye_slant) * q
        lower = slant + low * np.clip(1 - np.abs(q - 0.12) ** 2.3, 0, None) ** 0.9
        upper = np.minimum(slant - up * np.clip(1 - np.abs(q + 0.06) ** 2.1, 0, None) ** 0.85, lower)
        x = self.eye_x + self.eye_half * q
        return np.stack([x, upper], 1), np.stack([x, lower], 1)

    @functools.cached_property
    def landmarks(self) -> Array:
        """(5, 3) in the order of FACE_LANDMARKS: pupils that look ahead, the nose's foremost point, mouth corners."""
        ridge = self.sheet.points[:, len(S) // 2, 2] * (np.abs(self.average(Y) - 38) < 16)
        x, y = self.mouth.corner
        tip = float(Y[int(np.argmax(ridge))])
        return self.on_surface(np.array([(-self.eye_x, 0), (self.eye_x, 0), (0, tip), (-x, y), (x, y)], np.float32))


class Mouth:
    """The mouth's curves (N, 2) of x and y, seen from the front.

    upper, lower: the lips, closed. inside: what is seen between them, closed, its first half the upper lip's edge.
    corner: the right one. gap: how far the lips are apart.
    """

    def __init__(self, face: Face) -> None:
        s, e = face.shape, face.expression
        half, line = face.mouth_half, float(face.rest[4])
        lift = 2.2 * s.mouth_corners + 7.0 * e.smile - 2.0 * e.surprise
        self.gap = 6.0 * max(e.smile - 0.35, 0.0) + 0.95 * e.jaw_drop * e.surprise
        up, low = (3.6 + 6.0 * s.upper_lip) * (1 - 0.3 * e.smile), (4.8 + 7.0 * s.lower_lip) * (1 - 0.3 * e.smile)
        bow = (0.8 + 2.4 * s.cupids_bow) * (1 - 0.6 * e.smile)
        corner, middle = line - lift + 0.35 * e.jaw_drop * e.surprise, line - 0.25 * lift - 0.10 * e.jaw_drop
        q = np.linspace(-1, 1, 33, dtype=np.float32)
        arch = 1 - q * q
        seam = corner + (middle - corner) * arch**0.8 + (0.7 * np.exp(-((q / 0.18) ** 2)) if self.gap < 3 else 0)
        parted = seam + self.gap * arch ** (0.5 + 0.3 * e.smile)
        peaks = np.exp(-(((np.abs(q) - 0.24) / 0.17) ** 2)) - 0.55 * np.exp(-((q / 0.11) ** 2)) - 0.3
        crest = np.minimum(seam - 0.72 * up * (1 - np.abs(q)) ** 0.6 - bow * peaks, seam)
        over, under = np.stack([half * q, seam], 1), np.stack([half * q, parted], 1)
        top, bottom = np.stack([1.01 * half * q, crest], 1), np.stack([0.99 * half * q, parted + low * arch**0.75], 1)
        self.upper, self.lower, self.inside = (
            np.concatenate([a, b[::-1]]).astype(np.float32) for a, b in ((top, over), (under, bottom), (over, under))
        )
        self.corner = (0.985 * half, corner)

    def relief(self, face: Face) -> Array:
        """(H, W): both lips, and the hollow between them."""
        s, fine = face.shape, 4  # cells of the drawing per step
        rows, columns = (
            slice(round((36 - TOP) / STEP), len(Y)),
            slice(round((SIDE - 46) / STEP), round((SIDE + 46) / STEP)),
        )
        shape = ((rows.stop - rows.start) * fine, (columns.stop - columns.start) * fine)
        origin = vector(S[columns.start], Y[rows.start])
        height: Array = np.zeros(shape, np.float32)
        for curve, value in (
            (self.upper, 2.2 + 2.8 * s.upper_lip),
            (self.lower, 2.6 + 3.2 * s.lower_lip),
            (self.inside, -3.0),
        ):
            at = (face.to_sheet(curve) - origin) * np.float32(fine / STEP) + np.float32((fine - 1) / 2)
            cv2.fillPoly(height, [np.rint(at * 16).astype(np.int32)], value, shift=4)
        height = cv2.GaussianBlur(height, (0, 0), 1.7 * fine / STEP)
        relief = np.zeros((len(Y), len(S)), np.float32)
        relief[rows, columns] = cv2.resize(height, (shape[1] // fine, shape[0] // fine), interpolation=cv2.INTER_AREA)
        return relief


def mound(x: Array, y: Array, cx: float, cy: float, rx: float, ry: float) -> Array:
    """A Gaussian hill on both sides of the midline. x: (H, W) without sign; y: (H, 1)."""
    across, down = (x - np.float32(cx)) / np.float32(rx), (y - np.float32(cy)) / np.float32(ry)
    return np.exp(-across * across) * np.exp(-down * down)


def smoothed(values: Array, sigma: float) -> Array:
    """(N,) -> (N,) float32; sigma in places."""
    column = np.asarray(values, np.float32)[:, None]
    return cv2.GaussianBlur(column, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)[:, 0]


def row_map(rows: Array, columns: int) -> tuple[Array, Array]:
    """The maps with which `cv2.remap` takes row rows[i] of an image as row i."""
    x = np.broadcast_to(np.arange(columns, dtype=np.float32), (len(rows), columns))
    y = np.broadcast_to(np.asarray(rows, np.float32)[:, None], (len(rows), columns))
    return np.ascontiguousarray(x), np.ascontiguousarray(y)


@functools.lru_cache(maxsize=16)
def smiling_relief(shape: FaceShape) -> Array:
    """(H, W): what a smile does to the cheeks."""
    x, y = Face(shape).seen_from_front
    return 4.0 * mound(x, y, 38, 34, 15, 12) - 2.0 * mound(x, y, 32, 62, 7, 14)


@functools.lru_cache(maxsize=16)
def resting_relief(shape: FaceShape) -> Array:
    """(H, W): the relief of a face at rest, without lips."""
    s, face = shape, Face(shape)
    x, y = face.seen_from_front
    hill = functools.partial(mound, x, y)
    eye, n = face.eye_x, face.nose_half / 17.0
    relief = (1.5 + 3.0 * s.eye_depth) * hill(eye - 4, -16 - 2 * s.brow_height, 19, 7) + 1.5 * hill(0, -15, 12, 10)
    relief -= (5 + 4 * s.eye_depth) * hill(eye, 0, 17, 10) + 3.5 * hill(eye - 16, 0, 6, 8)
    relief += (5 + 1.5 * s.eye_size) * hill(eye, 0.5, 11, 8)
    relief += (1.5 + 4.5 * s.cheekbones) * hill(45, 22, 15, 12) + 1.5 * s.age * hill(eye, 17, 14, 5)
    relief += 4.5 * s.cheek_fullness * hill(40, 56, 17, 18) - (0.8 + 2.4 * s.age) * hill(27, 58, 5, 14)
    relief += 4.0 * hill(0, 62, 24, 16) - 3.0 * hill(0, 86, 17, 5) - 3.0 * hill(64, -22, 14, 20)
    relief += (3.5 + 2 * s.chin_forward) * hill(0, 102, 15 + 5 * s.chin_width, 11) - 0.9 * hill(0, 56, 3, 6)

    rows = y[:, 0]
    tip, bridge = 38 - 2.5 * s.nose_tip, s.nose_bridge
    knots = (
        (-12, 0), (-3, 1.2), (8, 6.2 + 3.2 * bridge), (18, 11.5 + 3.4 * bridge), (28, 16.6 + 1.4 * bridge),
        (tip - 4, 20.6), (tip, 21.4 + 0.8 * s.nose_tip), (tip + 4.5, 18.8 + 1.5 * s.nose_tip), (47, 10), (51.5, 2.5),
        (57, 0),
    )  # fmt: skip
    profile = np.interp(rows, *np.array(knots).T) * (1 + 0.24 * s.nose_height)
    half = np.interp(rows, (-12, 0, 14, 28, 38, 46, 52), (13, 12, 13, 15, 17, 17, 15))
    half *= 1 + (n - 1) * np.clip((rows + 5) / 40, 0.3, 1)
    relief += smoothed(profile, 1.0)[:, None] * bump(x / half.astype(np.float32)[:, None])
    relief += 2.2 * hill(0, tip + 0.5, 7.5 * n, 6.5) + 7.0 * hill(12 * n, 42.5, 5 * n, 5.5)
    return (relief * smoothstep(_AHEAD, 0.05, 0.6)).astype(np.float32)
