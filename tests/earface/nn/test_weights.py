import http.server
import pickle
import threading

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from earface.core.errors import InputError
from earface.nn.weights import load_timm_backbone, normalisation_of, read_weights_file, timm_config
from tests.support.hostile import Payload

TINY = "test_resnet.r160_in1k"  # timm's own test model, 0.4 M parameters


def randomised(model, seed=0):
    """Every tensor of the model away from its initial value, batch norm's too, with activations of order 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.rand(tensor.shape, generator=generator) - 0.5
        if tensor.ndim > 1:
            noise *= (24 / tensor[0].numel()) ** 0.5  # variance 2 / fan-in
        elif name.endswith((".weight", "running_var")):
            noise += 1
        tensor.copy_(noise)
    return model.eval()


@pytest.fixture(scope="module")
def tiny():
    return randomised(timm.create_model(TINY))


def same_weights(model, whole):
    """Whether every tensor of the feature model is the whole model's tensor of that name."""
    states = {key.replace("_", "."): value for key, value in whole.state_dict().items()}
    pairs = [(value, states[key.removeprefix("model.").replace("_", ".")]) for key, value in model.state_dict().items()]
    return all(torch.equal(*pair) for pair in pairs)


# Reading files


@pytest.mark.parametrize("layout", ["plain", "state_dict", "model", "both"])
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_torch_files_are_read_out_of_their_usual_nests(tmp_path, form, layout):
    tensors = {"conv.weight": torch.arange(6.0).view(2, 3)}
    nests = {
        "plain": tensors,
        "state_dict": {"epoch": 3, "state_dict": tensors},
        "model": {"model": tensors, "optimizer": {"lr": 0.1}},
        "both": {"model": {"state_dict": tensors}},
    }
    path = tmp_path / "w.pth"
    torch.save(nests[layout], path, _use_new_zipfile_serialization=form == "zip")  # torchvision's old files are legacy
    found = read_weights_file(path)
    assert set(found) == {"conv.weight"}
    torch.testing.assert_close(found["conv.weight"], tensors["conv.weight"])


def test_safetensors_are_read(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    assert read_weights_file(str(tmp_path / "w.safetensors"))["a"].tolist() == [1, 1]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
@pytest.mark.parametrize("content", [b"", b"hello, not weights" * 9, b"\x80\x02K\x01.", b"PK\x03\x04broken"])
def test_other_files_are_no_weights(tmp_path, suffix, content):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"w\.\w+: (not a weights file|holds no)"):
        read_weights_file(path)


def test_missing_files_and_files_without_tensors_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.pth: no such"):
        read_weights_file(tmp_path / "nowhere.pth")
    with pytest.raises(InputError, match="no such"):
        read_weights_file(tmp_path)
    for content in ({"epoch": 3}, [torch.zeros(2)], {"state_dict": {}}):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(InputError, match="no named tensors"):
            read_weights_file(tmp_path / "w.pth")


@pytest.mark.parametrize("form", ["torch zip", "torch legacy", "plain pickle"])
def test_a_weights_file_runs_no_code(tmp_path, form):
    path = tmp_path / "w.pth"
    if form == "plain pickle":
        path.write_bytes(pickle.dumps({"state_dict": Payload(tmp_path / "ran")}, protocol=2))
    else:
        torch.save({"state_dict": Payload(tmp_path / "ran")}, path, _use_new_zipfile_serialization=form == "torch zip")
    with pytest.raises(InputError, match="without running code"):
        read_weights_file(path)
    assert not (tmp_path / "ran").exists()


# Backbones from files


def test_torchvisions_resnet_file_gives_torchvisions_features(tmp_path):
    official = randomised(torchvision.models.resnet18(weights=None))
    # torchvision's first files have no batch counters.
    state = {key: value for key, value in official.state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "resnet18.pth", _use_new_zipfile_serialization=False)
    model = load_timm_backbone("resnet18.tv_in1k", tmp_path / "resnet18.pth").eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found = model(x)
        x = official.relu(official.bn1(official.conv1(x)))
        expected = [x]
        x = official.maxpool(x)
        for stage in (official.layer1, official.layer2, official.layer3, official.layer4):
            x = stage(x)
            expected.append(x)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "edgenext_xx_small"])
@pytest.mark.parametrize("features_only", [True, False])
def test_timms_layout_loads_every_tensor_and_drops_the_classifier(tmp_path, name, features_only):
    whole = randomised(timm.create_model(name))
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    model = load_timm_backbone(name, tmp_path / "w.safetensors", features_only=features_only)
    assert same_weights(model, whole)
    assert features_only or model.num_classes == 0


def test_efficientnet_lites_own_file_gives_timms_network(tmp_path):
    """Its names count the blocks through; the tensors come in timm's order."""
    whole = randomised(timm.create_model("tf_efficientnet_lite0"))
    layers = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    inside = {"conv_pw": "_expand_conv", "conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv"}
    inside |= {"bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"}
    narrow = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}  # the first
    official, blocks = {}, []
    for key, value in whole.state_dict().items():
        first, *rest = key.split(".")
        if first == "blocks":
            stage, block, layer, tensor = rest
            if (stage, block) not in blocks:
                blocks.append((stage, block))
            own = (narrow if len(blocks) == 1 else inside)[layer]
            official[f"_blocks.{len(blocks) - 1}.{own}.{tensor}"] = value
        else:
            official[".".join([layers[first], *rest])] = value
    assert len(blocks) == 16
    torch.save(official, tmp_path / "lite0.pth")
    for features_only in (True, False):
        model = load_timm_backbone("tf_efficientnet_lite0", tmp_path / "lite0.pth", features_only=features_only)
        assert same_weights(model, whole)
        assert normalisation_of(model)["mean"] == normalisation_of(model)["std"] == (0.5, 0.5, 0.5)


