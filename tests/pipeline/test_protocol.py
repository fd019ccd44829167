"""Gallery, probes and calibration identities from every kind of input; and leakage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from earface.core.errors import InputError
from earface.data.face_rows import FaceRow
from earface.data.identity_split import SPLIT_OF_ROLE, read_splits
from earface.data.images import Pixels, read_image
from earface.synthetic.face_set import FaceSet, synthesize_faces
from pipeline.leakage import Leak, find_leaks, without_leaks
from pipeline.protocol import Enrolment, GalleryRule, Protocol, from_dataset, from_lists

PEOPLE, PICTURES = 6, 3
Put = Callable[..., Path]
Alteration = Callable[[Path, Path], None]


@pytest.fixture(scope="module")
def faces() -> list[Pixels]:
    """Three synthetic faces of each of six people."""
    return list(synthesize_faces(FaceSet(PEOPLE, PICTURES, 128, seed=5))[0])


@pytest.fixture
def put(faces: list[Pixels], tmp_path: Path) -> Put:
    """Pictures of these names in a folder below tmp_path, no two alike."""
    unused = iter(faces)

    def write(folder: str, names: Iterable[str]) -> Path:
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(next(unused)).save(path)
        return tmp_path / folder

    return write


def short_names(rows: Iterable[FaceRow]) -> list[str]:
    return sorted(row.name for row in rows)


def people_of(rows: Iterable[FaceRow]) -> set[str]:
    return {row.identity for row in rows}


def pie(code: str) -> str:
    return f"{code}_crop_128.png"


# Multi-PIE names


POSES = {
    "001": ("02_01_051_07", "01_01_051_07", "01_02_051_07", "01_01_140_07", "01_01_051_03", "03_02_140_03"),
    "002": ("03_01_051_07", "02_01_051_06", "01_02_140_03", "02_02_140_03"),
    "003": ("01_01_050_07",),
}


@pytest.mark.parametrize(
    ("rule", "enrolled"),
    [
        (GalleryRule(), ["001_01_01_051_07", "002_03_01_051_07"]),
        (GalleryRule(camera="050"), ["003_01_01_050_07"]),
        (GalleryRule("140", "03", "02"), ["001_03_02_140_03", "002_01_02_140_03"]),
        (GalleryRule(illumination="03"), ["001_01_01_051_03"]),
        (GalleryRule(recording="02"), ["001_01_02_051_07"]),
        (GalleryRule(template_pictures=2), ["001_01_01_051_07", "001_02_01_051_07", "002_03_01_051_07"]),
    ],
)
def test_by_multi_pie_names_the_first_session_of_the_chosen_view_is_enrolled(
    put: Put, rule: GalleryRule, enrolled: list[str]
) -> None:
    """The other pictures of enrolled identities are probes; identities without such a picture are left out."""
    root = put("pie", [pie(f"{subject}_{pose}") for subject, poses in POSES.items() for pose in poses])
    protocol = from_dataset(str(root), rule, 0, 0)
    assert short_names(protocol.test.gallery) == list(map(pie, enrolled))
    everything = {f"{subject}_{pose}" for subject, poses in POSES.items() for pose in poses}
    others = {code for code in everything if code[:3] in {name[:3] for name in enrolled}} - set(enrolled)
    assert short_names(protocol.test.probes) == sorted(map(pie, others))
    assert all(code in protocol.rule for code in (rule.camera, rule.illumination, rule.recording))
    assert all(protocol.test.mated)


def test_without_any_picture_of_the_view_the_line_names_the_pattern(put: Put) -> None:
    root = put("pie", [pie(f"001_{pose}") for pose in POSES["001"]])
    with pytest.raises(InputError) as caught:
        from_dataset(str(root), GalleryRule("240", "11"), 0, 0)
    assert str(caught.value).startswith(f"{root}: no picture of camera 240, illumination 11, recording 01 to enrol; ")
    assert "SUBJECT_SESSION_RECORDING_CAMERA_ILLUMINATION" in str(caught.value)
    assert "\n" not in str(caught.value)


# Prepared sets


def test_a_prepared_set_is_the_same_by_its_root_and_by_its_test_folder(
    face_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = from_dataset(str(face_set), GalleryRule(), 0.2, 0)
    assert wanted.test.probes
    assert wanted.calibration.probes
    assert from_dataset(str(face_set / "test_processed"), GalleryRule(), 0.2, 0) == wanted
    for folder, root in (
        (face_set, "."),
        (face_set, "test_processed"),
        (face_set / "test_processed", "."),
        (face_set / "test_processed" / "hr_images", ".."),
    ):
        monkeypatch.chdir(folder)
        found = from_dataset(root, GalleryRule(), 0.2, 0)
        for part, other in ((found.test, wanted.test), (found.calibration, wanted.calibration)):
            assert [(row.name, row.role) for row in part.rows] == [(row.name, row.role) for row in other.rows]


def test_who_scores_and_who_tunes_is_what_splits_json_says(face_set: Path) -> None:
    roles = read_splits(face_set / "splits.json").roles
    protocol = from_dataset(str(face_set), GalleryRule(), 0.9, 0)
    assert people_of(protocol.test.gallery) == {name for name, role in roles.items() if role == "score"}
    assert people_of(protocol.calibration.rows) == {name for name, role in roles.items() if role == "tune"}
    assert people_of(protocol.test.rows) <= {name for name, role in roles.items() if SPLIT_OF_ROLE[role] == "test"}


@pytest.mark.parametrize("name", ["{}_{:02d}_01_051_07_crop_128.png", "{}__{}.png"])
def test_nonmated_people_are_searched_for_and_never_enrolled(put: Put, name: str) -> None:
    """Even with pictures that would be enrolled of others, by Multi-PIE names and by others."""
    roles = {"score": ["001", "002"], "nonmated": ["003", "004"], "tune": ["005"]}
    pictures = {"001": 2, "002": 2, "003": 1, "004": 2, "005": 2}
    for role, people in roles.items():
        names = [name.format(person, 1 + number) for person in people for number in range(pictures[person])]
        root = put("set", [f"{SPLIT_OF_ROLE[role]}_processed/hr_images/{each}" for each in names])
    (root / "splits.json").write_text(json.dumps({"roles": roles}))
    protocol = from_dataset(str(root), GalleryRule(), 0.5, 0)
    assert people_of(protocol.test.gallery) == {"001", "002"}
    assert short_names(protocol.test.probes) == sorted(
        [name.format("001", 2), name.format("002", 2), name.format("003", 1)]
        + [name.format("004", number) for number in (1, 2)]
    )
    assert protocol.test.mated == [row.identity in ("001", "002") for row in protocol.test.probes]
    assert (short_names(protocol.calibration.gallery), short_names(protocol.calibration.probes)) == (
        [name.format("005", 1)],
        [name.format("005", 2)],
    )
    assert protocol.notes() == ["2 identities have probes and are not enrolled: non-mated (003, 004)"]


def test_the_people_of_val_alone_score_and_nobody_tunes(face_set: Path) -> None:
    protocol = from_dataset(str(face_set / "val_processed"), GalleryRule(), 0.5, 0)
    roles = read_splits(face_set / "splits.json").roles
    assert people_of(protocol.test.rows) == {name for name, role in roles.items() if role == "tune"}
    assert protocol.calibration == Enrolment([], [])


# Plain folders


def test_the_first_picture_of_everyone_with_two_is_enrolled_and_the_others_are_probes(put: Put) -> None:
    root = put("plain", ["al/c.png", "al/a.png", "al/b.png", "bo/z.png", "cy/2.png", "cy/1.png"])
    protocol = from_dataset(str(root), GalleryRule(), 0, 0)
    assert short_names(protocol.test.gallery) == ["al/a.png", "cy/1.png"]
    probes = dict(zip((row.name for row in protocol.test.probes), protocol.test.mated, strict=True))
    assert probes == {"al/b.png": True, "al/c.png": True, "cy/2.png": True, "bo/z.png": False}


def test_several_pictures_are_enrolled_of_everyone_who_has_more(put: Put) -> None:
    root = put("plain", ["al/c.png", "al/a.png", "al/b.png", "bo/z.png", "cy/2.png", "cy/1.png"])
    protocol = from_dataset(str(root), GalleryRule(template_pictures=2), 0, 0)
    assert short_names(protocol.test.gallery) == ["al/a.png", "al/b.png"]
    probes = dict(zip((row.name for row in protocol.test.probes), protocol.test.mated, strict=True))
    assert probes == {"al/c.png": True, "bo/z.png": False, "cy/1.png": False, "cy/2.png": False}
    assert protocol.rule.startswith("first 2 pictures by name of everyone with 3 or more")


@pytest.mark.parametrize("fraction", [0.1, 0.4, 0.9])
def test_calibration_identities_are_no_test_identities(put: Put, fraction: float) -> None:
    names = [f"p{person}/{picture}.png" for person in range(5) for picture in range(2)]
    root = put("plain", names)
    dealt = {}
    for seed in range(4):
        protocol = from_dataset(str(root), GalleryRule(), fraction, seed)
        calibration, test = people_of(protocol.calibration.rows), people_of(protocol.test.rows)
        assert calibration & test == set()
        assert short_names([*protocol.calibration.rows, *protocol.test.rows]) == names
        assert len(calibration) == min(4, max(1, round(fraction * 5)))
        assert len(protocol.calibration.gallery) == len(calibration)
        dealt[seed] = frozenset(calibration)
    assert len(set(dealt.values())) > 1


def test_with_fraction_0_nobody_tunes(put: Put) -> None:
    names = [f"p{person}/{picture}.png" for person in range(3) for picture in range(2)]
    protocol = from_dataset(str(put("plain", names)), GalleryRule(), 0, 0)
    assert protocol.calibration == Enrolment([], [])
    assert short_names(protocol.test.rows) == names


def test_a_plain_folder_is_the_same_by_a_dot(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    root = put("plain", [f"p{person}/{picture}.png" for person in range(4) for picture in range(2)])
    wanted = from_dataset(str(root), GalleryRule(), 0.5, 0)
    monkeypatch.chdir(root)
    assert from_dataset(".", GalleryRule(), 0.5, 0) == wanted


def test_one_identity_cannot_be_for_both_test_and_calibration(put: Put) -> None:
    with pytest.raises(
        InputError, match=r"`calibration_fraction`: 1 subject.* cannot be split .*; with 0 no thresholds are fitted"
    ):
        from_dataset(str(put("plain", ["al/1.png", "al/2.png"])), GalleryRule(), 0.2, 0)


def test_a_folder_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`dataset_root` .*nowhere: no such folder; earface faces prepare"):
        from_dataset(str(tmp_path / "nowhere"), GalleryRule(), 0.2, 0)


# A gallery and probes


@pytest.fixture
def lists(put: Put) -> tuple[str, str]:
    """CSV files: al to di are enrolled, al to cy and ed are searched for."""
    root = put("pictures", [f"{name}{number}.png" for name in ("al", "bo", "cy") for number in (1, 2, 3)])
    put("pictures", ["di1.png", "ed2.png"])
    files = {"gallery": ("al1", "bo1", "bo2", "cy1", "di1"), "probes": ("al2", "al3", "bo3", "cy2", "ed2")}
    for name, pictures in files.items():
        lines = [f"{picture}.png,{picture[:2]}" for picture in pictures]
        (root / f"{name}.csv").write_text("\n".join(["file,identity", *lines]) + "\n")
    return str(root / "gallery.csv"), str(root / "probes.csv")


def test_identities_that_are_only_enrolled_or_only_searched_for_are_reported(lists: tuple[str, str]) -> None:
    protocol = from_lists(*lists, 0, 0)
    assert [row.name for row in protocol.test.gallery] == ["al1.png", "bo1.png", "bo2.png", "cy1.png", "di1.png"]
    assert [row.name for row in protocol.test.probes] == ["al2.png", "al3.png", "bo3.png", "cy2.png", "ed2.png"]
    assert protocol.test.mated == [True, True, True, True, False]
    assert protocol.notes() == [
        "1 identities are enrolled and have no probe (di)",
        "1 identities have probes and are not enrolled: non-mated (ed)",
    ]
    assert protocol.rule == "gallery.csv against probes.csv"


def test_some_of_those_enrolled_tune_with_their_probes(lists: tuple[str, str]) -> None:
    for seed in range(4):
        protocol, whole = from_lists(*lists, 0.5, seed), from_lists(*lists, 0, 0)
        calibration = people_of(protocol.calibration.rows)
        assert len(people_of(protocol.calibration.gallery)) == 2
        assert calibration & people_of(protocol.test.rows) == set()
        for side in ("gallery", "probes"):
            rows = getattr(whole.test, side)
            assert getattr(protocol.calibration, side) == [row for row in rows if row.identity in calibration]
            assert getattr(protocol.test, side) == [row for row in rows if row.identity not in calibration]
        assert "ed" in people_of(protocol.test.probes)


def test_probes_of_nobody_in_the_gallery_are_refused(put: Put) -> None:
    gallery, probes = put("gallery", ["al/1.png"]), put("probes", ["bo/1.png"])
    with pytest.raises(InputError, match=r"`probes` .*probes: nobody in it is in `gallery` .*gallery"):
        from_lists(str(gallery), str(probes), 0, 0)


# Leaks


def same_pixels(source: Path, target: Path) -> None:
    Image.fromarray(read_image(source)).save(target.with_suffix(".bmp"))
    target.with_suffix(".bmp").replace(target)


def as_jpeg(source: Path, target: Path) -> None:
    Image.fromarray(read_image(source)).save(target, format="JPEG", quality=60)


def mirrored(source: Path, target: Path) -> None:
    Image.fromarray(np.ascontiguousarray(read_image(source)[:, ::-1])).save(target, format="JPEG", quality=80)


def linked(source: Path, target: Path) -> None:
    target.unlink()
    target.symlink_to(source)


ALTERATIONS = [
    (linked, "one file, "),
    (same_pixels, "the same pixels, "),
    (as_jpeg, "one photograph (correlation "),
    (mirrored, "one photograph (correlation "),
]


def protocol_in(folder: Path, form: str = "p{}_{}.png") -> Protocol:
    """Of PEOPLE people with three pictures each the last two calibrate. Everybody's first picture is enrolled."""

    def rows(people: Iterable[int], pictures: Iterable[int]) -> list[FaceRow]:
        names = [(form.format(person, picture), person) for person in people for picture in pictures]
        return [FaceRow(folder / name, name, f"{person:03d}") for name, person in names]

    test, calibration = range(PEOPLE - 2), range(PEOPLE - 2, PEOPLE)
    first, others = [0], range(1, PICTURES)
    return Protocol(
        "",
        Enrolment(rows(test, first), rows(test, others)),
        Enrolment(rows(calibration, first), rows(calibration, others)),
    )


