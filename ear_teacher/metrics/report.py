"""The metrics of an evaluation as JSON, as a CSV with a row per image, and as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ear_teacher.metrics.reconstruction import LatentUse, Reconstruction
from earface.data.tables import write_csv
from earface.metrics.identification import Identification
from earface.metrics.image_quality import IMAGE_METRICS

PREFIXES = {"VAE": "", "pixel PCA": "pca_", "pixel PCA + mirror images": "pca_mirror_", "linear path": "linear_path_"}
IMAGE_COLUMNS = (
    *("path", "subject", *IMAGE_METRICS, *(f"pca_{metric}" for metric in IMAGE_METRICS), "kl_nats"),
    *("nearest_path", "nearest_subject"),
)
UNDECODED = {"identity part": "identity_", "encoder maps": "maps_", "HOG": "hog_"}  # embeddings without a decoder

CONVENTION = (
    "Images stretched to a square; the VAE reconstructs from mu, without augmentation, in float32. PSNR (dB) and SSIM "
    "on [0, 1] pixels, per image, then the mean over images; SSIM with an 11x11 Gaussian, sigma 1.5, population "
    "covariance. Pixel PCA at the full image size, fitted on exactly the training images (pca), and on these and "
    "their mirror images (pca_mirror); values of PCA and the linear path outside [0, 1] are clipped. Active units: "
    "variance of mu over the validation images above 0.01. rank1: leave one out over the validation images, nearest "
    "other image by cosine; images of subjects with one image are not probes, but are in the gallery. Before the "
    "cosine, mu and HOG are centred on their mean over the training images, codes of PCA and of the linear path on "
    "that of the images they were fitted on. eer: over all pairs of validation images by the same cosine, where the "
    "false match rate equals the false non-match rate, linear between the observed thresholds. maps: the encoder's "
    "coarsest backbone map, averaged over positions, centred as mu is. identity: the identity part of mu, where the "
    "model has one, not centred. HOG: 9 orientations, 8x8 cells, blocks of "
    "2x2, L2-Hys. files: the VAE on the ears of each validation "
    "file by itself. null: cannot be measured on these data."
)


def evaluation_metrics(
    reconstructions: Mapping[str, Reconstruction], use: LatentUse, identifications: Mapping[str, Identification | None]
) -> dict[str, Any]:
    """For metrics.json. Both mappings by a name in PREFIXES, identifications also in UNDECODED; None: no subjects.

    A model without an identity part has none there.
    """
    found: dict[str, Any] = {}
    for name, prefix in PREFIXES.items():
        if name not in reconstructions:
            continue
        found |= {f"{prefix}{metric}": float(each.mean()) for metric, each in reconstructions[name].quality.items()}
        found[f"{prefix}rank1"] = _metric(identifications[name], "rank1")
        found[f"{prefix}eer"] = _metric(identifications[name], "eer")
        if prefix:
            found[f"{prefix}components"] = reconstructions[name].codes.shape[1]
    for name, prefix in UNDECODED.items():
        if name not in identifications:
            continue
        found[f"{prefix}rank1"] = _metric(identifications[name], "rank1")
        found[f"{prefix}eer"] = _metric(identifications[name], "eer")
    vae = identifications["VAE"]
    return found | {
        "probes": _metric(vae, "probes"),
        "single_image_subjects": _metric(vae, "single_image_subjects"),
        "genuine_pairs": _metric(vae, "genuine_pairs"),
        "impostor_pairs": _metric(vae, "impostor_pairs"),
        "active_units": int(use.active.sum()),
        "kl_nats": float(use.kl_nats.mean()),
        "kl_per_dimension": use.kl_per_dimension.tolist(),
    }


def _metric(identification: Identification | None, name: str) -> Any:
    return None if identification is None else getattr(identification, name)


def write_per_image(
    path: Path,
    names: Sequence[str],
    subjects: Sequence[str] | None,
    vae: Reconstruction,
    pca: Reconstruction,
    kl_nats: NDArray[np.float64],
    nearest: NDArray[np.int64],
) -> None:
    """CSV, one row per image; nearest: (N,) the most similar other row by mu. Unknown subjects are empty."""
    subjects = subjects or [""] * len(names)
    rows = []
    for row, other in enumerate(nearest):
        measured = [method.quality[metric][row] for method in (vae, pca) for metric in IMAGE_METRICS] + [kl_nats[row]]
        numbers = [f"{value:.6g}" for value in measured]
        rows.append([names[row], subjects[row], *numbers, names[other], subjects[other]])
    write_csv(path, IMAGE_COLUMNS, rows)


def print_report(console: Console, metrics: Mapping[str, Any]) -> None:
    """One row per method, then the latents of the VAE."""
    table = Table("method", box=None, header_style="bold")
    for column in ("components", "PSNR (dB)", "SSIM", "rank-1", "EER"):
        table.add_column(column, justify="right")
    for name, prefix in PREFIXES.items():
        if f"{prefix}psnr" in metrics:
            components = metrics.get(f"{prefix}components", metrics["latent_dim"])
            quality = (f"{metrics[f'{prefix}psnr']:.2f}", f"{metrics[f'{prefix}ssim']:.4f}")
            shares = (_percent(metrics[f"{prefix}rank1"]), _percent(metrics[f"{prefix}eer"]))
            table.add_row("linear path alone" if name == "linear path" else name, str(components), *quality, *shares)
    for name, prefix in UNDECODED.items():
        if f"{prefix}rank1" not in metrics:
            continue
        shares = (_percent(metrics[f"{prefix}rank1"]), _percent(metrics[f"{prefix}eer"]))
        table.add_row(f"VAE's {name}" if name != "HOG" else name, "-", "-", "-", *shares)
    console.print(table)
    if files := metrics["files"]:
        table = Table("ears of", box=None, header_style="bold")
        names = ["rank1", "eer", *(name for name in ("identity_rank1", "identity_eer") if name in metrics)]
        columns = ("rank-1", "EER", "rank-1 of the identity part", "its EER")[: len(names)]
        for column in ("ears", "PSNR (dB)", "SSIM", *columns):
            table.add_column(column, justify="right")
        for source, each in files.items():
            quality = (f"{each['psnr']:.2f}", f"{each['ssim']:.4f}")
            table.add_row(source, str(each["images"]), *quality, *(_percent(each[name]) for name in names))
        console.print(table)
    used = f"active units {metrics['active_units']} of {metrics['latent_dim']}, {metrics['kl_nats']:.1f} nats"
    console.print(used, highlight=False)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
