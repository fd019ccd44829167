"""Networks, margin heads and training steps as one graph each: `fullgraph=True` fails at the first graph break."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from earface.nn.margin_head import Margin, MarginHead, margin_loss
from facial_rec.config import EdgeFaceTrainingConfig
from facial_rec.datamodule import UNSEEN
from facial_rec.model import EdgeFace
from facial_rec.module import EdgeFaceLightning
from tests.support.tensors import noise

pytestmark = [pytest.mark.runs, pytest.mark.usefixtures("nothing_compiled")]

ONE_GRAPH: dict[str, Any] = {"fullgraph": True, "backend": "aot_eager"}
NETWORKS = (
    "edgeface_xxs",
    "edgeface_xs_gamma_06",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("edgeface_s_gamma_05", "edgeface_base", "edgeface_xs_q")),
)


@pytest.mark.parametrize("variant", NETWORKS)
@torch.no_grad()
def test_features_and_embedding_are_one_graph(variant: str) -> None:
    """`forward` is the second of the first."""
    model, faces = EdgeFace(variant).eval(), noise(1, 3, 112, 112)

    def both(faces: Tensor) -> tuple[list[Tensor], Tensor]:
        maps = model.features(faces)
        return maps, model.from_features(maps)

    found, wanted = torch.compile(both, **ONE_GRAPH)(faces), both(faces)
    assert len(found[0]) == 4
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("kind", ["arcface", "cosface", "adaface"])
def test_head_and_margin_loss_are_one_graph(kind: Margin) -> None:
    """Under autocast, too: values, gradients, and AdaFace's moving statistics. A wrong label is `gather`'s to find."""
    labels = torch.tensor([0, 4, 1, 1])
    results, losses = [], []
    for compiled in (True, False):
        torch.manual_seed(0)
        head = MarginHead(16, 5, kind)

        def loss(faces: Tensor, labels: Tensor, head: MarginHead = head) -> Tensor:
            return margin_loss(head(faces, labels), labels, 0.08)

        losses.append(torch.compile(loss, **ONE_GRAPH) if compiled else loss)
        faces = noise(4, 16).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            value = losses[-1](faces, labels)
        assert value.dtype == torch.float32
        gradients = torch.autograd.grad(value, [faces, head.weight])
        results.append((value, gradients, list(head.buffers())))
    torch.testing.assert_close(results[0], results[1])
    for wrong in (-1, 5, -100):  # cross_entropy alone would pass over -100
        with pytest.raises(RuntimeError, match="out of bounds"):
            losses[0](noise(4, 16).requires_grad_(), torch.tensor([0, wrong, 1, 1]))


@pytest.mark.parametrize(
    ("stage", "options"),
    [
        pytest.param(1, {}, marks=pytest.mark.slow),
        (2, {"lambda_align": 1.0, "keep_weight": 1.0}),
        (2, {"lambda_align": 1.0, "lambda_feature_match": 1.0, "extra_hr": ("more",), "head": "adaface"}),
        pytest.param(2, {"lora_rank": 2}, marks=pytest.mark.slow),
    ],
    ids=["stage 1", "align and keep", "extra faces", "adapters"],
)
def test_a_training_step_in_half_precision_is_one_graph(
    stage: Literal[1, 2], options: dict[str, Any], edgeface: Path
) -> None:
    config = EdgeFaceTrainingConfig(**options).of_stage(stage)
    module = EdgeFaceLightning(config, EdgeFace.from_weights(edgeface), ["one", "other", "third"]).train()
    names, results = list(module.state_dict()), []
    label = torch.tensor([2, UNSEEN if "extra_hr" in options else 0])
    batch = {"image": noise(2, 3, 128, 128), "label": label, "index": torch.arange(2)}
    if "lambda_align" in options:
        batch["hr"] = noise(2, 3, 128, 128, seed=1)
    for _ in range(2):
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            result = module.objective(batch)
        result.total.backward()
        gradients = {name: each.grad for name, each in module.named_parameters() if each.requires_grad}
        results.append(({"total": result.total, **result.terms}, gradients))
        module.compile_networks(**ONE_GRAPH)
    assert len(results[0][0]) == (4 if "hr" in batch else 2)
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-5)
    assert list(module.state_dict()) == names
