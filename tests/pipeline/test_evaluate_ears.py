"""An evaluation of ears: against slow loops, its report, and what is refused in one line."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ear_teacher.metrics.baselines import hog_features
from ear_teacher.recognition.config import EarRecognizerConfig
from ear_teacher.recognition.hub import EarRecognizerProvenance
from ear_teacher.recognition.model import EarRecognizer
from earface.data import identity_split
from earface.data.ear_contract import STRETCH
from earface.data.folders import list_images
from earface.data.identity_split import identity_digests
from earface.data.images import read_image, write_image
from earface.data.npy import read_teacher_npy, write_teacher_npy
from earface.data.prepare_ears import main as prepare
from earface.data.tables import write_csv
from earface.metrics.resampling import fpir_in_gallery
from earface.synthetic.ear_set import EarSet, write_ear_set
from pipeline.configuration_metrics import ConfigurationResult
from pipeline.ear_configurations import EarCondition, EarConfiguration
from pipeline.ear_protocol import EarGalleryRule, EarPicture, EarProtocol
from pipeline.enroll import main as enroll
from pipeline.enrolment_searches import Settings
from pipeline.evaluate_dataset import main
from pipeline.evaluation import Stages, evaluate
from pipeline.gallery import Gallery
from pipeline.identify import main as identify
from pipeline.protocol import Enrolment, Sides
from pipeline.protocol_checks import keep_pictures
from pipeline.quality import Quality
from tests.conftest import only_line
from tests.pipeline.small import read_probes, read_report, slow_equal_error_rate, slow_limit

Choice = tuple[Sides, int, Literal["both", "one"]]
CHOICES: list[Choice] = list(itertools.product(("apart", "joined"), (1, 2), ("both", "one")))  # type: ignore[arg-type]
SIZE = 64


def row(identity: str, number: int, side: str, **columns: str) -> EarPicture:
    name = f"{identity}/{number:02d}.png"
    return EarPicture(Path(name), name, identity, side, columns=tuple(columns.items()))


# -- the slow loop -----------------------------------------------------------------------------------------------------


def slow_enrolment(rows: Sequence[EarPicture], count: int, both: bool) -> tuple[list[EarPicture], list[EarPicture]]:
    """Gallery and probes, one person and one side after the other."""
    gallery, probes = [], []
    for someone in sorted({each.identity for each in rows}):
        own = sorted((each for each in rows if each.identity == someone), key=lambda each: each.name)
        by_side = {side: [each for each in own if each.side == side] for side in ("", "l", "r")}
        enrolled = [side for side, pictures in by_side.items() if len(pictures) > count]
        for side, pictures in by_side.items():
            probes += pictures[count:] if side in enrolled else pictures
        if not both and enrolled:
            most = max(len(by_side[side]) for side in enrolled)
            enrolled = [next(side for side in enrolled if len(by_side[side]) == most)]
        gallery += [each for side in enrolled for each in by_side[side][:count]]
    return gallery, probes


@dataclass(frozen=True)
class Slow:
    """Each probe's scores with everyone enrolled."""

    probes: list[EarPicture]
    scores: list[dict[str, float]]

    @property
    def mated(self) -> list[float]:
        return [own[each.identity] for each, own in zip(self.probes, self.scores, strict=True) if each.identity in own]

    @property
    def impostor(self) -> list[float]:
        both = zip(self.probes, self.scores, strict=True)
        return [score for each, own in both for person, score in own.items() if person != each.identity]

    def hits(self, chosen: Callable[[EarPicture], bool] = lambda each: True) -> float:
        """Rank-1: nobody else reaches the mate."""
        found = []
        for each, own in zip(self.probes, self.scores, strict=True):
            if each.identity in own and chosen(each):
                others = [score for person, score in own.items() if person != each.identity]
                found.append(own[each.identity] > max(others))
        return sum(found) / len(found)