@pytest.fixture
def clean(put: Put) -> Protocol:
    names = [f"p{person}_{picture}.png" for person in range(PEOPLE) for picture in range(PICTURES)]
    return protocol_in(put("faces", names))


def row_named(protocol: Protocol, name: str) -> FaceRow:
    return next(row for row in (*protocol.test.rows, *protocol.calibration.rows) if row.name == name)


def pairs_in(leaks: Iterable[Leak]) -> list[tuple[str, str]]:
    return sorted((leak.first.name, leak.second.name) for leak in leaks)


def test_different_pictures_do_not_leak(clean: Protocol) -> None:
    counted: list[int] = []
    assert find_leaks(clean, counted.append) == []
    assert counted == list(range(1, PEOPLE * PICTURES + 1))
    assert without_leaks(clean, [], "refuse") is clean


@pytest.mark.parametrize(("alter", "what"), ALTERATIONS)
@pytest.mark.parametrize(
    ("stays", "goes", "uses"),
    [
        ("p0_0.png", "p0_2.png", "enrolled and searched for"),
        ("p1_0.png", "p0_1.png", "enrolled and searched for"),
        ("p0_0.png", "p5_1.png", "enrolled and searched for to fit thresholds"),
        ("p4_0.png", "p0_1.png", "enrolled to fit thresholds and searched for"),
        ("p2_2.png", "p4_1.png", "searched for and searched for to fit thresholds"),
        ("p5_0.png", "p5_2.png", "enrolled to fit thresholds and searched for to fit thresholds"),
    ],
)
def test_a_photograph_on_two_sides_is_found_and_dropped_or_refused(
    clean: Protocol, alter: Alteration, what: str, stays: str, goes: str, uses: str
) -> None:
    """Between gallery and probes, and between test and calibration identities."""
    kept, probe = row_named(clean, stays), row_named(clean, goes)
    alter(kept.path, probe.path)
    leaks = find_leaks(clean)
    assert pairs_in(leaks) == [(stays, goes)]
    assert leaks[0].reason.startswith(what)
    assert leaks[0].reason.endswith(f", {uses}")
    dropped = without_leaks(clean, leaks, "drop")
    for part, whole in ((dropped.test, clean.test), (dropped.calibration, clean.calibration)):
        assert part.gallery == whole.gallery
        assert part.probes == [row for row in whole.probes if row != probe]
    assert find_leaks(dropped) == []
    with pytest.raises(InputError) as caught:
        without_leaks(clean, leaks, "refuse")
    assert str(caught.value) == (
        f"leakage (1 in all): {kept.path} and {probe.path}: {leaks[0].reason}; `leakage` drop leaves such probes out"
    )


