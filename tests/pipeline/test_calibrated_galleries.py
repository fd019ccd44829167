"""From an evaluation's report to a gallery and to decisions: thresholds for a rate, likelihood ratios, and refusals."""

from __future__ import annotations

import csv
import json
import math
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earface.core.errors import InputError
from earface.data.identity_embeddings import read_embeddings, write_embeddings
from earface.metrics.calibration import LogisticCalibration, cllr, cllr_min
from earface.metrics.resampling import fpir_in_gallery
from facial_rec.recognizer import load_recognizer
from pipeline.configurations import Condition
from pipeline.enroll import main as enroll
from pipeline.gallery import Gallery
from pipeline.identified import GIVEN, UNCALIBRATED, UNKNOWN
from pipeline.identify import main as identify
from pipeline.picture_quality import people_of, picture_sets
from pipeline.protocol import Enrolment, GalleryRule, from_dataset
from tests.conftest import VLR, only_line
from tests.pipeline.small import draw_faces, finetuned_folder, read_report, run, slow_embeddings, slow_limit

pytestmark = pytest.mark.runs

BICUBIC = Condition(VLR, "bicubic")
LOW = f"bicubic + pretrained, {VLR} px, bicubic"
OFF = f"{LOW}, shift 1 px"
FRACTION = 0.75
NONE = {"upsampler": "none", "upsampler_digest": ""}


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty people with four pictures each."""
    return draw_faces(tmp_path_factory.mktemp("people"), 20, 4)


@pytest.fixture(scope="module")
def evaluated(people: Path, edgeface: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation of HR and of interpolated faces; fifteen people calibrate."""
    out = tmp_path_factory.mktemp("evaluation")
    run(people, edgeface, out, "--vlr-size", VLR, "--calibration-fraction", str(FRACTION))
    return out


