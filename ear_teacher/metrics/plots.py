"""The pictures of an evaluation: image grids of reconstructions and samples, and two plots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from ear_teacher.model import EarVAE
from earface.data.image_grid import absolute_error, save_image_grid
from earface.data.pixels import to_unit
from earface.data.plots import FIRST, SERIES, THIRD, save_plot

SAMPLE_SEED = 7


def save_reconstructions(path: Path, images: Tensor, decoded: Mapping[str, Tensor]) -> None:
    """One column per ear: the input, each method's reconstruction, and a map of each method's errors.

    images, and each of `decoded` (row name -> reconstructions): (N, C, S, S) in [0, 1].
    """
    errors = {f"error of\n{name.splitlines()[0]}": absolute_error(found, images) for name, found in decoded.items()}
    save_image_grid(path, {"input": images, **decoded}, errors)


@torch.no_grad()
def save_samples(path: Path, model: EarVAE, count: int) -> None:
    """`count` ears from the prior and as many from the aggregate posterior, the same at every call."""
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    rows = {"prior": model.sample(count, generator=generator)}
    rows["aggregate\nposterior"] = model.sample(count, "posterior", generator)
    save_image_grid(path, {name: to_unit(images) for name, images in rows.items()})


def save_kl_per_dimension(path: Path, kl: NDArray[np.float64], active: NDArray[np.bool_]) -> None:
    """Bars of the KL of each latent dimension, (D,) in nats, largest first; `active` (D,) sets the colour."""
    order = np.argsort(-kl, kind="stable")
    edges = np.arange(len(kl) + 1) + 0.5

    def draw(axes: Axes) -> None:
        for chosen, look, name in ((active, FIRST, "active"), (~active, THIRD, "inactive")):
            heights = np.where(chosen, kl, 0.0)[order]
            label = f"{name}: {int(chosen.sum())} dimensions"
            axes.stairs(heights, edges, fill=True, label=label, **look.area(linewidth=0))
        axes.set(xlabel="latent dimension, by KL", ylabel="KL from the prior (nats)", xlim=(edges[0], edges[-1]))
        axes.set_ylim(bottom=0.0)
        axes.set_title(f"{kl.sum():.1f} nats over {len(kl)} dimensions", loc="left", fontsize="medium")

    save_plot(path, draw)


def save_psnr_histogram(path: Path, psnr: Mapping[str, NDArray[np.float64]]) -> None:
    """The distributions of PSNR (N,) in dB of two methods over the same images, and their means; infinities left out.

    psnr: name in the legend -> values.
    """
    finite = {name: values[np.isfinite(values)] for name, values in psnr.items()}
    everything = np.concatenate(list(finite.values()))
    bins = np.histogram_bin_edges(everything, bins=min(40, max(8, round(len(everything) ** 0.5))))

    def draw(axes: Axes) -> None:
        for (name, values), look in zip(finite.items(), SERIES, strict=False):
            mean = values.mean() if len(values) else np.nan
            label = f"{name}: mean {mean:.2f} dB"
            axes.hist(values, bins.tolist(), histtype="stepfilled", label=label, **look.area())
            axes.axvline(mean, **look.curve())
        axes.set(xlabel="PSNR of an image (dB)", ylabel="validation images")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))

    save_plot(path, draw)
