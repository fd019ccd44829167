"""A detector in YuNet's file layout, and photographs of the faces that it knows: five coloured marks at the template.

What the code does around YuNet (sizes, padding, scales, looks, order of the points, choice of a face) can thus be
tested without its weights and without photographs of people. OpenCV runs both files through `cv2.FaceDetectorYN`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from earface.data.face_alignment import Points, face_template
from earface.data.images import Pixels

POOL = 4  # pixels of a side that are averaged
WINDOW = 40  # averaged pixels of a side in which a face's marks are looked for: 160 pixels
DARK = 100.0  # a mark's colour exceeds the sum of the others by more
EYE, NOSE, MOUTH = (0, 0, 255), (0, 255, 0), (255, 0, 0)  # RGB
COLORS = (EYE, EYE, NOSE, MOUTH, MOUTH)  # of the five points
MARK = 0.07  # radius, of a face's side
BOX = 2.5  # a box's side, of the distance of the eyes
STRIDES = (8, 16, 32)
OUTPUTS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}  # values a cell, in the file's order


def draw_marks(picture: Pixels, points: Points, side: float) -> None:
    """Draw a face's five marks into (H, W, 3) uint8 RGB, in place; points at pixel centres."""
    for (x, y), color in zip(points, COLORS, strict=True):
        center = round(x * 16), round(y * 16)
        cv2.circle(picture, center, round(side * MARK * 16), color, -1, cv2.LINE_AA, shift=4)


def marked_face(left: float, top: float, side: float, turn: float = 0.0) -> Points:
    """(5, 2): the template in a square of a photograph, turned by degrees around its middle."""
    radians = np.deg2rad(turn)
    rotation = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    middle = (side - 1) / 2
    return (face_template(1) * side - 0.5 - middle) @ rotation + middle + [left, top]


