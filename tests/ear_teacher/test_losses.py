import math
import multiprocessing

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.autograd import gradcheck
from torch.distributions import Normal

from ear_teacher.losses import (
    IMAGE_TERMS,
    EarVAELoss,
    EarVAELossWeights,
    center_loss,
    contrastive_loss,
    edge_loss,
    kl_divergence,
    reconstruction_loss,
)
from earface.metrics.image_quality import ssim

IMAGE_LOSSES = [
    reconstruction_loss,
    lambda p, t: reconstruction_loss(p, t, "mse", 1.5),
    lambda p, t: reconstruction_loss(p, t, "l1", 1.0),
    edge_loss,
    center_loss,
]
IMAGE_LOSS_NAMES = ["l1", "focal mse", "focal l1", "edge", "center"]


def images(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=dtype), torch.rand(shape, generator=generator, dtype=dtype)


def latents(count, dim, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(count, dim, generator=generator, dtype=dtype)
    noise = torch.randn(2, count, dim, generator=generator, dtype=dtype)
    return mean + 0.3 * noise[0], mean + 0.3 * noise[1]


# Reconstruction


@pytest.mark.parametrize(("kind", "oracle"), [("l1", F.l1_loss), ("mse", F.mse_loss)])
def test_reconstruction_is_the_mean_per_pixel_of_each_image(kind, oracle):
    prediction, target = images(3, 3, 13, 17)
    expected = torch.stack([oracle(p, t) for p, t in zip(prediction, target, strict=True)])
    torch.testing.assert_close(reconstruction_loss(prediction, target, kind), expected)


@pytest.mark.parametrize("kind", ["l1", "mse"])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_weights_each_pixel_by_its_normalised_error(kind, gamma):
    prediction, target = images(2, 3, 4, 5)
    found = reconstruction_loss(prediction, target, kind, gamma)
    for index in range(2):
        error = (prediction[index] - target[index]).abs().numpy()
        weights, largest = np.zeros((4, 5)), max(error[:, y, x].mean() for y in range(4) for x in range(5))
        for y in range(4):
            for x in range(5):
                weights[y, x] = (error[:, y, x].mean() / largest) ** gamma
        weights /= weights.mean()
        cost = error if kind == "l1" else error**2
        expected = np.mean([weights[y, x] * cost[:, y, x].mean() for y in range(4) for x in range(5)])
        assert found[index].item() == pytest.approx(expected, rel=1e-10)


def test_focal_weights_carry_no_gradient():
    prediction, target = images(1, 1, 3, 3)
    prediction.requires_grad_()
    reconstruction_loss(prediction, target, "l1", 1.0).sum().backward()
    error = (prediction.detach() - target).abs()
    # Only d|e| = sign(e) is left, under the weight e / mean(e), over 9 pixels.
    torch.testing.assert_close(prediction.grad, torch.sign(prediction.detach() - target) * error / error.mean() / 9)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 3.0])
def test_an_even_error_costs_the_same_at_every_gamma(gamma):
    target = torch.zeros(2, 3, 8, 8)
    torch.testing.assert_close(reconstruction_loss(target + 0.25, target, "l1", gamma), torch.full((2,), 0.25))


@pytest.mark.parametrize("scale", [0.0, 1e-30])
def test_focal_stays_finite_where_the_error_vanishes(scale):
    target = torch.full((1, 3, 8, 8), 0.0)
    prediction = (torch.rand(1, 3, 8, 8) * scale).requires_grad_()
    loss = reconstruction_loss(prediction, target, "l1", 2.0).sum()
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-29)
    assert torch.isfinite(prediction.grad).all()


# Edges and centre


