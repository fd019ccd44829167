"""Pretrained weights: downloaded once, or from a file. Never random ones in silence, never a pickle's code."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from earface.core.downloads import hub_file
from earface.core.errors import InputError, reading
from earface.core.files import refuse_lfs_pointer
from earface.core.needed import MissingWeightsError
from earface.nn.weight_layouts import dequantize_linears, recognise

HEAD_KEYS = ("fc.", "classifier.", "head.")  # classifiers, which no backbone here keeps
NESTS = ("state_dict", "model")


def read_weights_file(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a torch file, on the CPU, without running anything the file contains.

    What lies under `state_dict` or `model` is taken out; entries that are no tensors are left out; the int8 linear
    layers of a quantised file come as the float32 values that they stand for.
    Raises InputError for a file that is missing, is no weights file, or holds no tensor.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    refuse_lfs_pointer(path)
    otherwise = "not a weights file that loads without running code (safetensors, or torch.save of tensors)"
    with reading(path, otherwise), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantised tensors are announced as deprecated, once for each
        content: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    while isinstance(content, dict) and (nest := next((n for n in NESTS if isinstance(content.get(n), dict)), None)):
        content = content[nest]
    try:
        named = dequantize_linears({str(k): v for k, v in content.items()}) if isinstance(content, dict) else {}
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: its int8 layers are not each a weight and a bias") from error
    tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"{path}: holds no named tensors")
    return tensors


def load_timm_backbone(
    name: str,
    weights: str | Path,
    *,
    features_only: bool = True,
    in_chans: int = 3,
    out_indices: Sequence[int] | None = None,
    advice: str = "give a file with its weights instead, or none to start from random ones",
    **kwargs: Any,
) -> nn.Module:
    """A timm model without classifier, or with features_only its list of feature maps, with weights as asked for.

    weights: "pretrained" (timm's, from the cache or else downloaded), "none" (random), or a path: timm's own layout,
        what timm converts to it, or an official file of `earface.nn.weight_layouts`; with or without a classifier.
        Every other tensor must be there and fit.
    in_chans other than the weights' 3: the first convolution is adapted as timm does (1: summed over RGB).
    advice: what to do instead, the end of the error's line. kwargs go to timm.create_model.

    Raises InputError for a model that timm lacks, for weights that cannot be had (offline,
    within seconds), and for a file that does not fit, naming it and the first keys.
    """
    config = timm_config(name)
    if features_only:
        kwargs["features_only"] = True
        if out_indices is not None:
            kwargs["out_indices"] = tuple(out_indices)
    else:
        kwargs["num_classes"] = 0
    if weights == "pretrained":
        kwargs |= {"pretrained": True, "pretrained_cfg_overlay": _pretrained_source(name, config, advice)}
    try:
        model = timm.create_model(name, in_chans=in_chans, **kwargs)
    except OSError as error:  # the models that are not on the hub
        raise MissingWeightsError(name, str(config.url or "its address"), str(error), advice) from error
    if weights not in ("pretrained", "none"):
        rest = {key: value for key, value in kwargs.items() if key not in ("features_only", "out_indices")}
        _load_file(model, Path(weights), name, in_chans, rest)
    return model


def require_weights(name: str, weights: str | Path, advice: str) -> None:
    """Raise InputError where `load_timm_backbone` would find no weights; pretrained ones are downloaded now."""
    if weights == "pretrained":
        _pretrained_source(name, timm_config(name), advice)
    elif weights != "none" and not Path(weights).is_file():
        raise InputError(f"{weights}: no such weights file")


def timm_config(name: str) -> timm.models.PretrainedCfg:
    """What timm knows of `name`'s weights: mean, std, input size. Raises InputError for a name that timm lacks."""
    architecture = name.partition(".")[0]
    if not timm.is_model(name):
        near = timm.list_models(f"*{architecture[:6]}*")[:5]
        raise InputError(f"timm has no model {name}" + (f"; near it: {', '.join(near)}" if near else ""))
    try:
        return timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    except RuntimeError as error:  # the part of the name after the dot
        tags = timm.list_pretrained(f"{architecture}.*")[:5]
        raise InputError(f"timm has no weights named {name}; it has {', '.join(tags) or 'none'}") from error


def normalisation_of(model: nn.Module) -> dict[str, Any]:
    """The mean and std (and what else timm knows) that the weights of a loaded model were trained with."""
    config: Any = model.pretrained_cfg
    return dict(config)


def _pretrained_source(name: str, config: timm.models.PretrainedCfg, advice: str) -> dict[str, str]:
    """Where timm shall read the pretrained weights of `name`: the cached file, downloaded now if need be."""
    if not config.has_weights:
        raise InputError(f"timm has no pretrained weights for {name}: {advice}")
    if not config.hf_hub_id:
        return {}  # some twenty models lie elsewhere: timm fetches those itself
    repository, _, revision = config.hf_hub_id.partition("@")
    files = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    return {"file": hub_file(repository, files, revision=revision or None, what=name, advice=advice)}


def _load_file(model: nn.Module, path: Path, name: str, in_chans: int, kwargs: dict[str, Any]) -> None:
    """Load `path` into `model`, which may be the whole of timm's `name` or its feature maps. Strict, heads apart."""
    layout, state = recognise(read_weights_file(path))
    found = f"{path} (it holds {layout.name} weights)" if layout else str(path)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = timm.create_model(name, in_chans=in_chans, **(kwargs | {"num_classes": 0}))
    convert = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        try:
            state = convert(state, whole)
        except (KeyError, ValueError, RuntimeError, IndexError, AttributeError) as error:
            raise InputError(f"{found} does not fit {name}: {type(error).__name__} {error}") from error
    expected = {_plain(key): key for key in whole.state_dict()}
    state = {_plain(k): v for k, v in state.items() if _plain(k) in expected or not k.startswith(HEAD_KEYS)}

    config: Any = whole.pretrained_cfg
    first_convs = config.get("first_conv") or ()
    for conv in [first_convs] if isinstance(first_convs, str) else first_convs:
        key = _plain(f"{conv}.weight")
        if in_chans != 3 and key in state and state[key].ndim == 4 and state[key].shape[1] == 3:
            state[key] = adapt_input_conv(in_chans, state[key])

    wanted = {_plain(key): value for key, value in model.state_dict().items()}
    missing = [expected.get(key, key) for key in wanted if key not in state and not key.endswith(".tracked")]
    unexpected = [key for key in state if key not in expected]
    misshapen = [
        f"{expected[key]} is {tuple(state[key].shape)}, not {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and key in expected and state[key].shape != value.shape
    ]
    faults = [("missing", missing), ("unexpected", unexpected), ("other shape:", misshapen)]
    if any(keys for _, keys in faults):
        listed = "; ".join(f"{kind} {_first(keys)}" for kind, keys in faults if keys)
        raise InputError(f"{found} does not fit {name}: {listed}")
    model.load_state_dict({key: state[_plain(key)] for key in model.state_dict() if _plain(key) in state}, strict=False)
    if layout is not None and layout.normalisation:
        owner: Any = model
        owner.pretrained_cfg = {**normalisation_of(model), **layout.normalisation}


def _plain(key: str) -> str:
    """One spelling for a key of timm's whole model (`features.0.weight`) and of its maps (`features_0.weight`)."""
    return key.removeprefix("model.").replace("_", ".")


def _first(keys: Iterable[str], count: int = 2) -> str:
    keys = list(keys)
    return ", ".join(keys[:count]) + (f" and {len(keys) - count} more" if len(keys) > count else "")
