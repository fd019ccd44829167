"""Official weight files against the implementations that they are made for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from ear_teacher.backbones import DINOv2Backbone
from ear_teacher.sam import WindowBlock
from earface.core.errors import InputError
from earface.nn.weight_layouts import LAYOUTS, dequantize_linears, recognise
from earface.nn.weights import load_timm_backbone, normalisation_of, read_weights_file
from tests.support.edgeface import INT8_SOURCES, int8_edgeface

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VIT_S: dict[str, Any] = {
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "patch_size": 14,
    "image_size": 518,
}
SMALL_SAM: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "mlp_dim": 128,
    "global_attn_indexes": [1],
    "image_size": 1024,
    "output_channels": 256,
}
SMALL_TIMM_SAM: dict[str, Any] = {"embed_dim": 32, "depth": 3, "num_heads": 2, "global_attn_indexes": (1,)}


def randomised(model: nn.Module) -> Any:
    """Positions and biases start at zero, where a mistake with them would not show."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return model.eval()


def imagenet(images: Tensor) -> Tensor:
    """[-1, 1] to what the authors' networks take."""
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return (images * 0.5 + 0.5 - mean) / std


def dinov2(registers: bool) -> Any:
    if registers:
        config = transformers.Dinov2WithRegistersConfig(**VIT_S, num_register_tokens=4)
        return randomised(transformers.Dinov2WithRegistersModel(config))
    return randomised(transformers.Dinov2Model(transformers.Dinov2Config(**VIT_S)))


def meta_names_of_dinov2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published `.pth`: timm's names without registers, and a mask token."""
    return {**state, "mask_token": torch.zeros(1, state["cls_token"].shape[-1])}


