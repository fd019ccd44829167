"""How well a trained ear VAE reconstructs and identifies ears, beside pixel PCA and HOG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ear_teacher.loading import Ears
from ear_teacher.metrics.baselines import LinearOnly, PixelPCA, hog_features
from ear_teacher.metrics.plots import save_kl_per_dimension, save_psnr_histogram, save_reconstructions, save_samples
from ear_teacher.metrics.reconstruction import (
    Autoencoder,
    LatentUse,
    Reconstruction,
    decode_unit,
    encode_all,
    encode_posteriors,
    latent_use,
    measure,
    unit_images,
)
from ear_teacher.metrics.report import evaluation_metrics, write_per_image
from ear_teacher.model import EarVAE
from ear_teacher.options import EVALUATION_PICTURES, EarVAEEvaluationOptions
from ear_teacher.posterior import AggregatePosterior
from earface.core.files import remove_results
from earface.core.progress import progress
from earface.metrics.identification import Identification, identify, nearest_other, unit_rows

COLUMNS = 8  # ears in an image grid
SHOWN = ("VAE", "pixel PCA")


def notes(train: Ears, val: Ears, vae: Identification | None) -> list[str]:
    """Notes on the metrics, one sentence each."""
    lines = [f"{ears.source}: {ears.skipped} unreadable pictures left out" for ears in (train, val) if ears.skipped]
    shared = train.people & val.people
    if shared:
        lines.append(f"{len(shared)} subjects are in both files: these metrics are not those of unseen people")
    if vae is None:
        lines.append(f"{val.source} names no subjects: rank-1 and EER cannot be measured")
    elif vae.rank1 is None:
        lines.append(f"{val.source}: insufficient data for rank-1 and EER: needs two subjects, one with two images")
    elif vae.single_image_subjects:
        lines.append(f"{vae.single_image_subjects} subjects with a single image cannot be probes")
    return lines


def each_file(val: Ears, vae: Reconstruction, units: Mapping[str, NDArray[np.float64]]) -> dict[str, dict[str, Any]]:
    """For metrics.json, where there are several files: how the VAE does on the ears of each. units: (N, D) of mu, by
    the prefix of their metrics."""
    found: dict[str, dict[str, Any]] = {}
    start = 0
    for file in val.files if len(val.files) > 1 else ():
        rows = slice(start, start := start + len(file))
        found[file.source] = {
            "images": len(file),
            "subjects": len(file.people) if file.subjects else None,
            **{metric: float(values[rows].mean()) for metric, values in vae.quality.items()},
        }
        for prefix, each in units.items():
            people = identify(each[rows], file.subjects) if file.subjects else None
            found[file.source] |= {
                f"{prefix}{name}": None if people is None else getattr(people, name) for name in ("rank1", "eer")
            }
    return found


def save_plots(out: Path, reconstructions: dict[str, Reconstruction], use: LatentUse) -> None:
    save_kl_per_dimension(out / "kl_per_dimension.png", use.kl_per_dimension, use.active)
    save_psnr_histogram(out / "psnr_histogram.png", {name: reconstructions[name].psnr for name in SHOWN})


def save_pictures(out: Path, model: EarVAE, val: Ears, reconstructions: dict[str, Reconstruction], device: str) -> None:
    """Image grids of ears: evenly chosen, the worst and the best; samples."""
    shown = {name: reconstructions[name] for name in SHOWN}
    by_psnr = np.argsort(shown["VAE"].psnr, kind="stable")
    evenly = np.unique(np.linspace(0, len(val.names) - 1, COLUMNS).round().astype(int))
    for name, rows in (("reconstructions", evenly), ("worst", by_psnr[:COLUMNS]), ("best", by_psnr[::-1][:COLUMNS])):
        decoded = {
            f"{label}\nmean {found.psnr[rows].mean():.1f} dB": decode_unit(
                found.method, found.codes[rows.copy()], device
            )
            for label, found in shown.items()
        }
        save_reconstructions(out / f"{name}.png", unit_images(val.images[rows]), decoded)
    save_samples(out / "samples.png", model, COLUMNS)


def evaluate(
    model: EarVAE, train: Ears, val: Ears, out: Path, options: EarVAEEvaluationOptions, device: str
) -> dict[str, Any]:
    """Measure, write everything but metrics.json to `out`, and return its metrics and notes."""
    batch = options.batch_size
    count = options.pca_components or model.config.latent_dim
    with progress(f"fitting pixel PCA, {count} components, without and with mirror images"):
        methods: dict[str, Autoencoder] = {
            "pixel PCA": PixelPCA.fit(train.images, count, device=device),
            "pixel PCA + mirror images": PixelPCA.fit(train.images, count, mirror=True, device=device),
        }
    if model.linear_path is not None:
        methods["linear path"] = LinearOnly(model.linear_path, model.appearance)

    mu, logvar = encode_posteriors(model, val.images, batch, device)
    center = encode_all(model.encode, train.images, batch, device).double().mean(dim=0).numpy()
    reconstructions = {"VAE": measure(model, mu, val.images, batch, device)}
    embeddings, own = {"VAE": unit_rows(mu.numpy(), center)}, {"VAE": ""}
    if model.config.identity_dim:
        embeddings["identity part"] = unit_rows(mu[:, model.config.identity_part].numpy())
        own["identity part"] = "identity_"
    for name, method in methods.items():
        codes = encode_all(method.encode, val.images, batch, device)
        reconstructions[name] = measure(method, codes, val.images, batch, device)
        embeddings[name] = unit_rows(codes.numpy())
    identifications: dict[str, Identification | None] = dict.fromkeys([*embeddings, "encoder maps", "HOG"])
    if val.subjects is not None:
        maps, train_maps = (encode_all(model.pooled_features, ears.images, batch, device) for ears in (val, train))
        embeddings["encoder maps"] = unit_rows(maps.numpy(), train_maps.double().mean(dim=0).numpy())
        embeddings["HOG"] = unit_rows(hog_features(val.images), hog_features(train.images).mean(axis=0))
        identifications = {name: identify(units, val.subjects) for name, units in embeddings.items()}

    use = latent_use(mu, logvar, model.config.appearance_dim)
    model.posterior = model.posterior or AggregatePosterior.fit(use.moments)  # absent before the first validation
    save_plots(out, reconstructions, use)
    if options.pictures:
        save_pictures(out, model, val, reconstructions, device)
    else:
        remove_results(out, EVALUATION_PICTURES)
    write_per_image(
        out / "per_image.csv",
        val.names,
        val.subjects,
        reconstructions["VAE"],
        reconstructions["pixel PCA"],
        use.kl_nats,
        nearest_other(embeddings["VAE"]),
    )
    return {
        "train_images": len(train.names),
        "val_images": len(val.names),
        "val_subjects": None if val.subjects is None else len(set(val.subjects)),
        "image_size": model.config.image_size,
        "latent_dim": model.config.latent_dim,
        **evaluation_metrics(reconstructions, use, identifications),
        "files": each_file(val, reconstructions["VAE"], {prefix: embeddings[name] for name, prefix in own.items()}),
        "notes": notes(train, val, identifications["VAE"]),
    }