@pytest.mark.parametrize("size", [(8, 8), (17, 9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_edge_loss_is_the_l1_of_opencvs_sobel(size, channels):
    prediction, target = images(2, channels, *size)
    for index, found in enumerate(edge_loss(prediction, target)):
        gaps = []
        for channel in range(channels):
            for dx, dy in ((1, 0), (0, 1)):
                gradient = [
                    cv2.Sobel(
                        batch[index, channel].numpy(), cv2.CV_64F, dx, dy, ksize=3, borderType=cv2.BORDER_REPLICATE
                    )
                    for batch in (prediction, target)
                ]
                gaps.append(np.abs(gradient[0] - gradient[1]).mean())
        assert found.item() == pytest.approx(np.mean(gaps), rel=1e-10)


def test_a_ramp_gives_eight_times_its_slope_in_its_own_direction():
    ramp = (0.01 * torch.arange(50.0)).expand(1, 1, 40, 50)
    flat = torch.zeros_like(ramp)
    # 8 x .01 across, 0 down; the replicated first and last column see half the step.
    assert edge_loss(ramp, flat).item() == pytest.approx(0.08 * (48 + 2 * 0.5) / 50 / 2, rel=1e-5)
    assert edge_loss(ramp + 0.3, ramp).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("size", [(8, 8), (12, 7)])
def test_center_loss_is_an_error_under_a_normalised_gaussian(size):
    prediction, target = images(2, 3, *size)
    height, width = size
    weights = np.empty(size)
    for y in range(height):
        for x in range(width):
            down, across = (y - (height - 1) / 2) / (height / 4), (x - (width - 1) / 2) / (width / 4)
            weights[y, x] = math.exp(-0.5 * (down**2 + across**2))
    weights /= weights.sum()
    expected = ((prediction - target).abs().mean(1).numpy() * weights).sum((1, 2))
    np.testing.assert_allclose(center_loss(prediction, target).numpy(), expected, rtol=1e-6)


def test_center_loss_minds_the_middle_and_keeps_an_even_errors_size():
    target = torch.zeros(1, 3, 32, 32)
    middle, corner = target.clone(), target.clone()
    middle[..., 14:18, 14:18] = 1
    corner[..., :4, :4] = 1
    assert center_loss(middle, target).item() > 20 * center_loss(corner, target).item() > 0
    assert center_loss(target + 0.2, target).item() == pytest.approx(0.2)


@pytest.mark.parametrize("loss", [edge_loss, center_loss, reconstruction_loss])
def test_image_losses_have_right_gradients(loss):
    prediction, target = images(2, 2, 5, 6)
    assert gradcheck(lambda p: loss(p, target), prediction.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("loss", IMAGE_LOSSES, ids=IMAGE_LOSS_NAMES)
def test_image_losses_run_in_float32_whatever_autocast_and_the_images_are(loss, dtype):
    prediction, target = (batch.to(dtype) for batch in images(2, 3, 32, 32))
    expected = loss(prediction.float(), target.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(prediction, target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


# KL


def test_kl_is_torch_distributions():
    mu, logvar = latents(4, 6)
    expected = torch.distributions.kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_divergence(mu, logvar), expected)


def test_kl_is_the_mean_log_ratio_of_samples():
    mu, logvar = torch.tensor([[0.7, -1.2]], dtype=torch.float64), torch.tensor([[-1.0, 0.8]], dtype=torch.float64)
    posterior = Normal(mu, (0.5 * logvar).exp())
    torch.manual_seed(0)
    z = posterior.sample((400_000,))
    ratio = posterior.log_prob(z) - Normal(0.0, 1.0).log_prob(z)
    error = ratio.std(0) / 400_000**0.5
    assert ((kl_divergence(mu, logvar) - ratio.mean(0)).abs() < 4 * error).all()


def test_kl_is_zero_at_the_prior_and_nowhere_negative():
    assert kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3)).abs().max() == 0
    near = torch.linspace(-1e-3, 1e-3, 1001).view(1, -1)
    kl = kl_divergence(torch.zeros_like(near), near)
    assert kl.min() >= 0
    # logvar^2 / 4 to second order; exp(x) - 1 - x in float32 would have lost it to rounding.
    torch.testing.assert_close(kl, near.square() / 4, rtol=2e-2, atol=3e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kl_of_half_precision_does_not_overflow(dtype):
    mu, logvar = torch.tensor([[300.0]], dtype=dtype), torch.tensor([[12.0]], dtype=dtype)
    with torch.autocast("cpu", dtype=dtype):
        kl = kl_divergence(mu, logvar)
    assert kl.dtype == torch.float32
    assert kl.item() == pytest.approx(0.5 * (mu.float().item() ** 2 + math.exp(12) - 13), rel=1e-5)


def test_kl_gradient():
    assert gradcheck(kl_divergence, [values.requires_grad_() for values in latents(3, 4)])


# Contrastive


def supcon(z1, z2, subjects, temperature):
    """Khosla et al. 2020, equation 2, one anchor and one positive at a time."""
    samples = [z.double().numpy() for z in (*z1, *z2)]
    samples = [z / np.linalg.norm(z) for z in samples]
    count = len(z1)
    total = 0.0
    for i in range(2 * count):
        others = [a for a in range(2 * count) if a != i]
        denominator = sum(math.exp(samples[i] @ samples[a] / temperature) for a in others)
        same = lambda p, i=i: p % count == i % count or (subjects[i % count] == subjects[p % count] >= 0)  # noqa: E731
        positives = [p for p in others if same(p)]
        losses = [-math.log(math.exp(samples[i] @ samples[p] / temperature) / denominator) for p in positives]
        total += sum(losses) / len(losses)
    return total / (2 * count)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize(
    "subjects",
    [[-1] * 6, [0, 1, 2, 3, 4, 5], [3, 3, 7, 7, 7, 9], [3, 3, -1, -1, 7, 7], [2] * 6],
    ids=["unknown", "all different", "shared", "some unknown", "one subject"],
)
def test_contrastive_is_the_supervised_contrastive_loss(subjects, temperature):
    z1, z2 = latents(6, 5)
    found = contrastive_loss(z1, z2, torch.tensor(subjects), temperature)
    assert found.item() == pytest.approx(supcon(z1, z2, subjects, temperature), rel=1e-9)


def test_contrastive_without_subjects_is_cross_entropy_over_the_other_samples():
    z1, z2 = latents(4, 5)
    samples = F.normalize(torch.cat([z1, z2]), dim=1)
    logits = (samples @ samples.T / 0.1).masked_fill(torch.eye(8, dtype=torch.bool), -math.inf)
    expected = F.cross_entropy(logits, torch.tensor([4, 5, 6, 7, 0, 1, 2, 3]))
    torch.testing.assert_close(contrastive_loss(z1, z2), expected)


def test_contrastive_is_symmetric_and_blind_to_length_and_order():
    z1, z2 = latents(6, 5)
    subjects = torch.tensor([3, 3, -1, 7, 7, 7])
    expected = contrastive_loss(z1, z2, subjects)
    torch.testing.assert_close(contrastive_loss(z2, z1, subjects), expected)
    torch.testing.assert_close(contrastive_loss(5 * z1, 0.1 * z2, subjects), expected)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    torch.testing.assert_close(contrastive_loss(z1[order], z2[order], subjects[order]), expected)


@pytest.mark.parametrize("subject", [-1, 5])
def test_one_image_alone_has_nothing_to_contrast(subject):
    z1, z2 = (z.requires_grad_() for z in latents(1, 5))
    loss = contrastive_loss(z1, z2, torch.tensor([subject]))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert z1.grad.abs().max() < 1e-12


def test_contrastive_of_collapsed_latents_is_finite():
    z = torch.zeros(4, 5, requires_grad=True)
    loss = contrastive_loss(z, z)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(7))  # seven equal candidates
    assert torch.isfinite(z.grad).all()


def test_contrastive_gradient():
    subjects = torch.tensor([3, 3, -1, 7])
    inputs = [z.requires_grad_() for z in latents(4, 3)]
    assert gradcheck(lambda a, b: contrastive_loss(a, b, subjects), inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_contrastive_runs_in_float32_whatever_autocast_and_the_latents_are(dtype):
    z1, z2 = (z.to(dtype) for z in latents(6, 64))
    expected = contrastive_loss(z1.float(), z2.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = contrastive_loss(z1, z2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


SUBJECTS = [3, 3, -1, 7, 7, 3]


def projected(projection, share):
    """Latents of this share of six images, through a projection that all processes hold alike."""
    z1, z2 = latents(6, 4)
    return z1[share] @ projection, z2[share] @ projection, torch.tensor(SUBJECTS)[share]


def one_process_of_two(rank, folder):
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    try:
        projection = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3).sin().requires_grad_()
        loss = contrastive_loss(*projected(projection, slice(3 * rank, 3 * rank + 3)))
        loss.backward()
        gradient = projection.grad / 2  # DDP averages
        dist.all_reduce(gradient)
        torch.save((loss.detach(), gradient), f"{folder}/rank{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_get_the_loss_and_gradient_of_the_whole_batch(tmp_path):
    other = multiprocessing.get_context("spawn").Process(
        target=one_process_of_two, args=(1, str(tmp_path)), daemon=True
    )
    other.start()
    one_process_of_two(0, str(tmp_path))
    other.join()
    projection = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3).sin().requires_grad_()
    loss = contrastive_loss(*projected(projection, slice(None)))
    loss.backward()
    for rank in range(2):
        found_loss, found_gradient = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        torch.testing.assert_close(found_loss, loss.detach())
        torch.testing.assert_close(found_gradient, projection.grad)


# The sum


def batch(dtype=torch.float32, count=4):
    prediction, target = (2 * values - 1 for values in images(count, 3, 32, 32, dtype=dtype))
    mu, logvar = latents(count, 8, dtype=dtype)
    return prediction, target, mu, logvar


def refuse(*_):
    raise AssertionError("a term without weight was computed")


def test_the_total_is_the_weighted_sum_of_terms_on_unit_pixels():
    prediction, target, mu, logvar = batch(torch.float64)
    z1, z2 = latents(4, 8, seed=1)
    subjects = torch.tensor([0, 0, 1, -1])
    weights = EarVAELossWeights(perceptual=0.7, ssim=1.1, edge=0.5, contrastive=0.05, center=3.0, kl=0.01)
    loss = EarVAELoss(weights, perceptual=lambda p, t: (p - t).square().mean((1, 2, 3)), focal_gamma=1.0)
    result = loss(prediction, target, mu, logvar, beta=0.002, z1=z1, z2=z2, subjects=subjects)
    total, terms = result.total, result.terms

    p, t = (prediction + 1) / 2, (target + 1) / 2
    expected = {
        "recon": reconstruction_loss(p, t, "l1", 1.0).mean(),
        "perceptual": F.mse_loss(p, t),
        "ssim": 1 - ssim(p, t).mean(),
        "edge": edge_loss(p, t).mean(),
        "contrastive": contrastive_loss(z1, z2, subjects),
        "center": center_loss(p, t).mean(),
        "kl": kl_divergence(mu, logvar).mean(),
    }
    assert set(terms) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)
    by_hand = (
        expected["recon"]
        + 0.7 * expected["perceptual"]
        + 1.1 * expected["ssim"]
        + 0.5 * expected["edge"]
        + 0.05 * expected["contrastive"]
        + 3.0 * expected["center"]
        + 0.002 * expected["kl"]
    )
    torch.testing.assert_close(total, by_hand)


@pytest.mark.parametrize("name", ["perceptual", "ssim", "edge", "contrastive", "center"])
def test_each_weight_acts_on_its_own_term(name):
    none = {"perceptual": 0.0, "ssim": 0.0, "edge": 0.0, "contrastive": 0.0, "center": 0.0, "kl": 0.0}
    prediction, target, mu, logvar = batch()
    z1, z2 = latents(4, 8, dtype=torch.float32)
    perceptual = lambda p, t: (p - t).abs().mean((1, 2, 3)) + 1  # noqa: E731
    loss = EarVAELoss(EarVAELossWeights(**(none | {name: 2.0})), perceptual=perceptual)
    result = loss(prediction, target, mu, logvar, z1=z1, z2=z2)
    total, terms = result.total, result.terms
    assert set(terms) == {"recon", "kl", name}
    torch.testing.assert_close(total, terms["recon"] + 2.0 * terms[name])


def test_terms_without_weight_are_not_computed(monkeypatch):
    monkeypatch.setattr("ear_teacher.losses.contrastive_loss", refuse)
    monkeypatch.setattr("ear_teacher.losses.IMAGE_TERMS", dict.fromkeys(IMAGE_TERMS, refuse))
    loss = EarVAELoss(EarVAELossWeights(0, 0, 0, 0, 0, 0.1), perceptual=refuse, reconstruction="mse")
    result = loss(*batch(), beta=0.0)
    total, terms = result.total, result.terms
    assert set(terms) == {"recon", "kl"}
    torch.testing.assert_close(total, terms["recon"])
    assert terms["kl"] > 0


def test_without_beta_the_kl_has_its_final_weight():
    loss = EarVAELoss(EarVAELossWeights(0, 0, 0, 0, 0, 0.1))
    result = loss(*batch())
    total, terms = result.total, result.terms
    torch.testing.assert_close(total, terms["recon"] + 0.1 * terms["kl"])


def test_kl_reduction_sums_or_averages_the_latents():
    mean = EarVAELoss(EarVAELossWeights(0, 0, 0, 0, 0, 1), kl_reduction="mean")(*batch()).terms["kl"]
    total = EarVAELoss(EarVAELossWeights(0, 0, 0, 0, 0, 1), kl_reduction="sum")(*batch()).terms["kl"]
    torch.testing.assert_close(total, 8 * mean)


def test_the_total_has_a_gradient_and_its_terms_have_none():
    prediction, target, mu, logvar = (values.requires_grad_() for values in batch())
    loss = EarVAELoss(EarVAELossWeights(0, 1, 0.5, 0.05, 3, 0.1))
    result = loss(prediction, target, mu, logvar, z1=mu, z2=mu + 0.1)
    total, terms = result.total, result.terms
    total.backward()
    for values in (prediction, mu, logvar):
        assert torch.isfinite(values.grad).all()
        assert values.grad.abs().max() > 0
    assert not any(term.requires_grad for term in terms.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_total_of_half_precision_is_that_of_the_same_values_in_float32(dtype):
    inputs = [values.to(dtype) for values in batch()]
    loss = EarVAELoss(EarVAELossWeights(0, 1, 0.5, 0.05, 3, 0.1))
    expected = loss(*(v.float() for v in inputs), z1=inputs[2].float(), z2=inputs[3].float()).total
    with torch.autocast("cpu", dtype=dtype):
        found = loss(*inputs, z1=inputs[2], z2=inputs[3]).total
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_a_weighted_term_that_cannot_be_computed_is_refused():
    with pytest.raises(ValueError, match="perceptual"):
        EarVAELoss(EarVAELossWeights(1.0, 0, 0, 0, 0, 0))
    with pytest.raises(ValueError, match="posterior samples"):
        EarVAELoss(EarVAELossWeights(0, 0, 0, 0.05, 0, 0))(*batch())