def test_all_leaks_are_found_at_once(clean: Protocol) -> None:
    """A file on both sides does not hide a near duplicate."""
    linked(row_named(clean, "p0_0.png").path, row_named(clean, "p0_1.png").path)
    as_jpeg(row_named(clean, "p1_0.png").path, row_named(clean, "p1_1.png").path)
    same_pixels(row_named(clean, "p4_0.png").path, row_named(clean, "p2_1.png").path)
    leaks = find_leaks(clean)
    assert pairs_in(leaks) == [("p0_0.png", "p0_1.png"), ("p1_0.png", "p1_1.png"), ("p4_0.png", "p2_1.png")]
    dropped = without_leaks(clean, leaks, "drop")
    gone = {row.name for row in clean.test.probes} - {row.name for row in dropped.test.probes}
    assert gone == {"p0_1.png", "p1_1.png", "p2_1.png"}
    assert find_leaks(dropped) == []


def test_probes_of_one_person_may_be_alike(clean: Protocol) -> None:
    as_jpeg(row_named(clean, "p0_1.png").path, row_named(clean, "p0_2.png").path)
    same_pixels(row_named(clean, "p4_1.png").path, row_named(clean, "p4_2.png").path)
    assert find_leaks(clean) == []


@pytest.mark.parametrize(("first", "second"), [("p0_0.png", "p1_0.png"), ("p3_0.png", "p5_0.png")])
def test_one_photograph_enrolled_of_two_people_cannot_be_dropped(clean: Protocol, first: str, second: str) -> None:
    """Nor does a leak that can be dropped hide it."""
    one, other = row_named(clean, first), row_named(clean, second)
    as_jpeg(one.path, other.path)
    same_pixels(row_named(clean, "p2_0.png").path, row_named(clean, "p2_1.png").path)
    leaks = find_leaks(clean)
    for policy in ("drop", "refuse"):
        with pytest.raises(InputError) as caught:
            without_leaks(clean, leaks, policy)
        assert f"leakage (2 in all): {one.path} and {other.path}: " in str(caught.value)
        assert str(caught.value).endswith("; remove one of them")


