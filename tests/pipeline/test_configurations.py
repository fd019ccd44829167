"""Which configurations an evaluation has, and that their embeddings are those of a slow loop."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from dsr import DSR, DSRConfig
from dsr.upsampler import build_dsr_upsampler
from earface.core.errors import InputError
from earface.data.face_rows import FaceRow, read_faces
from earface.data.vlr_rule import Movement
from facial_rec.recognizer import FaceRecognizer, load_recognizer
from pipeline.configurations import (
    Condition,
    Configuration,
    FaceLoader,
    Models,
    conditions_of,
    count_embeddings,
)
from pipeline.evaluate_dataset import USUAL_DSR, USUAL_FINETUNED, PipelineEvaluationOptions, load_models
from pipeline.face_embeddings import EmbeddingCache
from pipeline.protocol import Enrolment, Protocol
from tests.conftest import VLR
from tests.pipeline.small import SEED, dsr_folder, finetuned_folder, slow_embeddings

pytestmark = pytest.mark.runs

BICUBIC, REALISTIC = Condition(VLR, "bicubic"), Condition(VLR, "realistic")
FIVE = ["HR", "bicubic + pretrained", "bicubic + fine-tuned", "DSR + pretrained", "DSR + fine-tuned"]


@pytest.fixture(scope="module")
def shelf(edgeface: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Super-resolvers and fine-tuned recognisers, each in its folder."""
    folder = tmp_path_factory.mktemp("shelf")
    dsr_folder(folder / "dsr16", VLR)
    dsr_folder(folder / "dsr16-realistic", VLR, seed=1, degradation="realistic")
    dsr_folder(folder / "dsr24", "24")
    dsr_folder(folder / "blind", "14-32", degradation="mixed")
    finetuned_folder(folder / "both-blind", edgeface, "dsr=.5,bicubic=.5", "14-32", degradation="mixed")
    finetuned_folder(folder / "both16", edgeface, "dsr=.5,bicubic=.5", VLR)
    finetuned_folder(folder / "dsr-only16", edgeface, "dsr", VLR, seed=2)
    finetuned_folder(folder / "realistic16", edgeface, "bicubic", VLR, seed=3, degradation="realistic")
    finetuned_folder(folder / "both14x16", edgeface, "dsr,bicubic", "14x16")
    return folder


@pytest.fixture(scope="module")
def pretrained(edgeface: Path) -> FaceRecognizer:
    return load_recognizer(str(edgeface), "arcface")


def models(
    shelf: Path, pretrained: FaceRecognizer, finetuned: tuple[str, ...] = (), resolvers: tuple[str, ...] = ()
) -> Models:
    return Models(
        pretrained,
        [load_recognizer(str(shelf / name), "arcface") for name in finetuned],
        [build_dsr_upsampler(str(shelf / name)) for name in resolvers],
    )


def names(configurations: list[Configuration]) -> list[str]:
    return [each.name for each in configurations]


# Which configurations


def test_the_five_configurations_are_in_order(shelf: Path, pretrained: FaceRecognizer) -> None:
    made = models(shelf, pretrained, ("both16",), ("dsr16",))
    found = made.configurations_of(BICUBIC)
    assert names(found) == FIVE
    assert [each.upsampler.name for each in found] == ["none", "bicubic", "bicubic", "dsr", "dsr"]
    finetuned = made.finetuned[0]
    assert [each.recognizer for each in found] == [
        pretrained,
        pretrained,
        finetuned,
        pretrained,
        finetuned,
    ]  # a mixture serves both its upsamplers
    assert made.notes({BICUBIC: found}) == []


