"""Measure a trained ear VAE: `python -m ear_teacher.evaluate`, or `python ear_teacher/evaluate.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from data.cache import open_image_cache
from data.errors import InputError, entry_point
from data.npy import read_teacher_npy
from ear_teacher.baselines import PixelPCA, hog_features
from ear_teacher.identification import Identification, identify, nearest_other, unit_rows
from ear_teacher.measurement import (
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
from ear_teacher.model import AggregatePosterior, EarVAE
from ear_teacher.plots import save_kl_per_dimension, save_psnr_histogram, save_reconstructions, save_samples
from ear_teacher.report import CONVENTION, figures, print_report, write_metrics, write_per_image
from training.checkpoint import find_checkpoint, read_checkpoint
from training.cli import parse_options
from training.options import option

COLUMNS = 8  # ears on a sheet


@dataclass(frozen=True)
class EvaluationOptions:
    """Measure a trained ear VAE on validation ears, beside pixel PCA, its own linear path, and HOG."""

    checkpoint: str = option("ear_teacher/checkpoints/last.ckpt", "a .ckpt file, or a quoted pattern: the newest match")
    train_npy: str | None = option(None, "what PCA is fitted on; default: what the checkpoint was trained on")
    val_npy: str | None = option(None, "what is measured; default: what the checkpoint was validated on")
    data_root: str | None = option(None, "folder that relative paths start from; default: as in training")
    cache_dir: str | None = option(None, "where decoded images are kept; default: as in training")
    out: str | None = option(None, "results; default: evaluation/NAME OF THE CHECKPOINT beside the checkpoint's folder")
    weights: Literal["averaged", "raw"] = option("averaged", "the moving average if the run kept one, or the last step")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto: the GPU if there is one")
    batch_size: int = option(32, "images decoded at once", low=1)
    pca_components: int | None = option(None, "size of PCA; default: the latents; at most the images less one", low=1)


@dataclass(frozen=True)
class Ears:
    """N ears, N >= 2, as the model takes them; the rows whose picture could be read."""

    source: str
    images: NDArray[np.uint8]  # (N, S, S, C)
    names: list[str]  # paths, or rows of an image array
    subjects: list[str] | None
    skipped: int


def trained_with(checkpoint: Path) -> dict[str, Any]:
    """The options of the run that wrote it. Raises InputError for a checkpoint of anything but an ear VAE."""
    stored = read_checkpoint(checkpoint).get("hyper_parameters", {}).get("options", {})
    if not {"train_npy", "val_npy", "data_root", "cache_dir", "crop_to_bbox", "latent_dim"} <= stored.keys():
        raise InputError(f"{checkpoint}: this checkpoint holds no ear VAE; give one written by ear_teacher.train")
    return stored


def open_ears(
    name: Literal["train_npy", "val_npy"], model: EarVAE, run: dict[str, Any], options: EvaluationOptions
) -> Ears:
    """The ears of an NPY or NPZ, cropped and sized as in training. Raises InputError, also for fewer than two."""
    npy = getattr(options, name) or run[name]
    if not Path(npy).is_file():
        raise InputError(f"{npy}: no such file; say by --{name.replace('_', '-')} where the ears are")
    data = read_teacher_npy(npy, options.data_root or run["data_root"])
    cache = open_image_cache(
        data,
        image_size=model.config.image_size,
        channels=model.config.in_channels,
        crop_to_bbox=run["crop_to_bbox"],
        cache_dir=options.cache_dir or run["cache_dir"] or Path(npy).parent / ".cache",
    )
    if len(cache) < 2:
        raise InputError(f"{npy}: {len(cache)} usable pictures; two or more are needed to compare")
    names: Sequence[object] = data.image_paths or [f"{npy} row {row}" for row in range(len(data))]
    return Ears(
        source=npy,
        images=cache.images,
        names=[str(names[row]) for row in cache.kept],
        subjects=None if data.subjects is None else [data.subjects[row] for row in cache.kept],
        skipped=len(cache.skipped),
    )


def choose_device(name: str) -> str:
    """`cuda` or `cpu`, set to float32 and to the same result at every run. Raises InputError if there is no GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch sees no GPU here; use --device cpu")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False  # its default is True, 10 bits of mantissa
    torch.backends.cudnn.deterministic = True
    return "cuda" if name == "auto" and torch.cuda.is_available() else "cpu" if name == "auto" else name


