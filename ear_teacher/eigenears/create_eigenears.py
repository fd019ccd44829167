"""Eigenears of a trained ear VAE: `python -m ear_teacher.eigenears.create_eigenears`, or run this file."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from data.errors import InputError, entry_point
from ear_teacher.baselines import PixelPCA
from ear_teacher.eigenears.appearance import Appearance, appearance, parts
from ear_teacher.eigenears.components import Components, picture_metric, principal_components, share_of_pictures
from ear_teacher.eigenears.factors import default_index, explained_by_group, read_factors
from ear_teacher.eigenears.pictures import (
    ComponentPictures,
    save_component,
    save_explained_variance,
    save_factors,
    save_grid,
    save_rows,
    sigmas,
)
from ear_teacher.eigenears.report import CONVENTION, Findings, print_report, write_components, write_scores
from ear_teacher.measurement import decode_unit, encode_all, encode_posteriors, latent_use, unit_images
from ear_teacher.model import EarVAE
from ear_teacher.report import write_metrics
from ear_teacher.trained import Ears, choose_device, located, open_ears, trained_with
from training.checkpoint import find_checkpoint
from training.cli import parse_options
from training.options import option

TRAVERSED = 8  # latents on the traversal sheet
PAIRS = 6  # of ears on the interpolation sheet
NEAR_MEAN = 40  # ears, among which the clearest is shown along every component
FEW_EARS = 100  # fewer, and chance alone explains several percent of a component
MIN_SUBJECTS = 3  # for cross-validation inside cross-validation


@dataclass(frozen=True)
class EigenearOptions:
    """Draw the principal components of an ear VAE's latents and measure what they are made of."""

    checkpoint: str = option("ear_teacher/checkpoints/last.ckpt", "a .ckpt file, or a quoted pattern: the newest match")
    npy: str | None = option(None, "ears whose latents are analysed; default: what the checkpoint was trained on")
    factors: str | None = option(None, "index.csv of drawn ears; default: the one beside the NPY or the images, if any")
    data_root: str | None = option(None, "folder that relative paths start from; default: as in training")
    cache_dir: str | None = option(None, "where decoded images are kept; default: as in training")
    out: str | None = option(None, "results; default: eigenears beside the checkpoint's folder")
    metric: Literal["picture", "latent"] = option(
        "picture", "what counts as a large difference: that of the decoded pictures, or of the bare numbers"
    )
    components: int = option(16, "how many; at most the ears less one", low=1)
    sigmas: float = option(3.0, "how far the sheets go to either side, in standard deviations", above=0, high=10)
    steps: int = option(7, "pictures from one end to the other", low=2, high=25)
    weights: Literal["averaged", "raw"] = option("averaged", "the moving average if the run kept one, or the last step")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto: the GPU if there is one")
    batch_size: int = option(32, "images decoded at once", low=1)


def find_factors(options: EigenearOptions, ears: Ears) -> tuple[str | None, Mapping[str, NDArray[np.float64]] | None]:
    """The factors behind the ears and the file that holds them, if there is one and it can be used."""
    path = options.factors or default_index(ears.source, ears.names)
    if path is None:
        return None, None
    if len(set(ears.subjects or ears.names)) < MIN_SUBJECTS:
        raise InputError(f"{ears.source}: fewer than {MIN_SUBJECTS} subjects cannot be cross-validated on {path}")
    return path, read_factors(path, ears.names)


def notes(ears: Ears, options: EigenearOptions, found: Components) -> list[str]:
    """What a reader of the figures must know, a sentence each."""
    lines = [f"{ears.source}: {ears.skipped} unreadable pictures left out"] if ears.skipped else []
    if found.scores.shape[1] < options.components:
        lines.append(
            f"{found.scores.shape[1]} components, not {options.components}: "
            f"no more carry variance in these {len(ears.names)} ears"
        )
    if len(ears.names) < FEW_EARS:
        chance = f"{1 / (len(ears.names) - 1):.0%} of a component by chance"
        lines.append(f"only {len(ears.names)} ears: brightness explains {chance}, colour and gradient twice that each")
    return lines


