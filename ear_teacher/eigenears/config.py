"""The options of `create_eigenears`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from earface.core.options import option
from earface.core.tool_options import ModelOptions, PeopleOptions

PICTURES = ("eigenears_grid.png", "traversal.png", "interpolation.png", "pc_[0-9]*.png")  # of ears
RESULTS = ("eigenears.json", "components.csv", "scores.csv", "explained_variance.png", "factors.png", *PICTURES)


@dataclass(frozen=True)
class EigenearOptions(PeopleOptions, ModelOptions):
    """Draw the principal components of an ear VAE's latents and measure their composition."""

    checkpoint: str = option("ear_teacher/checkpoints/last.ckpt", "a .ckpt file, or a quoted pattern: the newest match")
    npy: tuple[str, ...] = option((), "ears whose latents are analysed; several; default: the run's training ears")
    factors: str | None = option(None, "index.csv of synthetic ears; default: one beside the NPY or the images")
    data_root: str | None = option(None, "folder that relative paths start from; default: as in training")
    cache_dir: str | None = option(None, "where decoded images are kept; default: as in training")
    out: str | None = option(None, "results; default: eigenears beside the checkpoint's folder")
    landmarker: str | None = option(
        None, "landmarks.onnx of earface export detector, by which components are named; default: earface's own"
    )
    metric: Literal["picture", "latent"] = option(
        "picture", "distance between latents: that of the decoded pictures, or the Euclidean one"
    )
    components: int = option(16, "how many; at most ears - 1", low=1)
    sigmas: float = option(3.0, "range of the image grids on either side, in standard deviations", above=0, high=10)
    steps: int = option(7, "pictures from one end to the other", low=5, high=25)
    batch_size: int = option(32, "images decoded at once", low=1)
