"""Fine-tuning on faces without identity, with feature maps, and on several degradations of each face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsr.config import DSRConfig
from dsr.model import DSR
from dsr.upsampler import build_upsamplers
from earface.core.command_line import parse_options
from earface.core.stopping import EXIT_PAUSED
from earface.data.degradation import picture_key
from earface.data.face_sizes import parse_vlr_sizes
from earface.data.images import read_image
from earface.data.pixels import interpolate, to_model_range, to_uint8
from earface.data.vlr_rule import VLRRule
from earface.nn.margin_head import margin_loss
from earface.synthetic.face_set import FaceSet, write_face_set
from facial_rec.config import EdgeFaceStageConfig, EdgeFaceTrainingConfig
from facial_rec.datamodule import UNSEEN, EdgeFaceDataModule, TrainingBatch
from facial_rec.finetune_edgeface import main
from facial_rec.input_cache import VLRFaces, cache_path
from facial_rec.losses import EdgeFaceLoss, EdgeFaceLossWeights
from facial_rec.model import EdgeFace
from facial_rec.module import EdgeFaceLightning
from facial_rec.recognizer import load_edgeface
from tests.conftest import only_line
from tests.earface.data.conftest import draw_picture
from tests.facial_rec.conftest import Arguments, last, metric_rows
from tests.support.training import assert_same

pytestmark = pytest.mark.runs

ALIGNED = ("--lambda-align", "1", "--min-images", "1")
BLIND = ("--vlr-size", "12-16", "--degradation", "mixed", "--misalignment", ".5")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strangers")
    write_face_set(folder, FaceSet(5, 1, 128, seed=77))
    return folder


def data_of(arguments: list[str]) -> EdgeFaceDataModule:
    config = parse_options(EdgeFaceTrainingConfig, arguments, prog="finetune")
    data = EdgeFaceDataModule(config, build_upsamplers(config.mixture, config.dsr_checkpoint, config.vlr_size))
    data.prepare_data()
    data.setup()
    return data


# The loss


def test_the_margin_loss_is_of_the_faces_with_a_class_and_0_without_any() -> None:
    loss = EdgeFaceLoss(EdgeFaceLossWeights(1.0, 1.0), 0.1, UNSEEN)
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(6, 8, generator=generator).requires_grad_()
    target = torch.nn.functional.normalize(torch.randn(6, 8, generator=generator), dim=1)
    logits = torch.randn(6, 5, generator=generator).requires_grad_()
    found = loss(logits, torch.tensor([UNSEEN, 3, UNSEEN, UNSEEN, 1, UNSEEN]), embeddings, target)
    known = margin_loss(logits[[1, 4]], torch.tensor([3, 1]), 0.1)
    assert float(found.terms["arcface"].detach()) == pytest.approx(float(known.detach()), rel=1e-6)
    cosines = [float(a @ b / a.norm()) for a, b in zip(embeddings.detach(), target, strict=True)]
    assert float(found.terms["align"].detach()) == pytest.approx(1 - np.mean(cosines), abs=1e-6)
    alone = loss(logits, torch.full((6,), UNSEEN), embeddings, target)
    assert float(alone.terms["arcface"].detach()) == 0.0
    alone.total.backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
    assert embeddings.grad.any()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_feature_matching_is_the_mean_over_stages_of_mean_differences() -> None:
    loss = EdgeFaceLoss(EdgeFaceLossWeights(0.0, 0.0, 0.0, feature_match=2.0))
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 4, 4, 4), (3, 8, 2, 2))
    maps, wanted = ([torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2))
    embeddings, target = torch.randn(3, 8, generator=generator), torch.eye(8)[:3]
    found = loss(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), embeddings, target, None, maps, wanted)
    stages = [np.abs(one.numpy() - other.numpy()).mean() for one, other in zip(maps, wanted, strict=True)]
    assert float(found.terms["feature_match"]) == pytest.approx(np.mean(stages), rel=1e-6)
    assert float(found.total) == pytest.approx(2 * np.mean(stages), rel=1e-6)


def stage_of(options_of: Arguments, folder: Path, *given: str, stage: int = 2) -> EdgeFaceStageConfig:
    return parse_options(EdgeFaceTrainingConfig, options_of(folder, *given), prog="finetune").of_stage(stage)  # type: ignore[arg-type]


@pytest.mark.parametrize("head", ["arcface", "cosface", "adaface"])
@pytest.mark.parametrize("keep", ["0", "1"])
def test_a_batch_of_both_is_the_losses_of_its_parts(
    head: str, keep: str, options_of: Arguments, strangers: Path, tmp_path: Path
) -> None:
    """The head, and adaface's statistics, see the faces with a class alone; every other term sees all."""
    given = (*ALIGNED, "--keep-weight", keep, "--lambda-feature-match", "1", "--head", head)
    config = stage_of(options_of, tmp_path, *given, "--extra-hr", str(strangers))
    module = EdgeFaceLightning(config, load_edgeface(config.recognizer), ["somebody", "else"])
    faces = torch.rand(6, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    place = torch.arange(6)

    def batch(labels: list[int]) -> TrainingBatch:
        return {"image": faces, "hr": faces.flip(3), "label": torch.tensor(labels), "index": place}

    def terms(given: TrainingBatch) -> dict[str, float]:
        return {name: float(term.detach()) for name, term in module.objective(given).terms.items()}

    def parts(chosen: list[int], labels: list[int]) -> dict[str, float]:
        own: TrainingBatch = {
            "image": faces[chosen],
            "hr": faces.flip(3)[chosen],
            "label": torch.tensor(labels),
            "index": place[chosen],
        }
        module.head = fresh(module)
        return terms(own)

    def fresh(module: EdgeFaceLightning) -> torch.nn.Module:
        torch.manual_seed(1)
        return EdgeFaceLightning(config, EdgeFace("edgeface_xxs"), ["somebody", "else"]).head

    with torch.no_grad():  # away from the pretrained network
        weight = module.model.get_parameter("model.head.fc.weight")
        weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)) * weight.std())
    module.eval()
    module.head.train()
    module.head = fresh(module)
    mixed = terms(batch([1, UNSEEN, 0, UNSEEN, UNSEEN, 1]))
    statistics = dict(module.head.named_buffers())
    known = parts([0, 2, 5], [1, 0, 1])
    for name, value in module.head.named_buffers():
        torch.testing.assert_close(value, statistics[name])
        assert not torch.equal(value, dict(fresh(module).named_buffers())[name])
    unknown = parts([1, 3, 4], [UNSEEN] * 3)
    for name, value in module.head.named_buffers():
        assert torch.equal(value, dict(fresh(module).named_buffers())[name])
    assert mixed["arcface"] == pytest.approx(known["arcface"], rel=1e-5)
    assert unknown["arcface"] == 0.0
    names = ["align", "feature_match", *(["keep"] if keep == "1" else [])]
    assert mixed.keys() == {"arcface", *names}
    for name in names:
        assert mixed[name] == pytest.approx((known[name] + unknown[name]) / 2, rel=1e-4), name


