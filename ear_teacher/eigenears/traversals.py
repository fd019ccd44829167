"""The pictures of a model's components: latents selected, decoded and arranged in image grids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ear_teacher.eigenears.appearance import appearance, parts
from ear_teacher.eigenears.components import Components
from ear_teacher.eigenears.config import PICTURES, EigenearOptions
from ear_teacher.eigenears.movements import Movement, movements
from ear_teacher.eigenears.plots import (
    ComponentPictures,
    save_component,
    save_explained_variance,
    save_factors,
    save_grid,
    save_rows,
    sigmas,
)
from ear_teacher.eigenears.pose import in_proportion
from ear_teacher.eigenears.report import EigenearResults
from ear_teacher.loading import Ears
from ear_teacher.metrics.reconstruction import decode_unit, latent_use, unit_images
from ear_teacher.model import EarVAE
from earface.core.files import remove_results
from earface.core.progress import progress
from earface.data.ear_contract import EarAligner
from earface.data.image_rows import Images

TRAVERSED = 8  # latents in the traversal grid
PAIRS = 6  # of ears in the interpolation grid
STARTS = 8  # ears beside the mean one that are moved along a component to name it
NEAR_MEAN = 40  # ears, the best reconstructed of which is shown along every component
SIDES = {"r": "right", "l": "left"}


def save_pictures(
    out: Path,
    model: EarVAE,
    ears: Ears,
    mu: Tensor,
    logvar: Tensor,
    found: EigenearResults,
    options: EigenearOptions,
    device: str,
) -> None:
    """Write every PNG of eigenears; those of an earlier call that are not replaced are deleted."""
    remove_results(out, PICTURES)
    save_plots(out, found, options)
    if not options.pictures:
        return
    latents, count = mu.double().numpy(), len(found.pictures)
    rows, of_one_side = one_side(ears)
    shown = along(model, latents, ears.images, rows, found, options, device)
    shown.sort(key=lambda component: found.of_light(component.number - 1))
    for component in shown:
        save_component(out / f"pc_{component.number}.png", component)
    last = ", those of light last" if any(map(found.of_light, range(count))) else ""
    heading = f"eigenears: {count} principal components of {len(mu)} ears{of_one_side}{last}"
    save_grid(out / "eigenears_grid.png", shown, heading)
    kl = latent_use(mu, logvar).kl_per_dimension
    heading = f"the latents with the most nats, one at a time{of_one_side}"
    of_light = latents_of_light(latents, ears.images)
    save_traversal(out / "traversal.png", model, latents[rows], kl, of_light, heading, options, device)
    heading = f"decoded straight lines between two ears{of_one_side}"
    save_interpolation(out / "interpolation.png", model, latents, ears, rows, heading, options, device)


def one_side(ears: Ears) -> tuple[NDArray[np.intp], str]:
    """The rows of the ears that are shown, and of which side they are, in words.

    The side with more ears: the mean of left and right ears is none, and nor is what lies between them. All, and no
    words, where every ear was mirrored to one side or no side is known.
    """
    sides = np.array(ears.sides or [""])
    counts = {side: int((sides == side).sum()) for side in SIDES}
    side = max(counts, key=lambda each: counts[each])
    if ears.mirrored or counts[side] < 2:
        return np.arange(len(ears.names)), ""
    return np.flatnonzero(sides == side), f", shown on {SIDES[side]} ears"


def save_plots(out: Path, found: EigenearResults, options: EigenearOptions) -> None:
    of_what = "decoded pictures" if options.metric == "picture" else "latents"
    save_explained_variance(
        out / "explained_variance.png",
        found.components.variance,
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


def along(
    model: EarVAE,
    mu: NDArray[np.float64],
    images: Images,
    rows: NDArray[np.intp],
    found: EigenearResults,
    options: EigenearOptions,
    device: str,
) -> list[ComponentPictures]:
    """The pictures of each component: from the mean of the ears `rows`, and from one typical ear of them."""
    components = found.components
    positions = np.linspace(-options.sigmas, options.sigmas, options.steps)
    all_scores = components.scores[rows] - components.scores[rows].mean(axis=0)
    mean = mu[rows].mean(axis=0)
    start = mu[rows[typical_rows(model, mu[rows], images[rows], all_scores, options.batch_size, device)[0]]]
    shown = []
    for row, share in enumerate(components.variance):
        scores = all_scores[:, row]
        nearest = nearest_rows(scores, positions)
        steps = positions[:, None] * components.directions[row]
        decoded = decode(model, np.concatenate([mean + steps, start + steps]), options.batch_size, device)
        shown.append(
            ComponentPictures(
                number=row + 1,
                title=f"PC {row + 1}: {share:.1%} of the variance" + ", mostly light" * found.of_light(row),
                name=found.movements[row].name,
                remark=f"factors: {found.best_factors(row)}" if found.factors else "",
                positions=positions,
                from_mean=decoded[: options.steps],
                from_ear=decoded[options.steps :],
                nearest=unit_images(images[rows[nearest]]),
                nearest_scores=scores[nearest],
                parts={name: float(shares[row]) for name, shares in found.parts.items()},
            )
        )
    return shown


def moved_landmarks(
    model: EarVAE,
    mu: NDArray[np.float64],
    ears: Ears,
    components: Components,
    aligner: EarAligner,
    options: EigenearOptions,
    device: str,
) -> tuple[list[Movement], float]:
    """`movements` of the mean ear of one side, and of STARTS typical ears of it, along every component."""
    rows = one_side(ears)[0]
    scores = components.scores[rows] - components.scores[rows].mean(axis=0)
    typical = typical_rows(model, mu[rows], ears.images[rows], scores, options.batch_size, device)[:STARTS]
    starts = np.concatenate([mu[rows].mean(axis=0)[None], mu[rows[typical]]])
    steps = options.sigmas * components.directions[:, None, None, :] * np.array([-1, 1])[:, None]
    ends = (starts[:, None] + steps).reshape(-1, mu.shape[1])  # component, start, end
    decoded = decode(model, np.concatenate([starts, ends]), options.batch_size, device)
    pixels = decoded.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    pictures = [in_proportion(np.ascontiguousarray(each), ears.mirrored) for each in pixels]
    pairs = list(zip(pictures[len(starts) :: 2], pictures[len(starts) + 1 :: 2], strict=True))
    of_component = [pairs[start : start + len(starts)] for start in range(0, len(pairs), len(starts))]
    with progress("landmarks of components"):
        return movements(pictures[: len(starts)], of_component, aligner)


def latents_of_light(mu: NDArray[np.float64], images: Images) -> NDArray[np.bool_]:
    """(D,) whether brightness, colour and gradient explain more of a latent than is left; mu (N, D)."""
    return parts(mu, appearance(images))["structure"] < 0.5


def typical_rows(
    model: EarVAE,
    mu: NDArray[np.float64],
    images: Images,
    scores: NDArray[np.float64],
    batch_size: int,
    device: str,
) -> NDArray[np.intp]:
    """The ears nearest the mean in scores (N, K), the best reconstruction first."""
    near = np.argsort(np.square(scores).sum(axis=1), kind="stable")[:NEAR_MEAN]
    pictures = unit_images(images[near])
    lost = (decode(model, mu[near], batch_size, device) - pictures).square().mean(dim=(1, 2, 3))
    order = (lost / pictures.var(dim=(1, 2, 3)).clamp_min(1e-6)).argsort(stable=True).numpy()
    return np.asarray(near[order])


def nearest_rows(scores: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each position the row of nearest score; none twice while there are others, the outermost positions first."""
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
    path: Path,
    model: EarVAE,
    latents: NDArray[np.float64],
    kl: NDArray[np.float64],
    of_light: NDArray[np.bool_],
    heading: str,
    options: EigenearOptions,
    device: str,
) -> None:
    """The latents (N, D) with the most nats (D,), those of light (D,) last, each from -k to k standard deviations about
    the mean ear."""
    positions = np.linspace(-options.sigmas, options.sigmas, options.steps)
    rows = {}
    leading = np.argsort(-kl, kind="stable")[:TRAVERSED]
    for latent in leading[np.argsort(of_light[leading], kind="stable")]:
        moved = np.tile(latents.mean(axis=0), (options.steps, 1))
        moved[:, latent] += positions * latents[:, latent].std()
        name = f"latent {latent}\n{kl[latent]:.2f} nats" + "\nof light" * bool(of_light[latent])
        rows[name] = decode(model, moved, options.batch_size, device)
    save_rows(path, [sigmas(position) for position in positions], rows, heading)


