"""An evaluation from pictures to report.json: against slow loops, and refused in one line if it would mislead."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsr.evaluate import main as evaluate_dsr
from dsr.upsampler import build_dsr_upsampler
from earface.data.face_rows import FaceRow, read_faces
from earface.data.images import read_image, write_image
from earface.data.multipie import CAMERA_YAW
from facial_rec.evaluate import main as evaluate_recognisers
from facial_rec.recognizer import load_recognizer
from pipeline.configurations import Condition, Models, conditions_of
from pipeline.evaluate_dataset import main
from pipeline.leakage import resolve_leakage
from pipeline.protocol import Enrolment, GalleryRule, Protocol, from_dataset
from pipeline.protocol_checks import keep_readable
from tests.conftest import VLR, only_line
from tests.pipeline.small import (
    arguments,
    draw_faces,
    dsr_folder,
    evaluated,
    finetuned_folder,
    read_probes,
    read_report,
    run,
    slow_embeddings,
    slow_equal_error_rate,
    slow_fold_accuracy,
    slow_limit,
)

pytestmark = pytest.mark.runs

BICUBIC = Condition(VLR, "bicubic")
FIVE = ["HR", "bicubic + pretrained", "bicubic + fine-tuned", "DSR + pretrained", "DSR + fine-tuned"]
CALIBRATION = ("--calibration-fraction", "0.75")  # 12 of 16 identities: enough for one threshold, and for no other


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen people with five pictures each, by Multi-PIE names."""
    return draw_faces(tmp_path_factory.mktemp("people"), 16, 5)


@dataclass(frozen=True)
class Models16:
    """Folders of a super-resolver, and of a recogniser that was fine-tuned on its faces and on interpolated ones."""

    dsr: Path
    finetuned: Path

    def loaded(self, edgeface: Path) -> Models:
        pretrained, finetuned = (load_recognizer(str(path), "arcface") for path in (edgeface, self.finetuned))
        return Models(pretrained, [finetuned], [build_dsr_upsampler(str(self.dsr))])


@pytest.fixture(scope="module")
def made(edgeface: Path, tmp_path_factory: pytest.TempPathFactory) -> Models16:
    folder = tmp_path_factory.mktemp("models")
    return Models16(
        dsr_folder(folder / "dsr", VLR), finetuned_folder(folder / "tuned", edgeface, "dsr=.5,bicubic=.5", VLR)
    )