# The faces


def test_extra_faces_are_trained_on_without_a_class_and_change_nothing_else(
    options_of: Arguments, strangers: Path, tmp_path: Path
) -> None:
    plain = data_of(options_of(tmp_path, *ALIGNED))
    both = data_of(options_of(tmp_path, *ALIGNED, "--extra-hr", str(strangers)))
    items = [both.train_set[(0, index)] for index in range(len(both.train_set))]
    assert [item["label"] for item in items].count(UNSEEN) == 5
    assert [item["label"] for item in items[: len(plain.train_set)]] == [
        plain.train_set[(0, index)]["label"] for index in range(len(plain.train_set))
    ]
    assert {both.train_name(item["index"]) for item in items[len(plain.train_set) :]} == {
        str(path) for path in strangers.rglob("*.png")
    }
    assert both.val_set.identities == plain.val_set.identities
    assert both.val_set.labels.tolist() == plain.val_set.labels.tolist()
    assert both.trained_on == plain.trained_on
    balanced = data_of(options_of(tmp_path, *ALIGNED, "--extra-hr", str(strangers), "--balanced")).train_set
    labels = np.array([balanced[(0, index)]["label"] for index in range(len(balanced))])
    assert (labels == UNSEEN).sum() == 5
    counts = np.bincount(labels[labels != UNSEEN])
    assert counts.max() - counts.min() <= 1


