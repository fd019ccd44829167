"""The fine-tuning of EdgeFace: small real runs of both stages, what they change, and how they are resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dsr.config import DSRConfig
from dsr.model import DSR
from dsr.upsampler import build_upsamplers
from earface.core.command_line import parse_options
from earface.core.errors import InputError
from earface.core.stopping import EXIT_PAUSED
from earface.data.pixels import to_model_range
from earface.nn.upsampler import Upsampler
from earface.training import resume
from facial_rec.config import ALIASES, EdgeFaceTrainingConfig, parse_mixture
from facial_rec.datamodule import UNSEEN, EdgeFaceDataModule
from facial_rec.finetune_edgeface import main
from facial_rec.metrics import selection_loss
from facial_rec.model import EdgeFace
from facial_rec.module import EdgeFaceLightning
from facial_rec.recognizer import load_edgeface
from tests.conftest import VLR, only_line
from tests.facial_rec.conftest import Arguments, last, metric_rows
from tests.support.training import assert_same

pytestmark = pytest.mark.runs

GUIDE = {  # ../shared/reference/vlr_32x32_guide.md
    "stage2-epochs": 25,
    "batch-size": 28,
    "head-lr": 9e-4,
    "backbone-lr": 6e-6,
    "head-lr-stage2": 6e-5,
    "arcface-margin": 0.45,
    "weight-decay": 3e-5,
    "label-smoothing": 0.08,
    "early-stop-patience": 10,
}


def test_every_flag_of_the_guide_has_its_default() -> None:
    config = parse_options(
        EdgeFaceTrainingConfig, ["--device", "cpu", "--stage2-epochs", "25"], prog="f", aliases=ALIASES
    )
    for flag, value in GUIDE.items():
        assert getattr(config, flag.replace("-", "_")) == value, flag
    assert (config.scale, config.stage1_epochs, config.accelerator) == (64.0, 5, "cpu")


def test_stage_1_leaves_the_network_bit_identical_and_stage_2_does_not(finished: Path, edgeface: Path) -> None:
    pretrained = torch.load(edgeface, weights_only=True)
    for stage, same in ((1, True), (2, False)):
        state = last(finished, stage)["state_dict"]
        own = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
        assert own.keys() == pretrained.keys()
        assert all(torch.equal(own[name], pretrained[name]) for name in pretrained) == same
    heads = [last(finished, stage)["state_dict"]["head.weight"] for stage in (1, 2)]
    assert not torch.equal(*heads)


@pytest.mark.parametrize("stage", [1, 2])
def test_the_network_of_stage_1_is_frozen_and_stays_in_evaluation_mode(
    stage: int, options_of: Arguments, tmp_path: Path
) -> None:
    config = parse_options(EdgeFaceTrainingConfig, options_of(tmp_path), prog="finetune").of_stage(stage)
    module = EdgeFaceLightning(config, EdgeFace("edgeface_xxs"), ["somebody", "else"]).eval().train()
    frozen = stage == 1
    assert all(part.training != frozen for part in module.model.modules())
    assert all(parameter.requires_grad != frozen for parameter in module.model.parameters())
    assert module.head.training


def test_stage_2_starts_from_the_head_of_stage_1(options_of: Arguments, finished: Path, tmp_path: Path) -> None:
    """With rates that move nothing, its head is stage 1's."""
    still = ("--keep-weight", "1", "--lambda-align", "1", "--head-lr-stage2", "1e-30", "--backbone-lr", "1e-30")
    assert main(options_of(tmp_path, *still, "--weight-decay", "0")) == 0
    state = last(tmp_path, 2)["state_dict"]
    assert torch.equal(state["head.weight"], last(tmp_path, 1)["state_dict"]["head.weight"])


def test_groups_have_the_rates_asked_for(finished: Path) -> None:
    first, second = (last(finished, stage)["optimizer_states"][0]["param_groups"] for stage in (1, 2))
    assert {group["name"]: group["initial_lr"] for group in first} == {"head": 9e-4}
    rates = {group["name"]: group["initial_lr"] for group in second}
    assert rates == {"backbone": 1e-4, "backbone.no_decay": 1e-4, "head": 6e-5}
    assert all(group["weight_decay"] == (0.0 if "no_decay" in group["name"] else 3e-5) for group in second)


