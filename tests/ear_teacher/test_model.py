"""The ear VAE: shapes, one embedding per ear, the linear path against PCA, and what a checkpoint gives back."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from ear_teacher import EarVAE, EarVAELightning
from ear_teacher.backbones import TimmBackbone
from ear_teacher.config import EarVAEConfig
from ear_teacher.encoders import LOGVAR_LIMIT
from ear_teacher.linear_path import LinearPath, bicubic_matrix
from ear_teacher.posterior import AggregatePosterior, LatentMoments
from ear_teacher.train import main
from earface.core.errors import InputError
from earface.data.pixels import to_model_range
from earface.nn.checkpoint import read_checkpoint
from tests.conftest import TINY

RESNET, CONVNEXT, VIT = "resnet18", "timm:convnext_atto", "timm:test_vit"


def small(encoder: str = "conv", **options: int) -> EarVAE:
    torch.manual_seed(0)
    defaults = {"base_channels": 4, "latent_dim": 8, "image_size": 64, "linear_path_size": 0}
    return EarVAE(encoder=encoder, **(defaults | options))


def noise(count: int, channels: int = 3, size: int = 64) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(size)) * 2 - 1


def latents(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mu = torch.randn(count, 8, generator=generator) @ torch.randn(8, 8, generator=generator) + 1
    return mu, torch.randn(count, 8, generator=generator) - 2


@pytest.fixture(scope="module")
def checkpoint(ear_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """last.ckpt of an epoch of training, with an average of the weights."""
    folder = tmp_path_factory.mktemp("model")
    data = ("--train-npy", str(ear_set / "train_teacher.npy"), "--val-npy", str(ear_set / "val_teacher.npy"))
    places = ("--checkpoint-dir", str(folder / "checkpoints"), "--log-dir", str(folder / "logs"))
    assert main([*data, *places, *TINY, "--epochs", "1", "--ema-decay", "0.9", "--lr", "1e-2"]) == 0
    return folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def ears(ear_set: Path) -> Tensor:
    """13 of the synthetic training ears, in [-1, 1]."""
    from earface.data.image_cache import open_image_cache
    from earface.data.npy import read_teacher_npy

    data = read_teacher_npy(ear_set / "train_teacher.npy")
    cache = open_image_cache(data, image_size=64, channels=3, cache_dir=ear_set / ".cache")
    return to_model_range(torch.from_numpy(np.array(cache.images[:13])))


# Shapes and ranges


@pytest.mark.parametrize(
    ("encoder", "channels", "size"),
    [
        ("conv", 3, 32),
        ("conv", 1, 96),
        ("conv", 3, 128),
        (RESNET, 3, 64),
        (RESNET, 1, 128),
        (CONVNEXT, 1, 32),
        (CONVNEXT, 3, 96),
        (VIT, 3, 64),
    ],
)
@pytest.mark.parametrize(("path", "patch"), [(0, 1), (32, 1), (0, 4), (32, 2), (32, 8)])
def test_shapes_and_ranges(encoder: str, channels: int, size: int, path: int, patch: int) -> None:
    model = small(encoder, in_channels=channels, image_size=size, linear_path_size=path, patch_size=patch)
    images = noise(2, channels, size)
    reconstruction, mu, logvar = model(images)
    assert reconstruction.shape == images.shape
    assert mu.shape == logvar.shape == (2, 8)
    assert reconstruction.abs().max() <= 1
    assert logvar.abs().max() <= LOGVAR_LIMIT


@torch.no_grad()
@pytest.mark.parametrize("path", [0, 32])
@pytest.mark.parametrize("brightness", [-50.0, 50.0])
def test_no_decoder_output_leaves_the_range(path: int, brightness: float) -> None:
    model = small(linear_path_size=path).eval()
    nn.init.constant_(model.decoder.to_pixels.bias, brightness)
    assert (model.decode(latents(2)[0]) == np.sign(brightness)).all()


@pytest.mark.parametrize(("encoder", "strides"), [("conv", [2, 4, 8, 16]), (RESNET, [4, 8, 16, 32])])
def test_features_are_maps_finest_first(encoder: str, strides: list[int]) -> None:
    maps = small(encoder).features(noise(2))
    assert [tuple(found.shape[2:]) for found in maps] == [(64 // stride, 64 // stride) for stride in strides]
    assert [found.shape[1] for found in maps] == small(encoder).encoder.backbone.channels


def test_the_posterior_head_keeps_large_log_variances_in_range() -> None:
    model = small()
    nn.init.constant_(model.encoder.head.logvar.bias, 1e6)
    assert (model(noise(2))[2] == LOGVAR_LIMIT).all()


def test_noise_is_added_while_training_only() -> None:
    model = small()
    images = noise(2)
    mu, _ = model.encoder(images)
    assert not torch.equal(model(images)[0], model.decode(mu))
    reconstruction, mu, _ = model.eval()(images)
    assert torch.equal(reconstruction, model.decode(mu))


def test_reparameterised_samples_have_the_posteriors_moments() -> None:
    mu, logvar = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, -4.0]])
    torch.manual_seed(0)
    samples = small().reparameterize(mu.expand(50_000, -1), logvar.expand(50_000, -1))
    assert samples.mean(0).tolist() == pytest.approx([1.0, -2.0], abs=0.02)
    assert samples.std(0).tolist() == pytest.approx([1.0, np.exp(-2.0)], rel=0.02)


# One embedding per ear


def assert_one_embedding_each(model: EarVAE, images: Tensor) -> None:
    alone = torch.cat([model.encode(image[None]) for image in images])
    shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    for order in (torch.arange(len(images)), torch.arange(len(images)).flip(0), shuffled):
        for size in (2, 5, 8, 9, 13):
            embedded = torch.cat([model.encode(part) for part in images[order].split(size)])
            assert torch.equal(embedded, alone[order]), f"batches of {size}"


@torch.no_grad()
def test_a_trained_model_gives_an_ear_the_same_bits_alone_and_in_any_batch(checkpoint: Path, ears: Tensor) -> None:
    model = EarVAE.load_from_checkpoint(str(checkpoint))
    assert not model.training
    assert_one_embedding_each(model, ears)


@torch.no_grad()
@pytest.mark.parametrize("encoder", [RESNET, CONVNEXT, VIT])
def test_any_encoder_gives_an_ear_the_same_bits_alone_and_in_any_batch(encoder: str, ears: Tensor) -> None:
    assert_one_embedding_each(small(encoder).eval(), ears)


@torch.no_grad()
def test_reconstruct_is_decode_of_encode(checkpoint: Path, ears: Tensor) -> None:
    model = EarVAE.load_from_checkpoint(str(checkpoint))
    assert torch.equal(model.decode(model.encode(ears)), model.reconstruct(ears))


def test_no_images_give_no_embeddings() -> None:
    assert small().eval().encode(noise(0)).shape == (0, 8)


@torch.no_grad()
def test_an_interpolation_ends_at_the_reconstructions(checkpoint: Path, ears: Tensor) -> None:
    model = EarVAE.load_from_checkpoint(str(checkpoint))
    line = model.interpolate(ears[:2], ears[2:4], steps=5)
    assert line.shape == (2, 5, 3, 64, 64)
    assert torch.allclose(line[:, 0], model.reconstruct(ears[:2]), atol=1e-5)
    assert torch.allclose(line[:, -1], model.reconstruct(ears[2:4]), atol=1e-5)
    middle = model.decode((model.encode(ears[:2]) + model.encode(ears[2:4])) / 2)
    assert torch.allclose(line[:, 2], middle, atol=1e-5)


@pytest.mark.parametrize("source", ["prior", "posterior"])
def test_samples_are_a_function_of_the_generator(checkpoint: Path, source: str) -> None:
    model = EarVAE.load_from_checkpoint(str(checkpoint))
    first, again, other = (model.sample(3, source, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.shape == (3, 3, 64, 64)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_source_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no aggregate posterior"):
        small().eval().sample(1, "posterior")
    with pytest.raises(ValueError, match="'prior' or 'posterior'"):
        small().eval().sample(1, "posteriour")


# Freezing


def state(modules: list[nn.Module]) -> list[Tensor]:
    return [value.clone() for module in modules for value in module.state_dict().values()]


@pytest.mark.parametrize("encoder", ["conv", RESNET, CONVNEXT, VIT])
@pytest.mark.parametrize("groups", [0, 2])
def test_frozen_groups_get_no_gradient_and_keep_their_statistics(encoder: str, groups: int) -> None:
    model = small(encoder)
    model.encoder.freeze(groups)
    frozen = [module for group in model.encoder.layer_groups()[:groups] for module in group]
    learning = [module for group in model.encoder.layer_groups()[groups:] for module in group]
    before, moving = state(frozen), state(learning)
    model.eval()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    reconstruction, mu, _ = model.train()(noise(2))
    (reconstruction.square().mean() + mu.square().mean()).backward()
    optimizer.step()
    assert all(p.grad is None for module in frozen for p in module.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, state(frozen), strict=True))
    registered = set(model.modules())  # not the list that holds a transformer's position embedding
    assert not any(module.training for top in frozen for module in top.modules() if module in registered)
    assert not all(torch.equal(old, new) for old, new in zip(moving, state(learning), strict=True))
    assert all(module.training for top in learning for module in top.modules())


def test_a_frozen_vit_keeps_its_position_embedding() -> None:
    model = small(VIT)
    model.encoder.freeze(1)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any("pos_embed" in name or "patch_embed" in name for name in trainable)


@pytest.mark.parametrize("encoder", ["conv", RESNET, CONVNEXT, VIT])
def test_layer_groups_hold_every_learning_backbone_parameter_once(encoder: str) -> None:
    backbone = small(encoder).encoder.backbone
    listed = [id(p) for group in backbone.layer_groups() for module in group for p in module.parameters()]
    assert len(listed) == len(set(listed))
    absent = [name for name, p in backbone.named_parameters() if id(p) not in set(listed)]
    assert absent == []


def test_freezing_more_groups_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="`freeze_layers` 5: this encoder has 4 layer groups"):
        small().encoder.freeze(5)


# The linear path


@pytest.fixture(scope="module")
def shrunk(ears: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(ears, 2)  # 32x32


@torch.no_grad()
def test_a_new_model_reconstructs_as_pca_does(shrunk: Tensor) -> None:
    model = small(image_size=32, linear_path_size=32).eval()
    assert model.linear_path is not None
    model.linear_path.fit(model.linear_path.downsample(shrunk))
    rows = shrunk.flatten(1).double().numpy()
    pca = PCA(8, svd_solver="full").fit(rows)
    wanted = torch.from_numpy(pca.inverse_transform(pca.transform(rows))).view_as(shrunk).clamp(-1, 1)
    assert torch.allclose(model.reconstruct(shrunk).double(), wanted, atol=1e-4)


@torch.no_grad()
def test_the_decoder_sees_the_picture_of_the_path_at_every_grid(ears: Tensor) -> None:
    model = small(image_size=64, linear_path_size=64).eval()
    assert model.linear_path is not None
    model.linear_path.fit(model.linear_path.downsample(ears))
    mu = model.encode(ears[:3])
    seen: list[Tensor] = []
    for up in model.decoder.ups:
        up.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    model.decode(mu)
    picture = model.linear_path.decode(mu)
    for shown, shrink in zip(reversed(seen), (1, 2, 4, 8, 16), strict=True):
        assert torch.allclose(shown, nn.functional.avg_pool2d(picture, shrink), atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("patch", [2, 4, 8])
def test_a_decoder_of_patches_sees_every_pixel_of_the_path_at_every_grid(ears: Tensor, patch: int) -> None:
    """Of squares of 16 pixels, 8 and so on: a change of one pixel is seen by the place that it lies in."""
    model = small(image_size=64, linear_path_size=64, patch_size=patch).eval()
    patches = [scale.patch for scale in model.decoder.scales]
    assert patches == [16, 8, 4, 2][: len(patches)]
    assert patches[-1] == patch
    guide = ears[:1].clone()
    changed = guide.clone()
    changed[0, 0, 37, 22] += 1.0
    for scale in model.decoder.scales:
        assert scale.guide is not None
        first, second = (scale.guide(nn.functional.pixel_unshuffle(given, scale.patch)) for given in (guide, changed))
        moved = (second - first).abs().amax((0, 1))
        assert tuple(moved.shape) == (64 // scale.patch, 64 // scale.patch)
        assert moved[37 // scale.patch, 22 // scale.patch] > 1e-3
        assert (moved > 1e-6).sum() <= 9  # and its neighbours


def test_every_part_of_a_decoder_of_patches_learns() -> None:
    """Most starts at zero, but nothing behind a zero that keeps the gradient away for good."""
    model = small(image_size=64, linear_path_size=64, patch_size=4)
    assert model.linear_path is not None
    model.linear_path.fit(torch.randn(40, 3 * 64 * 64) * 0.2)
    optimizer = torch.optim.Adam(model.decoder.parameters(), lr=1e-3)
    start = {name: value.clone() for name, value in model.decoder.named_parameters()}
    for _ in range(4):
        optimizer.zero_grad()
        (model.decode(torch.randn(4, 8)) - noise(4)).square().sum().backward()
        optimizer.step()
    same = [name for name, value in model.decoder.named_parameters() if torch.equal(value, start[name])]
    assert same == []


@torch.no_grad()
def test_the_encoder_alone_gives_the_whole_posterior_and_the_decoder_the_whole_picture(
    checkpoint: Path, ears: Tensor
) -> None:
    """The linear path is in both: without it a latent is a correction, which looks like one and means nothing."""
    model = EarVAE.load_from_checkpoint(str(checkpoint))
    copied = copy.deepcopy(model)
    for vae in (model, copied):
        mu, logvar = vae.encoder(ears)
        for found, wanted in zip((mu, logvar), vae.encode_posterior(ears), strict=True):
            assert torch.allclose(found, wanted, atol=1e-5)
        assert torch.equal(vae.decoder(mu), vae.decode(mu))
    assert model.linear_path is not None
    assert (mu - copied.encoder.head(copied.encoder.features(ears)[-1])[0]).abs().max() > 0.1  # the path's part
    assert copied.encoder.linear_path is copied.linear_path is copied.decoder.linear_path is not model.linear_path
    assert [name for name in model.state_dict() if "linear_path" in name] == [
        f"linear_path.{name}" for name in ("mean", "components", "stds")
    ]


@torch.no_grad()
def test_a_smaller_path_adds_detail_of_its_own_size_only(ears: Tensor) -> None:
    path = LinearPath(12, 3, 32, 64)
    rows = ears.view(13, 3, 32, 2, 32, 2).mean((3, 5)).flatten(1)
    assert torch.allclose(path.downsample(ears), rows, atol=1e-6)
    path.fit(rows)
    wanted = nn.functional.interpolate(rows.view(13, 3, 32, 32), (64, 64), mode="bicubic")
    assert torch.allclose(path.decode(path.encode(ears)), wanted, atol=1e-3)  # 12 components hold 13 ears


@torch.no_grad()
def test_a_second_pass_through_the_path_changes_nothing(shrunk: Tensor) -> None:
    path = LinearPath(8, 3, 32, 32)
    path.fit(path.downsample(shrunk))
    once = path.decode(path.encode(noise(4, size=32)))
    assert torch.allclose(path.decode(path.encode(once)), once, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("count", "carrying"), [(13, 8), (5, 4), (1, 0)])
def test_path_latents_are_whitened_on_the_images_fitted(shrunk: Tensor, count: int, carrying: int) -> None:
    """N images span N - 1 components; the other latents are zero."""
    path = LinearPath(8, 3, 32, 32)
    path.fit(path.downsample(shrunk[:count]))
    codes = path.encode(shrunk[:count]).double()
    assert torch.allclose(codes.mean(0), torch.zeros(8).double(), atol=1e-3)
    if count > 1:
        wanted = torch.diag(torch.tensor([1.0] * carrying + [0.0] * (8 - carrying))).double()
        assert torch.allclose(torch.cov(codes.T), wanted, atol=1e-3)
    assert torch.isfinite(codes).all()


# The aggregate posterior and the latents' moments


def moments_of(mu: Tensor, logvar: Tensor, *sizes: int) -> LatentMoments:
    moments = LatentMoments(8)
    for part in zip(mu.split(sizes or len(mu)), logvar.split(sizes or len(mu)), strict=True):
        moments.add(*part)
    return moments


def test_moments_equal_numpys_however_the_images_are_batched() -> None:
    mu, logvar = latents(40)
    moments = moments_of(mu, logvar, 7, 32, 1)
    exact, variance = mu.double().numpy(), logvar.double().exp().numpy()
    assert np.allclose(moments.mean, exact.mean(0))
    assert np.allclose(moments.covariance, np.cov(exact.T, bias=True))
    assert np.allclose(moments.mean_variance, variance.mean(0))
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(mu.double(), (0.5 * logvar.double()).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    assert np.allclose(moments.kl_per_dimension, kl.mean(0), rtol=1e-5)
    assert moments.count == 40


def test_the_aggregate_posterior_is_the_mixtures_gaussian() -> None:
    mu, logvar = latents(40)
    fitted = AggregatePosterior.fit(moments_of(mu, logvar))
    wanted = np.cov(mu.double().numpy().T, bias=True) + np.diag(logvar.double().exp().mean(0).numpy())
    assert np.allclose(fitted.factor @ fitted.factor.T, wanted, rtol=1e-3, atol=1e-4)
    samples = fitted.sample(100_000, torch.Generator().manual_seed(0)).numpy()
    assert np.allclose(samples.mean(0), mu.mean(0), atol=0.05)
    assert np.allclose(np.cov(samples.T), wanted, atol=0.05 * wanted.max())


def test_one_image_is_enough_for_an_aggregate_posterior() -> None:
    mu, logvar = latents(1)
    fitted = AggregatePosterior.fit(moments_of(mu, logvar))
    assert torch.allclose(fitted.factor.diagonal().square(), logvar[0].exp(), rtol=1e-3, atol=1e-5)


def test_active_units_are_those_whose_mean_varies() -> None:
    mu, logvar = latents(2000)
    mu = (mu - mu.mean(0)) / mu.std(0) * torch.tensor([1.0, 0.11, 0.09, 0.0, 2.0, 0.05, 0.3, 0.0]) + 5
    assert moments_of(mu, logvar).active_units == 4  # variance above .01


@pytest.mark.parametrize(("active", "warns"), [(0, True), (1, True), (2, False), (8, False)])
def test_collapse_is_reported_by_name_with_its_numbers(active: int, warns: bool) -> None:
    mu, logvar = latents(100)
    mu = torch.cat([mu[:, :active], torch.zeros(100, 8 - active)], dim=1)
    reason = moments_of(mu, logvar).collapse_warning()
    assert (reason is not None) is warns
    if reason:
        assert reason.startswith(f"posterior collapse: {active} of 8 latents are active")
        assert "`kl_weight`" in reason


# Checkpoints and configurations


@pytest.mark.parametrize("weights", ["averaged", "raw"])
def test_both_sets_of_weights_are_read(checkpoint: Path, weights: str) -> None:
    stored = read_checkpoint(checkpoint)["state_dict" if weights == "averaged" else "current_model_state"]
    model = EarVAE.load_from_checkpoint(str(checkpoint), weights=weights)
    loaded = {f"model.{name}": value for name, value in model.state_dict().items()}
    assert loaded.keys() == stored.keys()
    assert all(torch.equal(loaded[name], stored[name]) for name in stored)


def test_raw_and_averaged_weights_differ(checkpoint: Path, ears: Tensor) -> None:
    raw, averaged = (EarVAE.load_from_checkpoint(str(checkpoint), weights=w) for w in ("raw", "averaged"))
    assert not torch.equal(raw.encode(ears[:1]), averaged.encode(ears[:1]))


@torch.no_grad()
def test_the_lightning_module_returns_what_the_model_returns(checkpoint: Path, ears: Tensor) -> None:
    pattern = str(checkpoint.parent / "last*.ckpt")
    model, module = EarVAE.load_from_checkpoint(pattern), EarVAELightning.load_from_checkpoint(pattern)
    code = model.encode(ears)
    assert torch.equal(module.encode(ears), code)
    assert torch.equal(module.decode(code), model.decode(code))
    assert torch.equal(module.reconstruct(ears), model.reconstruct(ears))
    assert all(torch.equal(mine, its) for mine, its in zip(module(ears), model(ears), strict=True))
    torch.manual_seed(0)
    samples = module.sample(2, "posterior")
    torch.manual_seed(0)
    assert torch.equal(samples, model.sample(2, "posterior"))


def test_a_checkpoint_of_another_configuration_is_one_line_that_names_the_difference(checkpoint: Path) -> None:
    with pytest.raises(InputError) as caught:
        small(latent_dim=9, linear_path_size=16).load_weights(read_checkpoint(checkpoint), str(checkpoint))
    assert str(caught.value).startswith(str(checkpoint))
    assert str(caught.value).endswith("it was made with latent_dim 8")


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="holds no ear VAE"):
        EarVAE.load_from_checkpoint(str(tmp_path / "other.ckpt"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"encoder": "resnet51"},
            "`encoder` resnet51: choose one of resnet18, .*conv, edgeface_xs, .*timm:NAME",
        ),
        ({"encoder": "timm:convnext_attoo"}, "timm has no model convnext_attoo; near it: .*convnext_atto"),
        ({"encoder": "conv", "image_size": 100}, "`image_size` 100: must be a multiple of 32"),
        ({"encoder": "conv", "image_size": 0}, "`image_size` 0: must be at least 32"),
        ({"encoder": "conv", "in_channels": 2}, "`in_channels` 2: must be 1"),
        ({"encoder": "conv", "latent_dim": 1}, "`latent_dim` 1: must be at least 2"),
        ({"encoder": "conv", "image_size": 64, "linear_path_size": 65}, "`linear_path_size` 65: must be at most"),
    ],
)
def test_a_model_that_cannot_be_built_is_one_line(options: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        EarVAE(EarVAEConfig(**options))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_permuted_from_channels_last_give_the_same_embeddings(channels: int) -> None:
    """A permuted grey batch calls itself contiguous, and crashed oneDNN."""
    torch.manual_seed(0)
    model = EarVAE(
        encoder="conv", base_channels=4, image_size=64, latent_dim=8, linear_path_size=0, in_channels=channels
    )
    permuted = torch.rand(8, 64, 64, channels).permute(0, 3, 1, 2)
    plain = torch.empty(permuted.shape).copy_(permuted)
    assert permuted.stride() != plain.stride()
    for _ in range(4):  # the first overrun is not always the one that shows
        (model(permuted)[0].square().mean() + model(permuted)[1].square().mean()).backward()
    model.eval()
    assert torch.equal(model.encode(permuted), model.encode(plain))
    for ours, theirs in zip(model.features(permuted), model.features(plain), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (
            torch.zeros(2, 3, 32, 32),
            r"expected float images \(B, 3, 64, 64\) in \[-1, 1\], not torch.float32 \(2, 3, 32, 32\)",
        ),
        (torch.zeros(2, 1, 64, 64), r"not torch.float32 \(2, 1, 64, 64\)"),
        (torch.zeros(3, 64, 64), r"not torch.float32 \(3, 64, 64\)"),
        (torch.zeros(2, 3, 64, 64, dtype=torch.uint8), "not torch.uint8"),
    ],
)
def test_images_of_another_form_are_named(images: Tensor, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        small().eval().encode(images)


@pytest.mark.parametrize(("size", "side"), [(16, 64), (64, 128), (48, 128)])
def test_enlarging_by_a_matrix_is_bicubic_interpolation(size: int, side: int) -> None:
    images = torch.randn(2, 3, size, size)
    matrix = bicubic_matrix(size, side)
    wanted = torch.nn.functional.interpolate(images, (side, side), mode="bicubic", align_corners=False)
    assert torch.allclose(matrix @ images @ matrix.T, wanted, atol=1e-5)


# timm's families

SMALL = ("test_", "atto", "femto", "pico", "nano", "xx_small", "xxs", "tiny", "_s0", "_m0", "_b0", "050", "small", "_s")
PLAIN_MAPS = ["test_byobnet", "test_efficientnet", "test_maxvit", "test_vit", "hiera_tiny_224", "xcit_nano_12_p8_224"]
CHANNELS_LAST = ["test_mambaout", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "sequencer2d_s"]
NOT_AT_64 = (
    *("byoanet", "convmixer", "crossvit", "deepseek_vit", "efficientformer", "eva"),
    *("inception_resnet_v2", "inception_v3", "inception_v4"),
)
ADVICE = {  # for models of one size, some of which no ear VAE has
    **{"crossvit_tiny_240": "another `image_size`", "efficientformer_l1": "`image_size` 224"},
    **{"halonet26t": "`image_size` 256", "inception_v3": "another `image_size`"},
}


def check_timm_backbone(name: str, size: int) -> None:
    """Its maps are what it says, (B, C, H, H) with finer ones first, and each of its parameters is in one group."""
    backbone = TimmBackbone(name, 3, size, "none")
    maps = backbone(torch.rand(2, 3, size, size) * 2 - 1)
    shapes = list(zip(backbone.channels, backbone.grids, strict=True))
    assert [tuple(each.shape) for each in maps] == [(2, channels, grid, grid) for channels, grid in shapes]
    assert backbone.grids == sorted(backbone.grids, reverse=True)
    assert max(backbone.grids) <= size // 3
    torch.stack([each.square().mean() for each in maps]).mean().backward()
    grouped = [parameter for group in backbone.layer_groups() for module in group for parameter in module.parameters()]
    assert sorted(map(id, grouped)) == sorted(map(id, backbone.parameters()))


@pytest.mark.parametrize("name", [*PLAIN_MAPS, *CHANNELS_LAST])
def test_maps_of_any_timm_family(name: str) -> None:
    check_timm_backbone(name, 64)


@pytest.mark.parametrize(("name", "advice"), ADVICE.items())
def test_a_timm_model_that_cannot_take_the_size_is_one_line(name: str, advice: str) -> None:
    with pytest.raises(InputError, match=rf"timm:{name}: gives no maps of a 64 px .*: try {advice}, or") as caught:
        TimmBackbone(name, 3, 64, "none")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("family", timm.list_modules())
def test_each_timm_family_gives_maps_or_is_refused_in_one_line(family: str) -> None:
    def size_of(name: str) -> tuple[int, int]:
        return next((place for place, part in enumerate(SMALL) if part in name), len(SMALL)), len(name)

    name = min(timm.list_models(module=family), key=size_of)
    if family in NOT_AT_64:
        with pytest.raises(InputError, match="`image_size`"):
            TimmBackbone(name, 3, 64, "none")
    else:
        check_timm_backbone(name, 64)


def test_an_ear_vae_on_channels_last_maps_learns_and_comes_back(tmp_path: Path) -> None:
    model = small("timm:test_mambaout")
    mu, logvar = model.encode_posterior(noise(2))
    (mu.square().mean() + logvar.square().mean()).backward()
    assert all(parameter.grad is not None for parameter in model.encoder.backbone.parameters())
    model.eval().save_pretrained(tmp_path)
    assert torch.equal(EarVAE.from_pretrained(tmp_path).encode(noise(2)), model.encode(noise(2)))