def slow(
    rows: Sequence[EarPicture], embeddings: Mapping[str, NDArray[np.float32]], sides: Sides, count: int, both: bool
) -> Slow:
    gallery, probes = slow_enrolment(rows, count, both)
    scores: list[dict[str, float]] = []
    for probe in probes:
        scores.append({})
        for person in {each.identity for each in gallery}:
            own = [each for each in gallery if each.identity == person]
            same = [each for each in own if each.side == probe.side]
            if sides == "apart" and probe.side and same:
                own = same
            mean = sum(embeddings[each.name].astype(np.float64) for each in own)
            scores[-1][person] = float(np.float32(mean @ embeddings[probe.name] / np.linalg.norm(mean)))
    return Slow(probes, scores)


def close(slow_score: list[float]) -> Any:
    return pytest.approx(slow_score, abs=1e-5)


# -- metrics of embeddings without pictures ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Embeddings that are known."""

    of: Mapping[str, NDArray[np.float32]]

    def enrolled(self, configuration: object, rows: Sequence[EarPicture]) -> Tensor:
        return torch.from_numpy(np.stack([self.of[each.name] for each in rows])) if rows else torch.empty(0, 0)

    def of_configurations(
        self, configurations: Sequence[EarConfiguration], rows: Sequence[EarPicture], condition: object
    ) -> Mapping[str, Tensor]:
        return {each.name: self.enrolled(each, rows) for each in configurations}

    def quality(self, configuration: object, rows: Sequence[EarPicture], condition: object) -> Quality:
        return {}


@pytest.fixture(scope="module")
def crowd() -> tuple[list[EarPicture], dict[str, NDArray[np.float32]]]:
    """Seventy people whose two ears differ: eight pictures each, of few people fewer, or of unknown sides."""
    rng = np.random.default_rng(7)
    rows, embeddings = [], {}
    for person in range(70):
        sides = ["l"] * 4 + ["r"] * 4
        sides = {0: ["l"], 1: ["l", "r"], 2: ["l"] * 6, 3: ["l"] * 2 + ["r"] * 5, 4: ["", "", "", "l", "l", "r"]}.get(
            person, sides
        )
        whose = rng.standard_normal(16)
        ears = {side: whose + 0.5 * rng.standard_normal(16) for side in ("l", "r", "")}
        for number, side in enumerate(sides):
            picture = row(f"P{person:02d}", number, side, pose=str(number % 3), camera=f"c{person}_{number}")
            found = ears[side] + 0.8 * rng.standard_normal(16)
            embeddings[picture.name] = (found / np.linalg.norm(found)).astype(np.float32)
            rows.append(picture)
    return rows, embeddings


def measured(protocol: EarProtocol, embeddings: Mapping[str, NDArray[np.float32]]) -> ConfigurationResult:
    configuration = {EarCondition(STRETCH): [EarConfiguration("known", None)]}
    (result,) = evaluate(protocol, configuration, Table(embeddings), Settings(0.35, 100, 1, 3), Stages())
    return result.results[0]


def protocol_of(rows: Sequence[EarPicture], sides: Sides, count: int, enroll: Literal["both", "one"]) -> EarProtocol:
    return EarProtocol("", EarGalleryRule(count, enroll)(rows), Enrolment([], []), None, sides)


@pytest.mark.parametrize(("sides", "count", "enroll"), CHOICES)
def test_metrics_are_those_of_a_loop(sides: Sides, count: int, enroll: Literal["both", "one"], crowd: Any) -> None:
    rows, embeddings = crowd
    loop = slow(rows, embeddings, sides, count, enroll == "both")
    protocol = protocol_of(rows, sides, count, enroll)
    found = measured(protocol, embeddings)
    assert {each.name for each in protocol.test.probes} == {each.name for each in loop.probes}
    assert found.searches is not None
    assert sorted(found.searches.mated[np.isfinite(found.searches.mated)].tolist()) == close(sorted(loop.mated))
    assert sorted(found.searches.impostor.tolist()) == close(sorted(loop.impostor))
    assert found.metrics["rank1"].value == pytest.approx(loop.hits())
    assert found.metrics["eer"].value == pytest.approx(slow_equal_error_rate(loop.mated, loop.impostor), abs=1e-3)
    limit = slow_limit(loop.impostor, 1e-3)
    assert limit is not None
    accepted = sum(score > limit for score in loop.mated) / len(loop.mated)
    assert found.metrics["tar_at_far_0.001"].value == pytest.approx(accepted, abs=1 / len(loop.mated))
    pose = {value: loop.hits(lambda each, value=value: dict(each.columns)["pose"] == value) for value in "012"}
    assert {value: share.value for value, share in found.breakdown["pose"].items()} == pytest.approx(pose)
    assert "camera" not in found.breakdown  # as many values as pictures


