"""Enrolling ears and finding them again: scores beside a loop over ears and templates, sides, names, and refusals."""

from __future__ import annotations

import csv
import dataclasses
import shutil
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ear_teacher import EarRecognizer
from ear_teacher.recognition.hub import EarRecognizerProvenance
from earface.data.ear_contract import EarAligner, EarContract
from earface.data.ear_networks import EAR_LANDMARKS, EarLandmarker
from earface.data.folders import list_images
from earface.data.identity_embeddings import IdentityEmbeddings, read_embeddings, write_embeddings
from earface.data.identity_split import identity_digests
from earface.data.images import Pixels, read_image, write_image
from earface.data.pixels import to_model_range
from earface.data.prepare_ears import main as prepare
from earface.data.tables import write_csv
from earface.synthetic.ear_set import EarSet, synthesize_ears
from pipeline.ears import nearer_to_the_other_side
from pipeline.enroll import main as enroll
from pipeline.gallery import Gallery
from pipeline.identify import main as identify
from tests.conftest import only_line
from tests.pipeline.test_enroll_identify import alike, shown_at
from tests.support.ear_boxes import write_fixed_boxes

SIZE, SUBJECTS, PICTURES = 64, 5, 6
SET = EarSet(SUBJECTS, PICTURES, 96, seed=77)

Row = dict[str, str]
Sides = dict[str, str]  # of each picture, by SUBJECT/NAME.png


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SUBJECT/N.png: synthetic ears."""
    folder = tmp_path_factory.mktemp("people")
    for place, (ear, name) in enumerate(zip(*synthesize_ears(SET), strict=True)):
        write_image(folder / name / f"{place % PICTURES}.png", ear)
    return folder


@pytest.fixture(scope="module")
def true_sides() -> Sides:
    """As they were drawn."""
    numbers = [(subject, index) for subject in range(1, SUBJECTS + 1) for index in range(PICTURES)]
    return {f"S{subject:04d}/{index}.png": SET.view(subject, index).side for subject, index in numbers}


def recogniser(folder: Path, contract: EarContract, *, seed: int = 0, people: Iterable[str] = ()) -> Path:
    """A small one of random weights, exported, that was trained on these people."""
    torch.manual_seed(seed)
    model = EarRecognizer(
        backbone="conv", base_channels=4, image_size=SIZE, embedding_dim=16, contract=contract.id
    ).eval()
    model.provenance = EarRecognizerProvenance("person", tuple(identity_digests(people)))
    model.save_pretrained(folder)
    return folder


CANONICAL, STRETCH = EarContract.canonical(EarLandmarker()), EarContract()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A recogniser of each contract."""
    folder = tmp_path_factory.mktemp("weights")
    return {each.fit: recogniser(folder / each.fit, each) for each in (CANONICAL, STRETCH)}


def enrol(given: Path, weights: Path, out: Path, *extra: object) -> int:
    return enroll([*map(str, ["--input", given, "--recognizer", weights, "--out", out, "--device", "cpu", *extra])])


def search(given: Path, gallery: Path, out: Path, *extra: object) -> int:
    pictures = () if "--pictures" in extra else ("--pictures", 0)
    words = ["--input", given, "--gallery", gallery, "--out", out, "--device", "cpu", *pictures, *extra]
    return identify([*map(str, words)])