@pytest.mark.parametrize(
    ("finetuned", "resolvers", "wanted"),
    [
        ((), (), FIVE[:2]),
        (("both16",), (), FIVE[:3]),
        ((), ("dsr16",), [*FIVE[:2], "DSR + pretrained"]),
        (("dsr-only16",), ("dsr16",), [*FIVE[:2], "DSR + pretrained", "DSR + fine-tuned"]),
        (("realistic16",), ("dsr16",), FIVE[:4]),
    ],
)
def test_configurations_without_a_model_are_left_out_and_reported(
    finetuned: tuple[str, ...], resolvers: tuple[str, ...], wanted: list[str], shelf: Path, pretrained: FaceRecognizer
) -> None:
    made = models(shelf, pretrained, finetuned, resolvers)
    found = made.configurations_of(BICUBIC)
    assert names(found) == wanted
    absent = [name for name in FIVE if name not in wanted]
    assert f"{BICUBIC}: no model for {', '.join(absent)}" in made.notes({BICUBIC: found})


def test_each_condition_takes_the_models_made_for_it(shelf: Path, pretrained: FaceRecognizer) -> None:
    made = models(shelf, pretrained, ("both16", "realistic16"), ("dsr24", "dsr16", "dsr16-realistic"))
    sources = {}
    for condition in conditions_of(["16", "24"], ["bicubic", "realistic"]):
        found = {each.name: each for each in made.configurations_of(condition)}
        resolver = found["DSR + pretrained"].upsampler.source
        finetuned = found["bicubic + fine-tuned"].recognizer.name if "bicubic + fine-tuned" in found else ""
        sources[str(condition)] = (Path(resolver).name, Path(finetuned).name)
    assert sources == {
        "16 px, bicubic": ("dsr16", "both16"),
        "24 px, bicubic": ("dsr24", ""),
        "16 px, realistic": ("dsr16-realistic", "realistic16"),
        "24 px, realistic": ("dsr24", ""),
    }


def test_a_blind_pair_serves_every_condition_of_its_range_and_gives_way_to_a_special_one(
    shelf: Path, pretrained: FaceRecognizer
) -> None:
    made = models(shelf, pretrained, ("both-blind", "both16"), ("blind", "dsr16"))
    assert models(shelf, pretrained, ("both-blind",), ("blind",)).sizes == ("16", "24", "32")
    sources = {}
    for condition in conditions_of(["16", "14x20", "32", "12"], ["bicubic", "realistic"]):
        found = made.configurations_of(condition)
        last = found[-1]
        sources[str(condition)] = (Path(last.upsampler.source).name, Path(last.recognizer.name).name)
        assert not any("was trained on mixed" in note for note in made.notes({condition: found}))
    blind = ("blind", "both-blind")
    assert sources == {
        "16 px, bicubic": ("dsr16", "both16"),
        "14x20 px, bicubic": blind,
        "32 px, bicubic": blind,
        "12 px, bicubic": ("", "xxs.pt"),
        "16 px, realistic": blind,
        "14x20 px, realistic": blind,
        "32 px, realistic": blind,
        "12 px, realistic": ("", "xxs.pt"),
    }


def test_two_models_for_one_condition_are_one_line_with_both(shelf: Path, pretrained: FaceRecognizer) -> None:
    twins = models(shelf, pretrained, ("both16", "dsr-only16"), ("dsr16",))
    with pytest.raises(InputError, match=r"both16 and .*dsr-only16 are both for 16 px, bicubic: give one of them"):
        twins.configurations_of(BICUBIC)
    with pytest.raises(InputError, match=r"dsr16 and .*dsr16 are both for 16 px, bicubic"):
        models(shelf, pretrained, (), ("dsr16", "dsr16")).configurations_of(BICUBIC)


def test_a_model_trained_on_another_degradation_is_used_and_reported(shelf: Path, pretrained: FaceRecognizer) -> None:
    made = models(shelf, pretrained, ("both16",), ("dsr16",))
    found = made.configurations_of(REALISTIC)
    assert names(found) == FIVE
    assert made.notes({REALISTIC: found}) == [
        f"{REALISTIC}: {shelf / 'dsr16'} was trained on bicubic faces",
        f"{REALISTIC}: {shelf / 'both16'} was trained on bicubic faces",
    ]


def test_a_super_resolver_without_training_identities_is_reported(pretrained: FaceRecognizer, tmp_path: Path) -> None:
    silent = build_dsr_upsampler(str(dsr_folder(tmp_path, "16", people=())))
    made = Models(pretrained, [], [silent])
    (note,) = (each for each in made.notes({BICUBIC: made.configurations_of(BICUBIC)}) if str(tmp_path) in each)
    assert note == (
        f"{tmp_path} does not say which identities it was trained on: whether it knows any of these cannot be checked"
    )


