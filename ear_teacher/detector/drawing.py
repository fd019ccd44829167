"""Ears drawn into their photographs: boxes with scores, landmarks, close-ups, and grids of photographs.

Detected ears are green, annotated ones magenta and thin. A hidden landmark is a ring.
Coordinates as in earface/data/annotations.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from torch import Tensor

from earface.data.annotations import UNLABELLED, VISIBLE, Floats, Photograph
from earface.data.image_grid import tile
from earface.data.images import Pixels

FOUND, TRUE, DARK = (60, 255, 120), (255, 70, 210), (16, 24, 20)  # green and magenta: far apart to the colour-blind too
FONT = cv2.FONT_HERSHEY_SIMPLEX
MIN_SIDE = 960  # pixels; smaller photographs are enlarged
SUBPIXEL = 4  # bits of fraction that OpenCV draws with
FARTHEST = 30_000.0  # pixels; OpenCV overflows far outside a picture
Skeleton = Sequence[tuple[int, int]]
Block = tuple[int, int, int, int]  # left, top, right, bottom: whole pixels, the last two excluded


def draw_detections(
    photograph: Pixels,
    detections: Mapping[str, Tensor],
    *,
    truth: Photograph | None = None,
    skeleton: Skeleton = (),
    min_score: float = 0.0,
    min_side: int = MIN_SIDE,
) -> Pixels:
    """A new (z H, z W, 3) RGB picture; z is the smallest whole number that makes its longer side at least `min_side`.

    photograph: (H, W, 3) RGB or (H, W, 1) grey uint8. detections: of `EarDetector.predict`, on any device; boxes and
    scores are required, keypoints optional. truth: its boxes are left out if they only enclose landmarks.
    skeleton: pairs of landmarks to join, from 1 on. min_score: ears with a lower score are left out.
    """
    found = _found(detections, min_score)
    return _drawn(photograph, found, None if truth is None else _true(truth), skeleton, min_side)


def zoomed(
    photograph: Pixels,
    box: Sequence[float] | Tensor,
    detections: Mapping[str, Tensor],
    *,
    truth: Photograph | None = None,
    skeleton: Skeleton = (),
    min_score: float = 0.0,
    margin: float = 0.5,
    side: int = 480,
) -> Pixels:
    """`draw_detections` of the surroundings of one box, enlarged to at least `side` pixels.

    box: x y x y, pixels of the photograph; it need not be one of the detections'. margin: in sides of the box.
    """
    height, width = photograph.shape[:2]
    x0, y0, x1, y1 = (float(value) for value in box)
    reach = margin * max(x1 - x0, y1 - y0, 1.0)
    left, top = max(0, min(math.floor(x0 - reach), width - 1)), max(0, min(math.floor(y0 - reach), height - 1))
    right, bottom = max(left + 1, min(math.ceil(x1 + reach), width)), max(top + 1, min(math.ceil(y1 + reach), height))
    found = _found(detections, min_score).within(left, top, right, bottom)
    true = None if truth is None else _true(truth).within(left, top, right, bottom)
    return _drawn(photograph[top:bottom, left:right], found, true, skeleton, side)


def photograph_grid(
    pictures: Sequence[Pixels], columns: int, *, captions: Sequence[str] = (), side: int = 480, gap: int = 6
) -> Pixels:
    """One or more pictures of any size in equal tiles on white, row by row: (H, W, 3) uint8.

    Each is shown whole, its proportions kept. side: the tiles' longer side in pixels; their shape is the median of the
    pictures' shapes. captions: one below each picture; those too long are cut at the beginning, which suits paths.
    """
    if captions and len(captions) != len(pictures):
        raise ValueError(f"{len(captions)} captions for {len(pictures)} pictures")
    aspect = float(np.median([picture.shape[1] / picture.shape[0] for picture in pictures]))
    aspect = min(max(aspect, 0.5), 2.0)
    width, height = round(side * min(1.0, aspect)), round(side * min(1.0, 1 / aspect))
    text = max(10, round(side / 32)) if captions else 0
    columns = min(columns, len(pictures))
    step_x, step_y = width + gap, height + gap + 2 * text
    canvas = np.full((gap + step_y * math.ceil(len(pictures) / columns), gap + step_x * columns, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        left, top = gap + step_x * (number % columns), gap + step_y * (number // columns)
        canvas[top : top + height, left : left + width] = tile(picture, height, width)
        if captions:
            caption = _text(_fitting(captions[number], width, text), text, DARK, (255, 255, 255))[:, :width]
            low, x = top + height + text // 3, left + (width - caption.shape[1]) // 2
            canvas[low : low + len(caption), x : x + caption.shape[1]] = caption[: len(canvas) - low]
    return canvas


@dataclass(frozen=True)
class _Ears:
    """N ears: boxes (N, 4) x y x y, points (N, K, 3) with COCO's visibility, scores (N,)."""

    boxes: Floats
    points: Floats
    scores: Floats
    framed: bool = True

    def within(self, left: int, top: int, right: int, bottom: int) -> _Ears:
        """Those that overlap a part of the picture, relative to its corner; others would be lines at its edge."""
        x0, y0, x1, y1 = self.boxes.T
        kept = (x0 < right) & (y0 < bottom) & (x1 > left) & (y1 > top)
        origin = np.array((left, top, left, top), np.float32)
        points = self.points[kept] - np.array((left, top, 0), np.float32)
        return _Ears(self.boxes[kept] - origin, points, self.scores[kept], self.framed)

    def enlarged(self, zoom: int) -> _Ears:
        """Whole coordinates of points stay pixel centres."""
        points = self.points.copy()
        points[..., :2] = (points[..., :2] + 0.5) * zoom - 0.5
        return _Ears(self.boxes * zoom, points, self.scores, self.framed)


