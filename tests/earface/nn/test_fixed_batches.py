"""Equal images get equal numbers from this machine's kernels, wherever they are in the batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from earface.nn.fixed_batches import in_fixed_batches

BATCH = 8
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "sigmoid in place": lambda x: x.clone().sigmoid_(),
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "softplus": F.softplus,
    "elu": F.elu,
    "mish": F.mish,
    "pow": lambda x: x.abs().pow(1.7),
}


def assert_equal_rows(function: Callable[[Tensor], Tensor], image: Tensor) -> None:
    (rows,) = in_fixed_batches(lambda part: (function(part),), image.expand(BATCH, *image.shape[1:]), BATCH)
    assert torch.equal(rows, rows[:1].expand_as(rows))
    torch.testing.assert_close(rows[:1], function(image))


@pytest.mark.parametrize("shape", [(1, 5, 5), (7, 7, 7), (31, 9, 9), (8, 64, 64)])
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_whose_vectors_do_not_end_where_an_image_ends(
    function: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> None:
    """A 160 px ViT's gates, 8 x 1 x 5 x 5, are where it was seen."""
    for seed in range(10):
        assert_equal_rows(function, torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)) * 3)


@pytest.mark.parametrize(("channels", "made", "side"), [(48, 1, 5), (12, 1, 3), (25, 8, 3), (5, 5, 7), (64, 32, 8)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_1x1_convolution_whose_images_lie_anywhere_in_memory(
    channels: int, made: int, side: int, layout: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, channels, side, side, generator=generator)
    weight = torch.randn(made, channels, 1, 1, generator=generator)
    for stride in (1, 2):
        assert_equal_rows(
            lambda x, stride=stride: F.conv2d(x.contiguous(memory_format=layout), weight, stride=stride), image
        )