@pytest.fixture(scope="module")
def enrolled(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pictures of the first six people, in a folder for each."""
    folder = tmp_path_factory.mktemp("enrolled")
    for path in sorted(people.glob("00[1-6]_*.png")):
        subject = folder / path.name.partition("_")[0]
        subject.mkdir(exist_ok=True)
        shutil.copy(path, subject)
    return folder


def enrol(pictures: Path, recognizer: Path, out: Path, *more: str | Path) -> int:
    given = ["--aligned", "--input", pictures, "--recognizer", recognizer, "--out", out, "--device", "cpu", *more]
    return enroll(list(map(str, given)))


def search(pictures: Path, gallery: Path, out: Path, *more: str) -> int:
    given = ["--aligned", "--input", pictures, "--gallery", gallery, "--out", out, "--device", "cpu", "--no-pictures"]
    return identify([*map(str, given), *more])


def rows_in(out: Path) -> list[dict[str, str]]:
    with (out / "candidates.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def calibrations(out: Path) -> dict[str, dict[str, Any]]:
    rows = [row for condition in read_report(out)["conditions"] for row in condition["rows"]]
    return {row["calibration"]["name"]: row["calibration"] for row in rows}


def scores_of(part: Enrolment, edgeface: Path, upsampler: str) -> tuple[list[float], list[list[float]]]:
    """By a loop: the cosine of each probe with its mate, and with everyone else enrolled."""
    gallery = slow_embeddings(part.gallery, edgeface, "none")  # type: ignore[arg-type]
    probes = slow_embeddings(part.probes, edgeface, upsampler, BICUBIC)  # type: ignore[arg-type]
    names = [row.identity for row in part.gallery]
    mated, others = [], []
    for row, probe in zip(part.probes, probes, strict=True):
        found = dict(zip(names, map(float, gallery @ probe), strict=True))
        mated.append(found.pop(row.identity))
        others.append(list(found.values()))
    return mated, others


# -- the report --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "upsampler"), [("HR", "none"), (LOW, "bicubic")])
def test_the_report_s_operating_points_and_ratios_are_a_loop_s(
    name: str, upsampler: str, evaluated: Path, people: Path, edgeface: Path
) -> None:
    protocol, found = from_dataset(str(people), GalleryRule(), FRACTION, 42), calibrations(evaluated)[name]
    mated, others = scores_of(protocol.calibration, edgeface, upsampler)
    test_mated, test_others = scores_of(protocol.test, edgeface, upsampler)
    enrolled, size = len(protocol.calibration.gallery), len(protocol.test.gallery) - 1
    assert (found["fpir"]["others"], found["fpir"]["searches"]) == (enrolled - 1, len(mated))
    tenth = next(each for each in found["operating_points"] if (each["fpir"], each["gallery"]) == (0.1, size))
    limit = slow_limit([max(own) for own in others], fpir_in_gallery(0.1, size, enrolled - 1))
    assert limit is not None
    assert tenth["threshold"] == pytest.approx(limit, abs=1e-5)
    assert tenth["measured"]["value"] == pytest.approx(np.mean([max(own) >= tenth["threshold"] for own in test_others]))
    hundredth = next(each for each in found["operating_points"] if (each["fpir"], each["gallery"]) == (0.01, size))
    assert hundredth["threshold"] is None
    assert "insufficient data for FPIR 0.01" in hundredth["measured"]["insufficient_data"]
    impostor, test_impostor = (np.concatenate(own) for own in (others, test_others))
    fitted = LogisticCalibration.fit(np.array(mated), impostor)
    assert found["likelihood_ratio"]["slope"] == pytest.approx(fitted.slope, rel=1e-3)
    wanted = cllr(fitted(np.array(test_mated)), fitted(test_impostor))
    assert found["cllr"]["value"] == pytest.approx(wanted, rel=1e-3)
    assert found["cllr_min"] == pytest.approx(cllr_min(np.array(test_mated), test_impostor), abs=1e-3)


def test_the_report_s_sets_of_pictures_are_searched_for_as_by_a_loop(
    evaluated: Path, people: Path, edgeface: Path
) -> None:
    test = from_dataset(str(people), GalleryRule(), FRACTION, 42).test
    row = next(
        each for each in read_report(evaluated)["conditions"][0]["rows"] if each["name"] == "bicubic + pretrained"
    )
    gallery = slow_embeddings(test.gallery, edgeface, "none")  # type: ignore[arg-type]
    probes = slow_embeddings(test.probes, edgeface, "bicubic", BICUBIC)  # type: ignore[arg-type]
    names = [each.identity for each in test.gallery]
    sets = picture_sets(test, 8, "joined", 42)
    assert [each["pictures"] for each in row["several_pictures"]] == list(sets) == [1, 2]
    for each in row["several_pictures"]:
        owners = people_of(sets[each["pictures"]], test.probes)
        both = zip(sets[each["pictures"]], owners, strict=True)
        hits = [names[int((gallery @ probes[own].sum(axis=0)).argmax())] == name for own, name in both]
        assert each["rank1"]["value"] == pytest.approx(np.mean(hits))
        assert each["people"] == len(set(owners))
    assert set(row["error_reject"]["measures"]) == {"mirror", "norm", "sharpness"}  # the size is one for all


def test_the_recommended_commands_enrol_and_identify_as_they_are_printed(
    evaluated: Path, enrolled: Path, people: Path, tmp_path: Path
) -> None:
    """In the largest gallery that they are said to serve, and in no larger one. Too few searches for FNIR: rank-1."""
    (found,) = read_report(evaluated)["recommendations"]
    assert (found["recommended"]["name"], found["decided_by"]) == ("bicubic + pretrained", "rank1")
    everyone = sorted(enrolled.iterdir())
    assert found["largest_gallery"] == len(everyone) - 1
    for count, wanted in ((len(everyone) - 1, 0), (len(everyone), 2)):
        photographs, gallery, out = (tmp_path / f"{count}" / name for name in ("people", "gallery.npz", "out"))
        for folder in everyone[:count]:
            shutil.copytree(folder, photographs / folder.name)
        places = {"photographs/": str(photographs), "gallery.npz": str(gallery), "small_faces/": str(people)}
        (_, *enrolling), (_, *identifying) = (
            [places.get(word, word) for word in shlex.split(command)[1:]] for command in found["commands"]
        )
        assert enroll([*enrolling, "--aligned", "--device", "cpu"]) == 0
        assert Gallery.load(gallery).metadata["calibration"]["name"] == LOW
        assert identify([*identifying, "--device", "cpu", "--pictures", "0", "--out", str(out)]) == wanted
    assert {row["operating_point"] for row in rows_in(tmp_path / "5" / "out")} == {"fpir=0.1"}


# -- enrolling ---------------------------------------------------------------------------------------------------------


def test_a_gallery_keeps_the_calibration_and_grows_with_it(
    enrolled: Path, evaluated: Path, edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, first, out = evaluated / "report.json", tmp_path / "first", tmp_path / "g.npz"
    for name in ("001", "002", "003"):
        shutil.copytree(enrolled / name, first / name)
    assert enrol(first, edgeface, out, "--calibration", report, "--configuration", "HR") == 0
    said, threshold = capsys.readouterr().out, Gallery.load(out).rule(NONE, None, "fpir=.1").threshold
    assert f"calibrated by HR; among 3 people a threshold of {threshold:.3f} for FPIR 0.1, " in said
    assert "insufficient data for FPIR 0.01" in said
    stored = read_embeddings(out).metadata["calibration"]
    assert {name: calibrations(evaluated)["HR"][name] for name in stored} == stored
    before = shutil.copy(out, tmp_path / "before.npz")
    shutil.copytree(enrolled / "004", tmp_path / "more" / "004")
    assert enrol(tmp_path / "more", edgeface, out, "--add") == 0
    grown = Gallery.load(out)
    assert grown.metadata["calibration"] == stored
    assert grown.rule(NONE, None, "fpir=.2").threshold > Gallery.load(before).rule(NONE, None, "fpir=.2").threshold


@pytest.fixture(scope="module")
def reports(evaluated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report, and what is none, or one of something else."""
    folder = tmp_path_factory.mktemp("reports")
    content = (evaluated / "report.json").read_text()
    found = {"report": evaluated / "report.json", "missing": folder / "nowhere.json"}
    plain = json.loads(content)
    moved = json.loads(json.dumps(plain["conditions"]).replace(LOW, OFF))
    several = json.dumps(plain | {"conditions": plain["conditions"] + moved})
    for row in plain["conditions"][0]["rows"]:
        del row["calibration"]
    texts = {
        "several": several,
        "broken": content[:99],
        "other": json.dumps({"conditions": 3}),
        "old": json.dumps(plain),
        "damaged": content.replace('"slope"', '"slop"'),
        "center": content.replace("-112-arcface-", "-112-center-"),
    }
    for name, text in texts.items():
        found[name] = folder / f"{name}.json"
        found[name].write_text(text)
    return found


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("report", [], f'--configuration: {{report}} has several of this recogniser: choose from "HR", "{LOW}"'),
        (
            "report",
            ["--configuration", "DSR"],
            f'--configuration "DSR": {{report}} has of this recogniser "HR", "{LOW}"',
        ),
        (
            "several",
            ["--configuration", "bicubic + pretrained"],
            f'has several of this recogniser: choose from "{LOW}", "{OFF}"',
        ),
        ("report", ["--configuration", "HR", "--upsampler", "bicubic"], "--calibration: of galleries of HR pictures"),
        ("missing", [], "no such file"),
        ("broken", [], "a report.json of earface evaluate is wanted"),
        ("other", [], "a report.json of earface evaluate is wanted"),
        ("old", [], "holds no calibration: evaluate again with earface evaluate"),
        ("damaged", [], "its calibration is damaged"),
        ("center", [], "its faces are in the form edgeface-rgb-112-center-"),
    ],
)
def test_a_report_that_does_not_fit_is_one_line_and_nothing_is_enrolled(
    name: str, more: list[str], message: str, reports: dict[str, Path], enrolled: Path, edgeface: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert enrol(enrolled, edgeface, tmp_path / "g.npz", "--calibration", reports[name], *more) == 2
    assert message.replace("{report}", str(reports["report"])) in only_line(capsys)
    assert not (tmp_path / "g.npz").exists()


def test_a_report_of_another_recogniser_is_refused(
    enrolled: Path, evaluated: Path, edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = finetuned_folder(tmp_path / "tuned", edgeface, "bicubic", VLR)
    assert enrol(enrolled, tuned, tmp_path / "g.npz", "--calibration", evaluated / "report.json") == 2
    assert "is of another recogniser than the one that enrols" in only_line(capsys)
    assert enrol(enrolled, edgeface, tmp_path / "g.npz", "--configuration", "HR") == 2
    assert "--configuration: of a report: give --calibration, too" in only_line(capsys)


# -- decisions ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gallery(enrolled: Path, evaluated: Path, edgeface: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calibrated for interpolated faces."""
    path = tmp_path_factory.mktemp("gallery") / "g.npz"
    given = ["--calibration", evaluated / "report.json", "--configuration", "bicubic + pretrained"]
    assert enrol(enrolled, edgeface, path, *given) == 0
    return path


def test_an_operating_point_decides_by_its_threshold_for_this_gallery(
    gallery: Path, people: Path, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(people, gallery, tmp_path, "--upsampler", "bicubic", "--operating-point", "fpir=0.2") == 0
    found = calibrations(evaluated)[LOW]
    allowed = int(fpir_in_gallery(0.2, 6, found["fpir"]["others"]) * found["fpir"]["searches"])
    threshold = dict(zip(found["fpir"]["reached"], found["fpir"]["thresholds"], strict=True))[allowed]
    ratio, rows = found["likelihood_ratio"], rows_in(tmp_path)
    for row in rows:
        assert (row["threshold"], row["operating_point"]) == (f"{threshold:.4f}", "fpir=0.2")
        bounded = np.clip(ratio["slope"] * float(row["score"]) + ratio["offset"], -math.log(46), math.log(631))
        assert float(row["likelihood_ratio"]) == pytest.approx(math.exp(bounded), rel=0.01)
    best = [row for row in rows if row["rank"] == "1"]
    second = [row for row in rows if row["rank"] == "2"]
    for one, next_one in zip(best, second, strict=True):
        assert (one["decision"] != UNKNOWN) == (float(one["score"]) >= float(one["threshold"]))
        assert (one["runner_up"], one["runner_up_score"]) == (next_one["identity"], next_one["score"])
    assert {UNKNOWN} < {row["decision"] for row in best}
    assert "fpir=0.2" in capsys.readouterr().out


def test_without_an_operating_point_every_line_says_so(
    gallery: Path, enrolled: Path, edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(enrolled, gallery, tmp_path / "a", "--upsampler", "bicubic") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(UNCALIBRATED in line for line in lines) == len(rows_in(tmp_path / "a")) // 5
    assert {(row["threshold"], row["operating_point"]) for row in rows_in(tmp_path / "a")} == {("0.3500", UNCALIBRATED)}
    assert all(row["likelihood_ratio"] for row in rows_in(tmp_path / "a"))  # these need no threshold
    assert search(enrolled, gallery, tmp_path / "b", "--upsampler", "bicubic", "--threshold", "0.9") == 0
    assert {row["operating_point"] for row in rows_in(tmp_path / "b")} == {GIVEN}
    assert enrol(enrolled, edgeface, tmp_path / "plain.npz") == 0
    assert search(enrolled, tmp_path / "plain.npz", tmp_path / "c") == 0
    assert {(row["operating_point"], row["likelihood_ratio"]) for row in rows_in(tmp_path / "c")} == {
        (UNCALIBRATED, "")
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--operating-point", "fpir=0.1"], f"the gallery's calibration ({LOW}) is of --upsampler bicubic, not none"),
        (
            ["--operating-point", "fpir=0.0001", "--upsampler", "bicubic"],
            "insufficient data for FPIR 0.0001 among 6 people",
        ),
        (
            ["--operating-point", "fpir=0.0001", "--upsampler", "bicubic"],
            "fewer than 10: give a higher rate or --threshold, or evaluate with more calibration identities",
        ),
        (["--operating-point", "fmr=0.1"], "--operating-point fmr=0.1: fpir=RATE is wanted, such as fpir=0.01"),
        (["--operating-point", "fpir=2"], "--operating-point fpir=2: fpir=RATE is wanted"),
        (["--operating-point", "fpir=nan"], "--operating-point fpir=nan: fpir=RATE is wanted"),
        (["--operating-point", "fpir=.1", "--threshold", ".3"], "--threshold and --operating-point: give one of them"),
    ],
)
def test_an_operating_point_that_cannot_be_is_one_line(
    given: list[str], message: str, gallery: Path, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(people, gallery, tmp_path / "out", *given) == 2
    assert message in only_line(capsys)
    assert not (tmp_path / "out").exists()


def test_templates_of_more_pictures_than_were_evaluated_are_warned_of(
    people: Path, gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Means of several pictures have higher scores."""
    size = ("--upsampler", "bicubic", "--operating-point", "fpir=0.2")
    assert search(people, gallery, tmp_path / "a", *size) == 0
    assert "templates are of more than 1 picture" in capsys.readouterr().err
    table = read_embeddings(gallery)
    held = table.metadata["calibration"]
    of_many = held | {"template_pictures": 9}
    write_embeddings(tmp_path / "g.npz", replace(table, metadata=table.metadata | {"calibration": of_many}))
    assert search(people, tmp_path / "g.npz", tmp_path / "b", *size) == 0
    assert "templates" not in capsys.readouterr().err
    assert held["template_pictures"] == 1


def test_an_uncalibrated_gallery_has_no_operating_point(
    enrolled: Path, edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enrol(enrolled, edgeface, tmp_path / "g.npz") == 0
    capsys.readouterr()
    assert search(enrolled, tmp_path / "g.npz", tmp_path / "out", "--operating-point", "fpir=0.1") == 2
    assert "--operating-point fpir=0.1: the gallery holds no calibration: enrol with --calibration" in only_line(capsys)


def test_ratios_of_another_upsampler_are_left_out_with_a_warning(
    gallery: Path, enrolled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(enrolled, gallery, tmp_path) == 0
    assert {row["likelihood_ratio"] for row in rows_in(tmp_path)} == {""}
    error = capsys.readouterr().err
    assert f"warning: the gallery's calibration ({LOW}) is not used: it is of --upsampler bicubic, not none" in error


def test_python_code_decides_by_the_same_rule(enrolled: Path, evaluated: Path, edgeface: Path, tmp_path: Path) -> None:
    given = ["--calibration", evaluated / "report.json", "--configuration", "HR"]
    assert enrol(enrolled, edgeface, tmp_path / "g.npz", *given) == 0
    assert search(enrolled, tmp_path / "g.npz", tmp_path / "out", "--operating-point", "fpir=.2") == 0
    best = [row for row in rows_in(tmp_path / "out") if row["rank"] == "1"]
    gallery, recognizer = Gallery.load(tmp_path / "g.npz"), load_recognizer(str(edgeface), None)
    for row, each in zip(best, gallery.identify(recognizer, enrolled, operating_point="fpir=.2"), strict=True):
        assert (row["decision"], row["threshold"]) == (each.decision, f"{each.threshold:.4f}")
        assert each.likelihood_ratio() == pytest.approx(float(row["likelihood_ratio"]), rel=0.01)
        assert each.runner_up is not None
        assert (each.runner_up.identity, f"{each.score:.4f}") == (row["runner_up"], row["score"])
        measures = {name: float(row[name]) for name in ("norm", "mirror")}
        assert {name: each.quality[name] for name in measures} == pytest.approx(measures, abs=0.006)
    with pytest.raises(InputError, match="give one of them"):
        gallery.identify(recognizer, enrolled, 0.3, operating_point="fpir=.2")
    assert gallery.identify(recognizer, enrolled)[0].threshold == 0.35
