"""EdgeFace against timm's own forward pass, the authors' file layout, and files that are something else."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.edgenext import PositionalEncodingFourier
from torch import Tensor, nn

from earface.core.errors import InputError
from earface.nn import edgeface_weights as pretrained
from earface.nn.edgeface import LoRaLin
from earface.nn.edgeface_weights import VARIANTS
from earface.nn.inference import weights_digest
from earface.nn.positional_encoding import SharedPositionalEncoding
from earface.nn.precision import has_native_bfloat16
from facial_rec.model import EdgeFace
from tests.support.edgeface import INT8_SOURCES, INT8_VARIANTS, AuthorsWrapper, int8_edgeface
from tests.support.hostile import Payload
from tests.support.shared_files import needs, official_edgeface

PARAMETERS = {  # millions, as published
    "edgeface_xxs": "1.24",
    "edgeface_xs_gamma_06": "1.77",
    "edgeface_s_gamma_05": "3.65",
    "edgeface_base": "18.23",
    "edgeface_xxs_q": "1.24",
    "edgeface_xs_q": "2.24",
}
FLOAT_VARIANTS = [name for name in VARIANTS if not name.endswith("_q")]


def randomised(model: nn.Module, seed: int = 0) -> Any:
    """Layer scales start at 1e-6 and biases at zero, where a mistake with them would not show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "gamma" in name or "temperature" in name:
                parameter.copy_(0.5 + 0.1 * noise)
            else:
                parameter.add_(0.02 * noise)
    return model.eval()


def faces(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(7)) * 2 - 1


@pytest.fixture(scope="module")
def xxs(tmp_path_factory: pytest.TempPathFactory) -> tuple[AuthorsWrapper, Path]:
    """EdgeFace-XXS at random weights, and its file as the authors write it."""
    model = randomised(AuthorsWrapper("edgenext_xx_small", None))
    path = tmp_path_factory.mktemp("weights") / "edgeface_xxs.pt"
    torch.save(model.state_dict(), path)
    return model, path


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_as_many_as_published(variant: str) -> None:
    model = EdgeFace(variant)
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}" == PARAMETERS[variant]


@pytest.mark.parametrize("variant", FLOAT_VARIANTS)
def test_a_file_in_the_authors_layout_gives_their_networks_embeddings(variant: str, tmp_path: Path) -> None:
    gamma = {"edgeface_xs_gamma_06": 0.6, "edgeface_s_gamma_05": 0.5}.get(variant)
    theirs = randomised(AuthorsWrapper(VARIANTS[variant].network, gamma))
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    ours = EdgeFace.from_weights(tmp_path / "weights.pt")
    assert ours.variant == variant
    assert not ours.training
    own = ours.state_dict()
    assert own.keys() == theirs.state_dict().keys()
    for key, value in theirs.state_dict().items():
        assert torch.equal(own[key], value), key
    with torch.no_grad():
        wanted = theirs(faces())
        assert wanted.std() > 0.1
        torch.testing.assert_close(ours(faces()), wanted)


def test_low_rank_layers_are_the_product_of_their_two_matrices(tmp_path: Path) -> None:
    """The whole of EdgeFace-XS against timm's full-rank network holding the products."""
    ours = randomised(EdgeFace("edgeface_xs_gamma_06")).double()
    products = {}
    for name, value in ours.model.state_dict().items():
        if name.endswith(".linear1.weight"):
            layer = name.removesuffix(".linear1.weight")
            second = ours.model.get_submodule(layer).linear2
            products[f"{layer}.weight"] = second.weight @ value
            products[f"{layer}.bias"] = second.bias
        elif ".linear2." not in name:
            products[name] = value
    full: Any = timm.create_model("edgenext_x_small", num_classes=512).double().eval()
    full.load_state_dict(products)
    with torch.no_grad():
        torch.testing.assert_close(ours(faces().double()), full(faces().double()))


@pytest.mark.parametrize(("sides", "ratio", "rank"), [((100, 400), 0.6, 60), ((3, 9), 0.5, 2), ((168, 512), 0.5, 84)])
def test_ranks(sides: tuple[int, int], ratio: float, rank: int) -> None:
    layer = LoRaLin(*sides, ratio)
    assert layer.linear1.weight.shape == (rank, sides[0])
    assert layer.linear1.bias is None
    assert layer.linear2.bias.shape == (sides[1],)


