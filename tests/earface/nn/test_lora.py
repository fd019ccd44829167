"""Low-rank adapters: nothing changes at the start, only they learn, and merging changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from earface.core.errors import InputError
from earface.nn.lora import add_adapters, merge_adapters
from facial_rec.model import EdgeFace


@pytest.mark.parametrize("variant", ["edgeface_xxs", "edgeface_xs_gamma_06"])
def test_adapted_edgeface_starts_as_it_was_learns_by_rank_and_merges_to_the_same_outputs(variant: str) -> None:
    torch.manual_seed(0)
    model = EdgeFace.from_weights("none", variant)
    names, before = set(model.state_dict()), {key: value.clone() for key, value in model.state_dict().items()}
    faces = torch.rand(2, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        pretrained = model(faces)
    add_adapters(model, 4)
    assert torch.equal(model(faces), pretrained)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(2):
        model(faces).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        adapted = model(faces)
    assert not torch.allclose(adapted, pretrained, atol=1e-4)
    merge_adapters(model)
    assert set(model.state_dict()) == names
    assert torch.equal(model(faces), adapted)
    changed = 0
    for key, value in model.state_dict().items():
        update = value - before[key]
        if value.ndim == 2 and update.abs().max() > 0:
            assert torch.linalg.matrix_rank(update.double(), atol=1e-5) <= 4  # float32's rounding is below
            changed += 1
        elif key not in dict(model.named_modules()):
            assert torch.equal(value, before[key]), key
    assert changed > 10


def test_an_adapter_as_large_as_every_layer_is_refused() -> None:
    with pytest.raises(InputError, match="give less than 8"):
        add_adapters(nn.Sequential(nn.Linear(8, 16)), 8)