def test_the_four_choices_search_for_the_same_probes_and_differ(crowd: Any) -> None:
    rows, embeddings = crowd
    protocols = [protocol_of(rows, sides, 1, enroll) for sides in ("apart", "joined") for enroll in ("both", "one")]
    assert len({tuple(each.name for each in protocol.test.probes) for protocol in protocols}) == 1
    ranks = [measured(protocol, embeddings).metrics["rank1"].value for protocol in protocols]
    assert ranks[0] > ranks[1]  # one ear of two enrolled
    assert ranks[1] == ranks[3]  # where one side is enrolled, apart and joined are one


def test_who_is_enrolled_and_the_side_that_a_probe_meets(crowd: Any) -> None:
    rows, _ = crowd
    for count, people in (
        (1, {"P00", "P01"}),
        (2, {"P00", "P01"}),
        (4, {f"P{n:02d}" for n in range(70)} - {"P02", "P03"}),
    ):
        protocol = protocol_of(rows, "apart", count, "both")
        assert {r.identity for r in rows} - {r.identity for r in protocol.test.gallery} == people
        assert sum(protocol.test.mated) == sum(r.identity not in people for r in protocol.test.probes)
    protocol = protocol_of(rows, "apart", 2, "both")
    met = {each.name: value for each, value in zip(protocol.test.probes, protocol.groups()["side"], strict=True)}
    assert met["P00/00.png"] == ""  # non-mated
    assert met["P02/05.png"] == "same side"
    assert met["P03/00.png"] == "other side"  # of two left ears none can be enrolled
    assert met["P04/02.png"] == met["P04/03.png"] == "unknown"
    assert met["P10/03.png"] == met["P10/07.png"] == "same side"
    assert protocol.notes() == ["2 identities have probes and are not enrolled: non-mated (P00, P01)"]


# -- from pictures to the report ---------------------------------------------------------------------------------------