def test_one_person_by_multi_pie_names_may_look_alike_but_not_be_one_picture(clean: Protocol) -> None:
    """Another flash or camera took it, as its name says; another person's picture it may not be."""
    folder, form = clean.test.gallery[0].path.parent, "00{}_0{}_01_051_07_crop_128.png"
    for person in range(PEOPLE):
        for picture in range(PICTURES):
            (folder / f"p{person}_{picture}.png").rename(folder / form.format(person, picture))
    protocol = protocol_in(folder, form)
    as_jpeg(folder / form.format(0, 0), folder / form.format(0, 1))
    assert find_leaks(protocol) == []
    same_pixels(folder / form.format(1, 0), folder / form.format(1, 1))
    as_jpeg(folder / form.format(2, 0), folder / form.format(3, 1))
    assert pairs_in(find_leaks(protocol)) == [
        (form.format(1, 0), form.format(1, 1)),
        (form.format(2, 0), form.format(3, 1)),
    ]


@pytest.mark.parametrize("policy", ["drop", "refuse"])
def test_someone_who_tunes_and_scores_is_refused(clean: Protocol, policy: str) -> None:
    both = replace(clean.calibration.probes[0], identity="001")
    protocol = replace(clean, calibration=Enrolment(clean.calibration.gallery, [both]))
    leaks = find_leaks(protocol)
    with pytest.raises(InputError) as caught:
        without_leaks(protocol, leaks, policy)  # type: ignore[arg-type]
    assert f"p1_0.png and {both.path}: 001 is both a test and a calibration identity; remove one of them" in str(
        caught.value
    )


def test_a_prepared_set_of_drawn_faces_does_not_leak(face_set: Path, tmp_path: Path) -> None:
    """Until one of its pictures is copied under another name."""
    assert find_leaks(from_dataset(str(face_set), GalleryRule(), 0, 0)) == []
    copied = Path(shutil.copytree(face_set, tmp_path / "set"))
    test = from_dataset(str(copied), GalleryRule(), 0, 0).test
    shutil.copyfile(test.gallery[0].path, test.probes[0].path)
    (leak,) = find_leaks(from_dataset(str(copied), GalleryRule(), 0, 0))
    assert (leak.first, leak.second) == (test.gallery[0], test.probes[0])
    assert leak.reason == "the same pixels, enrolled and searched for"