def _found(detections: Mapping[str, Tensor], min_score: float) -> _Ears:
    boxes, scores = (detections[name].detach().float().cpu().numpy() for name in ("boxes", "scores"))
    points = np.zeros((len(boxes), 0, 3), np.float32)
    if "keypoints" in detections:
        points = detections["keypoints"].detach().float().cpu().numpy().copy()
        points[..., 2] += 1  # hidden is 0 there
        points[~np.isfinite(points).all(axis=-1)] = UNLABELLED
    kept = (scores >= min_score) & np.isfinite(boxes).all(axis=1)
    return _Ears(boxes[kept], points[kept], scores[kept])


def _true(photograph: Photograph) -> _Ears:
    corners = np.concatenate([photograph.boxes[:, :2], photograph.boxes[:, :2] + photograph.boxes[:, 2:]], axis=1)
    return _Ears(corners, photograph.keypoints, np.ones(len(corners), np.float32), photograph.has_boxes)


def _drawn(photograph: Pixels, found: _Ears, true: _Ears | None, skeleton: Skeleton, min_side: int) -> Pixels:
    zoom = max(1, math.ceil(min_side / max(photograph.shape[:2])))
    canvas = _enlarged(photograph, zoom)
    side = max(canvas.shape[:2])
    width = max(1, round(side / 400))
    found = found.enlarged(zoom)
    blocks = [_block(box, canvas) for box in found.boxes]
    for block in blocks[::-1]:  # the best ear last, on top
        _draw_frame(canvas, block, width, FOUND, rim=max(1, width // 3))
    for box, points in zip(found.boxes[::-1], found.points[::-1], strict=True):
        _draw_landmarks(canvas, points, _radius(box, side), skeleton, FOUND)
    if true is not None:
        true = true.enlarged(zoom)
        for box, points in zip(true.boxes, true.points, strict=True):
            if true.framed:
                _draw_frame(canvas, _block(box, canvas), max(1, width // 2), TRUE, rim=0)  # shows both
            _draw_landmarks(canvas, points, 0.6 * _radius(box, side), (), TRUE)
    taken: list[Block] = []
    for block, score in zip(blocks, found.scores, strict=True):
        label = _label(f"{score:.2f}", max(13, round(side / 56)))
        left, top, right, bottom = place = _label_place(block, label, canvas, width + 1, taken, blocks)
        canvas[top:bottom, left:right] = label[: bottom - top, : right - left]
        taken.append(place)
    return canvas


def _enlarged(photograph: Pixels, zoom: int) -> Pixels:
    """A copy, RGB."""
    height, width, channels = photograph.shape
    size = width * zoom, height * zoom
    canvas = cv2.resize(photograph, size, interpolation=cv2.INTER_CUBIC) if zoom > 1 else photograph
    return np.array(np.broadcast_to(canvas.reshape(size[1], size[0], channels), (size[1], size[0], 3)), np.uint8)


def _radius(box: Floats, side: int) -> float:
    """Of a landmark: 55 of them do not cover an ear, and those of a huge photograph stay visible."""
    return float(np.clip(max(box[2] - box[0], box[3] - box[1]) / 60, max(1.5, side / 900), max(2.0, side / 220)))


def _block(box: Floats, canvas: Pixels) -> Block:
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = np.rint(box).clip(0, (width, height) * 2).astype(int).tolist()
    return x0, y0, x1, y1


def _draw_frame(canvas: Pixels, block: Block, width: int, colour: tuple[int, int, int], rim: int) -> None:
    """Around the block rather than in it, so that no ear is covered, but never outside the picture."""
    height, length = canvas.shape[:2]
    left, top = max(block[0] - width, 0), max(block[1] - width, 0)
    right, bottom = min(block[2] + width, length), min(block[3] + width, height)
    bars = (
        (top, top + width, left, right),
        (bottom - width, bottom, left, right),
        (top, bottom, left, left + width),
        (top, bottom, right - width, right),
    )
    for edge, shade in ((rim, DARK), (0, colour)):
        for y0, y1, x0, x1 in bars:
            canvas[max(y0 - edge, 0) : max(y1 + edge, 0), max(x0 - edge, 0) : max(x1 + edge, 0)] = shade


def _draw_landmarks(
    canvas: Pixels, points: Floats, radius: float, skeleton: Skeleton, colour: tuple[int, int, int]
) -> None:
    """points: (K, 3) with COCO's visibility."""
    unit = 1 << SUBPIXEL
    places, seen = points[:, :2].clip(-FARTHEST, FARTHEST), points[:, 2]
    line = max(1, round(radius / 3))
    for first, second in skeleton:
        if seen[first - 1] != UNLABELLED and seen[second - 1] != UNLABELLED:
            start, end = places[first - 1], places[second - 1]
            length = float(np.linalg.norm(end - start))
            if length > 2 * radius:
                inset = (end - start) * (radius / length)  # a ring stays hollow
                first_end, last_end = np.rint(np.stack([start + inset, end - inset]) * unit).astype(int).tolist()
                cv2.line(canvas, first_end, last_end, colour, line, cv2.LINE_AA, SUBPIXEL)
    for place, visibility in zip(np.rint(places * unit).astype(int).tolist(), seen, strict=True):
        if visibility == UNLABELLED:
            continue
        outer, inner = round((radius + max(1.0, 0.4 * radius)) * unit), round(radius * unit)
        if visibility == VISIBLE:
            cv2.circle(canvas, place, outer, DARK, -1, cv2.LINE_AA, SUBPIXEL)
            cv2.circle(canvas, place, inner, colour, -1, cv2.LINE_AA, SUBPIXEL)
        else:
            cv2.circle(canvas, place, outer, DARK, line, cv2.LINE_AA, SUBPIXEL)
            cv2.circle(canvas, place, inner, colour, line, cv2.LINE_AA, SUBPIXEL)


@lru_cache(maxsize=256)
def _label(text: str, height: int) -> Pixels:
    """Dark on the colour of detections, with a dark rim: readable on any background."""
    inside = _text(text, height, DARK, FOUND)
    return np.asarray(cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=DARK), np.uint8)


def _text(text: str, height: int, colour: tuple[int, int, int], background: tuple[int, int, int]) -> Pixels:
    """A block that holds a line of digits `height` pixels high, and a margin."""
    scale, stroke = _text_scale(height), max(1, round(height / 12))
    (width, above), below = cv2.getTextSize(text, FONT, scale, stroke)
    margin = max(2, height // 4)
    block = np.full((above + below + 2 * margin, width + 2 * margin, 3), background, np.uint8)
    cv2.putText(block, text, (margin, margin + above), FONT, scale, colour, stroke, cv2.LINE_AA)
    return block


def _fitting(text: str, width: int, height: int) -> str:
    scale, stroke, margin = _text_scale(height), max(1, round(height / 12)), max(2, height // 4)
    for start in range(len(text) + 1):
        shown = text if start == 0 else "..." + text[start:]
        if cv2.getTextSize(shown, FONT, scale, stroke)[0][0] + 2 * margin <= width:
            return shown
    return ""


def _text_scale(height: int) -> float:
    return height / cv2.getTextSize("0", FONT, 1.0, 1)[0][1]  # OpenCV 4 and 5 have different fonts


def _label_place(
    block: Block, label: Pixels, canvas: Pixels, gap: int, taken: list[Block], boxes: list[Block]
) -> Block:
    """Above the box, below it, beside it or in its corner: inside the picture, and where it covers least."""
    most_y, most_x = canvas.shape[:2]
    height, width = min(label.shape[0], most_y), min(label.shape[1], most_x)
    left, top, right, bottom = block
    places = []
    for x, y in (
        (left - gap, top - gap - height),
        (right + gap - width, top - gap - height),
        (left - gap, bottom + gap),
        (right + gap - width, bottom + gap),
        (right + gap, top - gap),
        (left - gap - width, top - gap),
        (left, top),
    ):
        x, y = min(max(x, 0), most_x - width), min(max(y, 0), most_y - height)
        places.append((x, y, x + width, y + height))
    return min(places, key=lambda place: 4 * _covered(place, taken) + _covered(place, boxes))


def _covered(place: Block, blocks: list[Block]) -> int:
    """Pixels, summed over the blocks."""
    return sum(
        max(0, min(place[2], right) - max(place[0], left)) * max(0, min(place[3], bottom) - max(place[1], top))
        for left, top, right, bottom in blocks
    )