def along(
    model: EarVAE,
    mu: NDArray[np.float64],
    images: NDArray[np.uint8],
    found: Findings,
    options: EigenearOptions,
    device: str,
) -> list[ComponentPictures]:
    """What is shown of each component: from the mean ear, and from one typical ear."""
    components = found.components
    positions = np.linspace(-options.sigmas, options.sigmas, options.steps)
    start = mu[typical_row(model, mu, images, components.scores, options.batch_size, device)]
    shown = []
    for row, share in enumerate(components.variance):
        scores = components.scores[:, row]
        nearest = nearest_rows(scores, positions)
        steps = positions[:, None] * components.directions[row]
        decoded = decode(model, np.concatenate([components.mean + steps, start + steps]), options.batch_size, device)
        shown.append(
            ComponentPictures(
                number=row + 1,
                title=f"PC {row + 1}: {share:.1%} of the variance",
                remark=f"factors: {found.best_factors(row)}" if found.factors else "",
                positions=positions,
                from_mean=decoded[: options.steps],
                from_ear=decoded[options.steps :],
                nearest=unit_images(images[nearest]),
                nearest_scores=scores[nearest],
                parts={name: float(shares[row]) for name, shares in found.parts.items()},
            )
        )
    return shown


def typical_row(
    model: EarVAE,
    mu: NDArray[np.float64],
    images: NDArray[np.uint8],
    scores: NDArray[np.float64],
    batch_size: int,
    device: str,
) -> int:
    """Of the ears that differ least from the mean in scores (N, K), the one whose picture comes back best."""
    near = np.argsort(np.square(scores).sum(axis=1), kind="stable")[:NEAR_MEAN]
    pictures = unit_images(images[near])
    lost = (decode(model, mu[near], batch_size, device) - pictures).square().mean(dim=(1, 2, 3))
    return int(near[(lost / pictures.var(dim=(1, 2, 3)).clamp_min(1e-6)).argmin()])


