"""Network, loss and a whole training step as one graph each: `fullgraph=True` fails at the first graph break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dsr.config import DSRConfig, DSRTrainingConfig
from dsr.losses import DSRLoss, DSRLossWeights, load_perceptual
from dsr.model import DSR
from dsr.module import DSRLightning
from earface.nn.frozen import FrozenRecognizer
from tests.conftest import PERCEPTUAL
from tests.support.tensors import noise

pytestmark = [pytest.mark.runs, pytest.mark.usefixtures("nothing_compiled")]

ONE_GRAPH: dict[str, Any] = {"fullgraph": True, "backend": "aot_eager"}
WEIGHTS = DSRLossWeights(identity=0.6, feature_match=0.18, tv=2e-6)


def with_gradient(function: Callable[[Tensor], Tensor], given: Tensor) -> tuple[Tensor, Tensor]:
    """A scalar of `given`, which draws from the default generator as at every other call, and its gradient."""
    torch.manual_seed(0)
    leaf = given.clone().requires_grad_()
    value = function(leaf)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", ["32", "16", "14x16"])
def test_the_network_is_one_graph(size: str, training: bool) -> None:
    model = DSR(DSRConfig(8, 2, size)).train(training)
    vlr = noise(2, 3, model.config.vlr.height, model.config.vlr.width)
    compiled = torch.compile(model, **ONE_GRAPH)
    found, wanted = (with_gradient(lambda x, net=net: net(x).square().sum(), vlr) for net in (compiled, model))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("with_recognizer", "jitter"), [(False, 0.0), pytest.param(True, 0.06, marks=pytest.mark.slow)]
)
def test_the_loss_is_one_graph(with_recognizer: bool, jitter: float, recognizer: FrozenRecognizer) -> None:
    loss = DSRLoss(WEIGHTS, recognizer) if with_recognizer else DSRLoss(DSRLossWeights(tv=2e-6))
    hr, sr = noise(2, 3, 128, 128), noise(2, 3, 128, 128, seed=1)
    compiled = torch.compile(loss, **ONE_GRAPH)
    found, wanted = (with_gradient(lambda x, of=of: of(x, hr, jitter).total, sr) for of in (compiled, loss))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-7)


def test_a_training_step_in_half_precision_is_one_graph(recognizer: FrozenRecognizer, perceptual: list[str]) -> None:
    """All terms with jitter; the recogniser stays out of the module's parameters."""
    plan = {"perceptual_backbone": PERCEPTUAL, "perceptual_weights": perceptual[-1], "vlr_size": "16"}
    config = DSRTrainingConfig(base_channels=8, residual_blocks=1, **plan)
    module = DSRLightning(config, recognizer, None, load_perceptual(config))
    batch = {"vlr": noise(2, 3, 16, 16), "hr": noise(2, 3, 128, 128, seed=1), "index": torch.arange(2)}
    names, results = list(module.state_dict()), []
    for _ in range(2):
        torch.manual_seed(0)
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            result = module.objective(batch)
        result.total.backward()
        gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
        results.append(({"total": result.total, **result.terms, "embedding": result.embedding}, gradients))
        module.compile_networks(**ONE_GRAPH)
    assert results[0][0].keys() == {"total", "l1", "identity", "feature_match", "perceptual", "tv", "embedding"}
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-3)
    assert list(module.state_dict()) == names
