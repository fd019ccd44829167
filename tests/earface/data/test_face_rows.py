"""Whose face a picture shows, by folder, by name and by CSV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from earface.core.errors import InputError
from earface.data.face_rows import FaceRow, faces_from_folder, faces_from_index, identity_of, prepared_names, read_faces
from earface.data.images import Pixels
from earface.data.picture_formats import EXTENSIONS

Draw = Callable[..., Pixels]
IDENTITIES = [
    "Ann", "Ann_Lee", "ann", "_a", "a_", "__", "a__b", "a___b__", "100%", "%41", "Zoë", "李", "a b", ".hidden",
    "x/y", "..", "a\\b", "c:d", "what?", "001", "001_01_01_051_07", 'say "no"', "bell\x07in", "x" * 120,
    "Jos\udce9", "\udcff\udcfe",
]  # fmt: skip


@pytest.fixture
def touched(tmp_path: Path) -> Callable[..., Path]:
    """`touched("a/1.png", ...)`: a folder with such (empty) pictures."""

    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / name).touch()
        return tmp_path / "set"

    return make


def row(identity: str, name: str) -> FaceRow:
    return FaceRow(Path("/somewhere") / name, name, identity)


@pytest.mark.parametrize("picture", ["1.jpg", "a__b.png", "_x_.png", "sub/..2.png", "001_01_01_051_07.png", "x" * 240])
@pytest.mark.parametrize("identity", IDENTITIES)
def test_a_prepared_name_gives_the_identity_back(tmp_path: Path, identity: str, picture: str) -> None:
    (stem,) = prepared_names([row(identity, picture)])
    path = tmp_path / f"{stem}.png"
    path.touch()
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert identity_of(path) == identity.strip()
    assert not stem.startswith(".")


def test_names_are_short_where_folder_and_file_repeat_the_identity() -> None:
    rows = [row("Ann_Lee", "Ann_Lee/Ann_Lee_0001.jpg"), row("Bo", "Bo/2001/party.jpg"), row("Cy", "Cy/Cy.jpg")]
    assert prepared_names(rows) == ["Ann_Lee__0001", "Bo__2001-party", "Cy__Cy"]


def test_multi_pie_names_stay_as_they_are() -> None:
    rows = [row("001", "session01/001_01_01_051_07_crop_128.png"), row("002", "002_01_01_051_07.png")]
    assert prepared_names(rows) == ["001_01_01_051_07_crop_128", "002_01_01_051_07"]
    assert [identity_of(f"{name}.png") for name in prepared_names(rows)] == ["001", "002"]
    with pytest.raises(InputError, match="same Multi-PIE name"):
        prepared_names([row("001", f"{copy}/001_01_01_051_07.png") for copy in "ab"])


def test_names_that_would_collide_are_made_distinct_whatever_the_order() -> None:
    rows = [row("A", name) for name in ("A/1.jpg", "A/1.png", "A/A_1.png", "A/2.png")] + [row("a", "a/1.jpg")]
    stems = prepared_names(rows)
    assert len({stem.casefold() for stem in stems}) == 5
    assert stems[3] == "A__2"
    assert prepared_names(rows[::-1]) == stems[::-1]


def test_an_identity_that_no_file_name_can_hold_is_refused() -> None:
    with pytest.raises(InputError, match="too long"):
        prepared_names([row("x" * 250, "1.png")])


def test_a_folder_gives_the_identity(touched: Callable[..., Path]) -> None:
    folder = touched("Ann/1.png", "Ann/deep/2.jpg", "Bo__x/001_01_01_051_07.png")
    rows = faces_from_folder(folder)
    assert [(row.identity, row.name) for row in rows] == [
        ("Ann", "Ann/1.png"),
        ("Ann", "Ann/deep/2.jpg"),
        ("Bo__x", "Bo__x/001_01_01_051_07.png"),
    ]
    assert rows[2].camera == "051"
    assert identity_of(folder / "Ann" / "1.png") == "Ann"


def test_multi_pie_names_give_identity_and_conditions_in_any_folder(touched: Callable[..., Path]) -> None:
    rows = faces_from_folder(touched("session01/a/001_01_02_140_07.png", "session02/b/250_02_01_051_00_crop_128.png"))
    assert [row.identity for row in rows] == ["001", "250"]
    assert [(row.session, row.camera, row.illumination) for row in rows] == [("01", "140", "07"), ("02", "051", "00")]


def test_flat_names_give_the_identity_or_are_refused(touched: Callable[..., Path]) -> None:
    assert [row.identity for row in faces_from_folder(touched("Ann__1.png", "B%5F__2.png"))] == ["Ann", "B_"]
    with pytest.raises(InputError, match=r"1 of 3 pictures lie in no folder.*nobody\.png"):
        faces_from_folder(touched("nobody.png"))


def test_a_csv_gives_the_identity(touched: Callable[..., Path], tmp_path: Path) -> None:
    folder = touched("1.png", "deep/2.png")
    index = tmp_path / "index.csv"
    index.write_text(
        f"file,identity,x\n1.png,Ann,\ndeep/2.png, Bo ,\n{folder / '1.png'}x,Bo,\n".replace(".pngx", ".png")
    )
    with pytest.raises(InputError, match="1 of its 3 rows name a file again"):
        faces_from_index(index, folder)
    index.write_text("file,identity,x\n1.png,Ann,\ndeep/2.png, Bo ,\n")
    assert [(row.identity, row.path) for row in faces_from_index(index, folder)] == [
        ("Ann", folder / "1.png"),
        ("Bo", folder / "deep" / "2.png"),
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("file,who\n1.png,Ann\n", "no column 'identity' .it has file, who"),
        ("path,identity\n1.png,Ann\n", "no column 'file'"),
        ("file,identity\n1.png, \n", "line 2: column 'identity' is empty"),
        ("file,identity\n1.png,Ann\n3.png,Bo\n", "1 of its files are not in .*line 3 3.png"),
        ("file,identity\n../set.png,Ann\n", "line 2: .*leaves"),
        ("file,identity\n", "has no rows"),
    ],
)
def test_other_csvs_are_refused(touched: Callable[..., Path], tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "index.csv").write_text(content)
    with pytest.raises(InputError, match=expected):
        faces_from_index(tmp_path / "index.csv", touched("1.png"))


def test_a_split_folder_can_be_read_alone_and_without_low_resolution(tmp_path: Path, draw: Draw) -> None:
    folder = tmp_path / "test_processed"
    for name in ("001_01_01_051_07_crop_128.png", "Ann__1.png"):
        (folder / "hr_images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(1, 128, 128)).save(folder / "hr_images" / name)
    rows = read_faces(folder)
    assert [(row.identity, row.split, row.role, row.vlr_path) for row in rows] == [
        ("001", "test", "", None),
        ("Ann", "test", "", None),
    ]
    assert read_faces(tmp_path, ["test"]) == rows
    (folder / "vlr_images").mkdir()
    with pytest.raises(InputError, match=r"vlr_images/001_01_01_051_07_crop_128\.png: missing"):
        read_faces(folder)
    with pytest.raises(InputError, match=r"train_processed/hr_images: no such folder"):
        read_faces(tmp_path)


def test_a_prepared_picture_without_identity_is_refused(tmp_path: Path) -> None:
    (tmp_path / "val_processed" / "hr_images").mkdir(parents=True)
    (tmp_path / "val_processed" / "hr_images" / "who.png").touch()
    with pytest.raises(InputError, match=r"who\.png: names no identity"):
        read_faces(tmp_path, ["val"])


def test_a_folder_that_contradicts_the_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test_processed" / "hr_images").mkdir(parents=True)
    (tmp_path / "test_processed" / "hr_images" / "Ann__1.png").touch()
    (tmp_path / "splits.json").write_text('{"roles": {"train": ["Ann"]}}')
    with pytest.raises(InputError, match=r"splits\.json puts Ann in train, not in test"):
        read_faces(tmp_path, ["test"])
    (tmp_path / "splits.json").write_text('{"roles": {"nonmated": ["Bo"]}}')
    with pytest.raises(InputError, match="does not know Ann"):
        read_faces(tmp_path / "test_processed")
    (tmp_path / "splits.json").write_text('{"roles": {"nonmated": ["Ann"]}}')
    assert read_faces(tmp_path, ["test"])[0].role == "nonmated"


def test_sources_without_faces_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train_processed" / "hr_images").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for source, expected in (
        (tmp_path / "none", "no such folder"),
        (tmp_path / "empty", "holds no pictures"),
        (tmp_path / "train_processed", "holds no pictures"),
    ):
        with pytest.raises(InputError, match=expected):
            read_faces(source)


def test_every_extension_is_found(touched: Callable[..., Path]) -> None:
    names = [f"a/{number}{extension.upper()}" for number, extension in enumerate(EXTENSIONS)]
    assert len(faces_from_folder(touched(*names, "a/notes.txt", "a/._1.png"))) == len(EXTENSIONS)
