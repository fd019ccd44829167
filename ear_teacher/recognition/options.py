"""Every option of the commands that use a trained ear recogniser. No torch: help answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from earface.core.errors import InputError
from earface.core.options import check_options, option
from earface.core.tool_options import DeviceOptions, ModelOptions, PeopleOptions
from earface.export.options import CHECKPOINT_HELP, ExportOptions

RECOGNIZER, LANDMARKS, FORM = "recognizer.onnx", "landmarks.onnx", "ear_form.json"

FAILURES = ("failures.png", "failures_[0-9]*.png")
EVALUATION_RESULTS = ("metrics.json", "per_ear.csv", *FAILURES)


@dataclass(frozen=True)
class EarEmbedOptions(DeviceOptions):
    """Embed ears: a table of embeddings of length 1, with sides, and how they were made."""

    input: str = option("", "a picture, a folder of them (its first folders are the identities), or a teacher file")
    recognizer: str = option("ear_teacher/checkpoints/recognizer/last.ckpt", CHECKPOINT_HELP)
    out: str = option("ears.npz", "the table, .npz")
    data_root: str | None = option(None, "folder that relative paths in a teacher file start from; default: its own")
    landmarker: str | None = option(
        None, "of a model of canonical ears: landmarks.onnx that its ears were aligned by; default: earface's own"
    )
    detector: str | None = option(None, "boxes.onnx of earface export detector: finds the ears of whole photographs")
    batch_size: int = option(64, "ears sent to the device at once; does not change the embeddings", low=1)

    @property
    def networks(self) -> tuple[str | None, str | None]:
        """That bring photographs into the model's form."""
        return self.landmarker, self.detector

    def check(self) -> None:
        check_options(self)
        if not self.input:
            raise InputError("`input`: give a picture, a folder of ears, or a teacher file")


@dataclass(frozen=True)
class EarRecognizerEvaluationOptions(PeopleOptions, ModelOptions):
    """Evaluate a trained ear recogniser on ears of people it was not trained on, beside HOG."""

    checkpoint: str = option("ear_teacher/checkpoints/recognizer/last.ckpt", CHECKPOINT_HELP)
    npy: tuple[str, ...] = option((), "teacher files, each measured by itself; default: the run's validation files")
    data_root: str | None = option(None, "folder that relative paths start from; default: as in training")
    cache_dir: str | None = option(None, "where decoded images are kept; default: .cache beside each file")
    out: str | None = option(None, "results; default: evaluation/NAME OF THE CHECKPOINT beside the checkpoint's folder")
    per_subject: int = option(0, "ears of each person, evenly over theirs; 0: all", low=0)
    replicates: int = option(1000, "of the bootstrap over people", low=100)
    batch_size: int = option(64, "ears sent to the device at once; does not change the embeddings", low=1)


@dataclass(frozen=True)
class EarRecognizerExportOptions(ExportOptions):
    """Write a trained ear recogniser as ONNX with its landmarker, as safetensors with config.json, or both."""

    onnx_files: ClassVar[tuple[str, ...]] = (RECOGNIZER, LANDMARKS, FORM)

    checkpoint: str = option("ear_teacher/checkpoints/recognizer/last.ckpt", CHECKPOINT_HELP)
    landmarker: str | None = option(
        None, "landmarks.onnx that the model's ears were aligned by, which is copied; default: earface's own"
    )