def test_gradients_are_timms(xxs: tuple[AuthorsWrapper, Path]) -> None:
    """The positional encoding is shared by the batch: its projection still learns from every face."""
    theirs, path = xxs
    ours = EdgeFace.from_weights(path)
    assert any(isinstance(module, SharedPositionalEncoding) for module in ours.modules())
    found = []
    for model in (ours, theirs):
        crops = faces(3).requires_grad_()
        model.zero_grad()
        model(crops).square().sum().backward()
        projection = model.get_parameter("model.stages.1.blocks.1.pos_embd.token_projection.weight")
        found.append((crops.grad, projection.grad))
    for own, wanted in zip(*found, strict=True):
        assert wanted is not None
        torch.testing.assert_close(own, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_positional_encoding_is_timms_to_the_bit(variant: str, dtype: torch.dtype) -> None:
    """Its constant is in no checkpoint."""
    model = EdgeFace(variant).to(dtype)
    (own,) = [module for module in model.modules() if isinstance(module, SharedPositionalEncoding)]
    channels = own.token_projection.out_channels
    timms = PositionalEncodingFourier(own.hidden_dim, channels, own.temperature)
    timms.token_projection = own.token_projection
    exact = dtype == torch.float32 or has_native_bfloat16()  # emulated, sums take the order of the memory's layout
    within = {"rtol": 0, "atol": 0} if exact else {"rtol": 2**-7, "atol": 1e-6}
    with torch.no_grad():
        for grid in (tuple(own.waves.shape[2:]), (5, 7)):  # the second is no constant
            torch.testing.assert_close(own((2, *grid)), timms((2, *grid)), **within)
    assert not [name for name in model.state_dict() if "waves" in name]


def test_features_are_the_stages_outputs_and_make_the_embedding(xxs: tuple[AuthorsWrapper, Path]) -> None:
    theirs, path = xxs
    ours = EdgeFace.from_weights(path)
    wanted: list[Tensor] = []
    hooks = [
        stage.register_forward_hook(lambda _module, _inputs, output: wanted.append(output))
        for stage in theirs.model.stages
    ]
    with torch.no_grad():
        theirs(faces())
        maps = ours.features(faces())
        assert torch.equal(ours.from_features(maps), ours(faces()))
    for hook in hooks:
        hook.remove()
    assert [found.shape[1] for found in maps] == ours.channels
    assert [found.shape[-1] for found in maps] == [28, 14, 7, 3]
    for found, stage in zip(maps, wanted, strict=True):
        torch.testing.assert_close(found, stage)


def test_embeddings_are_directions(xxs: tuple[AuthorsWrapper, Path]) -> None:
    model = EdgeFace.from_weights(xxs[1])
    with torch.no_grad():
        raw, unit = model(faces()), model.embed(faces())
    torch.testing.assert_close(unit, raw / raw.square().sum(1, keepdim=True).sqrt())
    assert raw.shape == (2, 512)


def test_autocast_keeps_float32_directions_and_finite_gradients(xxs: tuple[AuthorsWrapper, Path]) -> None:
    model = EdgeFace.from_weights(xxs[1])
    crops = faces().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.embed(crops)
        loss = 1 - (found * found.flip(0)).sum()
    loss.backward()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    with torch.no_grad():
        assert (found * model.embed(faces())).sum(1).min() > 0.99
    assert crops.grad is not None
    assert crops.grad.isfinite().all()
    assert crops.grad.abs().sum() > 0


def test_each_parameter_is_in_one_layer_group() -> None:
    model = EdgeFace("edgeface_xs_gamma_06")
    groups = model.layer_groups()
    listed = [id(p) for group in groups for module in group for p in module.parameters()]
    assert len(groups) == 5
    assert sorted(listed) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(1, 3, 128, 128),
        torch.zeros(1, 3, 112, 112, dtype=torch.uint8),
        torch.zeros(3, 112, 112),
        torch.zeros(1, 112, 112, 3),
    ],
)
def test_faces_of_another_shape_are_refused(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match=r"float faces \(B, 3, 112, 112\) in \[-1, 1\] wanted"):
        EdgeFace("edgeface_xxs").eval()(wrong)


# int8 files: of random weights, and the authors' own


@pytest.mark.parametrize("variant", INT8_VARIANTS)
@pytest.mark.parametrize("source", INT8_SOURCES)
@pytest.mark.filterwarnings("ignore")
def test_int8_files_load_whole_and_exactly(variant: str, source: str, tmp_path: Path) -> None:
    path = int8_edgeface(source, variant, tmp_path)
    model = EdgeFace.from_weights(path)
    assert model.variant == variant
    own = model.state_dict()
    used = set()
    for key, value in torch.load(path, weights_only=True).items():
        layer, _, last = key.rpartition(".")
        if last == "_packed_params":
            weight, bias = value
            layer = layer.removesuffix("._packed_params")
            whole = (weight.int_repr().float() - weight.q_zero_point()) * torch.tensor(weight.q_scale())
            assert torch.equal(own[f"{layer}.weight"], whole)
            assert torch.equal(own[f"{layer}.bias"], bias)
            used |= {f"{layer}.weight", f"{layer}.bias"}
        elif isinstance(value, Tensor) and last not in ("scale", "zero_point"):  # those of the outputs, always 1 and 0
            assert torch.equal(own[key], value)
            used.add(key)
        else:
            assert last in ("dtype", "scale", "zero_point"), key
    assert used == own.keys()


