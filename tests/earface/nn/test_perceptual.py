import copy

import pytest
import timm
import torch
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from earface.core.errors import InputError
from earface.nn.perceptual import PerceptualLoss

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def pair(channels=3, size=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(2, channels, size, size, generator=generator) for _ in range(2))


@pytest.fixture(scope="module")
def vgg_layers():
    """torchvision's VGG16 up to its classifier, at random weights."""
    torch.manual_seed(0)
    return make_layers(cfgs["D"]).eval()


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tiny") / "tiny.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    return path


@pytest.fixture
def tiny(tiny_file):
    return PerceptualLoss("timm:test_resnet", tiny_file)


@pytest.mark.runs
@pytest.mark.parametrize("layout", ["torchvision", "timm"])
def test_vgg16_gives_torchvisions_relu_maps_from_either_layout(tmp_path, vgg_layers, layout):
    state = {f"features.{key}": value for key, value in vgg_layers.state_dict().items()}
    heads = ["classifier.6.weight"] if layout == "torchvision" else ["pre_logits.fc2.bias", "head.fc.weight"]
    torch.save(state | {key: torch.zeros(4) for key in heads}, tmp_path / "vgg16.pth")
    loss = PerceptualLoss("vgg16", tmp_path / "vgg16.pth")

    prediction, target = pair()
    distances = []
    a, b = ((images - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1) for images in (prediction, target))
    with torch.no_grad():
        maps = iter(loss.features(prediction))
        for index, layer in enumerate(vgg_layers):
            a, b = layer(a), layer(b)
            if index in (3, 8, 15, 22):  # relu1_2, relu2_2, relu3_3, relu4_3 of torchvision's numbering
                torch.testing.assert_close(next(maps), a)
                distances.append((a - b).abs().mean((1, 2, 3)))
    torch.testing.assert_close(loss(prediction, target), torch.stack(distances).mean(0), rtol=1e-5, atol=1e-7)
    assert next(maps, None) is None


def test_the_distance_of_an_image_to_itself_is_zero_and_to_others_is_its_own(tiny):
    prediction, target = pair()
    assert tiny(target, target).tolist() == [0, 0]
    both = tiny(prediction, target)
    assert (both > 0).all()
    torch.testing.assert_close(both[1:], tiny(prediction[1:], target[1:]))


def test_a_network_normalises_by_its_own_mean_and_deviation(tiny):
    prediction, _ = pair()
    expected = tiny.network((prediction - 0.5) / 0.5)  # timm's test models
    for found, wanted in zip(tiny.features(prediction), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_gradient_reaches_the_prediction_only(tiny):
    prediction, target = (images.requires_grad_() for images in pair())
    tiny(prediction, target).sum().backward()
    assert torch.isfinite(prediction.grad).all()
    assert prediction.grad.abs().max() > 0
    assert target.grad is None
    assert all(parameter.grad is None for parameter in tiny.network.parameters())


class Owner(nn.Module):
    def __init__(self, perceptual):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.perceptual = perceptual


def test_an_owner_neither_saves_nor_trains_nor_copies_the_network(tiny):
    owner = Owner(tiny)
    assert set(owner.state_dict()) == {"layer.weight", "layer.bias"}
    assert sum(parameter.numel() for parameter in owner.parameters()) == 6
    assert len(list(owner.modules())) == 2
    assert copy.deepcopy(owner).perceptual.network is tiny.network


def test_the_network_stays_frozen_while_its_owner_trains(tiny):
    owner = Owner(tiny).train()
    before = {name: tensor.clone() for name, tensor in tiny.network.state_dict().items()}
    assert not any(module.training for module in tiny.network.modules())
    assert not any(parameter.requires_grad for parameter in tiny.network.parameters())
    owner.perceptual(*pair()).sum()
    for name, tensor in tiny.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name  # batch norm's statistics


def test_grey_images_count_as_three_equal_channels(tiny_file):
    prediction, target = pair(channels=1)
    grey, colour = PerceptualLoss("timm:test_resnet", tiny_file, 1), PerceptualLoss("timm:test_resnet", tiny_file)
    torch.testing.assert_close(
        grey(prediction, target), colour(prediction.expand(-1, 3, -1, -1), target.expand(-1, 3, -1, -1))
    )


def test_moving_the_network_in_inference_mode_leaves_it_fit_for_training(tiny):
    with torch.inference_mode():
        tiny.to(dtype=torch.float64)
        tiny(*(images.double() for images in pair()))
    prediction, target = (images.double() for images in pair())
    tiny(prediction.requires_grad_(), target).sum().backward()
    assert prediction.grad.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_images_and_autocast_give_nearly_the_same_in_float32(tiny, dtype):
    prediction, target = pair()
    expected = tiny(prediction, target)
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            found = tiny(prediction.to(dtype), target.to(dtype))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.03, atol=0)


@pytest.mark.parametrize(("size", "grid"), [(64, 4), (100, 6), (5, 1)])
def test_images_are_resampled_to_whole_patches(tmp_path, size, grid):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    loss = PerceptualLoss("timm:test_vit", tmp_path / "vit.pth")  # patches of 16
    prediction, target = pair(size=size)
    assert {tuple(maps.shape[-2:]) for maps in loss.features(prediction)} == {(grid, grid)}
    assert (loss(prediction, target) > 0).all()


def test_images_are_resampled_to_the_only_size_that_a_network_takes(tmp_path):
    torch.save(timm.create_model("test_vit_relpos").state_dict(), tmp_path / "vit.pth")
    loss = PerceptualLoss("timm:test_vit_relpos", tmp_path / "vit.pth")
    assert loss.input_size == (160, 160)
    prediction, target = pair(size=70)
    assert (loss(prediction, target) > 0).all()


def test_weights_that_cannot_be_had_end_in_one_line_with_the_ways_out(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nonexistent")
    with pytest.raises(InputError) as caught:
        PerceptualLoss()
    message = str(caught.value)
    assert "\n" not in message
    for word in ("vgg16", "`perceptual_weight` 0", "`perceptual_backbone` timm:NAME", "`perceptual_weights` FILE"):
        assert word in message


def test_random_weights_and_unknown_backbones_are_refused(tiny_file):
    with pytest.raises(InputError, match="`perceptual_weights` none"):
        PerceptualLoss("vgg16", "none")
    with pytest.raises(InputError, match="`perceptual_backbone` alexnet: choose vgg16, dinov2 or timm:NAME"):
        PerceptualLoss("alexnet", tiny_file)
    with pytest.raises(InputError, match=r"tiny\.pth does not fit vgg16"):
        PerceptualLoss("vgg16", tiny_file)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        PerceptualLoss("timm:test_resnet", tiny_file, in_channels=2)