def test_a_model_of_a_size_that_is_not_evaluated_is_reported(shelf: Path, pretrained: FaceRecognizer) -> None:
    made = models(shelf, pretrained, ("both14x16",), ("dsr16", "dsr24"))
    notes = made.notes({BICUBIC: made.configurations_of(BICUBIC)})
    assert f"{shelf / 'dsr24'} is in no configuration: super-resolver, 24 px, bicubic" in notes
    assert any(
        note.startswith(f"{shelf / 'both14x16'} is in no configuration: ") and "14x16 px" in note for note in notes
    )
    assert not any(note.startswith(f"{shelf / 'dsr16'} ") for note in notes)


def test_sizes_are_the_super_resolvers_own_unless_given(shelf: Path, pretrained: FaceRecognizer) -> None:
    assert models(shelf, pretrained, (), ("dsr24", "dsr16", "dsr16-realistic")).sizes == ("24", "16")
    assert models(shelf, pretrained, ("both16",)).sizes == ("32",)


def test_one_size_spelled_twice_is_one_condition() -> None:
    assert conditions_of(["16x16", "16", "14x16"], ["bicubic", "bicubic"]) == [
        Condition("16", "bicubic"),
        Condition("14x16", "bicubic"),
    ]


def test_each_movement_is_one_more_condition_of_each_size_and_degradation() -> None:
    shift, turn = Movement("shift", 1.0), Movement("turn", 10.0)
    found = conditions_of(["16", "24"], ["bicubic", "realistic"], [shift, turn, shift])
    assert [str(each) for each in found[:4]] == [
        "16 px, bicubic",
        "16 px, bicubic, shift 1 px",
        "16 px, bicubic, turn 10°",
        "24 px, bicubic",
    ]
    assert len(found) == len({each.slug for each in found}) == len({str(each.plain()) for each in found}) == 12
    with pytest.raises(InputError, match=r"`shift`: VLR pictures of a set \(`degradation` files\) stay as they are"):
        conditions_of(["16"], ["files"], [shift])


def test_files_of_several_sizes_are_refused() -> None:
    with pytest.raises(InputError, match=r"`degradation` files: .* one size: give one `vlr_size`, not 16, 24"):
        conditions_of(["16", "24"], ["bicubic", "files"])
    assert conditions_of(["16", "16x16"], ["files"]) == [Condition("16", "files")]