@pytest.mark.parametrize("variant", INT8_VARIANTS)
@needs(*map(official_edgeface, INT8_VARIANTS))
@pytest.mark.filterwarnings("ignore")
def test_int8_files_of_random_weights_are_laid_out_as_the_authors_are(variant: str, tmp_path: Path) -> None:
    def layout(path: Path) -> dict[str, Any]:
        content = torch.load(path, weights_only=True)
        packed = {key: value for key, value in content.items() if isinstance(value, tuple)}
        tensors = {key: (value.shape, value.dtype) for key, value in content.items() if isinstance(value, Tensor)}
        linear = {key: (weight.shape, weight.qscheme(), bias.shape) for key, (weight, bias) in packed.items()}
        return dict.fromkeys(content) | tensors | linear

    assert layout(int8_edgeface("synthetic", variant, tmp_path)) == layout(official_edgeface(variant))


@pytest.mark.parametrize("source", INT8_SOURCES)
def test_the_floats_of_an_int8_file_have_its_digest_and_name(source: str, tmp_path: Path) -> None:
    model = EdgeFace.from_weights(int8_edgeface(source, "edgeface_xxs_q", tmp_path))
    save_file(model.state_dict(), tmp_path / "floats.safetensors")
    again = EdgeFace.from_weights(tmp_path / "floats.safetensors")
    assert again.variant == "edgeface_xxs_q"
    assert weights_digest(again) == weights_digest(model)
    with torch.no_grad():
        again.model.stem[0].weight[0, 0, 0, 0] += 1e-3
    assert weights_digest(again) != weights_digest(model)


def test_int8_and_float_are_one_network(xxs: tuple[AuthorsWrapper, Path]) -> None:
    assert EdgeFace.from_weights(xxs[1], "edgeface_xxs_q").variant == "edgeface_xxs"


def test_a_layer_of_int8_values_tells_the_int8_variant(tmp_path: Path, xxs: tuple[AuthorsWrapper, Path]) -> None:
    state = dict(xxs[0].state_dict())
    head = "model.head.fc.weight"
    scale = state[head].abs().max() / 127
    state[head] = (state[head] / scale).round() * scale
    torch.save(state, tmp_path / "rounded.pt")
    assert EdgeFace.from_weights(tmp_path / "rounded.pt").variant == "edgeface_xxs_q"


# Files that are something else