@pytest.fixture(scope="module")
def out(people: Path, made: Models16, edgeface: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation with all configurations, of the size that the super-resolver takes."""
    folder = tmp_path_factory.mktemp("evaluation")
    run(people, edgeface, folder, "--dsr-checkpoint", made.dsr, "--finetuned", made.finetuned, *CALIBRATION)
    return folder


@pytest.fixture(scope="module")
def protocol(people: Path) -> Protocol:
    return from_dataset(str(people), GalleryRule(), 0.75, 42)


@dataclass(frozen=True)
class Slow:
    """One configuration by a loop: the cosines of every probe with everyone enrolled."""

    scores: list[dict[str, float]]  # of each probe, by person
    whose: list[str]

    @property
    def mated(self) -> list[float]:
        return [own[person] for own, person in zip(self.scores, self.whose, strict=True)]

    @property
    def others(self) -> list[list[float]]:
        both = zip(self.scores, self.whose, strict=True)
        return [[score for person, score in own.items() if person != mate] for own, mate in both]

    @property
    def best(self) -> list[float]:
        return [max(own) for own in self.others]

    @property
    def ranks(self) -> list[int]:
        both = zip(self.mated, self.others, strict=True)
        return [1 + sum(score >= mated for score in others) for mated, others in both]


def slow(part: Enrolment, name: str, made: Models16, edgeface: Path) -> Slow:
    """A configuration by its name, under BICUBIC."""
    upsampler, _, recognizer = name.partition(" + ")
    weights = made.finetuned / "model.safetensors" if recognizer == "fine-tuned" else edgeface
    gallery = slow_embeddings(part.gallery, weights, "none")
    probes = slow_embeddings(part.probes, weights, {"HR": "none"}.get(upsampler, upsampler.lower()), BICUBIC, made.dsr)
    names = [row.identity for row in part.gallery]
    return Slow(
        [dict(zip(names, map(float, gallery @ probe), strict=True)) for probe in probes],
        [row.identity for row in part.probes],
    )


def reported(out: Path, place: int = 0) -> dict[str, Any]:
    """Configuration -> its part of report.json, under one of the conditions."""
    return {row["name"]: row for row in read_report(out)["conditions"][place]["rows"]}


def probes_of(out: Path, condition: Condition, name: str) -> list[dict[str, str]]:
    wanted = (condition.vlr_size, condition.degradation, name)
    return [row for row in read_probes(out) if (row["vlr_size"], row["degradation"], row["row"]) == wanted]


def share(events: list[bool]) -> float:
    return sum(events) / len(events)


# Against a loop


def test_several_sizes_and_degradations_are_evaluated_in_one_run(
    protocol: Protocol, made: Models16, edgeface: Path
) -> None:
    models = replace(made.loaded(edgeface), finetuned=[])
    conditions = conditions_of([VLR, "24"], ["bicubic", "realistic"])
    results, _ = evaluated(replace(protocol, calibration=Enrolment([], [])), models, conditions)
    assert [str(each.condition) for each in results] == [
        *("16 px, bicubic", "24 px, bicubic", "16 px, realistic", "24 px, realistic")
    ]
    with_dsr = [*FIVE[:2], "DSR + pretrained"]
    assert [[own.name for own in each.results] for each in results] == [with_dsr, FIVE[:2], with_dsr, FIVE[:2]]
    searches = [[each.results[place].searches for each in results] for place in (0, 1)]
    hr, low = ({found.mated.tobytes() for found in row if found is not None} for row in searches)
    assert len(hr) == 1  # HR faces have no condition
    assert len(low) == len(results)


@pytest.mark.parametrize("name", FIVE)
def test_every_probe_s_rank_and_scores_are_a_loop_s(
    name: str, out: Path, protocol: Protocol, made: Models16, edgeface: Path
) -> None:
    lines, found = probes_of(out, BICUBIC, name), slow(protocol.test, name, made, edgeface)
    assert [row["file"] for row in lines] == [row.name for row in protocol.test.probes]
    assert [row["identity"] for row in lines] == found.whose
    assert [int(row["rank"]) for row in lines] == found.ranks
    np.testing.assert_allclose([float(row["mated_score"]) for row in lines], found.mated, atol=2e-5)
    np.testing.assert_allclose([float(row["best_other_score"]) for row in lines], found.best, atol=2e-5)
    named = [own[row["best_other"]] for own, row in zip(found.scores, lines, strict=True)]
    assert named == pytest.approx(found.best, abs=1e-6)
    measured = reported(out)[name]["measured"]
    for limit in (1, 5):
        assert measured[f"rank{limit}"]["value"] == pytest.approx(share([rank <= limit for rank in found.ranks]))
    impostor = [score for own in found.others for score in own]
    assert measured["eer"]["value"] == pytest.approx(slow_equal_error_rate(found.mated, impostor))


def test_errors_at_fitted_and_given_thresholds_are_a_loop_s(
    out: Path, protocol: Protocol, made: Models16, edgeface: Path
) -> None:
    """Twelve calibration identities with 48 searches, four test identities: one threshold can be fitted."""
    found = slow(protocol.test, "DSR + fine-tuned", made, edgeface)
    limit = slow_limit(
        slow(protocol.calibration, "DSR + fine-tuned", made, edgeface).best, 1 - 0.9 ** (11 / 3)
    )  # among so many others
    assert limit is not None
    thresholds = {(each["kind"], each["from"]): each for each in reported(out)["DSR + fine-tuned"]["thresholds"]}
    fitted, given = thresholds["identification", "fitted for FPIR 0.1"], thresholds["identification", "given"]
    assert fitted["threshold"] == pytest.approx(limit, abs=1e-5)
    for each in (fitted, given):
        both = zip(found.ranks, found.mated, strict=True)
        missed = share([not (rank == 1 and score >= each["threshold"]) for rank, score in both])
        taken = share([score >= each["threshold"] for score in found.best])  # each search again, without its mate
        assert (each["fnir"]["value"], each["fpir"]["value"]) == pytest.approx((missed, taken))
    each = thresholds["verification", "given"]
    assert each["threshold"] == 0.35
    assert each["fnmr"]["value"] == pytest.approx(share([score < 0.35 for score in found.mated]))
    assert each["fmr"]["value"] == pytest.approx(share([score >= 0.35 for own in found.others for score in own]))


def test_metrics_that_so_few_searches_do_not_support_say_why(out: Path) -> None:
    for row in reported(out).values():
        for name in ("fnir_at_fpir_0.1", "fnir_at_fpir_0.01", "tar_at_far_0.001", "tar_at_far_0.0001"):
            assert row["measured"][name]["value"] is None
            assert "fewer than 10" in row["measured"][name]["insufficient_data"]
        unfitted = {each["from"]: each for each in row["thresholds"] if each["threshold"] is None}
        assert list(unfitted) == ["fitted for FPIR 0.01", "fitted for FMR 0.001", "fitted for FMR 0.0001"]
        assert unfitted["fitted for FPIR 0.01"]["fpir"]["insufficient_data"].startswith(
            "of the calibration identities, 0.0"
        )
        assert unfitted["fitted for FMR 0.001"]["fnmr"]["insufficient_data"].startswith(
            "of the calibration identities, 0.001 of 528"
        )


def test_only_pictures_of_calibration_identities_move_a_fitted_threshold(
    people: Path, protocol: Protocol, out: Path, edgeface: Path, tmp_path: Path
) -> None:
    models = Models(load_recognizer(str(edgeface), "arcface"))

    def thresholds(changed: Enrolment) -> list[float | None]:
        folder = tmp_path / changed.gallery[0].identity
        shutil.copytree(people, folder)
        for row in changed.rows:
            write_image(folder / row.path.name, np.ascontiguousarray(255 - read_image(row.path)[::-1]))
        results, _ = evaluated(from_dataset(str(folder), GalleryRule(), 0.75, 42), models, [BICUBIC])
        return [each.threshold for own in results[0].results for each in own.thresholds]

    unchanged = [each["threshold"] for name in FIVE[:2] for each in reported(out)[name]["thresholds"]]
    assert thresholds(protocol.test) == unchanged
    moved = thresholds(protocol.calibration)
    assert [a == b for a, b in zip(moved, unchanged, strict=True)] == [
        False,
        *[True] * 5,
    ] * 2  # the others are None or given


def test_rank_1_is_that_of_the_recognisers_own_evaluation(
    people: Path, made: Models16, edgeface: Path, tmp_path: Path
) -> None:
    """The enrolled picture has the first name of each person, which is the gallery there."""
    folder = tmp_path / "set" / "test_processed" / "hr_images"
    folder.mkdir(parents=True)
    for path in sorted(people.glob("00*.png")):
        subject, *_, camera, flash, _, _ = path.stem.split("_")
        enrolled = "_01_01_051_07_" in path.name
        shutil.copy(path, folder / (path.name if enrolled else f"{subject}_02_09_{camera}_{flash}_crop_128.png"))
    models = ["--dsr-checkpoint", str(made.dsr), "--num-workers", "0", "--device", "cpu"]
    theirs = ["--dataset-root", str(tmp_path / "set"), "--vlr-size", VLR, "--upsampler", "bicubic,dsr"]
    weights = ["--recognizer", str(edgeface), str(made.finetuned)]
    assert evaluate_recognisers([*theirs, *weights, *models, "--out", str(tmp_path / "theirs")]) == 0
    metrics = json.loads((tmp_path / "theirs" / "metrics.json").read_text())["figures"]
    ours = from_dataset(str(tmp_path / "set"), GalleryRule(), 0.0, 42)
    results, _ = evaluated(ours, made.loaded(edgeface), [BICUBIC])
    for own, result in zip(results[0].configurations, results[0].results, strict=True):
        for name in ("rank1", "eer"):
            low = "hr" if own.upsampler.name == "none" else own.upsampler.name
            wanted = metrics[own.recognizer.name][f"{name}_{low}"]
            assert result.metrics[name].value == pytest.approx(wanted), own.name
    assert len(results[0].results) == 5


def test_the_guide_s_command_breaks_rank_1_down_by_angle_and_flash(
    people: Path, edgeface: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "technical" / "dataset" / "test_processed" / "hr_images"
    folder.mkdir(parents=True)
    for path in people.glob("00[1-6]_*.png"):
        shutil.copy(path, folder)
    monkeypatch.chdir(tmp_path)
    guide = "--dataset-root technical/dataset/test_processed --threshold 0.35"
    assert main([*guide.split(), "--recognizer", str(edgeface), "--device", "cpu"]) == 0
    out = tmp_path / "pipeline" / "evaluation"
    report = read_report(out)
    assert report["threshold"] == 0.35
    assert report["protocol"] == "first of camera 051, illumination 07, recording 01; test_processed"
    assert report["counts"]["identities enrolled"] == 6
    assert report["counts"]["mated probes"] == 6 * 4
    probes = probes_of(out, Condition("32", "bicubic"), "bicubic + pretrained")
    found = reported(out)["bicubic + pretrained"]["breakdown"]
    angles = [f"{CAMERA_YAW[row['camera']]:+d}°".replace("+0", "0") for row in probes]
    assert list(found["camera angle"]) == sorted(set(angles), key=lambda angle: int(angle[:-1]))
    for kind, values in (("camera angle", angles), ("illumination", [row["illumination"] for row in probes])):
        assert set(found[kind]) == set(values)
        for value, estimate in found[kind].items():
            own = [row["rank"] == "1" for row, each in zip(probes, values, strict=True) if each == value]
            assert (estimate["value"], estimate["samples"]) == (pytest.approx(share(own)), len(own))


def test_pairs_are_verified_as_a_loop_does(people: Path, edgeface: Path, tmp_path: Path) -> None:
    names, folder = ("Ann", "Bea", "Cy", "Dee"), tmp_path / "lfw"
    for subject, name in enumerate(names, start=1):
        (folder / name).mkdir(parents=True)
        for number, path in enumerate(sorted(people.glob(f"{subject:03d}_*.png")), start=1):
            shutil.copy(path, folder / name / f"{name}_{number:04d}.png")
    pairs = []
    for fold in range(3):
        pairs += [((name, 1 + fold), (name, 3 + fold), fold) for name in names]
        pairs += [((name, 1 + fold), (names[place - 1], 2 + fold), fold) for place, name in enumerate(names)]
    lines = [f"{a}\t{i}\t{j}" if a == b else f"{a}\t{i}\t{b}\t{j}" for (a, i), (b, j), _ in pairs]
    (tmp_path / "pairs.txt").write_text("\n".join(["3 4", *lines]) + "\n")
    report = run(folder, edgeface, tmp_path / "out", "--pairs", tmp_path / "pairs.txt", "--vlr-size", VLR)

    first, second = (
        [FaceRow(folder / name / f"{name}_{number:04d}.png", "", name) for name, number in side]
        for side in ([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    )
    both = slow_embeddings(first, edgeface, "none"), slow_embeddings(second, edgeface, "bicubic", BICUBIC)
    scores = [float(one @ other) for one, other in zip(*both, strict=True)]
    same, folds = [a.identity == b.identity for a, b in zip(first, second, strict=True)], [pair[2] for pair in pairs]
    found = reported(tmp_path / "out")["bicubic + pretrained"]
    assert found["measured"]["fold_accuracy"]["value"] == pytest.approx(slow_fold_accuracy(scores, same, folds))
    (given,) = found["thresholds"]
    missed = share([score < 0.35 for score, own in zip(scores, same, strict=True) if own])
    taken = share([score >= 0.35 for score, own in zip(scores, same, strict=True) if not own])
    assert (given["fnmr"]["value"], given["fmr"]["value"]) == pytest.approx((missed, taken))
    assert report["counts"]["pairs"] == 24
    assert "rank1" not in found["measured"]
    assert read_probes(tmp_path / "out") == []  # nobody is searched for


# Identities that must not be evaluated on


@pytest.mark.parametrize("kind", ["dsr", "finetuned"])
def test_a_model_that_knows_one_of_the_people_is_refused(
    kind: str,
    people: Path,
    protocol: Protocol,
    edgeface: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The super-resolver knows a test identity, the recogniser a calibration identity."""
    part = protocol.test if kind == "dsr" else protocol.calibration
    someone = part.probes[0].identity
    if kind == "dsr":
        models = ["--dsr-checkpoint", dsr_folder(tmp_path / "knows", VLR, people=[someone, "stranger"])]
    else:
        models = ["--vlr-size", VLR]
        models += ["--finetuned", finetuned_folder(tmp_path / "knows", edgeface, "bicubic", VLR, people=[someone])]
    assert main(arguments(people, edgeface, tmp_path / "out", *models, *CALIBRATION)) == 2
    wanted = f"knows: was trained on 1 of the 16 identities of this evaluation (such as {someone})"
    assert wanted in only_line(capsys)
    assert not (tmp_path / "out" / "report.json").exists()


def test_the_super_resolvers_own_evaluation_refuses_such_a_folder_too(
    face_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    someone = read_faces(face_set, ("test",))[0].identity
    folder = dsr_folder(tmp_path / "knows", VLR, people=[someone])
    nobody = ["--recognizer", "none", "--second-recognizer", "none", "--out", str(tmp_path / "out")]
    assert evaluate_dsr(["--checkpoint", str(folder), "--dataset-root", str(face_set), *nobody]) == 2
    assert f"knows: was trained on 1 of the 3 identities of test (such as {someone})" in only_line(capsys)


@pytest.fixture
def leaky(people: Path, tmp_path: Path) -> Path:
    """Seven people with four pictures: the last probe of one is another's enrolled picture, brighter and as JPEG."""
    folder = tmp_path / "leaky"
    folder.mkdir()
    for subject in range(1, 8):
        for path in sorted(people.glob(f"{subject:03d}_*.png"))[:4]:
            shutil.copy(path, folder)
        shutil.copy(people / f"{subject:03d}_01_01_051_07_crop_128.png", folder)
    copied = read_image(folder / "002_01_01_051_07_crop_128.png")
    probe = next(path for path in sorted(folder.glob("005_*.png"), reverse=True) if "_01_01_051_07_" not in path.name)
    probe.unlink()
    write_image(probe.with_suffix(".jpg"), np.clip(copied * 1.1, 0, 255).astype(np.uint8))
    return folder


def test_a_probe_that_is_nearly_an_enrolled_picture_is_refused(
    leaky: Path, edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(leaky, edgeface, tmp_path / "out", "--calibration-fraction", "0")) == 2
    line = only_line(capsys)
    assert "002_01_01_051_07_crop_128.png and " in line
    assert "one photograph" in line
    assert "--leakage drop leaves such probes out" in line
    assert not (tmp_path / "out" / "report.json").exists()


def test_pictures_that_leak_or_cannot_be_read_are_left_out_and_reported(
    leaky: Path, edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = next(path for path in sorted(leaky.glob("003_*.png")) if "_01_01_051_07_" not in path.name)
    broken.write_bytes(broken.read_bytes()[:500])
    (leak,) = leaky.glob("005_*.jpg")
    probes = len(list(leaky.iterdir())) - 7
    report = run(leaky, edgeface, tmp_path / "out", "--calibration-fraction", "0", "--leakage", "drop")
    unread, leaking = report["left_out"]
    assert unread == f"{broken.name}: cannot be read"
    assert leaking.startswith(f"{leak.name}: ")
    assert "one photograph" in leaking
    assert report["counts"]["mated probes"] == probes - 2
    assert len(read_probes(tmp_path / "out")) == 2 * (probes - 2)
    assert "pictures left out: 2, such as " in capsys.readouterr().out


def test_near_duplicates_are_dropped_beside_whole_files(leaky: Path) -> None:
    rows = read_faces(leaky)
    enrolled = [row for row in rows if "_01_01_051_07_" in row.name]
    searched = [row for row in rows if row not in enrolled]
    near = next(row for row in searched if row.name.endswith(".jpg"))
    both = Protocol("", Enrolment(enrolled, [enrolled[0], *searched]), Enrolment([], []))
    left, lines = resolve_leakage(both, "drop")
    assert [line.partition(": ")[0] for line in lines] == [enrolled[0].name, near.name]
    assert left.test.probes == [row for row in searched if row != near]
    assert left.test.gallery == enrolled


def test_probes_of_an_unreadable_enrolled_picture_do_not_become_non_mated(leaky: Path) -> None:
    broken = leaky / "003_01_01_051_07_crop_128.png"
    broken.write_bytes(b"")
    rows = read_faces(leaky)
    enrolled = [row for row in rows if "_01_01_051_07_" in row.name]
    whole = Protocol("", Enrolment(enrolled, [row for row in rows if row not in enrolled]), Enrolment([], []))
    left, lines = keep_readable(whole, None)
    assert "003" not in {row.identity for row in left.test.rows}
    assert all(left.test.mated)
    lost = sorted(path.name for path in leaky.glob("003_*") if path != broken)
    assert lines == [f"{broken.name}: cannot be read", *(f"{n}: no enrolled picture of 003 can be read" for n in lost)]


# What cannot be measured is one line


def one_each(folder: Path) -> None:
    for path in folder.glob("*.png"):
        if "_01_01_051_07_" not in path.name:
            path.unlink()


def another_camera(folder: Path) -> None:
    for path in folder.glob("*_01_01_051_07_*"):
        path.unlink()


def over_a_twentieth(folder: Path) -> None:
    for path in sorted(folder.glob("*.png"))[:2]:
        path.write_bytes(b"")


def one_person(folder: Path) -> None:
    for path in folder.glob("00[2-9]*"):
        path.unlink()


def another_size(folder: Path) -> None:
    path = sorted(folder.glob("*.png"))[0]
    write_image(path, read_image(path)[:96, :96].copy())


@pytest.mark.parametrize(
    ("change", "given", "message"),
    [
        (None, "--threshold 1.5", "--threshold 1.5: must be at least -1 and at most 1"),
        (
            None,
            "--degradation bicubic foggy",
            "--degradation bicubic foggy: choose from bicubic, area, realistic, mixed, files",
        ),
        (None, "--shift 1 0", "--shift 0: above 0, and 8 at most; aligned probes are always measured"),
        (None, "--turn 100", "--turn 100: above 0, and 90 at most"),
        (
            None,
            "--zoom 0.1 --degradation files",
            "--zoom: VLR pictures of a set (--degradation files) stay as they are",
        ),
        (None, "--vlr-size 7", "--vlr-size: VLR size '7' is out of range"),
        (None, "--vlr-size huge", "--vlr-size: VLR size 'huge': 32, 24, 16 or 14x16"),
        (None, "--gallery SET", "--gallery and --probes: give both, or neither"),
        (None, "--probes SET", "--gallery and --probes: give both, or neither"),
        (None, "--gallery SET --probes SET --pairs x", "--pairs: not together with --gallery and --probes"),
        (None, "--gallery SET --probes OTHERS", "nobody in it is in --gallery"),
        (None, "--out FILE", "is a file; give a folder"),
        (None, "--dataset-root nowhere", "--dataset-root nowhere: no such folder; earface faces prepare"),
        (None, "--dsr-checkpoint nowhere.ckpt", "nowhere.ckpt: no such checkpoint"),
        (None, "--finetuned CENTER", "center: was fine-tuned on center crops, not arcface"),
        (None, "--finetuned PRETRAINED", "pretrained weights; give a folder of earface faces finetune"),
        (None, "--finetuned FINETUNED FINETUNED --vlr-size 16", "tuned are both for 16 px, bicubic: give one of them"),
        (None, "--degradation files", "vlr_images: no such folder; --degradation bicubic or realistic makes VLR faces"),
        (None, "--degradation files --vlr-size 16 24", "one size: give one --vlr-size, not 16, 24"),
        (
            None,
            "--gallery-camera 240",
            "no picture of camera 240, illumination 07, recording 01 to enrol; names are SUB",
        ),
        (another_camera, "", "names are SUBJECT_SESSION_RECORDING_CAMERA_ILLUMINATION_crop_128.png, such as"),
        (one_each, "", "no probes: everyone has a single picture, which is enrolled"),
        (one_person, "", "one person, 001: at least two are needed"),
        (another_size, "", "96x96, expected 128x128"),
        (over_a_twentieth, "", "faces cannot be read, over 5%"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    change: Callable[[Path], None] | None,
    given: str,
    message: str,
    people: Path,
    made: Models16,
    edgeface: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for path in people.glob("00[1-6]_*.png"):
        shutil.copy(path, folder)
    if change is not None:
        change(folder)
    (tmp_path / "file").write_text("in the way")
    if "CENTER" in given:
        finetuned_folder(tmp_path / "center", edgeface, "dsr", VLR, crop="center")
    if "OTHERS" in given:
        draw_faces(tmp_path / "others", 1, 2)
        for path in (tmp_path / "others" / "images").iterdir():
            path.rename(path.with_name(path.name.replace("001_", "777_", 1)))
    places = {"SET": folder, "OTHERS": tmp_path / "others" / "images", "FILE": tmp_path / "file"}
    places |= {"CENTER": tmp_path / "center", "PRETRAINED": edgeface, "FINETUNED": made.finetuned}
    words = [str(places.get(word, word)) for word in given.split()]
    assert main([*arguments(folder, edgeface, tmp_path / "out", "--calibration-fraction", "0", *words)]) == 2
    assert message in only_line(capsys)
    assert not (tmp_path / "out" / "report.json").exists()
