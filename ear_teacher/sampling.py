"""New ears from a trained ear VAE, as pictures with an index."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ear_teacher.model import EarVAE
from ear_teacher.options import SAMPLE_INDEX, SAMPLE_LANDMARKS, EarSamplingOptions
from ear_teacher.sample_landmarks import Labeller
from earface.core.errors import InputError
from earface.core.notices import warn
from earface.core.progress import tracked
from earface.data.ear_contract import EarContract
from earface.data.image_grid import save_image_grid
from earface.data.images import write_image
from earface.data.pixels import to_uint8, to_unit
from earface.data.tables import write_csv

CANONICAL_SIDE = "r"  # canonical ears are all shown as right ones
FAR_FROM_PRIOR = 0.5  # nats a latent from the aggregate posterior to N(0, 1)
GRID = (4, 8)  # rows and columns


def write_samples(model: EarVAE, out: Path, options: EarSamplingOptions, device: str, source: str) -> list[str]:
    """`num` pictures, index.csv (file, subject, side) and grid.png in `out`; each picture is of a subject of its own.

    With `landmarks` also landmarks.json, COCO keypoints of those ears whose landmarks are sure; canonical ears are then
    written in their own proportions, as other crops are.

    source: the checkpoint, for messages. Equal for equal seeds, whatever the batch size. Returns lines to print.
    Raises InputError where the posterior is wanted and the model has none.
    """
    if options.source == "posterior" and model.posterior is None:
        raise InputError(f"{source}: has no aggregate posterior (it was never validated): use `source` prior")
    if options.source == "prior":
        warn_if_never_enforced(model, source)
    generator = torch.Generator().manual_seed(options.seed)
    latents = draw_latents(model, options.num, options.source, generator)
    side = CANONICAL_SIDE if EarContract.parse(model.config.contract).fit == "canonical" else ""
    digits = max(5, len(str(options.num)))
    (out / SAMPLE_LANDMARKS).unlink(missing_ok=True)  # of the pictures that are replaced
    labeller = Labeller(model.config.contract, options.landmarker) if options.landmarks else None
    rows, shown = [], []
    for start in tracked(range(0, options.num, options.batch_size), "decoding, batches"):
        images = decode(model, latents[start : start + options.batch_size], device)
        shown += list(images[: max(0, GRID[0] * GRID[1] - start)])
        for number, pixels in enumerate(to_uint8(images).numpy(), start + 1):
            name = f"sample_{number:0{digits}d}"
            path = out / f"{name}.png"
            write_image(path, pixels if labeller is None else labeller(path, pixels))
            rows.append((f"{name}.png", name, side))
    grid = torch.stack(shown)
    save_image_grid(out / "grid.png", {f"{row + 1}": part for row, part in enumerate(to_unit(grid).split(GRID[1]))})
    labelled = [] if labeller is None else labeller.write(out / SAMPLE_LANDMARKS)
    write_csv(out / SAMPLE_INDEX, ("file", "subject", "side"), rows)  # last: it marks a complete set
    return [f"{options.num} ears of the {options.source}, {SAMPLE_INDEX} and grid.png: {out}", *labelled]


def draw_latents(model: EarVAE, count: int, source: str, generator: torch.Generator) -> Tensor:
    """(count, D) on the CPU."""
    if source == "prior" or model.posterior is None:
        return torch.randn(count, model.config.latent_dim, generator=generator)
    return model.posterior.sample(count, generator)


@torch.no_grad()
def decode(model: EarVAE, latents: Tensor, device: str) -> Tensor:
    """(B, D) -> (B, C, S, S) in [-1, 1] on the CPU, clipped."""
    return model.decode(latents.to(device)).float().clamp(-1, 1).cpu()


def warn_if_never_enforced(model: EarVAE, source: str) -> None:
    """Where the latents of real ears are not distributed as the prior, whose samples are then no ears."""
    if model.posterior is not None and (nats := distance_to_prior(model)) > FAR_FROM_PRIOR:
        warn(
            f"{source}: its latents are far from the prior ({nats:.1f} nats a latent), which its KL weight never "
            "enforced: use `source` posterior"
        )


def distance_to_prior(model: EarVAE) -> float:
    """KL divergence of the aggregate posterior from N(0, I), nats a latent."""
    assert model.posterior is not None
    mean, factor = model.posterior.mean.double(), model.posterior.factor.double()
    size = len(mean)
    log_determinant = 2 * factor.diagonal().log().sum()
    return float((factor.square().sum() + mean.square().sum() - size - log_determinant) / 2 / size)
