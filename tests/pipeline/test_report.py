"""What an evaluation writes: numbers that add up, images that decode, a page that needs no other file."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dsr.upsampler import build_dsr_upsampler
from earface.data.face_rows import FaceRow
from earface.data.images import read_image
from earface.metrics.error_reject import ErrorReject
from earface.metrics.resampling import Estimate
from facial_rec.recognizer import load_recognizer
from pipeline.configurations import FaceLoader, Models, conditions_of
from pipeline.evaluation import ConditionResult, notes_of
from pipeline.over_conditions import axes_of
from pipeline.protocol import Enrolment, GalleryRule, Protocol, from_dataset
from pipeline.recommendations import RULE
from pipeline.rejected import LOWEST
from pipeline.report import print_report, write_report
from pipeline.report_data import About, write_probes
from pipeline.stages import staged_faces
from tests.conftest import VLR
from tests.pipeline.small import draw_faces, dsr_folder, evaluated, read_probes, read_report

pytestmark = pytest.mark.runs

FAILURES = 3


@dataclass(frozen=True)
class Made:
    """An evaluation of two conditions, in memory and as written."""

    about: About
    results: list[ConditionResult]
    faces: FaceLoader
    out: Path


@pytest.fixture(scope="module")
def made(edgeface: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("report")
    protocol = from_dataset(str(draw_faces(folder / "people", 8, 3)), GalleryRule(), 0.25, 42)
    resolver = build_dsr_upsampler(str(dsr_folder(folder / "dsr", VLR)))
    models = Models(load_recognizer(str(edgeface), "arcface"), [], [resolver])
    results, faces = evaluated(protocol, models, conditions_of([VLR, "24"], ["bicubic"]), failures=FAILURES)
    models_of = {"pretrained.pt": {"kind": "recogniser, pretrained", "digest": "0" * 64, "contract": ""}}
    rest = models_of, ["a note"], ["gone.png: cannot be read"], {"search": 0.1}
    about = About("people", protocol, 0.35, 100, {"seed": 1}, *rest)
    write_report(folder / "out", about, results, faces)
    return Made(about, results, faces, folder / "out")


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def said(self) -> str:
        return "".join(self.text)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def foreign(self) -> list[str]:
        """What it would load, or run."""
        found = [tag for tag, _ in self.tags if tag in ("script", "iframe", "object", "embed", "link", "base", "form")]
        for tag, attributes in self.tags:
            for name, value in attributes.items():
                if name in ("src", "href", "srcset", "action", "data", "poster", "background"):
                    found += [] if (value or "").startswith(("data:image/", "#")) else [f"{tag} {name}={value}"]
                found += [f"{tag} {name}"] if name.startswith("on") or "url(" in (value or "").lower() else []
        return found + [bad for bad in ("url(", "@import", "javascript:") if bad in self.source.lower()]


# Numbers


def test_report_json_is_plain_json_with_the_metrics(made: Made) -> None:
    report = read_report(made.out)  # refuses NaN and Infinity
    for condition, result in zip(report["conditions"], made.results, strict=True):
        assert (condition["vlr_size"], condition["degradation"]) == (result.condition.vlr_size, "bicubic")
        for row, own in zip(condition["rows"], result.results, strict=True):
            assert row["name"] == own.name
            assert {name: each["value"] for name, each in row["measured"].items()} == {
                name: estimate.value for name, estimate in own.metrics.items()
            }
            for name, each in row["measured"].items():
                if each["value"] is not None:
                    assert (each["low"], each["high"]) == (own.metrics[name].interval() or (None, None))
                    assert each["samples"] == own.metrics[name].samples
    assert report["left_out"] == ["gone.png: cannot be read"]


def test_differences_are_the_later_configuration_s_minus_the_earlier_one_s(made: Made) -> None:
    (condition, _) = read_report(made.out)["conditions"]
    rank1 = {row["name"]: row["measured"]["rank1"]["value"] for row in condition["rows"]}
    found = {(each["of"], each["to"]): each["value"] for each in condition["differences"] if each["measure"] == "rank1"}
    names = list(rank1)
    pairs = [(later, earlier) for place, later in enumerate(names) for earlier in names[:place]]
    assert set(found) == set(pairs)
    assert all(found[pair] == pytest.approx(rank1[pair[0]] - rank1[pair[1]]) for pair in pairs)


def test_the_counts_are_those_of_the_pictures(made: Made) -> None:
    counts = read_report(made.out)["counts"]
    names = sorted(path.name for path in (made.out.parent / "people" / "images").iterdir())
    calibrating = {row.identity for row in made.about.protocol.calibration.rows}
    tested = [name for name in names if name[:3] not in calibrating]
    assert counts == {
        "identities enrolled": len({name[:3] for name in tested}),
        "pictures enrolled": sum("_01_01_051_07_" in name for name in tested),
        "mated probes": sum("_01_01_051_07_" not in name for name in tested),
        "non-mated probes": 0,
        "calibration identities": 2,
        "calibration pictures": 6,
        "pictures left out": 1,
    }


def test_probes_csv_has_a_line_for_each_probe_and_configuration(made: Made) -> None:
    lines, probes = read_probes(made.out), made.about.protocol.test.probes
    assert len(lines) == len(probes) * sum(len(result.results) for result in made.results)
    keys = {(line["vlr_size"], line["degradation"], line["row"], line["file"]) for line in lines}
    assert len(keys) == len(lines)
    for line in lines:
        assert line["camera"] == line["file"].split("_")[3]
        assert (line["rank"] == "1") == (float(line["mated_score"]) > float(line["best_other_score"]))
        assert line["best_other"] != line["identity"]


def test_a_probe_without_mate_has_no_rank_and_one_with_nobody_else_no_other(made: Made, tmp_path: Path) -> None:
    """One person is enrolled, and a stranger searched for."""
    test = made.about.protocol.test
    alone = test.gallery[:1]
    own = [row for row in test.probes if row.identity == alone[0].identity]
    stranger = next(row for row in test.probes if row.identity != alone[0].identity)
    protocol = Protocol("", Enrolment(alone, [*own, stranger]), Enrolment([], []))
    models = Models(made.results[0].configurations[0].recognizer)
    results, _ = evaluated(protocol, models, conditions_of([VLR], ["bicubic"]))
    write_probes(tmp_path / "probes.csv", protocol, results)
    for line in read_probes(tmp_path):
        mated = line["identity"] == alone[0].identity
        assert line["enrolled"] == ("1" if mated else "0")
        assert line["rank"] == ("1" if mated else "")
        assert bool(line["mated_score"]) is mated
        assert line["best_other"] == ("" if mated else alone[0].identity)


def test_tensorboard_reads_the_scalars_back(made: Made) -> None:
    events = EventAccumulator(str(made.out / "tensorboard"))
    events.Reload()
    wanted = {
        f"{metric}/{condition['vlr_size']}_{condition['degradation']}/{row['name']}": each["value"]
        for condition in read_report(made.out)["conditions"]
        for row in condition["rows"]
        for metric, each in row["measured"].items()
        if each["value"] is not None
    }
    found = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    assert found == pytest.approx(wanted, abs=1e-6)
    assert {"cmc/16_bicubic", "histograms/24_bicubic"} <= set(events.Tags()["images"])


# Pictures and the page


def test_every_plot_is_a_png_that_decodes(made: Made) -> None:
    plots = sorted((made.out / "plots").iterdir())
    assert {f"{size}_bicubic_{kind}.png" for size in ("16", "24") for kind in ("cmc", "det_verification")} <= {
        path.name for path in plots
    }
    for path in plots:
        pixels = read_image(path)
        assert path.suffix == ".png"
        assert min(pixels.shape[:2]) > 200
        assert pixels.std() > 5  # it shows something


def test_the_page_needs_no_other_file_and_runs_nothing(made: Made) -> None:
    page = Page(made.out / "report.html")
    assert page.foreign == []
    assert len(page.of("img")) > 2 * FAILURES
    for attributes in page.of("img"):
        kind, _, content = (attributes["src"] or "").partition(";base64,")
        decoded = base64.b64decode(content, validate=True)
        if kind in ("data:image/png", "data:image/jpeg"):
            assert cv2.imdecode(np.frombuffer(decoded, np.uint8), cv2.IMREAD_COLOR) is not None
        else:
            assert kind == "data:image/svg+xml"
            assert b"<svg" in decoded
            assert b"<script" not in decoded


def test_the_page_s_links_lead_to_its_conditions(made: Made) -> None:
    page = Page(made.out / "report.html")
    targets = {f"#{attributes['id']}" for _, attributes in page.tags if "id" in attributes}
    links = [attributes["href"] for attributes in page.of("a")]
    assert set(links) <= targets
    assert links == ["#choice", "#compared", "#stages", "#rejects", "#16_bicubic", "#24_bicubic", "#method"]


def test_the_page_begins_with_what_compares_the_conditions(made: Made) -> None:
    text = Page(made.out / "report.html").text
    headings = ("Which of these for my camera?", "All conditions side by side", "The same faces at each stage")
    places = [text.index(each) for each in (*headings, "What quality rejects", "Each condition")]
    assert places == sorted(places)
    for result in made.results:
        assert str(result.condition) in text[places[1] : places[2]]
        for each in result.results:
            assert f"{each.metrics['rank1'].value:.1%}" in text[places[1] : places[2]]


def test_the_curves_over_the_size_are_of_the_report_s_numbers(made: Made) -> None:
    lines = axes_of(made.results)[0].lines("rank1")
    conditions = read_report(made.out)["conditions"]
    reported = {row["name"]: [] for condition in conditions for row in condition["rows"]}
    for condition in conditions:
        for row in condition["rows"]:
            reported[row["name"]].append((float(condition["vlr_size"]), row["measured"]["rank1"]["value"]))
    assert {name: [(x, each.value) for x, each in own] for name, own in lines.items()} == reported


def test_recommendations_are_in_the_report_and_on_the_page(made: Made) -> None:
    """12 mated probes are too few for FNIR at FPIR .1, so that rank-1 decides, and for a threshold."""
    page, found = Page(made.out / "report.html"), read_report(made.out)["recommendations"]
    assert [each["vlr_size"] for each in found] == ["16", "24"]
    for each, result in zip(found, made.results, strict=True):
        assert each["recommended"]["name"] in [own.name for own in result.results][1:]
        assert each["decided_by"] == "rank1"
        assert each["commands"] == []
        assert f"{each['recommended']['rank1']['value']:.1%}" in page.text
    assert RULE in page.text


def test_faces_are_shown_at_every_stage_with_the_scores_of_probes_csv(made: Made) -> None:
    page, lines = Page(made.out / "report.html"), read_probes(made.out)
    faces = staged_faces(made.results, made.about.protocol.test)
    alts = [attributes["alt"] for attributes in page.of("img")]
    assert alts.count("VLR, 16 px, bicubic") == alts.count("interpolated, 24 px, bicubic") == len(faces) == 3
    assert alts.count("DSR, 16 px, bicubic") == 3
    assert "DSR, 24 px, bicubic" not in alts  # there is no super-resolver for it
    for face in faces:
        own = [line for line in lines if line["file"] == face.probe.name and line["row"] != "HR"]
        assert len(own) == 3
        for line in own:
            assert f"{float(line['mated_score']):.2f} ({line['rank']})" in page.said


def test_the_page_shows_every_configuration_and_every_failure(made: Made) -> None:
    page = Page(made.out / "report.html")
    for result in made.results:
        for each in result.results:
            assert each.name in page.text
            assert f"{each.metrics['rank1'].value:.1%}" in page.text
        assert len(result.failures) == FAILURES
        for failure in result.failures:
            assert failure.probe.name in page.text
            assert f"taken for {failure.wrong.identity}" in page.text
            assert f"is {failure.right.identity}" in page.text
    shown = [attributes for attributes in page.of("div") if attributes.get("class") == "failure"]
    assert len(shown) == 2 * FAILURES
    assert "a note" in page.text
    assert "gone.png: cannot be read" in page.text


def test_without_pictures_no_face_is_in_the_folder_or_the_page(made: Made, tmp_path: Path) -> None:
    """Of an earlier report, too; the failures are named all the same, and what quality rejects is in numbers."""
    results = [with_rejects(result) for result in bare(made.results)]
    sentence = "The sharpness predicts errors of"
    write_report(tmp_path, made.about, results, made.faces)
    page = Page(tmp_path / "report.html")
    assert sentence in page.said
    assert [each["alt"] for each in page.of("img")].count("a probe of low quality") == 2 * LOWEST
    write_report(tmp_path, made.about, results, None)
    page = Page(tmp_path / "report.html")
    assert sentence in page.said
    assert "rejecting the worst 10 %, 25 % or 50 % leaves 44.0%, 35.0% or 20.0%" in page.said
    assert "The same faces at each stage" not in page.text
    assert page.of("img")
    assert {(each["src"] or "").partition(";")[0] for each in page.of("img")} == {"data:image/svg+xml"}
    assert all(b"<image" not in base64.b64decode((each["src"] or "").partition(",")[2]) for each in page.of("img"))
    assert all(failure.probe.name in page.text for result in made.results for failure in result.failures)
    pictures = [path for path in tmp_path.rglob("*") if path.suffix in (".png", ".jpg", ".jpeg", ".webp")]
    assert {path.parent.name for path in pictures} == {"plots"}


def test_the_failures_are_the_worst_misses_of_the_last_configuration(made: Made) -> None:
    for result in made.results:
        lines = [line for line in read_probes(made.out) if line["vlr_size"] == result.condition.vlr_size]
        lines = [line for line in lines if line["row"] == result.results[-1].name and line["rank"] != "1"]
        lines.sort(key=lambda line: float(line["mated_score"]) - float(line["best_other_score"]))
        assert [failure.probe.name for failure in result.failures] == [line["file"] for line in lines[:FAILURES]]
        for failure, line in zip(result.failures, lines, strict=False):
            assert failure.wrong.identity == line["best_other"]
            assert failure.right.identity == failure.probe.identity == line["identity"]
            assert failure.rank == int(line["rank"])


SCRIPT = "<script>alert(1)</script>"
IMAGE = "\"'><img src=x onerror=alert(1)>"


def bare(results: list[ConditionResult]) -> list[ConditionResult]:
    """The same with one plot each, which take most of the time."""
    return [
        replace(
            each,
            results=[
                replace(own, cmc=own.cmc[:0], verification=None, identification=None, breakdown={})
                for own in each.results
            ],
        )
        for each in results
    ]


def with_rejects(result: ConditionResult) -> ConditionResult:
    """The last configuration's errors predicted by sharpness."""
    curve = ErrorReject(np.linspace(0.5, 0.2, 51), Estimate(0.7, np.linspace(0.6, 0.8, 11)), 0.3)
    last = result.results[-1]
    assert last.searches is not None
    quality = {"sharpness": np.arange(len(last.searches.rank), dtype=float)}
    last = replace(last, error_rejects={"sharpness": {"rank1_error": curve}}, quality=quality)
    return replace(result, results=[*result.results[:-1], last])


