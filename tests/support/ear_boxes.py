"""A box detector in the layout of `earface export detector` that gives the same boxes for every photograph.

What is done around the network can thus be tested exactly, without weights.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 64


def write_fixed_boxes(path: Path, corners: Sequence[Sequence[float]], scores: Sequence[float]) -> Path:
    """corners: x1 y1 x2 y2 in pixels of the square of SIDE; its values do not depend on the picture."""
    boxes, given = np.array([corners], np.float32), np.array([scores], np.float32)
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    outputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, boxes.shape),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, given.shape),
    ]
    constants = {"fixed_boxes": boxes, "fixed_scores": given, "zero": np.zeros(1, np.float32)}
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["fixed_boxes", "nothing"], ["boxes"]),
        helper.make_node("Add", ["fixed_scores", "nothing"], ["scores"]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "boxes", [images], outputs, initializers),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    checks = {path.name: [[float(value.mean()), float(value.std())] for value in (boxes, given)]}
    properties = {
        "image": {"size": SIDE, "channels": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3, "pad": 114},
        "detections": {"iou": 0.5, "containment": 0.8},
        "check": checks,
    }
    helper.set_model_props(model, {name: json.dumps(value) for name, value in properties.items()})
    onnx.save(model, path)
    return path