def nearest_rows(scores: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each position the row of nearest score; none twice while there are others, the outermost choose first."""
    rows = np.zeros(len(positions), np.intp)
    distance = np.abs(scores[None, :] - positions[:, None])
    for place in np.argsort(-np.abs(positions), kind="stable"):
        rows[place] = distance[place].argmin()
        if len(scores) > len(positions):
            distance[:, rows[place]] = np.inf
    return rows


def decode(model: EarVAE, latents: NDArray[np.float64], batch_size: int, device: str) -> Tensor:
    """(N, D) -> (N, C, S, S) in [0, 1]."""
    parts = torch.from_numpy(latents).float().split(batch_size)
    return torch.cat([decode_unit(model, part, device) for part in parts])


def save_traversal(
    path: Path, model: EarVAE, mu: Tensor, kl: NDArray[np.float64], options: EigenearOptions, device: str
) -> None:
    """The latents (N, D) with the most nats (D,), each from -k to k standard deviations about the mean ear."""
    latents = mu.double().numpy()
    positions = np.linspace(-options.sigmas, options.sigmas, options.steps)
    rows = {}
    for latent in np.argsort(-kl, kind="stable")[:TRAVERSED]:
        moved = np.tile(latents.mean(axis=0), (options.steps, 1))
        moved[:, latent] += positions * latents[:, latent].std()
        rows[f"latent {latent}\n{kl[latent]:.2f} nats"] = decode(model, moved, options.batch_size, device)
    save_rows(path, [sigmas(position) for position in positions], rows, "the latents that carry most, one at a time")


def save_interpolation(
    path: Path, model: EarVAE, mu: Tensor, ears: Ears, options: EigenearOptions, device: str
) -> None:
    """Straight lines between the latents of pairs of ears, of different subjects where these are known."""
    latents = mu.double().numpy()
    shares = np.linspace(0.0, 1.0, options.steps)
    rows = {}
    for number, (first, second) in enumerate(pairs(len(latents), ears.subjects), 1):
        line = latents[first] + shares[:, None] * (latents[second] - latents[first])
        ends = unit_images(ears.images[np.array([first, second])])
        rows[f"pair {number}"] = torch.cat([ends[:1], decode(model, line, options.batch_size, device), ends[1:]])
    columns = ["input", *(f"{share:.0%}" for share in shares), "input"]
    save_rows(path, columns, rows, "decoded straight lines between two ears")


def pairs(count: int, subjects: Sequence[str] | None) -> list[tuple[int, int]]:
    """Rows evenly spread over half the file, each with the one half the file away, or the next of another subject."""
    found = []
    for first in np.unique(np.linspace(0, (count - 1) // 2, PAIRS).round().astype(int)).tolist():
        others = [(first + count // 2 + step) % count for step in range(count)]
        different = [row for row in others if row != first and (not subjects or subjects[row] != subjects[first])]
        found.append((first, (different or [row for row in others if row != first])[0]))
    return found


def create_eigenears(
    model: EarVAE,
    ears: Ears,
    factors: Mapping[str, NDArray[np.float64]] | None,
    out: Path,
    options: EigenearOptions,
    device: str,
) -> tuple[Findings, list[str]]:
    """Measure, and write everything but eigenears.json to `out`."""
    batch = options.batch_size
    look: Appearance = appearance(ears.images)
    mu, logvar = encode_posteriors(model, ears.images, batch, device)
    metric = picture_metric(model, mu.double().numpy(), batch, device) if options.metric == "picture" else None
    components = principal_components(mu, options.components, look.brightness[:, 0], metric)
    count = components.scores.shape[1]
    pixel_pca = PixelPCA.fit(ears.images, count, device=device)
    pixel_codes = encode_all(pixel_pca.encode, ears.images, batch, device).double().numpy()
    owners = np.unique(np.asarray(ears.subjects or ears.names), return_inverse=True)[1]
    found = Findings(
        components=components,
        pictures=share_of_pictures(components.scores, ears.images),
        pixel_pca=share_of_pictures(pixel_codes, ears.images),
        plain=principal_components(mu, count, look.brightness[:, 0]).variance,
        parts=parts(components.scores, look),
        factors=explained_by_group(components.scores, factors, owners) if factors else None,
    )

    for stale in out.glob("pc_*.png"):
        if (number := re.fullmatch(r"pc_(\d+)\.png", stale.name)) and int(number[1]) > count:
            stale.unlink()
    shown = along(model, mu.double().numpy(), ears.images, found, options, device)
    for component in shown:
        save_component(out / f"pc_{component.number}.png", component)
    of_what = "decoded pictures" if options.metric == "picture" else "latents"
    save_grid(out / "eigenears_grid.png", shown, f"eigenears: {count} principal components of {len(mu)} ears")
    save_explained_variance(
        out / "explained_variance.png",
        components.variance,
        found.parts,
        {
            "eigenears, of the input pictures": found.pictures,
            "pixel PCA, of the input pictures": found.pixel_pca,
            "plain PCA of the latents, of the latents": found.plain,
        },
        f"share of the variance of the {of_what}",
    )
    if found.factors:
        save_factors(out / "factors.png", found.factors)
    else:
        (out / "factors.png").unlink(missing_ok=True)
    save_traversal(out / "traversal.png", model, mu, latent_use(mu, logvar).kl_per_dimension, options, device)
    save_interpolation(out / "interpolation.png", model, mu, ears, options, device)
    write_components(out / "components.csv", found)
    write_scores(out / "scores.csv", ears.names, ears.subjects, components.scores)
    return found, notes(ears, options, components)


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(EigenearOptions, argv, prog="python -m ear_teacher.eigenears.create_eigenears")
    checkpoint = find_checkpoint(located(options.checkpoint))
    run = trained_with(checkpoint)
    device = choose_device(options.device)
    model = EarVAE.load_from_checkpoint(str(checkpoint), device, options.weights)
    ears = open_ears(options.npy or run["train_npy"], "--npy", model, run, options.data_root, options.cache_dir)
    index, factors = find_factors(options, ears)
    out = Path(options.out) if options.out else checkpoint.parent.parent / "eigenears"
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder")
    out.mkdir(parents=True, exist_ok=True)

    console = Console()
    try:
        with console.status(f"eigenears of {len(ears.names)} ears"):
            found, sentences = create_eigenears(model, ears, factors, out, options, device)
    except torch.OutOfMemoryError as error:
        raise InputError("out of GPU memory: lower --batch-size, or use --device cpu") from error
    results = {
        "checkpoint": str(checkpoint),
        "weights": options.weights,
        "npy": ears.source,
        "ears": len(ears.names),
        "factors": index,
        "metric": options.metric,
        "first": found.first,
        "components": found.rows,
        "pixel_pca": found.pixel_pca.tolist(),
        "plain_pca_of_latents": found.plain.tolist(),
        "notes": sentences,
        "convention": CONVENTION,
    }
    write_metrics(out / "eigenears.json", results)  # last: with it everything is there
    print_report(console, found, options.metric)
    for note in sentences:
        console.print(f"[yellow]note[/] {note}", soft_wrap=True, highlight=False)
    console.print(f"eigenears.json, CSVs and pictures: {out}", soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
