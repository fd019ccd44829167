"""torch.compile takes each encoder, the decoder and the loss whole: a graph break would be an error here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torchvision.models.vgg import cfgs, make_layers

from ear_teacher.blocks import ConvAttentionBlock, ResidualBlock
from ear_teacher.config import EarVAEConfig
from ear_teacher.losses import EarVAELoss, EarVAELossWeights
from ear_teacher.model import EarVAE
from earface.nn.perceptual import PerceptualLoss

pytestmark = [pytest.mark.runs, pytest.mark.usefixtures("nothing_compiled")]

WHOLE = {"fullgraph": True, "backend": "aot_eager"}  # traced and differentiated as ever, without generated code


@pytest.mark.parametrize(
    "encoder",
    [
        "resnet18",
        "conv",
        "patches",
        pytest.param("resnet50", marks=pytest.mark.slow),
        pytest.param("dinov2", marks=pytest.mark.slow),
        pytest.param("sam", marks=pytest.mark.slow),
        pytest.param("timm:edgenext_xx_small", marks=pytest.mark.slow),
    ],
)
def test_an_encoder_and_its_decoder_are_one_graph_each(encoder: str) -> None:
    torch.manual_seed(0)
    patch, encoder = (4, "conv") if encoder == "patches" else (1, encoder)
    config = EarVAEConfig(
        encoder=encoder, image_size=64, latent_dim=8, base_channels=4, linear_path_size=16, patch_size=patch
    )
    model = EarVAE(config).train()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    latent = torch.randn(2, 8)

    def step() -> tuple[Tensor, ...]:
        model.zero_grad()
        torch.manual_seed(1)  # of drop path
        mu, logvar = model.encoder(images)
        made = model.decoder(latent)
        (mu.square().sum() + logvar.sum() + made.square().sum()).backward()
        grads = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        return mu.detach(), logvar.detach(), made.detach(), torch.stack(grads)

    wanted = step()
    model.encoder.compile(**WHOLE)
    model.decoder.compile(**WHOLE)
    for found, want in zip(step(), wanted, strict=True):
        assert torch.allclose(found, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("encoder", "graphs"), [("dinov2", 1), ("sam", 2)])  # SAM's windowed and global blocks
def test_blocks_that_are_alike_are_compiled_once(encoder: str, graphs: int) -> None:
    counters.clear()
    model = EarVAE(EarVAEConfig(encoder=encoder, image_size=64, latent_dim=8, base_channels=4)).eval()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        wanted = model.encoder(images)[0]
        model.encoder.backbone.compile_regions(**WHOLE)
        assert torch.allclose(model.encoder(images)[0], wanted, rtol=1e-3, atol=1e-4)
    assert counters["stats"]["unique_graphs"] == graphs


@pytest.fixture(scope="module")
def vgg16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the official file's layout, without its classifier of half a gigabyte."""
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.pth"
    torch.manual_seed(0)
    torch.save({f"features.{key}": value for key, value in make_layers(cfgs["D"]).state_dict().items()}, path)
    return path


@pytest.mark.parametrize("half", [False, True])
def test_the_seven_terms_are_one_graph(vgg16: Path, half: bool) -> None:
    weights = EarVAELossWeights(perceptual=1, ssim=1, edge=0.5, contrastive=0.05, center=3, kl=0.01)
    perceptual = PerceptualLoss("vgg16", vgg16)
    generator = torch.Generator().manual_seed(0)
    images, target = (torch.rand(4, 3, 32, 32, generator=generator) * 2 - 1 for _ in range(2))
    mu, logvar, z1, z2 = (torch.randn(4, 8, generator=generator) for _ in range(4))
    subjects = torch.tensor([0, 0, 1, -1])

    def run(loss: EarVAELoss) -> list[Tensor]:
        inputs = [each.clone().requires_grad_() for each in (images, mu, logvar, z1, z2)]
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            result = loss(inputs[0], target, *inputs[1:3], 0.3, z1=inputs[3], z2=inputs[4], subjects=subjects)
        result.total.backward()
        return [result.total.detach(), *result.terms.values(), *[each.grad for each in inputs if each.grad is not None]]

    wanted = run(EarVAELoss(weights, perceptual=perceptual))
    compiled = EarVAELoss(weights, perceptual=perceptual)
    compiled.compile(**WHOLE)
    found = run(compiled)
    assert len(found) == len(wanted) == 1 + 7 + 5
    for one, other in zip(found, wanted, strict=True):  # bfloat16 has 8 bits: rounded elsewhere, a norm moves by 1 %
        assert (one - other).norm() <= (0.05 if half else 1e-4) * other.norm()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler to generate code for CPUs")
def test_generated_code_gives_finite_gradients_in_half_precision() -> None:
    """Fused, the activations are not rounded to bfloat16 and equal no maximum that is: amax would divide 0 by 0."""
    torch.manual_seed(0)
    blocks = torch.nn.Sequential(ConvAttentionBlock(8, 16, squeeze_excitation=True), ResidualBlock(16, 16))
    compiled = torch.compile(blocks)
    with torch.autocast("cpu", torch.bfloat16):
        made = compiled(torch.randn(4, 8, 16, 16))
    made.float().square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in blocks.parameters())
