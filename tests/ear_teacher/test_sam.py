"""SAM's encoder: windows against timm's padded ones, sizes, and the original at 1024."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer_sam import Block, get_decomposed_rel_pos_bias, window_partition, window_unpartition
from torch import Tensor, nn
from torch.nn import functional as F

from ear_teacher.model import EarVAE
from ear_teacher.sam import WindowBlock
from earface.core.errors import InputError

SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 3, "num_heads": 2, "global_attn_indexes": (1,), "num_classes": 0}


def small_sam(**overrides: Any) -> nn.Module:
    return randomised(timm.create_model("samvit_base_patch16", **(SMALL | overrides)))


def randomised(module: nn.Module) -> nn.Module:
    """timm starts positions and biases at zero, where a mistake with them would not show."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module.eval()


def window_block() -> WindowBlock:
    block = WindowBlock(dim=32, num_heads=2, use_rel_pos=True, window_size=14, input_size=(64, 64))
    randomised(block)
    return block


def padded_and_masked(block: Block, x: Tensor) -> Tensor:
    """timm's block as it stands, windows padded to 14x14, but no token attends to the padding."""
    size, (height, width) = block.window_size, x.shape[1:3]
    windows, padded = window_partition(block.norm1(x), size)
    inside, _ = window_partition(torch.ones(*x.shape[:3], 1), size)
    attention: Any = block.attn
    count = len(windows)
    qkv = attention.qkv(windows.flatten(1, 2)).view(count, size**2, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.flatten(1, 2).unbind(0)
    bias = get_decomposed_rel_pos_bias(q, attention.rel_pos_h, attention.rel_pos_w, (size, size), (size, size))
    scores = q @ k.transpose(1, 2) * attention.head_dim**-0.5 + bias
    keep = inside.flatten(1).bool().repeat_interleave(attention.num_heads, 0)
    weights = scores.masked_fill(~keep[:, None], -torch.inf).softmax(-1)
    attended = (
        (weights @ v).view(count, attention.num_heads, size**2, -1).transpose(1, 2).reshape(count, size, size, -1)
    )
    x = x + window_unpartition(attention.proj(attended), size, (height, width), padded)
    return x + block.mlp(block.norm2(x))


@pytest.mark.parametrize("grid", [(2, 2), (8, 8), (14, 14), (16, 16), (20, 9), (28, 28), (33, 30)])
def test_windows_cut_at_the_border_equal_padded_windows_whose_padding_is_masked(grid: tuple[int, int]) -> None:
    block = window_block()
    x = torch.randn(2, *grid, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(block(x), padded_and_masked(block, x), rtol=1e-5, atol=1e-5)


def test_windows_have_the_gradients_of_padded_windows_whose_padding_is_masked() -> None:
    gradients = []
    for forward in (WindowBlock.forward, padded_and_masked):
        block = window_block()
        x = torch.randn(1, 16, 9, 32, generator=torch.Generator().manual_seed(1))
        forward(block, x).square().mean().backward()
        gradients.append([parameter.grad for parameter in block.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_windows_that_divide_the_grid_equal_timms() -> None:
    block = window_block()
    x = torch.randn(1, 28, 14, 32)
    with torch.no_grad():
        torch.testing.assert_close(block(x), Block.forward(block, x), rtol=1e-5, atol=1e-5)


def test_global_blocks_equal_timms_at_every_size() -> None:
    """Their tables of 127 rows are interpolated to the grid."""
    block = WindowBlock(dim=32, num_heads=2, use_rel_pos=True, window_size=0, input_size=(64, 64))
    randomised(block)
    for grid in ((8, 8), (9, 5), (20, 20)):
        x = torch.randn(1, *grid, 32, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            torch.testing.assert_close(block(x), Block.forward(block, x), rtol=1e-5, atol=1e-5)


def test_at_1024_every_feature_is_timms() -> None:
    """64 is no multiple of 14: the original pads to 70 and attends to the padding."""
    ours, theirs = small_sam(block_fn=WindowBlock), small_sam()
    images = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, wanted = ours.forward_features(images), theirs.forward_features(images)  # type: ignore[operator]
    assert torch.equal(found, wanted)


def test_at_992_the_padding_is_not_attended_to() -> None:
    """One step below the pretraining size timm's padding shows; ours is cut."""
    ours, theirs = small_sam(block_fn=WindowBlock), small_sam()
    images = torch.randn(1, 3, 992, 992, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, wanted = ours.forward_features(images), theirs.forward_features(images)  # type: ignore[operator]
    assert not torch.allclose(found, wanted, atol=1e-2)


@pytest.mark.parametrize(("size", "grid"), [(0, 4), (32, 2), (80, 5)])
def test_sam_size_is_the_side_that_the_encoder_sees(size: int, grid: int) -> None:
    model = EarVAE(encoder="sam", image_size=64, sam_size=size, latent_dim=4, base_channels=4).eval()
    with torch.no_grad():
        maps = model.features(torch.zeros(1, 3, 64, 64))
        assert [tuple(found.shape[1:]) for found in maps] == [(768, grid, grid)] * 3 + [(256, grid, grid)]
        assert model.encode(torch.zeros(1, 3, 64, 64)).shape == (1, 4)


@pytest.mark.parametrize("size", [40, 1040])
def test_a_sam_size_that_patches_do_not_divide_is_refused(size: int) -> None:
    with pytest.raises(InputError, match=f"`sam_size` {size}: must be a multiple of 16"):
        EarVAE(encoder="sam", sam_size=size)


def test_checkpointed_blocks_give_equal_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = EarVAE(encoder="sam", image_size=32, latent_dim=4, base_channels=4, linear_path_size=0)
        model.encoder.freeze(6)
        if checkpointing:
            model.encoder.backbone.set_grad_checkpointing()
        mu, _ = model.encoder(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
        F.mse_loss(mu, torch.ones_like(mu)).backward()
        gradients.append({name: value.grad for name, value in model.encoder.named_parameters() if value.requires_grad})
    assert any(grad is not None and grad.any() for name, grad in gradients[0].items() if "blocks.6.attn" in name)
    torch.testing.assert_close(*gradients)