def recognizer_folder(folder: Path, people: Sequence[str] = ("stranger",), contract: str = "letterbox") -> Path:
    torch.manual_seed(0)
    config = EarRecognizerConfig(backbone="conv", image_size=SIZE, embedding_dim=16, base_channels=4, contract=contract)
    model = EarRecognizer(config).eval()
    model.provenance = EarRecognizerProvenance("person", tuple(identity_digests(people)))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder: 16 people with 3 left and 3 right ears to validate, of S0001 one; 2 people to train."""
    folder = tmp_path_factory.mktemp("ears")
    write_ear_set(folder / "made", EarSet(18, 6, SIZE, seed=5), num_workers=1)
    lines = []
    for path in list_images(folder / "made" / "images"):
        subject, number = path.stem.split("_")
        if subject == "S0001" and int(number):
            continue
        write_image(folder / "crops" / subject / f"{number}.png", read_image(path))
        lines.append([f"{subject}/{number}.png", subject, "lr"[int(number) % 2], int(number) % 3 - 1, path.stem])
    write_csv(folder / "index.csv", ["file", "subject", "side", "pitch", "comment"], lines)
    (folder / "splits.json").write_text(json.dumps({"val": [f"S{number:04d}" for number in range(1, 17)]}))
    argv = ["--images", folder / "crops", "--index", folder / "index.csv", "--splits", folder / "splits.json"]
    argv += ["--fit", "letterbox", "--size", SIZE, "--duplicates", "drop", "--out", folder / "set"]
    assert prepare(list(map(str, argv))) == 0
    return folder / "set"


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recognizer_folder(tmp_path_factory.mktemp("recognizer"))


def arguments(ears: Path, recognizer: Path, out: Path, *more: object) -> list[str]:
    argv = ["--dataset-root", ears, "--recognizer", recognizer, "--out", out, "--bootstrap", 100, "--num-workers", 0]
    return list(map(str, [*argv, "--device", "cpu", "--leakage", "drop", *more]))


def run(ears: Path, recognizer: Path, out: Path, *more: object) -> dict[str, Any]:
    assert main(arguments(ears, recognizer, out, *more)) == 0
    return read_report(out)


def embeddings_of(rows: Sequence[EarPicture], recognizer: Path) -> dict[str, dict[str, NDArray[np.float32]]]:
    """By configuration and name, one picture after the other."""
    model = EarRecognizer.from_pretrained(recognizer).eval()
    found: dict[str, dict[str, NDArray[np.float32]]] = {"HOG": {}, "recogniser": {}}
    for each in rows:
        picture = read_image(each.path)
        with torch.no_grad():
            pixels = torch.from_numpy(picture[None].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
            found["recogniser"][each.name] = model.embed(pixels)[0].numpy()
        features = hog_features(picture[None])[0]
        found["HOG"][each.name] = features / np.linalg.norm(features)
    return found


def rows_of(ears: Path) -> list[EarPicture]:
    data = read_teacher_npy(ears / "val_teacher.npy")
    assert data.image_paths is not None
    assert data.subjects is not None
    assert data.sides is not None
    return [
        EarPicture(path, path.relative_to(ears).as_posix(), subject, side)
        for path, subject, side in zip(data.image_paths, data.subjects, data.sides, strict=True)
    ]


@pytest.mark.runs
def test_a_prepared_set_is_evaluated_as_by_a_loop(ears: Path, recognizer: Path, tmp_path: Path) -> None:
    report = run(ears, recognizer, tmp_path, "--calibration-fraction", 0, "--template-pictures", 2, "--sides", "apart")
    rows = rows_of(ears)
    probes = read_probes(tmp_path)
    leaking = {line.partition(":")[0] for line in report["left_out"]}
    (condition,) = report["conditions"]
    assert condition["form"] == "letterbox"
    assert [each["name"] for each in condition["rows"]] == ["HOG", "recogniser"]
    for own in condition["rows"]:
        known = embeddings_of(rows, recognizer)[own["name"]]
        loop = slow([each for each in rows if each.name not in leaking], known, "apart", 2, True)
        assert own["measured"]["rank1"]["value"] == pytest.approx(loop.hits(), abs=1e-9)
        eer = slow_equal_error_rate(loop.mated, loop.impostor)
        assert own["measured"]["eer"]["value"] == pytest.approx(eer, abs=2e-3)
        assert own["measured"]["tar_at_far_0.001"]["value"] is None
        assert "fewer than 10" in own["measured"]["tar_at_far_0.001"]["insufficient_data"]
        assert set(own["breakdown"]) == {"side", "pitch"}
        assert set(own["breakdown"]["pitch"]) <= {"-1", "0", "1"}
    assert report["modality"] == "ear"
    assert report["sides"].startswith("apart")
    assert report["enrolled"] == "the first 2 pictures by name of each side that has 3 or more"
    assert report["counts"]["identities enrolled"] == 15
    assert report["counts"]["pictures enrolled"] == 60
    assert report["counts"]["non-mated probes"] == 1  # S0001 has one picture
    assert any("S0001" in note for note in report["notes"])
    (difference,) = [each for each in condition["differences"] if each["measure"] == "rank1"]
    assert (difference["of"], difference["to"]) == ("recogniser", "HOG")
    shares = [own["measured"]["rank1"]["value"] for own in condition["rows"]]
    assert difference["value"] == pytest.approx(shares[1] - shares[0])
    assert {"ear", "pitch", "comment"} <= probes[0].keys()
    for line in probes:
        number = int(Path(line["file"]).stem)
        assert line["ear"] == "lr"[number % 2]
        assert line["pitch"] == str(number % 3 - 1)


@pytest.mark.runs
def test_a_gallery_of_ears_takes_the_report_s_operating_points(
    ears: Path, recognizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(ears, recognizer, tmp_path / "e", "--calibration-fraction", 0.75, "--sides", "joined")
    found = {row["name"]: row["calibration"] for row in report["conditions"][0]["rows"]}["recogniser"]
    gallery, out = tmp_path / "g.npz", tmp_path / "out"
    shared = ["--input", str(ears / "ears"), "--device", "cpu"]
    given = [*shared, "--recognizer", str(recognizer), "--out", str(gallery)]
    assert enroll([*given, "--calibration", str(tmp_path / "e" / "report.json")]) == 0
    search = [*shared, "--gallery", str(gallery), "--out", str(out), "--no-pictures", "--operating-point", "fpir=0.4"]
    assert identify(search) == 0
    allowed = int(fpir_in_gallery(0.4, len(Gallery.load(gallery)), found["fpir"]["others"]) * found["fpir"]["searches"])
    threshold = dict(zip(found["fpir"]["reached"], found["fpir"]["thresholds"], strict=True))[allowed]
    with (out / "candidates.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["threshold"], row["operating_point"]) for row in rows} == {(f"{threshold:.4f}", "fpir=0.4")}
    assert {row["size"] for row in rows} == {str(SIZE)}
    assert all(float(row["mirror"]) <= 1 for row in rows)
    capsys.readouterr()
    assert identify([*search, "--sides", "apart", "--overwrite"]) == 2
    assert "the gallery's calibration (recogniser) is of --sides joined, not apart" in only_line(capsys)


@pytest.mark.runs
def test_the_report_shows_ears_and_has_no_words_of_faces(ears: Path, recognizer: Path, tmp_path: Path) -> None:
    report = run(ears, recognizer, tmp_path, "--sides", "joined", "--failures", 2)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "letterbox" in page
    assert "one template per person over both sides" in page
    assert "insufficient data" in page
    shown = re.sub(r"data:image/[^\"]*", "", page[page.index("<body") :]).lower()
    for word in ("vlr", "face", "super-resol", "hr,", "px"):
        assert word not in shown, word
    assert shown.count('class="failure"') == 2
    assert report["counts"]["calibration identities"] == 3
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"ears_cmc.png", "ears_by_pitch.png", "ears_histograms.png"} <= plots
    assert main(arguments(ears, recognizer, tmp_path)) == 2  # is there already
    run(ears, recognizer, tmp_path, "--overwrite")


@pytest.mark.runs
def test_lists_name_who_is_enrolled_and_searched_for(ears: Path, recognizer: Path, tmp_path: Path) -> None:
    rows = [each for each in rows_of(ears) if each.identity != "S0001"]
    for name, numbers in (("gallery", "01"), ("probes", "345")):
        chosen = [each for each in rows if each.path.stem[-1] in numbers]
        write_csv(tmp_path / f"{name}.csv", ["file", "identity"], [[str(each.path), each.identity] for each in chosen])
    lists = ("--gallery", tmp_path / "gallery.csv", "--probes", tmp_path / "probes.csv", "--calibration-fraction", 0)
    report = run(Path("nowhere"), recognizer, tmp_path / "a", *lists)
    assert report["counts"]["pictures enrolled"] == 30
    lines = read_probes(tmp_path / "a")
    assert {line["ear"] for line in lines} == {"l", "r"}  # of the index of the prepared ears
    given = tmp_path / "sides.csv"
    content = list(csv.DictReader((tmp_path / "probes.csv").open()))
    write_csv(given, ["file", "identity", "side"], [[line["file"], line["identity"], "l"] for line in content])
    lists = (*lists[:2], "--probes", given, *lists[4:])
    run(Path("nowhere"), recognizer, tmp_path / "b", *lists)
    assert {line["ear"] for line in read_probes(tmp_path / "b")} == {"l"}


@pytest.mark.runs
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--vlr-size", "16", "--degradation", "realistic"), "--vlr-size, --degradation: for faces alone"),
        (("--finetuned", "none"), "--finetuned: for faces alone"),
        (("--dsr-checkpoint", "none"), "--dsr-checkpoint: for faces alone"),
        (("--crop", "center"), "--crop: for faces alone"),
        (("--gallery-camera", "080"), "--gallery-camera: for faces alone"),
        (("--template-pictures", "3"), "nobody has 4 pictures of one side; lower --template-pictures"),
        (
            ("--gallery", "{set}", "--probes", "{set}", "--enroll-sides", "one"),
            "--enroll-sides: not together",
        ),
    ],
)
def test_what_cannot_be_is_one_line(
    more: Sequence[str], words: str, ears: Path, recognizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(ears, recognizer, tmp_path / "out", *(each.format(set=ears) for each in more))) == 2
    assert words in only_line(capsys)
    assert not (tmp_path / "out" / "report.json").exists()


@pytest.mark.runs
def test_options_of_ears_and_sets_of_ears_are_not_for_faces(
    ears: Path, edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(ears, edgeface, tmp_path)) == 2
    assert "holds ears" in only_line(capsys)
    assert main(arguments(ears, edgeface, tmp_path, "--sides", "apart")) == 2
    assert "--sides: for ears alone" in only_line(capsys)


@pytest.mark.runs
def test_people_who_were_trained_on_are_refused_or_noted(
    ears: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = read_teacher_npy(ears / "val_teacher.npy")
    assert data.image_paths is not None
    known = recognizer_folder(
        tmp_path / "known", [identity_split.person(data.collection, name) for name in ("S0003", "S0018")]
    )
    assert main(arguments(ears, known, tmp_path / "out")) == 2
    assert "was trained on 1 of 16 people, such as S0003" in only_line(capsys)

    names = recognizer_folder(tmp_path / "names", ["S0003", "S0018"])
    assert not any("trained on" in note for note in run(ears, names, tmp_path / "of another set")["notes"])
    paths = [path.absolute() for path in data.image_paths]
    unknown = tmp_path / "unknown" / "val_teacher.npy"
    unknown.parent.mkdir()
    write_teacher_npy(unknown, image_paths=paths, subjects=data.subjects, sides=data.sides, contract=data.contract)
    capsys.readouterr()
    assert main(arguments(unknown, names, tmp_path / "out")) == 2
    assert "was trained on people with the names of 1 of 16 people" in only_line(capsys)
    report = run(unknown, names, tmp_path / "out", "--known-names", "note")
    assert "1 of 16 people have names that were trained on, such as S0003" in report["notes"]


@pytest.mark.runs
def test_ears_of_another_form_and_copies_are_refused(
    ears: Path, tmp_path: Path, recognizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = recognizer_folder(tmp_path / "other", contract="stretch")
    assert main(arguments(ears, other, tmp_path / "out")) == 2
    assert "letterbox, the model takes stretch" in only_line(capsys)
    copied = tmp_path / "set"
    shutil.copytree(ears, copied)
    shutil.copy(copied / "ears" / "S0004" / "000.png", copied / "ears" / "S0005" / "002.png")
    argv = arguments(copied, recognizer, tmp_path / "out")
    argv[argv.index("drop")] = "refuse"
    assert main(argv) == 2
    line = only_line(capsys)
    assert "leakage" in line
    assert "S0004/000.png" in line


@pytest.mark.runs
def test_one_person_and_pictures_without_a_mate_are_refused(
    ears: Path, recognizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(ears)
    for keep, words in (
        (lambda each: each.identity == "S0002", "one person, S0002"),
        (lambda each: each.path.stem == "000", "nobody has 2 pictures of one side"),
    ):
        chosen = [each for each in rows if keep(each)]
        write_teacher_npy(
            tmp_path / "few.npy",
            image_paths=[each.path for each in chosen],
            subjects=[each.identity for each in chosen],
            sides=[each.side for each in chosen],
            contract="letterbox",
        )
        argv = arguments(tmp_path / "few.npy", recognizer, tmp_path / "out", "--calibration-fraction", 0)
        assert main(argv) == 2
        assert words in only_line(capsys)


def test_a_probe_of_a_person_whose_enrolled_pictures_are_lost_is_left_out() -> None:
    rows = [row(person, number, "l") for person in ("a", "b", "c") for number in range(3)]
    protocol = protocol_of(rows, "apart", 1, "both")
    left, lines = keep_pictures(protocol, set(rows) - {rows[0]})
    assert [each.identity for each in left.test.gallery] == ["b", "c"]
    assert {each.identity for each in left.test.probes} == {"b", "c"}
    assert len(lines) == 3
    assert replace(left, sides="joined").groups()["side"] == ["same side"] * 4
