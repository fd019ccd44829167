"""Every option of the commands that use a trained ear detector. No torch: help answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from earface.core.errors import InputError
from earface.core.options import check_options, option
from earface.core.tool_options import ModelOptions, PeopleOptions
from earface.export.options import CHECKPOINT_HELP, ExportOptions

ONNX_FILES = ("boxes.onnx", "landmarks.onnx")
NOT_ALWAYS = (  # written: those of an earlier evaluation would be mistaken for this one's
    *("metrics.json", "per_landmark.csv", "precision_recall.png", "cumulative_error.png"),
    *("missed.png", "false_alarms.png", "worst_landmarks.png"),
)
EVALUATION_RESULTS = (*NOT_ALWAYS, "scores.png", "per_ear.csv", "detections.json")
DETECTIONS, RESULTS, OVERLAYS, CROPS = "detections.json", "results.json", "overlays", "crops"
PREDICTION_RESULTS = (DETECTIONS, RESULTS, f"{OVERLAYS}/*", f"{CROPS}/*")
Normaliser = Literal["landmark-box", "ear-box"]


@dataclass(frozen=True)
class EarDetectorEvaluationOptions(PeopleOptions, ModelOptions):
    """Evaluate a trained ear detector on annotated photographs: boxes, landmarks, visibility."""

    checkpoint: str = option(
        "ear_teacher/checkpoints/detector/last.ckpt", "a .ckpt file, or a quoted pattern: the newest match"
    )
    json: str | None = option(None, "COCO keypoint file to evaluate on; default: the run's validation file")
    images: str | None = option(None, "folder that its file names start from; default: the JSON's own")
    out: str | None = option(None, "results; default: evaluation/NAME OF THE CHECKPOINT beside the checkpoint's folder")
    batch_size: int = option(8, "photographs at once", low=1)
    score_threshold: float = option(
        0.5, "of the operating point: precision, recall, landmarks end to end", low=0, high=1
    )
    normaliser: Normaliser = option("landmark-box", "box by whose diagonal landmark errors are divided")
    ced_limit: float = option(0.08, "error above which an ear counts as a failure; the upper limit of the AUC", above=0)


@dataclass(frozen=True)
class PredictionOptions(ModelOptions):
    """Detect the ears in photographs, and their landmarks."""

    checkpoint: str = option(
        "ear_teacher/checkpoints/detector/last.ckpt",
        CHECKPOINT_HELP,
    )
    input: str | None = option(None, "a photograph, or a folder of them (searched through)")
    out: str = option("detections", "folder for the detections; not inside `input`")
    score_threshold: float = option(0.5, "ears that score less are left out", low=0, high=1)
    overlays: bool = option(True, "write the photographs with the detections drawn in")
    crops: bool = option(False, "write each ear as a picture, in the folders of the input (which may be subjects)")
    batch_size: int = option(8, "photographs in memory, and on the device, at once", low=1)

    def check(self) -> None:
        check_options(self)
        if self.input is None:
            raise InputError("`input`: give a photograph, or a folder of them")


@dataclass(frozen=True)
class EarDetectorExportOptions(ExportOptions):
    """Write a trained ear detector as ONNX, as safetensors with config.json, or both."""

    onnx_files: ClassVar[tuple[str, ...]] = ONNX_FILES

    checkpoint: str = option("ear_teacher/checkpoints/detector/last.ckpt", CHECKPOINT_HELP)