def test_a_hostile_file_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "edgeface_xxs.pt").write_bytes(
        pickle.dumps({"model.stem.0.weight": Payload(tmp_path / "ran")}, protocol=2)
    )
    with pytest.raises(
        InputError, match=r"edgeface_xxs\.pt: not a weights file .*without running code.*; give a file of the authors"
    ):
        EdgeFace.from_weights(tmp_path / "edgeface_xxs.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("packed", [("text", None), (torch.zeros(1),), (None, None), (torch.zeros(1), "text")])
def test_int8_layers_of_other_things_are_refused(tmp_path: Path, packed: tuple[object, ...]) -> None:
    torch.save({"model.head.fc._packed_params._packed_params": packed}, tmp_path / "packed.pt")
    with pytest.raises(
        InputError, match=r"packed\.pt: its int8 layers are not each a weight and a bias; give a file of the authors"
    ):
        EdgeFace.from_weights(tmp_path / "packed.pt")


def test_missing_and_truncated_files_say_what_to_give(tmp_path: Path, xxs: tuple[AuthorsWrapper, Path]) -> None:
    with pytest.raises(InputError, match=r"nowhere\.pt: no such weights file; give a file of the authors"):
        EdgeFace.from_weights(tmp_path / "nowhere.pt")
    (tmp_path / "half.pt").write_bytes(xxs[1].read_bytes()[:2_000_000])
    with pytest.raises(InputError, match=r"half\.pt: not a weights file"):
        EdgeFace.from_weights(tmp_path / "half.pt")


Change = Callable[[dict[str, Tensor]], object]
STEM, NORM = "model.stem.0.weight", "model.head.norm.weight"
CHANGES: dict[str, tuple[Change, str]] = {
    "missing": (lambda state: state.pop(NORM), f"not the weights of edgeface_xxs: missing {NORM};"),
    "unexpected": (lambda state: state.update(more=torch.zeros(1)), "unexpected more;"),
    "shape": (lambda state: state.update({NORM: torch.zeros(9)}), f"of another shape {NORM};"),
    "NaN": (lambda state: state[NORM].fill_(torch.nan), f"not finite numbers {NORM};"),
    "whole numbers": (lambda state: state.update({NORM: state[NORM].int()}), f"not finite numbers {NORM};"),
    "sparse": (lambda state: state.update({NORM: state[NORM].to_sparse()}), f"not finite numbers {NORM};"),
    "no values": (lambda state: state.update({NORM: state[NORM].to("meta")}), f"not finite numbers {NORM};"),
    "another width": (
        lambda state: state.update({STEM: torch.zeros(7, 3, 4, 4)}),
        "no EdgeFace weights that are known",
    ),
    "no stem": (lambda state: state.pop(STEM), "no EdgeFace weights that are known"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_must_fit_tensor_by_tensor(change: str, tmp_path: Path, xxs: tuple[AuthorsWrapper, Path]) -> None:
    state = {key: value.clone() for key, value in xxs[0].state_dict().items()}
    alter, message = CHANGES[change]
    alter(state)
    torch.save(state, tmp_path / "changed.pt")
    with pytest.raises(InputError, match=r"changed\.pt: ") as caught:
        EdgeFace.from_weights(tmp_path / "changed.pt")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_variant_or_family_is_named(tmp_path: Path, xxs: tuple[AuthorsWrapper, Path]) -> None:
    with pytest.raises(
        InputError, match=r"edgeface_xxs\.pt: holds edgeface_xxs, not edgeface_base; leave `variant` out"
    ):
        EdgeFace.from_weights(xxs[1], "edgeface_base")
    torch.save(AuthorsWrapper("edgenext_x_small", 0.5).state_dict(), tmp_path / "other_rank.pt")
    with pytest.raises(InputError, match="not the weights of edgeface_xs_gamma_06: of another shape"):
        EdgeFace.from_weights(tmp_path / "other_rank.pt")
    torch.save({"conv1.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pt")
    with pytest.raises(InputError, match=r"resnet\.pt: holds torchvision ResNet weights"):
        EdgeFace.from_weights(tmp_path / "resnet.pt")


def test_random_and_unknown_variants_must_be_said() -> None:
    torch.manual_seed(0)
    assert EdgeFace.from_weights("none", "edgeface_xxs").variant == "edgeface_xxs"
    with pytest.raises(InputError, match="`weights` none: which"):
        EdgeFace.from_weights("none")
    with pytest.raises(InputError, match="`weights` pretrained: which"):
        EdgeFace.from_weights()
    with pytest.raises(InputError, match="`variant` edgeface: choose one of edgeface_xxs, "):
        EdgeFace.from_weights("none", "edgeface")


# Downloads, from a server on this machine


class Server(http.server.BaseHTTPRequestHandler):
    """Has one file, under any folder."""

    name, content, requests = "", b"", 0

    def do_HEAD(self) -> None:
        type(self).requests += 1
        self.send_response(200 if self.path.endswith(f"/{self.name}") else 404)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, bytes], type[Server]]]:
    """Put a server of one file in the place of the hub and of the authors' GitLab, with empty caches."""
    servers = []

    def start(name: str, content: bytes) -> type[Server]:
        handler = type("One", (Server,), {"name": name, "content": content, "requests": 0})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        address = f"http://127.0.0.1:{server.server_port}"
        pages = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", pages)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(pretrained, "GITLAB", address)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        return handler

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("variant", ["edgeface_xxs", "edgeface_xxs_q"])
def test_pretrained_weights_are_downloaded_once(
    variant: str,
    xxs: tuple[AuthorsWrapper, Path],
    serve: Callable[[str, bytes], type[Server]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = xxs[1].read_bytes()
    handler = serve(f"{variant}.pt", content)
    if variant.endswith("_q"):
        served = dataclasses.replace(VARIANTS[variant], sha256=hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(VARIANTS, variant, served)
    first = EdgeFace.from_weights("pretrained", variant)
    asked = handler.requests
    assert asked > 0
    assert weights_digest(EdgeFace.from_weights("pretrained", variant)) == weights_digest(first)
    assert handler.requests == asked
    assert torch.equal(first.state_dict()[STEM], xxs[0].state_dict()[STEM])


def test_another_file_than_the_published_one_is_not_kept(
    serve: Callable[[str, bytes], type[Server]], tmp_path: Path
) -> None:
    serve("edgeface_xs_q.pt", b"an error page")
    with pytest.raises(InputError, match="not the file that was published; give a file of the authors"):
        EdgeFace.from_weights("pretrained", "edgeface_xs_q")
    assert not list((tmp_path / "torch").rglob("*.*"))


@pytest.mark.parametrize("variant", ["edgeface_base", "edgeface_xs_q"])
def test_weights_that_cannot_be_had_are_one_line(variant: str, serve: Callable[[str, bytes], type[Server]]) -> None:
    serve("other.pt", b"")
    with pytest.raises(InputError, match=rf"{variant}.*: give a file of the authors") as caught:
        EdgeFace.from_weights("pretrained", variant)
    assert "\n" not in str(caught.value)