@pytest.mark.runs
@pytest.mark.parametrize(("registers", "saved"), [(False, "save_pretrained"), (True, "state_dict")])
def test_dinov2_of_transformers_gives_the_same_maps_at_518(tmp_path: Path, registers: bool, saved: str) -> None:
    reference = dinov2(registers)
    if saved == "save_pretrained":
        reference.save_pretrained(tmp_path)
    else:
        save_file(reference.state_dict(), tmp_path / "model.safetensors")
    weights = str(tmp_path / "model.safetensors")
    ours = DINOv2Backbone("vits14_reg" if registers else "vits14", 3, 518, weights).eval()
    images = torch.rand(1, 3, 518, 518, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        maps = ours(images)
        found = reference(imagenet(images), output_hidden_states=True)
        prefix = 1 + 4 * registers
        for taken, layer in zip(maps, (3, 6, 9, 12), strict=True):
            tokens = reference.layernorm(found.hidden_states[layer])[:, prefix:]
            wanted = tokens.transpose(1, 2).unflatten(2, (37, 37))
            torch.testing.assert_close(taken, wanted, rtol=0, atol=1e-4)


def test_dinov2_of_meta_is_read_whole(tmp_path: Path) -> None:
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    torch.save(meta_names_of_dinov2(model.state_dict()), tmp_path / "dinov2_vits14_pretrain.pth")
    loaded = load_timm_backbone(
        "vit_small_patch14_dinov2.lvd142m", tmp_path / "dinov2_vits14_pretrain.pth", features_only=False
    )
    assert_equal_states(loaded, model)


def test_dinov2_with_registers_of_meta_keeps_its_class_token_s_place(tmp_path: Path) -> None:
    """Meta adds a position to the class token, timm has none for it: the sum stands in the token."""
    generator = torch.Generator().manual_seed(0)
    model = timm.create_model("vit_small_patch14_reg4_dinov2", num_classes=0)
    state = dict(model.state_dict())
    place = torch.randn(1, 1, 384, generator=generator)
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.cat([place, state["pos_embed"]], dim=1)
    torch.save(meta_names_of_dinov2(state), tmp_path / "reg.pth")
    loaded: Any = load_timm_backbone("vit_small_patch14_reg4_dinov2.lvd142m", tmp_path / "reg.pth", features_only=False)
    torch.testing.assert_close(loaded.cls_token, state["cls_token"] + place)
    assert torch.equal(loaded.pos_embed, state["pos_embed"][:, 1:])
    assert torch.equal(loaded.reg_token, state["register_tokens"])


@pytest.mark.runs
@pytest.mark.parametrize("saved", ["save_pretrained", "state_dict", "SamModel"])
def test_sam_of_transformers_gives_the_same_maps_at_1024(tmp_path: Path, saved: str) -> None:
    config = transformers.SamVisionConfig(**SMALL_SAM)
    reference: Any = randomised(transformers.SamVisionModel(config))
    if saved == "SamModel":  # the whole of it, as published: prompt encoder and mask decoder beside
        whole = transformers.SamModel(transformers.SamConfig(vision_config=SMALL_SAM))
        whole.vision_encoder.load_state_dict(
            {key.removeprefix("vision_encoder."): value for key, value in reference.state_dict().items()}
        )
        whole.save_pretrained(tmp_path)
    elif saved == "save_pretrained":
        reference.save_pretrained(tmp_path)
    else:
        save_file(reference.state_dict(), tmp_path / "model.safetensors")
    ours: Any = load_timm_backbone(
        "samvit_base_patch16.sa1b",
        tmp_path / "model.safetensors",
        features_only=False,
        block_fn=WindowBlock,
        **SMALL_TIMM_SAM,
    )
    images = torch.rand(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        found = ours.eval().forward_features(imagenet(images))
        wanted = reference(imagenet(images)).last_hidden_state
    assert found.std() > 0.1
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_sam_of_meta_is_read_whole_and_the_rest_left_out(tmp_path: Path) -> None:
    model = randomised(timm.create_model("samvit_base_patch16", num_classes=0, **SMALL_TIMM_SAM))
    state = {
        f"image_encoder.{key.replace('mlp.fc', 'mlp.lin')}": value
        for key, value in model.state_dict().items()
        if not key.startswith("head.")
    }
    torch.save({**state, "prompt_encoder.no_mask_embed.weight": torch.zeros(1, 256)}, tmp_path / "sam_vit_b.pth")
    loaded = load_timm_backbone(
        "samvit_base_patch16.sa1b", tmp_path / "sam_vit_b.pth", features_only=False, **SMALL_TIMM_SAM
    )
    assert_equal_states(loaded, model)


def test_weights_of_another_family_are_named(tmp_path: Path) -> None:
    model = timm.create_model("samvit_base_patch16", num_classes=0, **SMALL_TIMM_SAM)
    state = {f"image_encoder.{key.replace('mlp.fc', 'mlp.lin')}": value for key, value in model.state_dict().items()}
    torch.save(state, tmp_path / "sam.pth")
    with pytest.raises(InputError, match=r"sam\.pth \(it holds SAM \(Meta\) weights\) does not fit vit_small_patch14"):
        DINOv2Backbone("vits14", 3, 126, str(tmp_path / "sam.pth"))


def test_missing_keys_are_named(tmp_path: Path) -> None:
    state = dict(timm.create_model("vit_small_patch14_dinov2", num_classes=0).state_dict())
    for key in ("blocks.3.attn.qkv.weight", "blocks.7.norm1.bias"):
        del state[key]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(InputError, match=r"missing blocks\.3\.attn\.qkv\.weight, blocks\.7\.norm1\.bias"):
        DINOv2Backbone("vits14", 3, 126, str(tmp_path / "part.safetensors"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("per_channel", [False, True])
def test_quantised_linear_layers_become_the_floats_that_they_stand_for(per_channel: bool) -> None:
    """Against (integer - zero point) * scale, by hand."""
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    if per_channel:
        scales, zeros = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0, 1, -1, 2])
        packed = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        wanted = (packed.int_repr().float() - zeros[:, None]) * scales[:, None]
    else:
        packed = torch.quantize_per_tensor(weight, 0.05, 3, torch.qint8)
        wanted = (packed.int_repr().float() - 3) * 0.05
    bias = torch.randn(4)
    content = {
        "a.scale": torch.tensor(1.0),
        "a.zero_point": torch.tensor(0),
        "a._packed_params.dtype": torch.qint8,
        "a._packed_params._packed_params": (packed, nn.Parameter(bias)),
        "b._packed_params._packed_params": (packed, None),
        "other.scale": torch.tensor(2.0),
    }
    found = dequantize_linears(content)
    assert found.keys() == {"a.weight", "a.bias", "b.weight", "other.scale"}
    torch.testing.assert_close(found["a.weight"], wanted, rtol=1e-6, atol=0)
    assert torch.equal(found["a.bias"], bias)


@pytest.mark.parametrize("source", INT8_SOURCES)
@pytest.mark.parametrize(
    ("variant", "model"), [("edgeface_xxs_q", "edgenext_xx_small"), ("edgeface_xs_q", "edgenext_x_small")]
)
@pytest.mark.filterwarnings("ignore")
def test_edgeface_files_start_an_edgenext_with_their_own_normalisation(
    variant: str, model: str, source: str, tmp_path: Path
) -> None:
    path = int8_edgeface(source, variant, tmp_path)
    loaded = load_timm_backbone(model, path)
    packed = torch.load(path, weights_only=True)["model.stages.3.blocks.1.mlp.fc1._packed_params._packed_params"][0]
    wanted = (packed.int_repr().double() - packed.q_zero_point()) * packed.q_scale()
    torch.testing.assert_close(
        loaded.state_dict()["stages_3.blocks.1.mlp.fc1.weight"].double(), wanted, rtol=1e-6, atol=0
    )
    config = normalisation_of(loaded)
    assert (config["mean"], config["std"]) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_every_layout_is_recognised_by_its_own_marks_first() -> None:
    """A file that bears one layout's marks is not taken for another above it."""
    for layout in LAYOUTS:
        found, _ = recognise({mark: torch.zeros(1) for mark in layout.marks})
        assert found is not None
        assert found.name.split(" ")[0] == layout.name.split(" ")[0]


def test_an_unknown_file_is_returned_as_it_is(tmp_path: Path) -> None:
    save_file({"some.weight": torch.ones(2)}, tmp_path / "x.safetensors")
    layout, state = recognise(read_weights_file(tmp_path / "x.safetensors"))
    assert layout is None
    assert list(state) == ["some.weight"]


def assert_equal_states(found: nn.Module, wanted: nn.Module) -> None:
    own = found.state_dict()
    assert own
    for key, value in wanted.state_dict().items():
        if not key.startswith("head."):
            assert torch.equal(own[key], value), key