@torch.no_grad()
def test_draws_are_other_degradations_of_each_face_that_epochs_take_in_turn(
    options_of: Arguments, strangers: Path, tmp_path: Path
) -> None:
    """What is cached is each face at its own size, enlarged by itself."""
    torch.manual_seed(0)
    DSR(DSRConfig(8, 1, "12-16")).save_pretrained(tmp_path / "dsr")
    given = (*ALIGNED, *BLIND, "--extra-hr", str(strangers), "--draws", "3", "--augment", "none")
    mixture = ("--upsampler", "bicubic,dsr", "--dsr-checkpoint", str(tmp_path / "dsr"))
    data = data_of(options_of(tmp_path, *given, *mixture))
    faces, rule = data.train_set.faces, VLRRule("mixed", parse_vlr_sizes("12-16"), 0.5)
    model = DSR.from_pretrained(tmp_path / "dsr")
    upsamplers = {"bicubic": lambda vlr: interpolate(vlr, 128), "dsr": model}
    for place in (0, 7, len(faces.rows) - len(data.unseen_rows) - 1):
        row = faces.rows[place]
        for draw in range(3):
            vlr = rule(read_image(row.path), picture_key(data.config.seed, row.path.stem, draw))
            for name, enlarge in upsamplers.items():
                wanted = to_uint8(enlarge(to_model_range(vlr[None])))[0].numpy().astype(int)
                assert np.abs(faces.image(name, place, draw) - wanted).max() <= 1, (name, draw)
    index = 3
    place = int(data.train_set.places[index])
    for epoch in range(6):
        shown = data.train_set[(epoch, index)]["pixels"].numpy()
        assert any(np.array_equal(shown, faces.image(name, place, epoch % 3)) for name in upsamplers)
    assert len({faces.image("bicubic", place, draw).tobytes() for draw in range(3)}) == 3
    last_place = len(faces.rows) - 1
    assert faces.rows[last_place].identity in {row.identity for row in data.unseen_rows}
    with pytest.raises(IndexError):
        faces.image("bicubic", last_place, 1)  # validation faces have one draw


def test_what_was_cached_before_there_were_draws_is_found(options_of: Arguments, tmp_path: Path) -> None:
    data = data_of(options_of(tmp_path, "--cache-dir", str(tmp_path / "cache")))
    (upsampler,) = data.upsamplers
    faces = VLRFaces(data.train_set.faces.rows, list, (data.config.vlr_size, "bicubic", data.config.seed))
    assert cache_path(tmp_path / "cache", upsampler, faces).is_file()


# Runs


@pytest.mark.slow
def test_a_run_with_extra_faces_resumes_exactly_and_stage_1_knows_nothing_of_them(
    options_of: Arguments, strangers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (*ALIGNED, *BLIND, "--extra-hr", str(strangers), "--lambda-feature-match", "1", "--draws", "2")
    given = (*given, "--stage2-epochs", "2", "--num-threads", "1")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(options_of(whole, *given)) == 0
    assert main(options_of(parts, *given, "--stage1-epochs", "1", "--stop-after-epoch", "1")) == EXIT_PAUSED
    assert "extra" not in last(parts, 1)["data"]
    assert last(parts, 2)["data"]["extra"].shape == (5, 2)
    assert last(parts, 2)["data"]["of_people"]
    other = strangers / "another.png"
    Image.fromarray(draw_picture(3, 128, 128)).save(other)
    capsys.readouterr()
    assert main(options_of(parts, *given)) == 2
    assert "the faces of --extra-hr are not those that the run began with (5 then, 6 now, 5 the" in only_line(capsys)
    other.unlink()
    assert main(options_of(parts, *given, "--num-workers", "1")) == 0
    for stage in (1, 2):
        for key in ("state_dict", "optimizer_states", "terms", "classes", "trained_on"):
            assert_same(last(whole, stage)[key], last(parts, stage)[key])
        assert metric_rows(whole, stage) == metric_rows(parts, stage)
    for row in (row for row in metric_rows(whole, 2) if "train/loss" in row):
        terms = row["train/arcface"] + row["train/align"] + row["train/feature_match"]
        assert row["train/loss"] == pytest.approx(terms, rel=1e-4)
        assert row["train/feature_match"] > 0
    plain = tmp_path / "plain"
    assert main(options_of(plain, *ALIGNED, *BLIND, "--num-threads", "1")) == 0
    assert_same(last(plain, 1)["state_dict"], last(whole, 1)["state_dict"])
    provenance = EdgeFace.load(whole / "checkpoints" / "tuned").provenance
    assert (provenance.vlr_size, provenance.degradation) == ("12-16", "mixed")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--extra-hr", "."], "--extra-hr: its faces have no identities: give --lambda-align, --lambda-feature-match"),
        (["--extra-hr", "nowhere", "--lambda-align", "1"], "--extra-hr nowhere: no such folder"),
        (["--draws", "2"], "--draws 2: bicubic faces of 16 px are always the same"),
        (["--vlr-size", "16-12"], "--vlr-size: VLR sizes '16-12': from the smaller to the larger"),
        (["--vlr-size", "12-16", "--degradation", "files"], "--vlr-size 12-16: a set's own VLR pictures"),
    ],
)
def test_wrong_options_are_one_line(
    given: list[str], message: str, options_of: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options_of(tmp_path, "--stage1-epochs", "0", *given)) == 2
    assert message in only_line(capsys)
