"""Every option of the commands that use a trained ear VAE. No torch: help answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from earface.core.errors import InputError
from earface.core.options import check_options, option
from earface.core.tool_options import ModelOptions, PeopleOptions
from earface.export.options import CHECKPOINT_HELP, ExportOptions

ONNX_FILES = ("encoder.onnx", "decoder.onnx")
SAMPLE_INDEX = "index.csv"
SAMPLE_LANDMARKS = "landmarks.json"
DEFAULT_OUT = "embeddings.npz"
PROJECTOR = "projector_config.pbtxt"  # by which TensorBoard finds a projector
EVALUATION_PICTURES = ("reconstructions.png", "worst.png", "best.png", "samples.png")  # of ears
EVALUATION_RESULTS = (
    *("metrics.json", "per_image.csv", "kl_per_dimension.png", "psnr_histogram.png", *EVALUATION_PICTURES),
)


@dataclass(frozen=True)
class EarVAEEvaluationOptions(PeopleOptions, ModelOptions):
    """Evaluate a trained ear VAE on validation ears, beside pixel PCA, its own linear path, and HOG."""

    checkpoint: str = option("ear_teacher/checkpoints/last.ckpt", "a .ckpt file, or a quoted pattern: the newest match")
    train_npy: tuple[str, ...] = option((), "ears that PCA is fitted to; several; default: the run's training ears")
    val_npy: tuple[str, ...] = option(
        (), "ears to evaluate on, together and each file; several; default: the run's validation ears"
    )
    data_root: str | None = option(None, "folder that relative paths start from; default: as in training")
    cache_dir: str | None = option(None, "where decoded images are kept; default: as in training")
    out: str | None = option(None, "results; default: evaluation/NAME OF THE CHECKPOINT beside the checkpoint's folder")
    batch_size: int = option(32, "images decoded at once", low=1)
    pca_components: int | None = option(None, "of PCA; default: as many as latents; at most images - 1", low=1)


@dataclass(frozen=True)
class EarEmbeddingOptions(PeopleOptions, ModelOptions):
    """Encode ears into a table of embeddings; search it, group it, show it in TensorBoard."""

    checkpoint: str = option(
        "ear_teacher/checkpoints/last.ckpt",
        "of an ear VAE or an ear recogniser: a .ckpt file, a quoted pattern (the newest match), or an exported folder",
    )
    input: tuple[str, ...] = option((), "images, folders (searched through), teacher NPY or NPZ files; several")
    embeddings: tuple[str, ...] = option((), "tables written earlier; their pictures are not encoded again")
    out: str | None = option(None, f".npz or .parquet; default: {DEFAULT_OUT}, or no table if nothing was encoded")
    logvar: bool = option(False, "write the log variances of an ear VAE's posteriors, too")
    search: str | None = option(None, "a picture: find the ears most similar to it")
    top_k: int = option(5, "how many ears a search returns", low=1)
    clusters: int = option(0, "clusters of k-means; 0: none", low=0)
    projector: str | None = option(None, "folder for a TensorBoard projector")
    data_root: str | None = option(None, "folder that relative paths in an NPY start from; default: the NPY's own")
    crop_to_bbox: bool | None = option(None, "crop the pictures of an NPY to their boxes; default: as in training")
    landmarker: str | None = option(
        None, "of a model of canonical ears: landmarks.onnx that its ears were aligned by; default: earface's own"
    )
    detector: str | None = option(None, "boxes.onnx of earface export detector: finds the ears of whole photographs")
    folder_subjects: bool = option(False, "the subfolders of a folder are the subjects, as in earface ears prepare")
    batch_size: int = option(64, "images sent to the device at once; does not change the embeddings", low=1)

    @property
    def networks(self) -> tuple[str | None, str | None]:
        """That bring photographs into the model's form."""
        return self.landmarker, self.detector

    def check(self) -> None:
        check_options(self)
        if not self.input and not self.embeddings:
            raise InputError("`input`: give images, folders or NPY files (or `embeddings`, a table written earlier)")
        if not (self.input or self.out or self.search or self.clusters or self.projector):
            raise InputError("`embeddings` alone: nothing to do; add `search`, `clusters`, `projector` or `out`")


@dataclass(frozen=True)
class EarSamplingOptions(ModelOptions):
    """Draw new ears from a trained ear VAE: pictures with an index, such as further training data."""

    checkpoint: str = option("ear_teacher/checkpoints/last.ckpt", CHECKPOINT_HELP)
    num: int = option(64, "how many ears", low=1, high=1_000_000)
    source: Literal["posterior", "prior"] = option(
        "posterior", "posterior: the Gaussian fitted to the latents of real ears; prior: N(0, 1)"
    )
    seed: int = option(0, "of the latents", low=0, high=2**31 - 1)
    out: str | None = option(None, "folder for the pictures, index.csv and grid.png")
    landmarks: bool = option(
        False, "also landmarks.json, for earface ears detector train; canonical ears then keep their own proportions"
    )
    landmarker: str | None = option(
        None, "landmarks.onnx of earface export detector that places the landmarks; default: earface's own"
    )
    batch_size: int = option(64, "images decoded at once; does not change the ears", low=1)

    def check(self) -> None:
        check_options(self)
        if self.landmarker is not None and not self.landmarks:
            raise InputError("`landmarker`: belongs to `landmarks`, which is off")
        if self.out is None:
            raise InputError("`out`: give a folder")


@dataclass(frozen=True)
class EarVAEExportOptions(ExportOptions):
    """Write a trained ear VAE as ONNX, as safetensors with config.json, or both."""

    onnx_files: ClassVar[tuple[str, ...]] = ONNX_FILES
    int8_of: ClassVar[tuple[str, ...]] = ONNX_FILES

    checkpoint: str = option("ear_teacher/checkpoints/last.ckpt", CHECKPOINT_HELP)
