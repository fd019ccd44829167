"""The terms of the ear VAE's loss, each alone, and their weighted sum.

Images are (B, C, H, W) in [0, 1]; a term is one value per image, (B,), unless its docstring says otherwise.
All terms are computed in float32 (float64 stays) with autocast off, except the perceptual network's own layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from ear_teacher.config import EarVAETrainingConfig
from earface.data.pixels import to_unit
from earface.metrics.image_quality import ssim
from earface.nn.losses import LossResult, training_processes
from earface.nn.perceptual import PerceptualLoss
from earface.nn.precision import float32_island

PerImageLoss = Callable[[Tensor, Tensor], Tensor]
Gather = Callable[[Tensor], Tensor]


@float32_island
def reconstruction_loss(
    prediction: Tensor, target: Tensor, kind: Literal["l1", "mse"] = "l1", focal_gamma: float = 0.0
) -> Tensor:
    """Absolute or squared error, mean per pixel and channel.

    focal_gamma > 0 weights each pixel by (its absolute error, mean over channels, / the image's largest) ** gamma.
    The weights carry no gradient and average 1 over the image: gamma moves the loss to the worst pixels, not its scale.
    """
    difference = prediction - target
    error = difference.abs() if kind == "l1" else difference.square()
    if focal_gamma > 0:
        per_pixel = difference.detach().abs().mean(dim=1, keepdim=True)
        smallest = torch.finfo(per_pixel.dtype).tiny
        # Divided by the largest first: small errors to a power would underflow.
        weight = (per_pixel / per_pixel.amax(dim=(2, 3), keepdim=True).clamp_min(smallest)) ** focal_gamma
        error = error * (weight / weight.mean(dim=(2, 3), keepdim=True).clamp_min(smallest))
    return error.mean(dim=(1, 2, 3))


@float32_island
def edge_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """L1 between the Sobel gradients of each channel, mean over pixels, channels and both directions.

    The kernels are the unscaled 3x3 ones ([1 2 1] by [-1 0 1], cv2.Sobel's): a ramp of slope s per pixel gives 8 s.
    The border is replicated.
    """
    channels = prediction.shape[1]
    # The gradient is linear, so that of the difference is the difference of the gradients.
    difference = F.pad(prediction - target, (1, 1, 1, 1), mode="replicate")
    along = torch.arange(-1, 2, dtype=difference.dtype, device=difference.device)  # made where it is used
    across = torch.outer(2.0 - along.abs(), along)
    kernels = torch.stack([across, across.T]).unsqueeze(1).repeat(channels, 1, 1, 1)
    return F.conv2d(difference, kernels, groups=channels).abs().mean(dim=(1, 2, 3))


@float32_island
def center_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """L1 under a Gaussian window at the image's centre, sigma a quarter of each side, whose weights sum to 1."""
    window = _center_window(prediction)
    return ((prediction - target).abs().mean(dim=1) * window).sum(dim=(1, 2))


def _center_window(images: Tensor) -> Tensor:
    rows, columns = (
        torch.softmax(-0.5 * ((torch.arange(side, device=images.device) - (side - 1) / 2) / (side / 4)) ** 2, dim=0)
        for side in images.shape[-2:]
    )
    return torch.outer(rows, columns).to(images.dtype)


@float32_island
def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)) of a diagonal Gaussian, in nats, per image and latent.

    mu, logvar: (B, D). Returns (B, D). Kingma & Welling 2014, appendix B.
    In float32 because exp(logvar) leaves half precision's range from 11 on.
    """
    return 0.5 * (mu.square() + torch.expm1(logvar) - logvar)


@float32_island
def contrastive_loss(
    z1: Tensor, z2: Tensor, subjects: Tensor | None = None, temperature: float = 0.1, gather: Gather | None = None
) -> Tensor:
    """Supervised contrastive loss over the 2B posterior samples of a batch: a scalar.

    z1, z2: (B, D), two samples of each image's posterior; compared by cosine / temperature.
    subjects: (B,) integer ids. An anchor's positives are its image's other sample and all samples of its subject; a
    negative id is unknown, and its only positive is the other sample. Every other sample of the batch is a negative.

    Khosla et al. 2020, L_out (equation 2): the mean over anchors of the mean over positives of
    -log(exp(s_ip) / sum over a != i of exp(s_ia)). With no subject known it is NT-Xent (Chen et al. 2020), the
    symmetric InfoNCE; one image alone gives 0.

    gather: (B, D) -> (world x B, D) over the devices' batches, of equal size; by default `gather_batches`, which makes
    loss and (averaged) gradient those of the whole batch on one device.
    """
    gather = gather or gather_batches
    if subjects is None:
        subjects = torch.full((len(z1),), -1, device=z1.device)
    z1, z2, subjects = gather(z1), gather(z2), gather(subjects)

    samples = F.normalize(torch.cat([z1, z2]), dim=1)
    owner = subjects.repeat(2)
    image = torch.arange(len(z1), device=z1.device).repeat(2)
    itself = torch.eye(len(samples), dtype=torch.bool, device=z1.device)
    positive = (image[:, None] == image) | ((owner[:, None] == owner) & (owner[:, None] >= 0))
    positive = positive & ~itself

    similarity = (samples @ samples.T) / temperature
    log_total = similarity.masked_fill(itself, -torch.inf).logsumexp(dim=1)
    mean_positive = (similarity * positive).sum(dim=1) / positive.sum(dim=1)
    return (log_total - mean_positive).mean()


def gather_batches(values: Tensor) -> Tensor:
    """Concatenate every process's (B, ...) in rank order; the same tensor where there is one, or nothing is learnt.

    The gradient reaches this process's rows only, times the number of processes: if every process computes the same
    function of the result, the average DDP takes over processes is then the exact gradient, with no second exchange.
    """
    world = training_processes()
    if world == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(world)]
    dist.all_gather(parts, values.detach().contiguous())
    if values.requires_grad:
        parts[dist.get_rank()] = values.detach() + world * (values - values.detach())
    return torch.cat(parts)


def ssim_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM."""
    return 1.0 - ssim(prediction, target)