def notes(train: Ears, val: Ears, vae: Identification | None) -> list[str]:
    """What a reader of the figures must know, a sentence each."""
    lines = [f"{ears.source}: {ears.skipped} unreadable pictures left out" for ears in (train, val) if ears.skipped]
    shared = set(train.subjects or ()) & set(val.subjects or ())
    if shared:
        lines.append(f"{len(shared)} subjects are in both files: these figures are not those of unseen people")
    if vae is None:
        lines.append(f"{val.source} names no subjects: rank-1 and EER cannot be measured")
    elif vae.rank1 is None:
        lines.append(f"{val.source}: insufficient data for rank-1 and EER: two subjects, one with two images, wanted")
    elif vae.single_image_subjects:
        lines.append(f"{vae.single_image_subjects} subjects with a single image cannot be found: they are no probes")
    return lines


def save_pictures(
    out: Path, model: EarVAE, val: Ears, reconstructions: dict[str, Reconstruction], use: LatentUse, device: str
) -> None:
    shown = {name: reconstructions[name] for name in ("VAE", "pixel PCA")}
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
    save_kl_per_dimension(out / "kl_per_dimension.png", use.kl_per_dimension, use.active)
    save_psnr_histogram(out / "psnr_histogram.png", {name: found.psnr for name, found in shown.items()})


def evaluate(
    model: EarVAE, train: Ears, val: Ears, out: Path, options: EvaluationOptions, device: str
) -> dict[str, Any]:
    """Measure, write everything but metrics.json to `out`, and return its figures and notes."""
    batch = options.batch_size
    count = options.pca_components or model.config.latent_dim
    methods: dict[str, Autoencoder] = {
        "pixel PCA": PixelPCA.fit(train.images, count, device=device),
        "pixel PCA + mirror images": PixelPCA.fit(train.images, count, mirror=True, device=device),
    }
    if model.linear_path is not None:
        methods["linear path"] = model.linear_path

    mu, logvar = encode_posteriors(model, val.images, batch, device)
    center = encode_all(model.encode, train.images, batch, device).double().mean(dim=0).numpy()
    reconstructions = {"VAE": measure(model, mu, val.images, batch, device)}
    embeddings = {"VAE": unit_rows(mu.numpy(), center)}
    for name, method in methods.items():
        codes = encode_all(method.encode, val.images, batch, device)
        reconstructions[name] = measure(method, codes, val.images, batch, device)
        embeddings[name] = unit_rows(codes.numpy())
    identifications: dict[str, Identification | None] = dict.fromkeys([*embeddings, "HOG"])
    if val.subjects is not None:
        embeddings["HOG"] = unit_rows(hog_features(val.images), hog_features(train.images).mean(axis=0))
        identifications = {name: identify(units, val.subjects) for name, units in embeddings.items()}

    use = latent_use(mu, logvar)
    model.posterior = model.posterior or AggregatePosterior.fit(use.moments)  # absent before the first validation
    save_pictures(out, model, val, reconstructions, use, device)
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
        **figures(reconstructions, use, identifications),
        "notes": notes(train, val, identifications["VAE"]),
    }


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EvaluationOptions, argv, prog="python -m ear_teacher.evaluate")
    checkpoint = find_checkpoint(options.checkpoint)
    run = trained_with(checkpoint)
    device = choose_device(options.device)
    model = EarVAE.load_from_checkpoint(str(checkpoint), device, options.weights)
    train = open_ears("train_npy", model, run, options)
    val = open_ears("val_npy", model, run, options)
    out = Path(options.out) if options.out else checkpoint.parent.parent / "evaluation" / checkpoint.stem
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder")
    out.mkdir(parents=True, exist_ok=True)

    console = Console()
    try:
        with console.status(f"measuring {len(val.names)} ears, fitting PCA to {len(train.names)}"):
            found = evaluate(model, train, val, out, options, device)
    except torch.OutOfMemoryError as error:
        raise InputError("out of GPU memory: lower --batch-size, or use --device cpu") from error
    made_of = {"checkpoint": str(checkpoint), "weights": options.weights, "train_npy": train.source}
    metrics = made_of | {"val_npy": val.source} | found | {"convention": CONVENTION}
    write_metrics(out / "metrics.json", metrics)  # last: with it the evaluation is complete
    print_report(console, metrics)
    for note in metrics["notes"]:
        console.print(f"[yellow]note[/] {note}", soft_wrap=True, highlight=False)
    console.print(f"metrics.json, per_image.csv and pictures: {out}", soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