def rows_in(out: Path) -> list[Row]:
    with (out / "candidates.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def part_of(people: Path, target: Path, names: Iterable[str]) -> Path:
    """A folder of some of the pictures SUBJECT/N.png."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(people / name, target / name)
    return target


def split(true_sides: Sides) -> tuple[list[str], list[str]]:
    """To enrol, with two people of whom one side is missing, and to search for."""
    first = [name for name in true_sides if int(Path(name).stem) < 4]
    one_sided = {"S0001": "l", "S0003": "r"}
    enrolled = [name for name in first if true_sides[name] == one_sided.get(name[:5], true_sides[name])]
    return enrolled, [name for name in true_sides if int(Path(name).stem) >= 4]


# -- the slow loop: one ear after the other ----------------------------------------------------------------------------


def form(picture: Pixels, contract: EarContract) -> tuple[Pixels, str]:
    """The ear in its form, and its side by the landmarks."""
    aligner = EarAligner(contract.fit, EarLandmarker() if contract.fit == "canonical" else None)
    located = aligner.locate(picture)
    assert not located.problem
    return aligner.image(picture, located, SIZE), "" if located.fit is None else located.fit.side


def embedding(model: EarRecognizer, ear: Pixels) -> NDArray[np.float64]:
    return model.embed_exactly(to_model_range(torch.from_numpy(ear[None])))[0].double().numpy()


def slow_scores(
    probe: NDArray[np.float64],
    side: str,
    rows: Sequence[tuple[str, str, NDArray[np.float64]]],
    apart: bool,
) -> dict[str, float]:
    """Everybody's score. rows: person, side and embedding of each enrolled picture."""
    scores = {}
    for person in dict.fromkeys(name for name, _, _ in rows):
        templates = {}
        for own in ("l", "r", "") if apart else ("lr",):
            mean = sum(
                (each for name, other, each in rows if name == person and (other == own or not apart)), np.zeros(16)
            )
            if np.any(mean):
                templates[own] = float(probe @ (mean / np.linalg.norm(mean)))
        if apart and side and side in templates:
            templates = {own: score for own, score in templates.items() if own in (side, "")}
        scores[person] = max(templates.values())
    return scores


def check(rows: list[Row], wanted: dict[str, dict[str, float]]) -> None:
    """wanted: of each file, everybody's score."""
    assert {row["file"] for row in rows} == wanted.keys()
    for file, scores in wanted.items():
        own = {row["identity"]: float(row["score"]) for row in rows if row["file"] == file}
        assert own.keys() == scores.keys()
        assert list(own.values()) == sorted(own.values(), reverse=True)
        assert own == pytest.approx(scores, abs=2e-4)


# Found again


@pytest.mark.runs
@pytest.mark.parametrize("sides", ["apart", "joined"])
def test_the_scores_are_those_of_a_loop_over_ears(
    sides: str, people: Path, weights: dict[str, Path], true_sides: Sides, tmp_path: Path
) -> None:
    """Of canonical ears, whose sides the landmarks say; two people are enrolled by one side alone."""
    enrolled, probes = split(true_sides)
    assert enrol(part_of(people, tmp_path / "known", enrolled), weights["canonical"], tmp_path / "g.npz") == 0
    folder = part_of(people, tmp_path / "probes", probes)
    assert search(folder, tmp_path / "g.npz", tmp_path / "out", "--sides", sides, "--top-k", 9) == 0
    model = EarRecognizer.from_pretrained(weights["canonical"]).eval()
    ears = {name: form(read_image(people / name), CANONICAL) for name in (*enrolled, *probes)}
    assert {name: side for name, (_, side) in ears.items()} == {name: true_sides[name] for name in ears}
    known = [(name[:5], ears[name][1], embedding(model, ears[name][0])) for name in enrolled]
    wanted = {
        str(folder / name): slow_scores(embedding(model, ears[name][0]), ears[name][1], known, sides == "apart")
        for name in probes
    }
    rows = rows_in(tmp_path / "out")
    check(rows, wanted)
    has = {(name[:5], true_sides[name]) for name in enrolled}
    for row in rows:
        name = "/".join(Path(row["enrolled_picture"]).parts[-2:])
        assert row["enrolled_side"] == true_sides[name]
        assert row["side"] == true_sides["/".join(Path(row["file"]).parts[-2:])]
        if sides == "apart" and (row["identity"], row["side"]) in has:
            assert row["enrolled_side"] == row["side"]
    assert any(row["enrolled_side"] != row["side"] for row in rows)  # of the one-sided


@pytest.mark.runs
def test_an_ear_of_unknown_side_is_compared_with_both(
    people: Path, weights: dict[str, Path], true_sides: Sides, tmp_path: Path
) -> None:
    """Whole pictures have no sides but those of a column, here with gaps."""
    enrolled, probes = split(true_sides)
    given = {name: side if row % 4 else "" for row, (name, side) in enumerate(true_sides.items())}
    lines = [[people / name, name[:5], {"l": "Left", "r": "r", "": ""}[given[name]]] for name in enrolled]
    write_csv(tmp_path / "people.csv", ["file", "identity", "side"], lines)
    assert enrol(tmp_path / "people.csv", weights["stretch"], tmp_path / "g.npz") == 0
    assert read_embeddings(tmp_path / "g.npz").sides == [given[name] for name in enrolled]
    folder = part_of(people, tmp_path / "probes", probes)
    assert search(folder, tmp_path / "g.npz", tmp_path / "out", "--top-k", 9, "--sides", "apart") == 0
    model = EarRecognizer.from_pretrained(weights["stretch"]).eval()
    ears = {name: embedding(model, form(read_image(people / name), STRETCH)[0]) for name in (*enrolled, *probes)}
    known = [(name[:5], given[name], ears[name]) for name in enrolled]
    check(
        rows_in(tmp_path / "out"),
        {str(folder / name): slow_scores(ears[name], "", known, apart=True) for name in probes},
    )
    assert {row["side"] for row in rows_in(tmp_path / "out")} == {""}


@pytest.mark.runs
def test_an_enrolled_ear_is_its_person_with_score_1(
    people: Path, weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = part_of(people, tmp_path / "one", [f"S{subject:04d}/1.png" for subject in range(1, SUBJECTS + 1)])
    assert enrol(one, weights["canonical"], tmp_path / "g.npz") == 0
    assert f"{SUBJECTS} people enrolled by {SUBJECTS} pictures, 0 of them by several, 0 by both" in one_line(capsys)
    assert search(one, tmp_path / "g.npz", tmp_path / "out", "--top-k", 1, "--pictures", 2) == 0
    said = capsys.readouterr().out
    assert "a threshold of 0.5 is a guess" in said
    assert f"{SUBJECTS} of {SUBJECTS} recognised among {SUBJECTS} people at 0.5 or above" in said
    for row in rows_in(tmp_path / "out"):
        assert row["decision"] == row["identity"] == Path(row["file"]).parent.name
        assert row["score"] == "1.0000"
        assert row["enrolled_picture"] == row["file"]
        assert row["enrolled_side"] == row["side"] in ("l", "r")
    grid = read_image(tmp_path / "out" / "candidates.png")
    for row, path in enumerate(list_images(one)[:2]):
        ear = form(read_image(path), CANONICAL)[0].repeat(2, 0).repeat(2, 1)
        assert alike(shown_at(grid, row, 0), ear)
        assert alike(shown_at(grid, row, 1), ear)
        assert not alike(shown_at(grid, 1 - row, 1), ear)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.runs
def test_batches_and_threads_change_nothing(people: Path, weights: dict[str, Path], tmp_path: Path) -> None:
    given = (people, weights["canonical"])
    assert enrol(*given, tmp_path / "a.npz", "--batch-size", 7, "--num-workers", 1) == 0
    assert enrol(*given, tmp_path / "b.npz", "--batch-size", 4, "--num-workers", 3) == 0
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.runs
def test_prepared_ears_are_recognised_and_give_the_same(
    people: Path, weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that `ears prepare` wrote, and a copy of it without its index under `aligned`."""
    argv = ["--images", people, "--out", tmp_path / "set", "--size", SIZE, "--val-fraction", "0.4"]
    assert prepare([*map(str, argv)]) == 0
    ears = tmp_path / "set" / "ears"
    bare = tmp_path / "bare"
    shutil.copytree(ears, bare, ignore=shutil.ignore_patterns("*.json", "*.csv"))
    tables = {}
    for name, folder, extra in (("raw", people, ()), ("prepared", ears, ()), ("bare", bare, ("--aligned",))):
        assert enrol(folder, weights["canonical"], tmp_path / f"{name}.npz", *extra) == 0
        tables[name] = read_embeddings(tmp_path / f"{name}.npz")
    for name in ("prepared", "bare"):
        np.testing.assert_array_equal(tables[name].embeddings, tables["raw"].embeddings)
    assert tables["prepared"].sides == tables["raw"].sides
    assert set(tables["bare"].sides or []) == {""}
    capsys.readouterr()
    assert search(tmp_path / "set", tmp_path / "raw.npz", tmp_path / "out") == 2
    assert f"holds prepared ears beside other pictures; give {ears}" in only_line(capsys)
    assert enrol(ears, weights["stretch"], tmp_path / "no.npz") == 2
    assert f"is in the form {CANONICAL.id}, the recogniser takes stretch" in only_line(capsys)


@pytest.mark.runs
def test_ears_are_found_in_photographs(
    people: Path, weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By an ear detector, whose file is remembered, so that candidates.png shows the ears."""
    names = [f"S{subject:04d}/0.png" for subject in (1, 2, 4)]
    for name in names:
        photograph = np.full((384, 384, 3), 100, np.uint8)
        photograph[96:192, 192:288] = read_image(people / name)
        write_image(tmp_path / "photographs" / name, photograph)
    detector = write_fixed_boxes(tmp_path / "boxes.onnx", [[32, 16, 48, 32]], [0.6])
    gallery = tmp_path / "g.npz"
    assert enrol(tmp_path / "photographs", weights["canonical"], gallery, "--detector", detector) == 0
    crops = part_of(people, tmp_path / "crops", names)
    assert search(crops, gallery, tmp_path / "out", "--pictures", 3, "--threshold=-1", "--top-k", 3) == 0
    model = EarRecognizer.from_pretrained(weights["canonical"]).eval()
    table = read_embeddings(gallery)
    for name, found in zip(names, table.embeddings, strict=True):
        assert found @ embedding(model, form(read_image(people / name), CANONICAL)[0]) > 0.99
    capsys.readouterr()
    strict = ("--detector", detector, "--min-score", "0.7")
    assert enrol(tmp_path / "photographs", weights["canonical"], tmp_path / "no.npz", *strict) == 2
    assert "none of 3 pictures can be used" in (line := only_line(capsys))
    assert "no ear with a score of 0.7 or more" in line


@pytest.mark.runs
def test_what_shows_no_ear_is_left_out_and_named(
    people: Path, weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = Path(shutil.copytree(people, tmp_path / "given"))
    noise = np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)
    write_image(given / "S0001" / "noise.png", noise)
    write_image(given / "wall" / "0.png", np.full((90, 60, 3), 128, np.uint8))
    (given / "wall" / "1.png").write_bytes(b"no picture")
    assert enrol(given, weights["canonical"], tmp_path / "g.npz") == 0
    said = one_line(capsys)
    assert "3 of 33 pictures cannot be used and are left out" in said
    assert f"{given / 'S0001' / 'noise.png'}: no ear, or one that is hidden" in said
    assert f"{given / 'wall' / '1.png'}: not a picture that can be read" in said
    assert "wall is not enrolled: no picture can be used" in said
    assert len(Gallery.load(tmp_path / "g.npz")) == SUBJECTS
    assert search(given / "wall", tmp_path / "g.npz", tmp_path / "out") == 2
    assert "none of 2 pictures can be used" in only_line(capsys)
    assert not (tmp_path / "out" / "candidates.csv").exists()


# Sides


def table_of(owners: Sequence[tuple[str, str]], rows: NDArray[np.float32]) -> IdentityEmbeddings:
    paths = [f"{name}/{number}.png" for number, (name, _) in enumerate(owners)]
    names, sides = [name for name, _ in owners], [side for _, side in owners]
    return IdentityEmbeddings(rows, paths, names, "stretch", "0" * 64, {"weights": "a"}, sides)


KINDS = np.array([[0.5, 0.5, 0.5, 0.5], [-0.5, 0.5, 0.5, 0.5], [0.0, 0.6, 0.8, 0.0], [1.0, 0, 0, 0]], np.float32)


@pytest.mark.parametrize("backend", ["exact", "faiss"])
@pytest.mark.parametrize("count", [1, 25, 500])
def test_a_search_by_sides_is_that_of_a_loop_the_earlier_person_first(count: int, backend: str) -> None:
    """Scores of 1, .5, -.5 and 0, each by many people, whose pictures come in no order."""
    if backend == "faiss":
        pytest.importorskip("faiss")
    rng = np.random.default_rng(3)
    ears = {(f"p{number:03d}", side) for number in range(120) for side in ("l", "r", "") if rng.random() < 0.5}
    owners = [sorted(ears)[place] for place in rng.permutation(len(ears))]
    rows = KINDS[rng.integers(0, len(KINDS), len(owners))]
    gallery = Gallery.of(table_of(owners, rows))
    assert len(gallery) == len({name for name, _ in owners}) < len(gallery.templates)
    sides = ["l", "", "r", "l"]
    found = gallery.search(torch.eye(4)[:1].repeat(4, 1), count, backend, sides)  # type: ignore[arg-type]
    everybody = list(dict.fromkeys(name for name, _ in owners))
    for side, candidates in zip(sides, found, strict=True):
        best = {}
        for name in everybody:
            own = {other: float(row[0]) for (person, other), row in zip(owners, rows, strict=True) if person == name}
            usable = {other: score for other, score in own.items() if side not in own or other in (side, "")}
            best[name] = max((usable if side else own).values())
        wanted = sorted(everybody, key=lambda name: (-best[name], everybody.index(name)))[:count]
        assert [candidate.score for candidate in candidates] == [best[name] for name in wanted]
        for candidate in candidates:
            assert candidate.score == best[candidate.identity]
            row = owners.index((candidate.identity, candidate.side))
            assert candidate.picture == f"{candidate.identity}/{row}.png"
            assert rows[row][0] == candidate.score
        if backend == "exact":
            assert [candidate.identity for candidate in candidates] == wanted


def test_a_probe_has_the_same_candidates_alone_and_among_others() -> None:
    rng = np.random.default_rng(5)
    owners = [(f"p{number % 40}", "lr"[number % 3 % 2]) for number in range(200)]
    rows = rng.standard_normal((200, 32)).astype(np.float32)
    gallery = Gallery.of(table_of(owners, rows / np.linalg.norm(rows, axis=1, keepdims=True)))
    probes = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((30, 32)).astype(np.float32)))
    sides = [("l", "r", "")[number % 3] for number in range(30)]
    together = gallery.search(probes, 5, sides=sides)
    for number in (0, 1, 17, 29):
        (alone,) = gallery.search(probes[number : number + 1], 5, sides=sides[number : number + 1])
        assert [(each.identity, each.side) for each in alone] == [
            (each.identity, each.side) for each in together[number]
        ]
        np.testing.assert_allclose([e.score for e in alone], [e.score for e in together[number]], rtol=0, atol=1e-6)


def test_joined_sides_give_the_templates_of_a_table_without_sides() -> None:
    rows = KINDS[[0, 1, 2, 3, 0]]
    table = table_of([("bo", "l"), ("al", "r"), ("bo", "r"), ("al", ""), ("cy", "")], rows)
    joined, plain = Gallery.of(table, "joined"), Gallery.of(dataclasses.replace(table, sides=None))
    assert torch.equal(joined.templates, plain.templates)
    assert joined.identities == plain.identities == ["bo", "al", "cy"]
    assert joined.sides == ["l", "r", ""]  # of the first picture
    apart = Gallery.of(table, "apart")
    assert list(zip(apart.identities, apart.sides or [], strict=True)) == [
        *(("bo", "l"), ("bo", "r"), ("al", "r"), ("al", ""), ("cy", ""))
    ]


def test_ears_without_a_mean_direction_are_named_with_their_side() -> None:
    rows = np.concatenate([KINDS[:1], -KINDS[:1]])
    with pytest.raises(ValueError, match=r"the 2 pictures of the left ear of bo have no mean direction"):
        Gallery.of(table_of([("bo", "l"), ("bo", "l")], rows))
    Gallery.of(table_of([("bo", "l"), ("bo", "r")], rows))


@pytest.mark.runs
def test_a_side_that_the_landmarks_contradict_is_noted(
    people: Path, weights: dict[str, Path], true_sides: Sides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given by a column, or prepared by one: whoever enrols is believed, and told. The ear is mirrored as it should."""
    wrong = "S0002/1.png"
    given = true_sides | {wrong: {"l": "r", "r": "l"}[true_sides[wrong]]}
    write_csv(
        people / "sides.csv",
        ["file", "identity", "subject", "side"],
        [[name, name[:5], name[:5], side] for name, side in given.items()],
    )
    index = people / "sides.csv"
    assert enrol(index, weights["canonical"], tmp_path / "a.npz") == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    about = "note: S0002: the landmarks of 1 of 6 ears say the other side than was given"
    assert notes == [f"{about} ({(people / wrong).resolve()})"]
    assert (table := read_embeddings(tmp_path / "a.npz")).sides == list(given.values())
    assert enrol(people, weights["canonical"], tmp_path / "plain.npz") == 0
    assert np.array_equal(table.embeddings, read_embeddings(tmp_path / "plain.npz").embeddings)
    argv = ["--images", people, "--index", index, "--side", "column", "--out", tmp_path / "set", "--size", SIZE]
    assert prepare([*map(str, [*argv, "--val-fraction", "0.4", "--max-residual", 60])]) == 0
    index.unlink()
    capsys.readouterr()
    assert enrol(tmp_path / "set" / "ears", weights["canonical"], tmp_path / "b.npz") == 0
    assert about in one_line(capsys)
    assert read_embeddings(tmp_path / "b.npz").sides == list(given.values())


@pytest.mark.parametrize("wrong", [[], [2], [2, 9]])
def test_ears_that_are_more_alike_to_the_other_side_are_noted(wrong: list[int]) -> None:
    """Two sides far apart, five pictures of each, of which some are under the other's name."""
    rng = np.random.default_rng(1)
    drawn = ["lr"[number // 5] for number in range(10)]
    rows = np.stack([np.eye(8)["lr".index(side)] for side in drawn]) + 0.05 * rng.standard_normal((10, 8))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    told = [{"l": "r", "r": "l"}[side] if number in wrong else side for number, side in enumerate(drawn)]
    table = table_of([("al", side) for side in told], rows)
    notes = nearer_to_the_other_side(table, ["al"])
    assert len(notes) == bool(wrong)
    if wrong:
        assert f"al: {len(wrong)} of 10 ears are more alike to the other side than to their own (al/" in notes[0]
        assert any(f"al/{number}.png" in notes[0] for number in wrong)
    assert nearer_to_the_other_side(table, ["bo"]) == []
    few = [0, 1, 3, 5, *wrong]  # too few to say
    fewer = table_of([("al", told[row]) for row in few], rows[few])
    assert nearer_to_the_other_side(fewer, ["al"]) == []


# Galleries that grow, and names


@pytest.mark.runs
def test_ears_added_later_give_the_gallery_of_all_at_once(
    people: Path, weights: dict[str, Path], true_sides: Sides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "g.npz"
    early = [name for name in true_sides if name.endswith("0.png")]
    assert enrol(part_of(people, tmp_path / "first", early), weights["canonical"], out) == 0
    late = [name for name in true_sides if name not in early]
    assert enrol(part_of(people, tmp_path / "late", late), weights["canonical"], out, "--add") == 0
    assert enrol(people, weights["canonical"], tmp_path / "whole.npz") == 0
    grown, whole = Gallery.load(out), Gallery.load(tmp_path / "whole.npz")
    ears = [sorted(zip(each.identities, each.sides or [], strict=True)) for each in (grown, whole)]
    assert ears[0] == ears[1]
    place = {ear: row for row, ear in enumerate(zip(grown.identities, grown.sides or [], strict=True))}
    order = [place[ear] for ear in zip(whole.identities, whole.sides or [], strict=True)]
    torch.testing.assert_close(grown.templates[order], whole.templates, rtol=0, atol=1e-6)
    before = out.read_bytes()
    capsys.readouterr()
    other = recogniser(tmp_path / "other", CANONICAL, seed=1)
    for given, line in ((other, "was enrolled with other weights"), (weights["stretch"], "under another contract")):
        assert enrol(people, given, out, "--add") == 2
        assert line in only_line(capsys)
    assert enrol(tmp_path / "late", weights["canonical"], out, "--add") == 2
    assert f"{len(late)} of the pictures are enrolled in it already" in only_line(capsys)
    assert out.read_bytes() == before


@pytest.mark.runs
def test_names_that_look_alike_are_one_person(people: Path, weights: dict[str, Path], tmp_path: Path) -> None:
    """Composed, decomposed and with a blank behind it, between and within enrolments, and in an old table."""
    forms = [unicodedata.normalize("NFC", "Zoë"), unicodedata.normalize("NFD", "Zoë"), "Zoë "]
    assert len(set(forms)) == 3
    out = tmp_path / "g.npz"
    for number, name in enumerate(forms):
        given = tmp_path / str(number)
        (given / name).mkdir(parents=True)
        shutil.copy(people / "S0001" / f"{number}.png", given / name)
        (given / "S0002").mkdir()
        shutil.copy(people / "S0002" / f"{number}.png", given / "S0002")
        assert enrol(given, weights["canonical"], out, *(["--add"] if number else [])) == 0
    gallery, table = Gallery.load(out, "joined"), read_embeddings(out)
    assert gallery.identities == ["S0002", forms[0]]
    assert [len(own) for own in gallery.pictures] == [3, 3]
    old = dataclasses.replace(table, identities=[forms[1] if each == forms[0] else each for each in table.identities])
    write_embeddings(tmp_path / "old.npz", old)
    assert Gallery.load(tmp_path / "old.npz", "joined").identities == gallery.identities
    shutil.copytree(people / "S0001", tmp_path / "more" / forms[0])
    for number in range(3):
        (tmp_path / "more" / forms[0] / f"{number}.png").unlink()
    assert enrol(tmp_path / "more", weights["canonical"], tmp_path / "old.npz", "--add") == 0
    assert Gallery.load(tmp_path / "old.npz", "joined").identities == gallery.identities


@pytest.mark.runs
def test_people_with_names_that_were_trained_on_are_noted(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = recogniser(tmp_path / "w", STRETCH, people=["S0002", "S0009"])
    assert enrol(people, weights, tmp_path / "g.npz") == 0
    assert "note: 1 of 5 people have names that the recogniser was trained on (S0002)" in one_line(capsys)


# Refused


REFUSED_TO_ENROL: list[tuple[list[str], str]] = [
    (["--upsampler", "bicubic"], "--upsampler bicubic: enlarges faces, and the recogniser is one of ears"),
    (["--upsampler", "dsr", "--dsr-checkpoint", "EMPTY"], "--upsampler dsr: enlarges faces, and"),
    (["--crop", "center"], "--crop center: of faces, and the recogniser is one of ears"),
    (["--min-face", "30"], "--min-face 30: of faces"),
    (["--landmarker", "nowhere.onnx"], "--landmarker nowhere.onnx: no such file"),
    (["--landmarker", "BOXES"], "BOXES: not the landmarks.onnx"),
    (["--landmarker", "SHIPPED", "--recognizer", "STRETCH"], "--landmarker: the recogniser's ears have the form"),
    (["--recognizer", "ALIGNED_OTHERWISE"], f"--landmarker {EAR_LANDMARKS}: not the one that the model's ears"),
    (["--detector", "SHIPPED"], "not the boxes.onnx"),
    (["--input", "SIDES"], "SIDES line 2: side 'up' is neither l nor r"),
    (["--recognizer", "FACES", "--aligned", "--landmarker", "SHIPPED"], "of ears, and the recogniser is one of faces"),
    (["--recognizer", "FACES", "--aligned", "--add", "--out", "GALLERY"], "GALLERY: holds ears, and FACES is a"),
    (["--add", "--out", "FACE_GALLERY"], "FACE_GALLERY: holds faces, and "),
    (["--add", "--out", "GALLERY", "--recognizer", "STRETCH"], "GALLERY: was enrolled under another contract"),
]
REFUSED_TO_IDENTIFY: list[tuple[list[str], str]] = [
    (["--upsampler", "bicubic"], "--upsampler bicubic: enlarges faces, and the recogniser is one of ears"),
    (["--min-face", "30"], "--min-face 30: of faces"),
    (["--recognizer", "STRETCH"], "GALLERY: was enrolled under another contract"),
    (["--recognizer", "OTHER"], "GALLERY: was enrolled with other weights"),
    (["--recognizer", "FACES"], "GALLERY: holds ears, and FACES is a recogniser of faces"),
    (["--recognizer", "nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
    (["--gallery", "FACE_GALLERY", "--recognizer", "EARS"], "FACE_GALLERY: holds faces, and EARS is a recogniser of"),
    (["--gallery", "FACE_GALLERY", "--landmarker", "SHIPPED"], "--landmarker SHIPPED: of ears"),
    (["--landmarker", "nowhere.onnx"], "--landmarker nowhere.onnx: no such file"),
    (["--sides", "both"], "--sides both: choose one of apart, joined"),
]


@pytest.fixture(scope="module")
def places(
    people: Path, weights: dict[str, Path], edgeface: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What the words in capitals stand for."""
    folder = tmp_path_factory.mktemp("places")
    found = {"EARS": weights["canonical"], "STRETCH": weights["stretch"], "FACES": edgeface, "SHIPPED": EAR_LANDMARKS}
    found |= {"EMPTY": folder / "empty", "FACE_GALLERY": folder / "faces.npz", "GALLERY": folder / "ears.npz"}
    found["EMPTY"].mkdir()
    found["OTHER"] = recogniser(folder / "other", CANONICAL, seed=1)
    other = EarContract("canonical", "17-000000000000")
    found["ALIGNED_OTHERWISE"] = recogniser(folder / "otherwise", other)
    found["BOXES"] = write_fixed_boxes(folder / "boxes.onnx", [[32, 16, 48, 32]], [0.6])
    write_csv(folder / "sides.csv", ["file", "identity", "side"], [[people / "S0001" / "0.png", "S0001", "up"]])
    found["SIDES"] = folder / "sides.csv"
    assert enrol(people, edgeface, found["FACE_GALLERY"], "--aligned") == 0
    assert enrol(people, weights["canonical"], found["GALLERY"]) == 0
    return {word: str(path) for word, path in found.items()}


def placed(text: str, places: dict[str, str]) -> str:
    for word in sorted(places, key=len, reverse=True):
        text = text.replace(word, places[word])
    return text


@pytest.mark.runs
@pytest.mark.parametrize(("given", "message"), REFUSED_TO_ENROL)
def test_what_cannot_be_enrolled_is_one_line(
    given: list[str],
    message: str,
    people: Path,
    places: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {name: Path(places[name]).read_bytes() for name in ("GALLERY", "FACE_GALLERY")}
    capsys.readouterr()
    words = [placed(word, places) for word in given]
    assert enrol(people, Path(places["EARS"]), tmp_path / "g.npz", *words) == 2
    assert placed(message, places) in only_line(capsys)
    assert not (tmp_path / "g.npz").exists()
    assert {name: Path(places[name]).read_bytes() for name in before} == before


@pytest.mark.runs
@pytest.mark.parametrize(("given", "message"), REFUSED_TO_IDENTIFY)
def test_what_cannot_be_identified_is_one_line(
    given: list[str],
    message: str,
    people: Path,
    places: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [placed(word, places) for word in given]
    assert search(people, Path(places["GALLERY"]), tmp_path / "out", *words) == 2
    assert placed(message, places) in only_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.runs
def test_faces_keep_their_columns_and_their_threshold(
    people: Path, places: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(people / "S0001", Path(places["FACE_GALLERY"]), tmp_path, "--aligned") == 0
    assert "at 0.35 or above" in (said := capsys.readouterr().out)
    assert "note" not in said
    columns = list(rows_in(tmp_path)[0])
    assert columns[:6] == ["file", "decision", "rank", "identity", "score", "enrolled_picture"]
    assert not {"side", "enrolled_side"} & set(columns)


@pytest.mark.runs
def test_a_recogniser_that_was_moved_is_asked_for(
    people: Path, weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(weights["stretch"], tmp_path / "w")
    assert enrol(people, tmp_path / "w", tmp_path / "g.npz") == 0
    (tmp_path / "w").rename(tmp_path / "moved")
    capsys.readouterr()
    assert search(people / "S0001", tmp_path / "g.npz", tmp_path / "out") == 2
    assert f"--gallery {tmp_path / 'g.npz'} was enrolled with it: give --recognizer" in only_line(capsys)
    moved = ("--recognizer", tmp_path / "moved")
    assert search(people / "S0001", tmp_path / "g.npz", tmp_path / "out", *moved) == 0
    assert list_images(people / "S0001") == [Path(row["file"]) for row in rows_in(tmp_path / "out")[::5]]
