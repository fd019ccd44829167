"""`--init-from`: a fine-tuning that starts from the network of an earlier one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from earface.core.command_line import parse_options
from earface.core.errors import InputError
from earface.core.stopping import EXIT_PAUSED
from earface.data.face_rows import read_faces
from earface.data.identity_split import identity_digests
from facial_rec.config import EdgeFaceStageConfig, EdgeFaceTrainingConfig
from facial_rec.finetune_edgeface import main
from facial_rec.hub import EdgeFaceProvenance
from facial_rec.model import EdgeFace
from facial_rec.module import EdgeFaceLightning
from tests.conftest import VLR, only_line
from tests.facial_rec.conftest import Arguments, last, metric_rows

pytestmark = pytest.mark.runs

STRANGERS = ("0" * 16, "f" * 16)  # that `earlier` was trained on, and nobody in face_set
STILL = ("--backbone-lr", "1e-30", "--head-lr-stage2", "1e-30", "--weight-decay", "0")  # nothing moves visibly


@pytest.fixture(scope="module")
def earlier(edgeface: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recogniser that was fine-tuned on other identities."""
    folder = tmp_path_factory.mktemp("earlier")
    model, generator = EdgeFace.from_weights(edgeface), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    model.provenance = EdgeFaceProvenance("arcface", "bicubic", VLR, "bicubic", STRANGERS)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def both_sets(face_set: Path) -> set[str]:
    """Digests of `earlier`'s training identities and of those that face_set has two or more images of."""
    people = [row.identity for row in read_faces(face_set, ("train",))]
    return {*STRANGERS, *identity_digests(name for name in people if people.count(name) > 1)}