def test_fewer_maps_load_from_the_same_file(tmp_path, tiny):
    torch.save(tiny.state_dict(), tmp_path / "w.pth")
    model = load_timm_backbone(TINY, tmp_path / "w.pth", out_indices=(1, 2))
    assert same_weights(model, tiny)
    assert [maps.shape[-1] for maps in model(torch.rand(1, 3, 64, 64))] == [16, 8]


def test_grey_images_give_what_their_rgb_copies_gave(tmp_path, tiny):
    torch.save(tiny.state_dict(), tmp_path / "w.pth")
    colour, grey = (load_timm_backbone(TINY, tmp_path / "w.pth", in_chans=n).eval() for n in (3, 1))
    x = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for a, b in zip(grey(x), colour(x.expand(-1, 3, -1, -1)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)  # one channel, not the sum of three


def test_a_grey_models_own_file_loads_as_it_is(tmp_path):
    whole = randomised(timm.create_model(TINY, in_chans=1))
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    assert same_weights(load_timm_backbone(TINY, tmp_path / "w.pth", in_chans=1), whole)


def test_position_tables_are_resized_as_timm_does(tmp_path):
    whole = randomised(timm.create_model("test_vit"))
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    model = load_timm_backbone("test_vit", tmp_path / "w.pth", img_size=128)
    expected = timm.create_model(
        "test_vit",
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": whole.state_dict(), "custom_load": False},
        img_size=128,
        features_only=True,
    )
    assert model.model.pos_embed.shape != whole.pos_embed.shape
    torch.testing.assert_close(model.model.pos_embed, expected.model.pos_embed)


def test_a_file_of_another_model_is_refused_with_its_name_and_keys(tmp_path, tiny):
    torch.save(randomised(timm.create_model("resnet34")).state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        InputError,
        match=r"w\.pth \(it holds torchvision ResNet weights\) does not fit resnet18: unexpected layer1\.2\.conv1",
    ):
        load_timm_backbone("resnet18", tmp_path / "w.pth")  # resnet34 holds all of resnet18's keys, and more
    with pytest.raises(InputError, match=r"missing layer1\.0\.conv3\.weight") as caught:
        load_timm_backbone("resnet50", tmp_path / "w.pth")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("fault", ["missing", "unexpected", "shape"])
def test_a_file_must_fit_tensor_by_tensor(tmp_path, tiny, fault):
    state = dict(tiny.state_dict())
    key = "layer2.0.conv1.weight"
    if fault == "missing":
        del state[key]
    elif fault == "unexpected":
        state[key := "layer9.weight"] = torch.zeros(2)
    else:
        state[key] = state[key][:-1]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=rf"{fault}:? {key}"):
        load_timm_backbone(TINY, tmp_path / "w.pth")


def test_none_is_random_and_reads_nothing():
    torch.manual_seed(0)
    first = load_timm_backbone(TINY, "none")
    second = load_timm_backbone(TINY, "none")
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_names_that_timm_lacks_are_refused():
    with pytest.raises(InputError, match=r"no model resnet51; near it: .*resnet"):
        load_timm_backbone("resnet51", "none")
    with pytest.raises(InputError, match=r"no weights named resnet18\.nope; it has resnet18\."):
        timm_config("resnet18.nope")


# Pretrained weights, from a hub on this machine


class Hub(http.server.BaseHTTPRequestHandler):
    content = b""
    requests = 0

    def do_HEAD(self):
        type(self).requests += 1
        found = self.path.endswith("model.safetensors")
        self.send_response(200 if found else 404)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *_):
        pass


class Broken(Hub):
    requests = 0

    def do_HEAD(self):
        type(self).requests += 1
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub_at(tmp_path, monkeypatch):
    """Serve a handler in the hub's place, with an empty cache."""
    servers = []

    def serve(handler):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        address = f"http://127.0.0.1:{server.server_port}"
        pages = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", pages)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        return server

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_pretrained_weights_are_downloaded_once_and_then_need_no_network(tmp_path, hub_at, tiny):
    save_file(tiny.state_dict(), tmp_path / "tiny.safetensors")
    handler = type("ServesTiny", (Hub,), {"content": (tmp_path / "tiny.safetensors").read_bytes(), "requests": 0})
    server = hub_at(handler)
    assert same_weights(load_timm_backbone(TINY, "pretrained"), tiny)
    asked = handler.requests
    assert asked > 0
    server.shutdown()
    server.server_close()
    grey = load_timm_backbone(TINY, "pretrained", in_chans=1)
    assert handler.requests == asked
    torch.testing.assert_close(
        grey.state_dict()["conv1.0.weight"], tiny.state_dict()["conv1.0.weight"].sum(1, keepdim=True)
    )


def test_a_hub_that_fails_is_asked_once_and_the_error_says_what_to_do(hub_at):
    hub_at(Broken)
    with pytest.raises(InputError, match=r"cannot download the weights of test_resnet.*http.*: use --this") as caught:
        load_timm_backbone(TINY, "pretrained", advice="use --this")
    assert Broken.requests == 1  # the client's own retries last the best part of a minute
    assert "\n" not in str(caught.value)


def test_offline_mode_is_respected(hub_at, monkeypatch):
    handler = type("Never", (Broken,), {"requests": 0})
    hub_at(handler)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="cannot download"):
        load_timm_backbone(TINY, "pretrained")
    assert handler.requests == 0


def test_a_model_without_published_weights_says_so():
    with pytest.raises(InputError, match="no pretrained weights for test_maxvit"):
        load_timm_backbone("test_maxvit", "pretrained")