def hostile(made: Made) -> tuple[About, list[ConditionResult]]:
    """Names that no file system would take, and one that is no Unicode."""
    result = with_rejects(bare(made.results)[0])

    def renamed(row: FaceRow) -> FaceRow:
        return replace(row, name=f"{SCRIPT}\udcff.png", identity=f"{IMAGE} {row.identity}")

    failures = [
        replace(each, probe=renamed(each.probe), right=renamed(each.right), wrong=renamed(each.wrong))
        for each in result.failures
    ]
    estimate = result.results[0].metrics["rank1"]
    results = [replace(own, breakdown={IMAGE: {SCRIPT: estimate}}) for own in result.results]
    test = made.about.protocol.test
    gallery, probes = ([renamed(row) for row in rows] for rows in (test.gallery, test.probes))
    protocol = Protocol(SCRIPT, Enrolment(gallery, probes), Enrolment([], []))
    models = {SCRIPT: {"kind": IMAGE, "digest": SCRIPT, "contract": ""}}
    about = replace(made.about, dataset=IMAGE, protocol=protocol, models=models, notes=[SCRIPT], left_out=[IMAGE])
    return about, [replace(result, results=results, failures=failures)]


def test_names_that_look_like_html_stay_text(made: Made, tmp_path: Path) -> None:
    about, results = hostile(made)
    write_report(tmp_path, about, results, made.faces)
    page = Page(tmp_path / "report.html")
    assert page.foreign == []
    assert SCRIPT in page.text
    assert IMAGE in page.text
    taken = {f"taken for {failure.wrong.identity}" for failure in results[0].failures}
    assert all(each.startswith(f"taken for {IMAGE}") and each in page.text for each in taken)
    assert {attributes.get("alt") for attributes in page.of("img")} >= taken
    for face in staged_faces(results, about.protocol.test):
        assert f"{face.probe.identity}, {100 * face.quantile:.0f}th percentile" in page.text
    assert list(read_report(tmp_path)["conditions"][0]["rows"][0]["breakdown"]) == [IMAGE]
    assert all(line["identity"].startswith(IMAGE) for line in read_probes(tmp_path))