def save_interpolation(
    path: Path,
    model: EarVAE,
    latents: NDArray[np.float64],
    ears: Ears,
    chosen: NDArray[np.intp],
    heading: str,
    options: EigenearOptions,
    device: str,
) -> None:
    """Straight lines between the latents of pairs of ears of `chosen`, of different subjects where these are known."""
    subjects = None if ears.subjects is None else [ears.subjects[row] for row in chosen]
    shares = np.linspace(0.0, 1.0, options.steps)
    rows = {}
    for number, pair in enumerate(pairs(len(chosen), subjects), 1):
        first, second = chosen[list(pair)]
        line = latents[first] + shares[:, None] * (latents[second] - latents[first])
        ends = unit_images(ears.images[np.array([first, second])])
        rows[f"pair {number}"] = torch.cat([ends[:1], decode(model, line, options.batch_size, device), ends[1:]])
    columns = ["input", *(f"{share:.0%}" for share in shares), "input"]
    save_rows(path, columns, rows, heading)


def pairs(count: int, subjects: Sequence[str] | None) -> list[tuple[int, int]]:
    """Rows evenly spread over half the file, each with the row half a file away, or the next of another subject."""
    found = []
    for first in np.unique(np.linspace(0, (count - 1) // 2, PAIRS).round().astype(int)).tolist():
        others = [(first + count // 2 + step) % count for step in range(count)]
        different = [row for row in others if row != first and (not subjects or subjects[row] != subjects[first])]
        found.append((first, (different or [row for row in others if row != first])[0]))
    return found
