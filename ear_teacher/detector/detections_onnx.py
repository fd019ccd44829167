"""The detector with its post-processing as one ONNX file: `boxes.onnx`, then the choice of `EarDetector.remaining`.

ONNX's NonMaxSuppression does not know the rule of boxes that lie inside one another, so the greedy choice is a Scan
over the candidates, best first: each that is not dropped drops what clashes with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ear_teacher.detector.box_detector import CANDIDATES, MAX_DETECTIONS
from ear_teacher.detector.model import EarDetector
from earface.core.errors import InputError

SAME = 1e-4  # of scores, and of boxes as a share of the square
INPUT = "squares"  # not `images`: what reads boxes.onnx must not take one for the other
OUTPUTS, INNER = ("boxes", "scores"), ("network/boxes", "network/scores")

# of P places, K candidates, of which M are returned; later: which are worse than which
SELECTION = """
<ir_version: {ir}, opset_import: ["": {opset}]>
selection (float[batch, {P}, 4] all_boxes, float[batch, {P}] all_scores)
    => (float[batch, {M}, 4] boxes, float[batch, {M}] scores)
<
    int64[1] k = {{{K}}}, int64[1] m = {{{M}}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] last = {{-1}},
    float threshold = {{{threshold}}}, float most_iou = {{{iou}}}, float most_inside = {{{containment}}},
    float zero = {{0}}, float tiny = {{1e-9}}, float none = {{-1}}
>
{{
    best, places = TopK <axis = 1> (all_scores, k)
    places_of_boxes = Unsqueeze (places, two)
    box_shape = Constant <value_ints: ints = [1, 1, 4]> ()
    corner_places = Expand (places_of_boxes, box_shape)
    candidates = GatherElements <axis = 1> (all_boxes, corner_places)
    low, high = Split <axis = 2, num_outputs = 2> (candidates)
    sides = Sub (high, low)
    areas = ReduceProd <keepdims = 0> (sides, last)
    low_of_row = Unsqueeze (low, two)
    low_of_column = Unsqueeze (low, one)
    high_of_row = Unsqueeze (high, two)
    high_of_column = Unsqueeze (high, one)
    shared_low = Max (low_of_row, low_of_column)
    shared_high = Min (high_of_row, high_of_column)
    overlap = Sub (shared_high, shared_low)
    shared_sides = Max (overlap, zero)
    shared = ReduceProd <keepdims = 0> (shared_sides, last)
    area_of_row = Unsqueeze (areas, two)
    area_of_column = Unsqueeze (areas, one)
    both = Add (area_of_row, area_of_column)
    union = Sub (both, shared)
    iou = Div (shared, union)
    overlapping = Greater (iou, most_iou)
    smaller_area = Min (area_of_row, area_of_column)
    smaller = Max (smaller_area, tiny)
    inside = Div (shared, smaller)
    nested = Greater (inside, most_inside)
    alike = Or (overlapping, nested)
    clashes = And (alike, later)
    clashes_by_candidate = Transpose <perm = [1, 0, 2]> (clashes)
    too_low = Less (best, threshold)
    dropped, unused = Scan <num_scan_inputs = 2, body = step
        (bool[batch, {K}] before, bool[batch, {K}] clash, int64[1] number)
        => (bool[batch, {K}] after, int64[1] same)
        {{
            itself_dropped = Gather <axis = 1> (before, number)
            itself_kept = Not (itself_dropped)
            hit = And (clash, itself_kept)
            after = Or (before, hit)
            same = Identity (number)
        }}> (too_low, clashes_by_candidate, numbers)
    marked = Where (dropped, none, best)
    chosen, rows = TopK <axis = 1> (marked, m)
    scores = Max (chosen, zero)
    rows_of_boxes = Unsqueeze (rows, two)
    corner_rows = Expand (rows_of_boxes, box_shape)
    chosen_boxes = GatherElements <axis = 1> (candidates, corner_rows)
    is_there = GreaterOrEqual (chosen, zero)
    there_by_box = Unsqueeze (is_there, two)
    boxes = Where (there_by_box, chosen_boxes, zero)
}}
"""


def with_selection(boxes: Any, model: EarDetector) -> Any:
    """ModelProto of boxes.onnx -> one whose outputs are boxes (B, M, 4) and scores (B, M), best first, then zeros.

    INNER, what it has chosen from, are further outputs.
    """
    import onnx

    opset = next(each.version for each in boxes.opset_import if not each.domain)
    places = len(model.boxes.places)
    candidates = min(CANDIDATES, places)
    text = SELECTION.format(
        **{"ir": boxes.ir_version, "opset": opset, "P": places, "K": candidates},
        **{"M": min(MAX_DETECTIONS, candidates), "threshold": model.score_threshold},
        **{"iou": model.suppression.iou, "containment": model.suppression.containment},
    )
    selection = onnx.parser.parse_model(text)
    later = np.triu(np.ones((1, candidates, candidates), bool), k=1)
    numbers = np.arange(candidates)[:, None]
    constants = {"later": later, "numbers": numbers}
    selection.graph.initializer.extend(onnx.numpy_helper.from_array(each, name) for name, each in constants.items())
    prefixed = onnx.compose.add_prefix(boxes, "network/", rename_inputs=False)
    given = prefixed.graph.input[0].name
    prefixed.graph.input[0].name = INPUT
    for node in prefixed.graph.node:
        node.input[:] = [INPUT if each == given else each for each in node.input]
    merged = onnx.compose.merge_models(
        prefixed,
        selection,
        io_map=[(INNER[0], "all_boxes"), (INNER[1], "all_scores")],
        outputs=[*OUTPUTS, *INNER],
    )
    del merged.opset_import[1:]  # that of both
    onnx.helper.set_model_props(merged, {entry.key: entry.value for entry in boxes.metadata_props})
    return merged


def write_detections(boxes: Path, out: Path, model: EarDetector, examples: NDArray[np.float32]) -> None:
    """detector.onnx from boxes.onnx, compared with what the detector chooses of the same boxes.

    Raises InputError where they differ.
    """
    import onnx

    from earface.export.quantization import session_of

    proto = with_selection(onnx.load(boxes), model)
    out.write_bytes(proto.SerializeToString())
    check_detections(session_of(out).run([*OUTPUTS, *INNER], {INPUT: examples}), model)
    outputs = [each for each in proto.graph.output if each.name in OUTPUTS]
    del proto.graph.output[:]
    proto.graph.output.extend(outputs)
    out.write_bytes(proto.SerializeToString())


def check_detections(found: Sequence[NDArray[np.float32]], model: EarDetector) -> None:
    """found: OUTPUTS, INNER. Raises InputError where the first are not what the detector chooses of the others."""
    boxes, scores, all_boxes, all_scores = map(torch.from_numpy, found)
    best, places = all_scores.topk(min(CANDIDATES, all_scores.shape[1]), dim=1)
    table = torch.cat([all_boxes.gather(1, places[..., None].expand(-1, -1, 4)), best[..., None]], dim=-1)
    for image, (wanted, wanted_scores) in enumerate(model.remaining(table)):
        count = int((scores[image] > 0).sum())
        alike = count == len(wanted) and torch.allclose(scores[image, :count], wanted_scores, atol=SAME)
        tolerance = SAME * model.config.image_size
        if not (alike and torch.allclose(boxes[image, :count], wanted, atol=tolerance)):
            raise InputError(
                f"detector.onnx: its {count} boxes are not the {len(wanted)} of EarDetector; nothing was written"
            )