IMAGE_TERMS: dict[str, PerImageLoss] = {"ssim": ssim_loss, "edge": edge_loss, "center": center_loss}


@dataclass(frozen=True)
class EarVAELossWeights:
    """Weights of the terms beside the reconstruction; one at 0 is not computed, except for the KL.

    The options of a run have the same names, followed by `_weight`.
    """

    perceptual: float
    ssim: float
    edge: float
    contrastive: float
    center: float
    kl: float  # at the end of the ramp; training passes the annealed weight at each step


class EarVAELoss:
    """reconstruction + weights . (perceptual, 1 - SSIM, edge, contrastive, centre) + beta KL, mean over the batch.

    perceptual: (B, C, H, W) twice, in [0, 1] -> (B,); required if its weight is above 0.
    kl_reduction: "mean" over the latents, or their "sum".
    A plain object, so that no network it holds is registered in the module that owns it.
    """

    def __init__(
        self,
        weights: EarVAELossWeights,
        *,
        perceptual: PerImageLoss | None = None,
        reconstruction: Literal["l1", "mse"] = "l1",
        focal_gamma: float = 0.0,
        kl_reduction: Literal["mean", "sum"] = "mean",
        temperature: float = 0.1,
    ) -> None:
        if weights.perceptual > 0 and perceptual is None:
            raise ValueError("a perceptual weight above 0 needs a perceptual loss")
        self.weights = weights
        self.perceptual = perceptual
        self.reconstruction = reconstruction
        self.focal_gamma = focal_gamma
        self.kl_reduction = kl_reduction
        self.temperature = temperature

    def __call__(
        self,
        reconstruction: Tensor,
        target: Tensor,
        mu: Tensor,
        logvar: Tensor,
        beta: float | None = None,
        *,
        z1: Tensor | None = None,
        z2: Tensor | None = None,
        subjects: Tensor | None = None,
    ) -> LossResult:
        """reconstruction, target: (B, C, H, W) in [-1, 1]. mu, logvar: (B, D).
        beta: the KL weight at this step; default: the final one, at which epochs are compared.
        z1, z2: (B, D), two posterior samples: required by the contrastive term. subjects: (B,), optional, for it too.

        The terms are those of `unweighted`, detached.
        """
        terms = self.unweighted(reconstruction, target, mu, logvar, z1, z2, subjects)
        factors = {"recon": 1.0, "kl": self.weights.kl if beta is None else beta}
        total = torch.stack(
            [factors.get(name, getattr(self.weights, name, 1.0)) * term for name, term in terms.items()]
        )
        return LossResult(total.sum(), {name: term.detach() for name, term in terms.items()})

    def compile(self, **options: Any) -> None:
        """Compile all terms into one graph. options: of torch.compile."""
        self.unweighted = torch.compile(self.unweighted, **options)  # type: ignore[method-assign]

    def unweighted(
        self,
        reconstruction: Tensor,
        target: Tensor,
        mu: Tensor,
        logvar: Tensor,
        z1: Tensor | None,
        z2: Tensor | None,
        subjects: Tensor | None,
    ) -> dict[str, Tensor]:
        """The scalars `recon`, `kl` and, where their weight is above 0, `perceptual`, those of IMAGE_TERMS and
        `contrastive`.
        """
        prediction, truth = to_unit(reconstruction), to_unit(target)
        weights = self.weights
        terms = {"recon": reconstruction_loss(prediction, truth, self.reconstruction, self.focal_gamma).mean()}
        if weights.perceptual > 0 and self.perceptual is not None:
            terms["perceptual"] = self.perceptual(prediction, truth).mean()
        for name, term in IMAGE_TERMS.items():
            if getattr(weights, name) > 0:
                terms[name] = term(prediction, truth).mean()
        if weights.contrastive > 0:
            if z1 is None or z2 is None:
                raise ValueError("a contrastive weight above 0 needs z1 and z2, two posterior samples of each image")
            terms["contrastive"] = contrastive_loss(z1, z2, subjects, self.temperature)
        kl = kl_divergence(mu, logvar)
        terms["kl"] = kl.mean() if self.kl_reduction == "mean" else kl.sum(dim=1).mean()
        return terms


def build_loss(config: EarVAETrainingConfig) -> EarVAELoss:
    """The loss of a run. Raises InputError if its perceptual network is not available."""
    perceptual = None
    if config.perceptual_weight > 0:
        perceptual = PerceptualLoss(config.perceptual_backbone, config.perceptual_weights, config.in_channels)
    return EarVAELoss(
        EarVAELossWeights(**{each.name: getattr(config, f"{each.name}_weight") for each in fields(EarVAELossWeights)}),
        perceptual=perceptual,
        reconstruction=config.reconstruction,
        focal_gamma=config.focal_gamma,
        kl_reduction=config.kl_reduction,
    )