def test_names_that_look_like_markup_are_printed_as_they_are(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    about = replace(made.about, notes=["[/b] is a person"], left_out=["a[/b].png: [bold]cannot be read"])
    print_report(Console(width=200), about, made.results, ["an answer"])
    printed = capsys.readouterr().out
    assert "[/b] is a person" in printed
    assert "pictures left out: 1, such as a[/b].png: [bold]cannot be read" in printed
    assert all(each.name in printed for result in made.results for each in result.results)


def test_a_sample_of_the_comparisons_is_reported(made: Made) -> None:
    assert notes_of(made.results) == []
    own = made.results[0].results[0]
    assert own.searches is not None
    sampled = replace(own, searches=replace(own.searches, sampled=True))
    count = len(own.searches.impostor)
    notes = notes_of([replace(made.results[0], results=[sampled])])
    assert notes == [f"verification metrics rest on a sample of {count} non-mated comparisons"]


# Whole or not at all


def test_running_again_replaces_everything(made: Made, tmp_path: Path) -> None:
    results = bare(made.results)
    write_report(tmp_path, made.about, results, made.faces)
    before = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert any(name.startswith("24_") for name in before)
    write_report(tmp_path, made.about, results[:1], made.faces)
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [n for n in before if n.startswith("16_")]
    assert [each["vlr_size"] for each in read_report(tmp_path)["conditions"]] == ["16"]
    assert {line["vlr_size"] for line in read_probes(tmp_path)} == {"16"}
    assert "24 px" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert all("/16_" in tag for tag in events.Tags()["scalars"])
    assert all(len(events.Scalars(tag)) == 1 for tag in events.Tags()["scalars"])


def in_the_way_of_the_page(out: Path) -> None:
    (out / "report.html").unlink()
    (out / "report.html").mkdir()


def in_the_way_of_the_events(out: Path) -> None:
    for path in (out / "tensorboard").iterdir():
        path.unlink()
    (out / "tensorboard").rmdir()
    (out / "tensorboard").write_text("a file")


@pytest.mark.parametrize("spoil", [in_the_way_of_the_page, in_the_way_of_the_events])
def test_a_run_that_ends_early_leaves_no_report_json(spoil: Callable[[Path], None], made: Made, tmp_path: Path) -> None:
    results = bare(made.results)[:1]
    write_report(tmp_path, made.about, results, made.faces)
    assert json.loads((tmp_path / "report.json").read_text())["dataset"] == "people"
    spoil(tmp_path)
    with pytest.raises(OSError):  # noqa: PT011 - which of them differs between systems
        write_report(tmp_path, made.about, results, made.faces)
    assert not (tmp_path / "report.json").exists()
    assert not list(tmp_path.rglob("*.tmp"))
