"""EdgeFace's network as a backbone, from its authors' face weights or from a trained ear recogniser's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn
from torch.nn import functional as F

from ear_teacher.backbones import Backbone
from ear_teacher.config import EDGEFACE_VARIANTS, EarVAEConfig
from ear_teacher.recognition.hub import FORMAT
from earface.core.errors import InputError
from earface.core.files import is_exported
from earface.nn.checkpoint import find_checkpoint, network_state, read_checkpoint
from earface.nn.edgeface import EDGEFACE_SIZE, EMBEDDING_DIM, build_network, layer_groups
from earface.nn.edgeface_weights import VARIANTS, check_fit, published_file, read_edgeface


class EdgeFaceBackbone(Backbone):
    """EdgeFace (George et al. 2024): maps of its four stages, strides 4 to 32; its output layer gives the embedding.

    images (B, C, S, S) in [-1, 1], as its authors take them; grey ones as three equal channels. For an embedding they
    are resampled to the size that its weights were trained at, since it does not keep at another. The output layer is
    frozen in a model that uses no embedding.
    """

    embedding_dim = EMBEDDING_DIM
    posterior_map = -2  # 7x7 at 112 px: the last, 3x3, says who it is and hardly where anything lies
    with_light = True  # as its weights were trained

    @classmethod
    def from_config(cls, config: EarVAEConfig, weights: str) -> Self:
        with_embedding = config.identity_dim > 0
        return cls(config.encoder, EDGEFACE_SIZE if with_embedding else config.image_size, weights, with_embedding)

    @classmethod
    def require_weights(cls, config: EarVAEConfig, weights: str) -> None:
        if weights != "none":
            read_weights(weights, EDGEFACE_VARIANTS[config.encoder])

    def __init__(self, encoder: str, image_size: int, weights: str, with_embedding: bool) -> None:
        super().__init__()
        name = EDGEFACE_VARIANTS[encoder]
        self.net: Any = build_network(VARIANTS[name], image_size)
        if weights != "none":
            path, held, state = read_weights(weights, name)
            check_fit(path, held, state, {f"model.{key}": value for key, value in self.net.state_dict().items()})
            self.net.load_state_dict({key.removeprefix("model."): value for key, value in state.items()})
        self.size = image_size
        self.channels = [stage["num_chs"] for stage in self.net.feature_info]
        self.grids = [image_size // stage["reduction"] for stage in self.net.feature_info]
        self.with_embedding = with_embedding
        if not with_embedding:
            self.net.head.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        if self.with_embedding and images.shape[-1] != self.size:
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        maps = [self.net.stem(images.expand(-1, 3, -1, -1))]
        for stage in self.net.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def embedding(self, maps: list[Tensor]) -> Tensor:
        embedding: Tensor = self.net.forward_head(self.net.norm_pre(maps[-1]))
        return embedding

    def layer_groups(self) -> list[list[nn.Module]]:
        return layer_groups(self.net)


def read_weights(weights: str, wanted: str) -> tuple[Path, str, dict[str, Tensor]]:
    """The file, the variant and the weights, under the authors' names, for the variant `wanted`.

    weights: `pretrained`, a file of the authors, or an ear recogniser's checkpoint, run or exported folder. Raises
    InputError for anything else, and for another network.
    """
    path = published_file(wanted) if weights == "pretrained" else Path(weights)
    if path.is_dir() or path.suffix == ".ckpt":
        held, state = _of_recognizer(path)
    else:
        held, state = read_edgeface(path)
    if held not in VARIANTS or not VARIANTS[held].same_network(VARIANTS[wanted]):
        raise InputError(f"{path}: holds the network {held}, and `encoder` is of {wanted}; give the same")
    return path, held, state


def _of_recognizer(path: Path) -> tuple[str, dict[str, Tensor]]:
    if is_exported(path):
        config, tensors = FORMAT.read(path)
        held = config.backbone
    else:
        checkpoint = read_checkpoint(find_checkpoint(str(path)))
        stored = checkpoint.get("hyper_parameters", {})
        if stored.get("kind") != FORMAT.kind:
            raise InputError(f"{path}: holds no ear recogniser, and no EdgeFace of its authors")
        held, tensors = str(stored["model"]["backbone"]), network_state(checkpoint)
    return held, {f"model.{name.removeprefix('network.')}": value for name, value in tensors.items()}