def network_of(checkpoint: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    state = checkpoint["state_dict"]
    return {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}


def is_close(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.allclose(one[name], other[name], rtol=0, atol=1e-12) for name in one)


def stage2_of(arguments: list[str]) -> EdgeFaceStageConfig:
    return parse_options(EdgeFaceTrainingConfig, arguments, prog="finetune").of_stage(2)


@pytest.mark.parametrize(
    "extra",
    [(), ("--stage1-epochs", "0"), ("--lora-rank", "2"), ("--stage1-epochs", "0", "--lora-rank", "2")],
    ids=["both stages", "stage 2 alone", "adapters", "adapters in stage 2 alone"],
)
def test_the_run_starts_from_the_given_network(
    extra: tuple[str, ...],
    earlier: Path,
    edgeface: Path,
    both_sets: set[str],
    options_of: Arguments,
    tmp_path: Path,
) -> None:
    """With rates that move nothing, the result is the given network; it inherits its training identities."""
    assert main(options_of(tmp_path, *STILL, *extra, "--init-from", str(earlier))) == 0
    found = EdgeFace.load(tmp_path / "checkpoints" / "tuned")
    assert is_close(found.state_dict(), EdgeFace.load(earlier).state_dict())
    assert not is_close(found.state_dict(), EdgeFace.from_weights(edgeface).state_dict())
    assert set(found.provenance.trained_on) == both_sets


def test_a_run_paused_in_stage_1_goes_on_from_the_given_network(
    earlier: Path, both_sets: set[str], options_of: Arguments, tmp_path: Path
) -> None:
    """Continued without `--init-from`, it ends as a run that was never paused, to the last bit."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    epochs = ("--stage1-epochs", "2", "--keep-weight", "1", "--num-threads", "1")
    given = ("--init-from", str(earlier))
    assert main(options_of(whole, *epochs, *given)) == 0
    assert main(options_of(parts, *epochs, *given, "--stop-after-epoch", "1")) == EXIT_PAUSED
    assert main(options_of(parts, *epochs)) == 0
    stage1, wanted = network_of(last(parts, 1)), EdgeFace.load(earlier).state_dict()
    assert stage1.keys() == wanted.keys()
    assert all(torch.equal(stage1[name], wanted[name]) for name in wanted)
    weights = [folder / "checkpoints" / "tuned" / "model.safetensors" for folder in (whole, parts)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    for stage in (1, 2):
        assert set(last(parts, stage)["trained_on"]) == both_sets


def test_align_and_keep_compare_with_the_pretrained_network(
    earlier: Path, edgeface: Path, finished: Path, options_of: Arguments, tmp_path: Path
) -> None:
    module = EdgeFaceLightning(stage2_of(options_of(tmp_path)), EdgeFace.from_weights(edgeface), ["one", "other"])
    module.initialise_from(str(earlier))
    faces = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        pretrained, given = (model(faces) for model in (EdgeFace.from_weights(edgeface), EdgeFace.load(earlier)))
        torch.testing.assert_close(module.pretrained(faces), pretrained)
        torch.testing.assert_close(module.model.eval()(faces), given)
    assert not torch.allclose(pretrained, given, atol=1e-3)
    assert main(options_of(tmp_path, *STILL, "--keep-weight", "1", "--init-from", str(earlier))) == 0
    own, others = ([row for row in metric_rows(folder, 2) if "val/loss" in row][-1] for folder in (tmp_path, finished))
    of_pretrained = {name for name in own if "_pretrained_" in name}
    assert of_pretrained == {name for name in others if "_pretrained_" in name} != set()
    assert all(own[name] == others[name] for name in of_pretrained)
    (kept,) = [row["train/keep"] for row in metric_rows(tmp_path, 2) if "train/keep" in row]
    assert kept > 1e-3  # `finished`, which started from the pretrained network, began at 0


@pytest.mark.parametrize(
    "given",
    [
        *(".", "checkpoints", "checkpoints/tuned", "checkpoints/tuned/model.safetensors", "checkpoints/stage2"),
        *("checkpoints/stage2/last.ckpt", "checkpoints/stage2/edgeface_stage2-*.ckpt"),
    ],
)
def test_a_run_is_named_by_its_folder_a_checkpoint_or_what_it_wrote(
    given: str, finished: Path, edgeface: Path, options_of: Arguments, tmp_path: Path
) -> None:
    path = str(finished / given)
    arguments = options_of(tmp_path, "--init-from", path)
    parse_options(EdgeFaceTrainingConfig, arguments, prog="finetune").check_paths()
    module = EdgeFaceLightning(stage2_of(arguments), EdgeFace.from_weights(edgeface), ["one", "other"])
    module.initialise_from(path)
    wanted = network_of(last(finished, 2))  # of two steps, so that the best is the last
    found = module.model.state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert module.inherited == set(last(finished, 2)["trained_on"])


def test_another_variant_is_one_line(options_of: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    EdgeFace("edgeface_xs_gamma_06").save_pretrained(tmp_path / "other")
    run = tmp_path / "run"
    assert main(options_of(run, "--init-from", str(tmp_path / "other"))) == 2
    message = "other: was fine-tuned from edgeface_xs_gamma_06, not edgeface_xxs: give that as --recognizer"
    assert message in only_line(capsys)
    assert not list(run.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere.ckpt", "nowhere.ckpt: no such checkpoint"),
        ("empty", "empty: a folder without last.ckpt"),
        ("ear.ckpt", "ear.ckpt: this checkpoint holds no fine-tuned EdgeFace"),
    ],
)
def test_what_holds_no_fine_tuned_recogniser_is_one_line(
    given: str, message: str, options_of: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    torch.save({"state_dict": {}, "hyper_parameters": {"kind": "earface.EarVAE", "model": {}}}, tmp_path / "ear.ckpt")
    run = tmp_path / "run"
    assert main(options_of(run, "--init-from", str(tmp_path / given))) == 2
    assert message in only_line(capsys)
    assert not list(run.rglob("*.ckpt"))


def test_a_module_is_not_rebuilt_from_a_checkpoint_alone(finished: Path) -> None:
    path = finished / "checkpoints" / "stage2" / "last.ckpt"
    with pytest.raises(InputError, match=r"last\.ckpt: EdgeFaceLightning also needs .* EdgeFace\.load_from_checkpoint"):
        EdgeFaceLightning.load_from_checkpoint(path)
