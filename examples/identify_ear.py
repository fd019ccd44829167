"""Whose ear is in these photographs? With NumPy, OpenCV and ONNX Runtime alone; copy from it what you need.

    earface export recognizer --checkpoint last.ckpt --out exported_recognizer      # once, where earface is installed
    python examples/identify_ear.py --model exported_recognizer --gallery people photo.jpg

`people` has a folder for each person, with pictures of their ears. A picture is a crop of an ear, unless --boxes gives
a detector (boxes.onnx of `earface export detector`): this finds the best ear of a whole photograph.

Here pictures are (H, W, 3) uint8 RGB, and points x y in pixels, whole numbers at pixel centres. Matrices are (2, 3) and
count from the top left corner of a picture. Every number that belongs to the model is read from its ear_form.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MIN_SCORE = 0.5  # of a box


class NoEarError(ValueError):
    """Why there is no ear in a picture that can be used."""


class EarRecognizer:
    """`embed(picture)`: an embedding, (D,) of length 1; the cosine of two is high where both ears are of one person."""

    def __init__(self, folder: Path, boxes: Path | None = None) -> None:
        """folder: of `earface export recognizer`. boxes: of a detector; None: each picture is an ear."""
        self.form = json.loads((folder / "ear_form.json").read_text())
        self.network = session(folder / self.form["recognizer"]["file"])
        if self.network.get_modelmeta().custom_metadata_map["digest"] != self.form["recognizer"]["digest"]:
            raise SystemExit(f"error: {folder}: its files are of different exports")
        self.detector = None if boxes is None else session(boxes)
        self.landmarker = None
        if self.form["fit"] == "canonical":
            path = folder / self.form["landmarker"]["file"]
            if hashlib.sha256(path.read_bytes()).hexdigest() != self.form["landmarker"]["sha256"]:
                raise SystemExit(f"error: {path}: not the landmarker of this model")
            self.landmarker = session(path)

    def embed(self, picture: np.ndarray) -> np.ndarray:
        """Raises NoEarError."""
        ear = self.ear(picture, None if self.detector is None else best_box(self.detector, picture))
        return run(self.network, ear, self.form["input"])[0]

    def ear(self, picture: np.ndarray, box: np.ndarray | None = None) -> np.ndarray:
        """(size, size, 3): the ear in the form that the recogniser takes. box: x y width height; None: all of it."""
        size = self.form["size"]
        if self.form["fit"] == "canonical":
            return self.aligned(picture, self.similarity(picture, box))
        if box is not None:
            left, top, right, bottom = np.rint([*box[:2], *(box[:2] + box[2:])]).astype(int).clip(0)
            picture = picture[top:bottom, left:right]
        if self.form["fit"] == "stretch":
            return stretched(picture, size)
        return placed(picture, letterbox(picture, size), size, self.form["pad"])

    # -- canonical ears ----------------------------------------------------------------------------------------------

    def similarity(self, picture: np.ndarray, box: np.ndarray | None) -> np.ndarray:
        """(2, 3): from points of the picture to heights of the ear's frame, from its middle; it mirrors a left ear."""
        height, width = picture.shape[:2]
        first, *_ = self.landmarks(picture, np.array([0, 0, width, height]) if box is None else box)
        low, high = first.min(0), first.max(0)  # the landmarks lie inside the ear: their box is a little small
        extent = np.maximum(high - low, 1) * self.form["landmarker"]["refined_margin"]
        box = np.concatenate([(low + high - extent) / 2 + 0.5, extent])
        points, visibility, moved = self.landmarks(picture, box)
        right, from_right = self.fitted(points)
        left, from_left = self.fitted(points * [-1, 1])
        found, residual = (right, from_right) if from_right <= from_left else (left * [-1, 1, 1], from_left)
        outline = (np.array(self.form["outline"]) - found[:, 2]) @ np.linalg.inv(found[:, :2]).T
        inside = ((outline >= -0.5) & (outline <= np.array([width, height]) - 0.5)).all(1).mean()
        limits = self.form["limits"]
        problems = (
            (visibility < limits["min_visibility"], "no ear, or one that is hidden"),
            (residual > limits["max_residual"], f"residual {residual:.1f}: its landmarks form no ear"),
            (moved > limits["max_disagreement"], f"its landmarks move by {moved:.0%} of the ear when it is mirrored"),
            (inside < limits["min_inside"], f"{1 - inside:.0%} of the ear lies outside the picture"),
        )
        for problem, reason in problems:
            if problem:
                raise NoEarError(reason)
        return found

    def landmarks(self, picture: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, float, float]:
        """(K, 2) points of the ear in a box, their mean visibility, and by how much they move when it is mirrored.

        That is the median distance, as a share of the ear's height.
        """
        about, looks, seen = self.form["landmarker"], [], []
        side = about["crop_size"]
        scale = side / (max(box[2:]) * (1 + about["margin"]))
        for direction in (1, -1):
            linear = np.diag([direction * scale, scale])
            crop = np.column_stack([linear, side / 2 - linear @ (box[:2] + box[2:] / 2)])
            points, visibility = run(self.landmarker, placed(picture, crop, side, self.form["pad"]), about)
            looks.append((points + 0.5 - crop[:, 2]) / np.diag(linear) - 0.5)
            seen.append(visibility)
        points = np.mean(looks, axis=0)
        apart = np.median(np.linalg.norm(looks[0] - looks[1], axis=1))
        return points, float(np.mean(seen)), float(apart / max(np.ptp(points, axis=0).max(), 1e-6))

    def fitted(self, points: np.ndarray) -> tuple[np.ndarray, float]:
        """The similarity (2, 3) of points (K, 2) to the template, and the median distance that it leaves, in pixels.

        Least median of squares over pairs of landmarks (Rousseeuw 1984), then Tukey's biweight: wrong landmarks have no
        say. In the plane a similarity is z -> turn * z + shift of complex numbers.
        """
        rules, template = self.form["robust_fit"], np.array(self.form["template"])
        source, target = points @ [1, 1j], template @ [1, 1j]
        if not np.isfinite(source).all() or np.ptp(points, axis=0).max() < 1:
            raise NoEarError("its landmarks all fall on one pixel")
        first, second = np.triu_indices(len(source), 1)
        if len(first) > rules["pairs"]:
            chosen = np.random.default_rng(0).permutation(len(first))[: rules["pairs"]]
            first, second = first[chosen], second[chosen]
        apart = np.abs(source[second] - source[first]) > 1e-9
        first, second = first[apart], second[apart]
        turns = (target[second] - target[first]) / (source[second] - source[first])
        shifts = target[first] - turns * source[first]
        best = np.median(np.abs(turns[:, None] * source + shifts[:, None] - target), axis=1).argmin()
        turn, shift = turns[best], shifts[best]
        for _ in range(rules["steps"]):
            distance = np.abs(turn * source + shift - target)
            limit = max(rules["biweight"] * 1.4826 * np.median(distance), 1e-9)
            weights = (1 - np.minimum(distance / limit, 1) ** 2) ** 2
            centre, goal = np.average(source, weights=weights), np.average(target, weights=weights)
            spread = source - centre
            turn = (weights * spread.conj() * (target - goal)).sum() / max((weights * np.abs(spread) ** 2).sum(), 1e-12)
            shift = goal - turn * centre
        residual = np.median(np.abs(turn * source + shift - target)) * self.form["frame"]["residual_height"]
        return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]]), float(residual)

    def aligned(self, picture: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        """The ear in its frame, widened to a square, averaged from a finer picture; the border is repeated outside."""
        size, frame = self.form["size"], self.form["frame"]
        side = size * frame["oversampling"]
        matrix = np.diag([side / frame["width"], side]) @ similarity
        cell = max(1, int(1 / np.linalg.norm(matrix[:, :2], axis=0).max()))  # of pixels that are averaged first
        if cell > 1:
            rows, columns = picture.shape[0] // cell, picture.shape[1] // cell
            whole = np.ascontiguousarray(picture[: rows * cell, : columns * cell])
            picture = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
        matrix[:, 2] += side / 2 - 0.5 + matrix[:, :2].sum(1) * (cell - 1) / 2  # between pixel centres
        matrix[:, :2] *= cell
        large = cv2.warpAffine(picture, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)


# Networks


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(network: onnxruntime.InferenceSession, square: np.ndarray, pixels: dict) -> list[np.ndarray]:
    """The outputs for one picture. pixels: its channels, mean and std."""
    if pixels["channels"] == "grey":
        square = cv2.cvtColor(square, cv2.COLOR_RGB2GRAY)[..., None]
    values = ((square / 255 - pixels["mean"]) / pixels["std"]).astype(np.float32).transpose(2, 0, 1)[None]
    return [output[0] for output in network.run(None, {network.get_inputs()[0].name: values})]


def best_box(detector: onnxruntime.InferenceSession, photograph: np.ndarray) -> np.ndarray:
    """(4,) x y width height of the ear with the highest score. Raises NoEarError."""
    image = json.loads(detector.get_modelmeta().custom_metadata_map["image"])
    matrix = letterbox(photograph, image["size"])
    corners, scores = run(detector, placed(photograph, matrix, image["size"], image["pad"]), image)
    if scores.max() < MIN_SCORE:
        raise NoEarError("no ear found")
    corners = (corners[scores.argmax()].reshape(2, 2) - matrix[:, 2]) / np.diag(matrix)
    low, high = corners.clip(0, photograph.shape[1::-1])
    return np.concatenate([low, high - low])


# Geometry


def letterbox(picture: np.ndarray, size: int) -> np.ndarray:
    """(2, 3): the whole picture in the middle of a square, its proportions kept."""
    sides = np.array(picture.shape[1::-1])
    fitted = np.maximum(np.rint(sides * (size / sides.max())), 1)
    return np.column_stack([np.diag(fitted / sides), (size - fitted) // 2])


def placed(picture: np.ndarray, matrix: np.ndarray, size: int, pad: int) -> np.ndarray:
    """(size, size, 3): the picture moved by the matrix, `pad` beside it; area down and cubic up, then shifted."""
    scale, sides = np.linalg.norm(matrix[:, :2], axis=0), np.array(picture.shape[1::-1])
    corners = (np.array([[0, 0], [size, 0], [0, size], [size, size]]) - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    low = np.floor(corners.min(0) - 4 - 4 / scale).clip(0, sides - 1).astype(int)  # only what the square shows
    high = np.ceil(corners.max(0) + 4 + 4 / scale).clip(low + 1, sides).astype(int)
    part, offset = picture[low[1] : high[1], low[0] : high[0]], matrix[:, :2] @ low + matrix[:, 2]
    resized = np.maximum(np.rint((high - low) * scale), 1).astype(int)
    if (resized != high - low).any():
        method = cv2.INTER_AREA if resized.prod() < (high - low).prod() else cv2.INTER_CUBIC
        part = cv2.resize(part, resized.tolist(), interpolation=method)
    linear = matrix[:, :2] * ((high - low) / resized)
    moved = np.column_stack([linear, offset + linear @ [0.5, 0.5] - 0.5])  # OpenCV counts from pixel centres
    if np.abs(moved - np.rint(moved)).max() < 1e-6:
        moved = np.rint(moved)
    return cv2.warpAffine(part, moved, (size, size), flags=cv2.INTER_LINEAR, borderValue=(pad,) * 3)


def stretched(picture: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3), each axis by itself: area where it shrinks, cubic where it grows."""
    smaller = np.minimum(picture.shape[1::-1], size).tolist()
    picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)


# Identification


def read(path: Path) -> np.ndarray:
    """Raises NoEarError."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)  # upright by its EXIF orientation
    if picture is None:
        raise NoEarError("not a picture that can be read")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def hidden(name: str) -> bool:
    """Whether it is a thumbnail or a leaving of the system's."""
    return name.startswith((".", "@", "__MACOSX"))


def enrolled(recognizer: EarRecognizer, folder: Path) -> tuple[list[str], np.ndarray]:
    """Names (N,) and templates (N, D): the mean of each person's embeddings, of length 1."""
    names, templates = [], []
    for person in sorted(each for each in folder.iterdir() if each.is_dir() and not hidden(each.name)):
        embeddings = []
        for path in sorted(each for each in person.rglob("*") if each.suffix.lower() in EXTENSIONS):
            if any(map(hidden, path.relative_to(person).parts)):
                continue
            try:
                embeddings.append(recognizer.embed(read(path)))
            except NoEarError as error:
                print(f"left out of the gallery: {path}: {error}", file=sys.stderr)
        if embeddings:
            mean = np.mean(embeddings, axis=0)
            names.append(person.name)
            templates.append(mean / np.linalg.norm(mean))
    if not names:
        raise SystemExit(f"error: {folder}: no folder of a person with an ear that can be used")
    return names, np.stack(templates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of earface export recognizer")
    parser.add_argument("--gallery", type=Path, required=True, help="a folder for each person, with their ears")
    parser.add_argument("--boxes", type=Path, help="boxes.onnx of a detector, for whole photographs")
    parser.add_argument("--threshold", type=float, default=-1.0, help="below this cosine nobody is named")
    parser.add_argument("--top-k", type=int, default=3, help="names to print")
    parser.add_argument("photographs", nargs="+", type=Path)
    given = parser.parse_args()
    for path in (given.model / "ear_form.json", given.gallery, *([given.boxes] if given.boxes else [])):
        if not path.exists():
            raise SystemExit(f"error: {path}: no such file or folder")
    recognizer = EarRecognizer(given.model, given.boxes)
    names, templates = enrolled(recognizer, given.gallery)
    for path in given.photographs:
        try:
            cosines = templates @ recognizer.embed(read(path))
        except NoEarError as error:
            print(f"{path}: no ear: {error}")
            continue
        best = np.argsort(-cosines)[: given.top_k]
        unknown = "unknown; nearest " if cosines[best[0]] < given.threshold else ""
        print(f"{path}: {unknown}{', '.join(f'{names[row]} {cosines[row]:.3f}' for row in best)}")


if __name__ == "__main__":
    main()