def test_auto_takes_the_models_where_training_puts_them_and_none_takes_nothing(
    edgeface: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = PipelineEvaluationOptions(recognizer=str(edgeface))
    nothing = load_models(options, "cpu")
    assert (list(nothing.finetuned), list(nothing.super_resolvers)) == ([], [])
    finetuned_folder(Path(USUAL_FINETUNED), edgeface, "dsr", VLR)
    config = DSRConfig(8, 1, VLR)
    state = {f"model.{name}": value for name, value in DSR(config).state_dict().items()}
    Path(USUAL_DSR).parent.mkdir(parents=True)
    torch.save({"state_dict": state, "hyper_parameters": {"dsr": asdict(config)}}, USUAL_DSR)
    found = load_models(options, "cpu")
    assert [each.name for each in found.finetuned] == [USUAL_FINETUNED]
    assert [each.source for each in found.super_resolvers] == [USUAL_DSR]
    assert found.sizes == (VLR,)
    nothing = load_models(
        PipelineEvaluationOptions(recognizer=str(edgeface), finetuned=("none",), dsr_checkpoint=("none",)), "cpu"
    )
    assert (list(nothing.finetuned), list(nothing.super_resolvers)) == ([], [])


# Their embeddings


@pytest.fixture(scope="module")
def faces(face_set: Path) -> list[FaceRow]:
    return read_faces(face_set, ("test",))


def embeddings(batch_size: int = 4, workers: int = 0) -> EmbeddingCache:
    return EmbeddingCache(FaceLoader(SEED, batch_size, workers, "cpu"))


@pytest.mark.parametrize(
    "condition",
    [
        *(BICUBIC, REALISTIC, Condition("24", "bicubic"), Condition("14x20", "mixed")),
        *(Condition(VLR, "bicubic", Movement("shift", 2.0)), Condition("14x20", "mixed", Movement("turn", 10.0))),
    ],
    ids=str,
)
def test_every_configuration_is_embedded_as_by_a_loop(
    condition: Condition, shelf: Path, pretrained: FaceRecognizer, edgeface: Path, faces: list[FaceRow]
) -> None:
    dsr = shelf / {VLR: "dsr16", "24": "dsr24", "14x20": "blind"}[condition.vlr_size]
    made = models(shelf, pretrained, ("both16",), (dsr.name,))
    found = made.configurations_of(condition)
    assert names(found) == (FIVE if condition.vlr_size == VLR else [*FIVE[:2], "DSR + pretrained"])
    tables = embeddings().of_configurations(found, faces, condition)
    weights = {"pretrained": edgeface, "fine-tuned": shelf / "both16" / "model.safetensors"}
    upsamplers = {"HR": "none", "bicubic": "bicubic", "DSR": "dsr"}
    for name in names(found):
        upsampler, _, recognizer = name.partition(" + ")
        wanted = slow_embeddings(faces, weights[recognizer or "pretrained"], upsamplers[upsampler], condition, dsr)
        np.testing.assert_allclose(tables[name].numpy(), wanted, atol=1e-5, err_msg=name)
    different = [table for name, table in tables.items() if name != "HR"]
    assert all((one - other).abs().max() > 1e-2 for i, one in enumerate(different) for other in different[:i])


def test_hr_faces_are_embedded_once_over_all_conditions(
    shelf: Path, pretrained: FaceRecognizer, faces: list[FaceRow]
) -> None:
    made = models(shelf, pretrained, ("both16",), ("dsr16",))
    configurations = {condition: made.configurations_of(condition) for condition in (BICUBIC, REALISTIC)}
    counts: list[int] = []
    table = EmbeddingCache(FaceLoader(SEED, 4, 0, "cpu"), counts.append)
    protocol = Protocol("", Enrolment(faces[:3], faces[3:]), Enrolment([], []))
    for condition, own in configurations.items():
        table.of_configurations(own, faces[3:], condition)
        for recognizer in (pretrained, made.finetuned[0]):
            table.hr(recognizer, faces[:3])
    gallery, probes = 3 * 2, len(faces[3:]) * (1 + 2 * 4)  # by both recognisers; HR once, and four configurations twice
    assert sum(counts) == gallery + probes == count_embeddings(protocol, configurations)


def test_batch_size_and_workers_change_no_bit(shelf: Path, pretrained: FaceRecognizer, faces: list[FaceRow]) -> None:
    configurations = models(shelf, pretrained, ("both16",), ("dsr16",)).configurations_of(REALISTIC)
    wanted = embeddings().of_configurations(configurations, faces, REALISTIC)
    for other in (embeddings(batch_size=3), embeddings(batch_size=64, workers=2)):
        found = other.of_configurations(configurations, faces, REALISTIC)
        assert all(torch.equal(found[name], wanted[name]) for name in FIVE)


def test_files_are_the_set_s_own_vlr_pictures(shelf: Path, pretrained: FaceRecognizer, faces: list[FaceRow]) -> None:
    """face_set was prepared with bicubic at this size and this seed."""
    made, files = models(shelf, pretrained, (), ("dsr16",)), Condition(VLR, "files")
    found = embeddings().of_configurations(made.configurations_of(files), faces, files)
    wanted = embeddings().of_configurations(made.configurations_of(BICUBIC), faces, BICUBIC)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    swapped = [FaceRow(row.path, row.name, row.identity, faces[0].vlr_path) for row in faces]
    low = embeddings().of_configurations(made.configurations_of(files), swapped, files)["bicubic + pretrained"]
    assert torch.equal(low, low[:1].expand_as(low))  # they are read, not made