def photograph(
    width: int, height: int, faces: Sequence[tuple[float, ...]] = (), seed: int = 0
) -> tuple[Pixels, list[Points]]:
    """(height, width, 3) of grey patterns with `marked_face`s in it, and their points."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 200, (6, 6), dtype=np.uint8)
    picture = cv2.cvtColor(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2RGB)
    points = [marked_face(*face) for face in faces]
    for face, own in zip(faces, points, strict=True):
        draw_marks(picture, own, face[2])
    return picture, points


def write_yunet(path: Path) -> Path:
    """Write the detector: a face is where a nose lies with two eyes and two corners of a mouth.

    From 36 to about 200 pixels wide, its points, centres of mass of the marks in a window, are those of the photograph
    to 2.5 pixels. Cells of stride 8 find all; those of 16 and 32 pixels, which the layout has too, find nothing.
    """
    graph = _Graph()
    others = 1 - 2 * np.eye(3)  # in OpenCV's order, blue green red: eyes, nose, mouth
    graph.conv("input", "excess", -others[..., None, None], np.full(3, -DARK))
    graph.add("Relu", "excess", "pixels")
    graph.add("AveragePool", "pixels", "masks", kernel_shape=[POOL, POOL], strides=[POOL, POOL])

    offsets = np.arange(WINDOW) - (WINDOW - 1) / 2  # averaged pixels from the middle of a cell
    halves = {0: offsets < 0, 1: offsets > 0, 2: np.full(WINDOW, True), 3: offsets < 0, 4: offsets > 0}
    rows = np.zeros((10, 3, 1, WINDOW))  # of the five points the mass, then its moment
    for point, mask in enumerate((0, 0, 1, 2, 2)):
        rows[point, mask, 0] = halves[point]
        rows[point + 5, mask, 0] = halves[point] * offsets
    margin = WINDOW // 2 - 1
    graph.conv("masks", "rows", rows, np.zeros(10), strides=[1, 2], pads=[0, margin, 0, margin])
    for name, first, weights in (("mass", 0, offsets**0), ("x_moment", 5, offsets**0), ("y_moment", 0, offsets)):
        columns = np.zeros((5, 10, WINDOW, 1))
        columns[np.arange(5), np.arange(first, first + 5), :, 0] = weights
        graph.conv(
            "rows", name, columns, np.full(5, 1e-3 * (name == "mass")), strides=[2, 1], pads=[margin, 0, margin, 0]
        )
    graph.add("Div", ["x_moment", "mass"], "x")
    graph.add("Div", ["y_moment", "mass"], "y")
    graph.add("Concat", ["x", "y"], "xy", axis=1)

    per_stride = POOL / STRIDES[0]  # OpenCV adds a cell's column and row, and multiplies all by its stride
    interleaved = np.zeros((10, 10))
    interleaved[np.arange(10), [0, 5, 1, 6, 2, 7, 3, 8, 4, 9]] = per_stride
    graph.conv("xy", "points", interleaved[..., None, None], np.full(10, 0.5 - 0.5 / STRIDES[0]))
    middle = np.zeros((2, 10))
    middle[0, [0, 1, 3, 4]] = middle[1, [5, 6, 8, 9]] = per_stride / 4
    graph.conv("xy", "middle", middle[..., None, None], np.full(2, 0.5))
    apart = np.zeros((2, 10))
    apart[:, 0], apart[:, 1] = -BOX * per_stride, BOX * per_stride
    graph.conv("xy", "apart", apart[..., None, None], np.zeros(2))
    graph.add("Relu", "apart", "side")
    graph.conv("side", "positive_side", np.eye(2)[..., None, None], np.full(2, 1e-3))
    graph.add("Log", "positive_side", "log_side")
    graph.add("Concat", ["middle", "log_side"], "box", axis=1)

    nose = np.zeros((1, 3, 4, 4))  # around a cell, so that a small nose between two of them is seen
    nose[0, 1] = 1 / 200
    graph.conv("masks", "nose", nose, np.zeros(1), strides=[2, 2], pads=[1] * 4)
    graph.clip("mass", "marks", 1 / 60)
    graph.conv("marks", "all_marks", np.ones((1, 5, 1, 1)), np.full(1, -4.0))
    graph.add("Abs", "xy", "away")
    nose_place = np.zeros((1, 10, 1, 1))
    nose_place[:, [2, 7]] = -0.1  # so that of the cells of one nose the middle one has the highest score
    graph.conv("away", "off_center", nose_place, np.zeros(1))
    graph.add("Add", ["all_marks", "off_center"], "face")

    for kind, source in {"cls": "nose", "obj": "face", "bbox": "box", "kps": "points"}.items():
        if kind in ("cls", "obj"):
            graph.clip(source, f"{source}_clipped", 1.0)
            source = f"{source}_clipped"
        graph.output(f"{kind}_{STRIDES[0]}", source, OUTPUTS[kind])
        for stride in STRIDES[1:]:
            size = stride // POOL
            nothing = np.zeros((OUTPUTS[kind], 3, size, size))
            graph.conv("masks", f"{kind}_none_{stride}", nothing, np.zeros(OUTPUTS[kind]), strides=[size, size])
            graph.output(f"{kind}_{stride}", f"{kind}_none_{stride}", OUTPUTS[kind])
    graph.save(path)
    return path


class _Graph:
    """Nodes of an ONNX graph, named by what they give."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.outputs: dict[str, list[int]] = {}

    def add(self, kind: str, given: str | list[str], result: str, **attributes: object) -> None:
        inputs = [given] if isinstance(given, str) else given
        self.nodes.append(helper.make_node(kind, inputs, [result], name=result, **attributes))

    def constant(self, name: str, values: NDArray[np.float64] | NDArray[np.int64]) -> str:
        kind = np.int64 if values.dtype == np.int64 else np.float32
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values, kind), name))
        return name

    def conv(
        self,
        given: str,
        result: str,
        weight: NDArray[np.float64],
        bias: NDArray[np.float64],
        **attributes: object,
    ) -> None:
        names = [self.constant(f"{result}.weight", weight), self.constant(f"{result}.bias", bias)]
        self.add("Conv", [given, *names], result, kernel_shape=list(weight.shape[2:]), **attributes)

    def clip(self, given: str, result: str, scale: float) -> None:
        """scale times given, between 0 and 1."""
        self.add("Mul", [given, self.constant(f"{result}.scale", np.array(scale))], f"{result}.scaled")
        bounds = [self.constant(f"{result}.low", np.array(0.0)), self.constant(f"{result}.high", np.array(1.0))]
        self.add("Clip", [f"{result}.scaled", *bounds], result)

    def output(self, name: str, given: str, values: int) -> None:
        """(1, C, H, W) as (1, H x W, C)."""
        self.add("Transpose", given, f"{name}.last", perm=[0, 2, 3, 1])
        shape = self.constant(f"{name}.shape", np.array([1, -1, values], np.int64))
        self.add("Reshape", [f"{name}.last", shape], name)
        self.outputs[name] = [1, (640 // int(name.rpartition("_")[2])) ** 2, values]

    def save(self, path: Path) -> None:
        names = [f"{kind}_{stride}" for kind in OUTPUTS for stride in STRIDES]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, self.outputs[name]) for name in names]
        given = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 640, 640])
        graph = helper.make_graph(self.nodes, "marks", [given], outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
        onnx.checker.check_model(model)
        onnx.save(model, path)