def test_what_is_logged_adds_up(finished: Path) -> None:
    losses = [row for row in metric_rows(finished, 2) if "train/loss" in row]
    assert losses
    for row in losses:
        assert row["train/loss"] == pytest.approx(
            row["train/arcface"] + row["train/align"] + row["train/keep"], rel=1e-4
        )
    measured = [row for row in metric_rows(finished, 2) if "val/loss" in row][-1]
    assert {
        f"val/{name}_{upsampler}" for name in ("rank1", "eer") for upsampler in ("hr", "bicubic")
    } <= measured.keys()
    forgotten = measured["val/rank1_pretrained_hr"] - measured["val/rank1_hr"] > 0.003
    assert measured["val/loss"] == pytest.approx(1 - measured["val/rank1_bicubic"] + forgotten)
    assert [row["val/loss"] for row in metric_rows(finished, 1) if "val/loss" in row] == [
        row["val/cross_entropy"] for row in metric_rows(finished, 1) if "val/loss" in row
    ]


@torch.no_grad()
def test_classification_is_measured_on_held_out_pictures_alone(finished: Path, options_of: Arguments) -> None:
    """Those of training identities; the others have no class."""
    config = parse_options(EdgeFaceTrainingConfig, options_of(finished), prog="finetune").of_stage(1)
    data = data_of(options_of(finished))
    module = EdgeFaceLightning(config, load_edgeface(config.recognizer), data.classes).eval()
    module.load_state_dict(last(finished, 1)["state_dict"])
    losses, hits = [], []
    for item in data.val_set:
        if item["label"] != UNSEEN:
            crop = to_model_range(item["all_pixels"]["bicubic"][None])
            logits = module.head(module.model(module.contract(crop)))
            losses.append(float(-logits.log_softmax(dim=1)[0, item["label"]]))
            hits.append(int(logits.argmax()) == item["label"])
    assert 0 < len(losses) < len(data.val_set)
    (row,) = [row for row in metric_rows(finished, 1) if "val/loss" in row]
    assert row["val/cross_entropy"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert row["val/accuracy"] == pytest.approx(np.mean(hits))


def test_the_checkpoint_is_chosen_by_rank_1_and_tar_and_not_if_hr_is_forgotten() -> None:
    found = {
        "rank1_hr": 0.95,
        "rank1_pretrained_hr": 0.96,
        "rank1_dsr": 0.8,
        "tar_dsr": 0.5,
        "rank1_bicubic": 0.5,
    }
    upsamplers = ["dsr", "bicubic"]
    loss = selection_loss(found, upsamplers, "hr", max_forgetting=0.02)
    assert loss == pytest.approx(1 - (0.8 + 0.5 + 0.5) / 3)
    assert selection_loss(found | {"tar_dsr": 0.6}, upsamplers, "hr", 0.02) < loss
    assert selection_loss(found, upsamplers, "hr", max_forgetting=0.005) == pytest.approx(loss + 1)
    assert selection_loss(found | {"rank1_hr": 0.97}, upsamplers, "hr", max_forgetting=0) == pytest.approx(loss)


def test_the_folder_of_a_run_is_its_best_checkpoint_and_embeds(finished: Path, face_set: Path, tmp_path: Path) -> None:
    from earface.data.identity_embeddings import read_embeddings
    from earface.nn.inference import weights_digest
    from facial_rec.embed import main as embed

    folder = finished / "checkpoints" / "tuned"
    model = EdgeFace.load(folder)
    provenance = model.provenance
    best = EdgeFace.load(finished / "checkpoints" / "stage2" / "edgeface_stage2-*.ckpt")
    assert_same(model.state_dict(), best.state_dict())
    assert provenance.trained_on == tuple(last(finished, 2)["trained_on"])
    assert json.loads((folder / "config.json").read_text())["provenance"]["contract"] == provenance.contract
    out = tmp_path / "e.npz"
    pictures = str(face_set / "test_processed" / "hr_images")
    found = []
    for weights in (folder, folder / "model.safetensors"):
        assert embed(["--input", pictures, "--recognizer", str(weights), "--out", str(out), "--overwrite"]) == 0
        found.append(read_embeddings(out, contract=provenance.contract, digest=weights_digest(model)).embeddings)
    np.testing.assert_array_equal(*found)
    other = ["--crop", "center", "--out", str(tmp_path / "other.npz")]
    assert embed(["--input", pictures, "--recognizer", str(folder), *other]) == 2


def test_a_stopped_run_ends_as_one_never_stopped(
    options_of: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within each stage, so that the border is crossed too; to the last bit, with other workers in between.

    Each of the two runs asks once how many threads to take: both stages compute with as many.
    """
    answers = iter([1, 1])
    monkeypatch.setattr(resume, "automatic_threads", lambda: (next(answers), "as this test wants them"))
    options = (
        "--stage1-epochs",
        "2",
        "--stage2-epochs",
        "2",
        "--keep-weight",
        "1",
        "--upsampler",
        "bicubic=.6,none=.4",
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(options_of(whole, *options, "--ema-decay", "0.9", "--balanced")) == 0
    again = options_of(parts, *options, "--ema-decay", "0.9", "--balanced")
    for code in (EXIT_PAUSED, EXIT_PAUSED):  # in stage 1; stage 1 to its end, then in stage 2
        assert main([*again, "--stop-after-epoch", "1", "--num-workers", "1"]) == code
    assert main(again) == 0
    for stage in (1, 2):
        one, other = last(whole, stage), last(parts, stage)
        for key in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "terms", "classes"):
            assert_same(one[key], other[key])
        assert metric_rows(whole, stage) == metric_rows(parts, stage)
    weights = [path / "checkpoints" / "tuned" / "model.safetensors" for path in (whole, parts)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize("stage", [1, 2])
def test_a_checkpoint_of_either_stage_can_be_resumed_by_its_path(
    stage: int, options_of: Arguments, tmp_path: Path
) -> None:
    """Paused in stage 1, stage 2 follows; paused in stage 2, stage 1 stays as it is."""
    given = options_of(tmp_path, "--stage1-epochs", "2", "--stage2-epochs", "2")
    for _ in range(stage):
        assert main([*given, "--stop-after-epoch", "1"]) == EXIT_PAUSED
    path = tmp_path / "checkpoints" / f"stage{stage}" / "last.ckpt"
    assert main([*given, "--resume", str(path)]) == 0
    assert [last(tmp_path, each)["run"]["epochs_done"] for each in (1, 2)] == [2, 2]


def test_adapters_alone_learn_and_are_merged_in_what_comes_out(
    options_of: Arguments, edgeface: Path, tmp_path: Path
) -> None:
    assert main(options_of(tmp_path, "--lora-rank", "2", "--backbone-lr", "1e-2")) == 0
    groups = last(tmp_path, 2)["optimizer_states"][0]["param_groups"]
    assert {group["name"] for group in groups} == {"adapters", "head"}
    model = EdgeFace.load(tmp_path / "checkpoints" / "tuned")
    pretrained = EdgeFace.from_weights(edgeface)
    assert model.state_dict().keys() == pretrained.state_dict().keys()
    changed = {
        name for name, value in model.state_dict().items() if not torch.equal(value, pretrained.state_dict()[name])
    }
    linear = {f"{name}.weight" for name, module in pretrained.named_modules() if isinstance(module, torch.nn.Linear)}
    assert changed
    assert changed <= linear


# What is shown


def data_of(arguments: list[str], upsamplers: list[Upsampler] | None = None) -> EdgeFaceDataModule:
    config = parse_options(EdgeFaceTrainingConfig, arguments, prog="finetune")
    made = build_upsamplers(config.mixture, config.dsr_checkpoint, config.vlr_size)
    data = EdgeFaceDataModule(config, made if upsamplers is None else upsamplers)
    data.prepare_data()
    data.setup()
    return data


def test_a_mixture_shows_each_upsampler_by_its_share(options_of: Arguments, tmp_path: Path) -> None:
    data = data_of(options_of(tmp_path, "--upsampler", "bicubic=1,none=3", "--augment", "none"))
    faces, shown = data.train_set.faces, []
    for epoch in range(60):
        item = data.train_set[(epoch, 0)]
        is_hr = torch.equal(item["pixels"], torch.from_numpy(faces.image("hr", item["index"])))
        low = torch.equal(item["pixels"], torch.from_numpy(faces.image("bicubic", item["index"])))
        assert is_hr != low
        shown.append(is_hr)
    assert 35 <= sum(shown) <= 55  # of 60 draws at .75: within three deviations
    assert parse_mixture("bicubic=1,none=3") == {"bicubic": 0.25, "none": 0.75}


def test_balanced_shows_every_identity_equally_often(options_of: Arguments, tmp_path: Path) -> None:
    data = data_of(options_of(tmp_path, "--balanced", "--min-images", "1"))
    labels = [data.train_set[(0, index)]["label"] for index in range(len(data.train_set))]
    counts = np.bincount(labels)
    assert counts.max() - counts.min() <= 1
    plain = data_of(options_of(tmp_path, "--min-images", "1"))
    assert sorted(plain.train_set[(0, index)]["index"] for index in range(len(plain.train_set))) == sorted(
        plain.train_set.places.tolist()
    )


def test_no_held_out_or_unseen_picture_is_trained_on(options_of: Arguments, tmp_path: Path) -> None:
    data = data_of(options_of(tmp_path))
    trained = {data.train_set.faces.rows[place].path for place in data.train_set.places}
    measured = {data.val_set.faces.rows[place].path for place in data.val_set.places}
    assert not trained & measured
    labels = data.val_set.labels
    assert {row.identity for row in data.unseen_rows}.isdisjoint(data.classes)
    assert (labels == UNSEEN).sum() == len(data.unseen_rows)
    assert (labels != UNSEEN).sum() >= 1


def test_inputs_are_made_once_and_again_for_another_super_resolver(options_of: Arguments, tmp_path: Path) -> None:
    cache = ("--cache-dir", str(tmp_path / "cache"))
    calls = []

    def counted(vlr: torch.Tensor) -> torch.Tensor:
        calls.append(len(vlr))
        return torch.nn.functional.interpolate(vlr, (128, 128))

    first = data_of(options_of(tmp_path, *cache), [Upsampler("dsr", counted, "one")])
    made = len(calls)
    assert sum(calls) == len(first.train_set.faces.rows)
    data_of(options_of(tmp_path, *cache), [Upsampler("dsr", counted, "one")])
    assert len(calls) == made
    data_of(options_of(tmp_path, *cache), [Upsampler("dsr", counted, "two")])
    assert len(calls) == 2 * made
    assert len(list((tmp_path / "cache").glob("*.bin"))) == 2


def test_dsr_inputs_are_what_the_checkpoint_makes(options_of: Arguments, tmp_path: Path) -> None:
    torch.manual_seed(0)
    DSR(DSRConfig(8, 1, VLR)).save_pretrained(tmp_path / "dsr")
    data = data_of(options_of(tmp_path, "--upsampler", "dsr", "--dsr-checkpoint", str(tmp_path / "dsr")))
    model = DSR.from_pretrained(tmp_path / "dsr")
    batch = next(iter(data._batches(data.train_set.faces.rows)))
    with torch.no_grad():
        wanted = ((model(batch["vlr"])[0] + 1) * 127.5).round().permute(1, 2, 0)
    got = torch.from_numpy(data.train_set.faces.image("dsr", 0)).float()
    assert (got - wanted).abs().max() <= 1


# What is wrong


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--upsampler", "dsr=1,blur=2"], "--upsampler dsr=1,blur=2: dsr, bicubic, none"),
        (["--upsampler", "none=0"], "--upsampler none=0: dsr, bicubic, none"),
        (["--min-images", "9"], "fewer than two of its 7 training identities have 9 or more images"),
        (["--recognizer", "nowhere.pt"], "nowhere.pt: neither a file nor one of"),
        (["--upsampler", "dsr", "--dsr-checkpoint", "none.ckpt"], "none.ckpt: no such checkpoint"),
        (["--lora-rank", "4000"], "--lora-rank 4000: no linear layer is larger"),
        (["--lambda-arcface", "0"], "--lambda-arcface 0: give --lambda-align or --keep-weight above 0"),
    ],
)
def test_wrong_options_are_one_line(
    given: list[str], message: str, options_of: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options_of(tmp_path, "--stage1-epochs", "0", *given)) == 2
    assert message in only_line(capsys)


def test_without_a_picture_to_hold_out_there_is_one_line(
    face_set: Path, options_of: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(face_set, tmp_path / "set")
    pictures = sorted((tmp_path / "set" / "train_processed" / "hr_images").iterdir())
    for place, path in enumerate(pictures):
        if sum(other.name[:3] == path.name[:3] for other in pictures[:place]) > 1:  # two remain of each
            path.unlink()
    assert main(options_of(tmp_path, "--dataset-root", str(tmp_path / "set"))) == 2
    assert "no training identity has three or more images" in only_line(capsys)


def test_a_super_resolver_of_another_size_is_one_line(
    options_of: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    DSR(DSRConfig(8, 1, "24")).save_pretrained(tmp_path / "dsr")
    assert main(options_of(tmp_path, "--upsampler", "dsr", "--dsr-checkpoint", str(tmp_path / "dsr"))) == 2
    assert "takes 24 px, not 16: give --vlr-size 24" in only_line(capsys)


def test_other_classes_are_no_continuation(
    finished: Path, options_of: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = parse_options(EdgeFaceTrainingConfig, options_of(tmp_path), prog="finetune").of_stage(2)
    module = EdgeFaceLightning(config, EdgeFace("edgeface_xxs"), ["somebody", "else"])
    with pytest.raises(InputError, match=r"was trained on \d+ identities, and .* has 2 with 2 or more images"):
        module.start_from_stage1(finished / "checkpoints" / "stage1" / "last.ckpt")


def test_a_loss_that_is_not_finite_names_files_and_keeps_what_was_there(
    options_of: Arguments, edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights so large that half precision overflows."""
    state = torch.load(edgeface, weights_only=True)
    state["model.head.fc.weight"].sign_().mul_(3e38)
    torch.save(state, tmp_path / "large.pt")
    assert main(options_of(tmp_path, "--recognizer", str(tmp_path / "large.pt"), "--precision", "bf16-mixed")) == 2
    error = only_line(capsys)
    assert "step 0: loss, arcface not finite on " in error
    assert ".png" in error
    assert "there is no checkpoint from before that" in error
