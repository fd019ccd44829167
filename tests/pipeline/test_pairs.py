"""Lists of pairs in every form that verification sets have them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from earface.core.errors import InputError
from earface.core.notices import DataWarning, collecting_warnings, warnings_given
from earface.data.images import read_image
from pipeline.leakage import find_leaks, resolve_leakage
from pipeline.pairs import _folds, from_pairs
from pipeline.protocol import Protocol
from pipeline.protocol_checks import keep_pictures

NAMES = ("Al", "Bo_B", "Cy")
MATCHED = (("Al", 1, 2), ("Bo_B", 10, 1), ("Cy", 2, 10))
MISMATCHED = (("Al", 1, "Bo_B", 10), ("Cy", 2, "Al", 10), ("Bo_B", 2, "Cy", 2))
Put = Callable[[Iterable[str]], Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Pictures of these names in a folder, no two alike."""
    random = np.random.default_rng(0)

    def write(names: Iterable[str]) -> Path:
        for name in names:
            path = tmp_path / "lfw" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (128, 128, 3), np.uint8)).save(path)
        return tmp_path / "lfw"

    return write


@pytest.fixture
def lfw(put: Put) -> Path:
    names = [f"{name}/{name}_{number:04d}" for name in NAMES for number in (1, 2, 10)]
    root = put(f"{name}.{'jpg' if place % 2 else 'png'}" for place, name in enumerate(names))
    (root / "Al" / "Al_0001.json").write_text("{}")  # not a picture
    return root


def pairs_file(root: Path, *lines: str) -> str:
    path = root / "pairs.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def compared(protocol: Protocol) -> list[tuple[str, str, bool]]:
    assert protocol.pairs is not None
    sides = protocol.test.gallery, protocol.test.probes
    return [(sides[0][p.first].path.stem, sides[1][p.second].path.stem, p.same) for p in protocol.pairs]


def folds(protocol: Protocol) -> list[int]:
    assert protocol.pairs is not None
    return [pair.fold for pair in protocol.pairs]


def stems(line: Sequence[str | int]) -> tuple[str, str, bool]:
    name, number, other, other_number = line if len(line) == 4 else (line[0], line[1], line[0], line[2])
    return f"{name}_{number:04d}", f"{other}_{other_number:04d}", name == other


@pytest.mark.parametrize(("header", "count", "between"), [("10\t3", 10, "\t"), ("2 3", 2, " "), ("3", 1, "\t")])
def test_pairs_are_lfws(lfw: Path, header: str, count: int, between: str) -> None:
    """The official header and tabs; spaces; and the header of the development sets, of one fold."""
    lines = [*MATCHED, *MISMATCHED] * count
    protocol = from_pairs(str(lfw), pairs_file(lfw, header, *(between.join(map(str, line)) for line in lines)))
    assert compared(protocol) == list(map(stems, lines))
    assert folds(protocol) == [place // 6 for place in range(len(lines))]
    for row in protocol.test.rows:
        assert row.path.is_file()
        assert row.path.suffix in (".jpg", ".png")
        assert row.identity == row.path.parent.name
    assert len(protocol.test.gallery) == len({line[:2] for line in lines})
    assert protocol.calibration.rows == []
    assert protocol.notes() == []


def test_between_tabs_a_name_may_hold_spaces(put: Put) -> None:
    root = put(["A B/A B_0001.png", "C/C_0001.png"])
    protocol = from_pairs(str(root), pairs_file(root, "1\t1", "A B\t1\tC\t1", "C\t1\tA B\t1"))
    assert [row.identity for row in protocol.test.gallery] == ["A B", "C"]


# how programs write the same list

LISTED = [*MATCHED, *MISMATCHED] * 2
LFW_LINES = ["2\t3"] + ["\t".join(map(str, line)) for line in LISTED]
FORMS = {
    "byte order mark": "\ufeff" + "\n".join(LFW_LINES),
    "UTF-16": "\n".join(LFW_LINES),
    "Windows": "\r\n".join(LFW_LINES) + "\r\n",
    "trailing blanks": "  \n".join(LFW_LINES) + "  \n",
    "trailing tabs": "\t\n".join(LFW_LINES) + "\t\n",
    "empty lines": "\n\n".join(["", *LFW_LINES, ""]),
    "no header": "\n".join(LFW_LINES[1:]),
    "commas": "\n".join(LFW_LINES).replace("\t", ","),
    "commas at the end": "name,imagenum1,imagenum2,\n" + ",\n".join(LFW_LINES[1:]).replace("\t", ","),
    "semicolons": "\n".join(LFW_LINES).replace("\t", ";"),
}
PATH_FORMS = {  # of two paths without extensions, and 0 or 1
    "paths": "{}.jpg {}.png {}",
    "without extensions": "{},{},{}",
    "Windows paths": "{}.jpg\t{}.jpg\t{}",
    "labels first": "{2} {0}.jpg {1}.jpg",
    "two lines": "{0}.jpg {2}\n{1}.jpg {2}",
}


def path_lines(form: str, slash: str = "/", different: int = 0) -> str:
    lines = []
    for one, other, same in map(stems, LISTED):
        paths = (f"{stem.rpartition('_')[0]}{slash}{stem}" for stem in (one, other))
        lines.append(PATH_FORMS[form].format(*paths, int(same) or different))
    return "\n".join(lines)


FORMS |= {form: path_lines(form) for form in PATH_FORMS}
FORMS["Windows paths"] = path_lines("Windows paths", "\\", -1)
FORMS["columns"] = "file1,file2,same\n" + path_lines("without extensions")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pairs(lfw: Path, form: str) -> None:
    (lfw / "list.txt").write_text(FORMS[form], encoding="utf-16" if form == "UTF-16" else "utf-8", newline="")
    with collecting_warnings():
        protocol = from_pairs(str(lfw), str(lfw / "list.txt"))
        assert warnings_given() == []
    assert compared(protocol) == list(map(stems, LISTED))
    assert folds(protocol) == [0] * 6 + [1] * 6
    assert all(row.identity == row.path.parent.name for row in protocol.test.rows)


@pytest.mark.parametrize(
    ("names", "people"),
    [
        (["Al_Bo_1.jpg", "Al_Bo_12.jpg", "Cy_3.jpg"], ["Al_Bo", "Al_Bo", "Cy"]),
        (["0_MariaCallas_35_f.jpg", "1_MariaCallas_40_f.jpg", "7_Bo_20_m.jpg"], ["MariaCallas", "MariaCallas", "Bo"]),
    ],
)
def test_in_one_folder_names_say_who_it_is(put: Put, names: list[str], people: list[str]) -> None:
    """CPLFW's and AgeDB's; the folder's name is nobody's."""
    root = put(f"images/{name}" for name in names)
    one, other, third = (f"images/{name}" for name in names)
    protocol = from_pairs(str(root), pairs_file(root, f"{one} {other} 1", f"{one} {third} 0"))
    assert [row.identity for row in (*protocol.test.gallery, *protocol.test.probes)] == people


def test_a_name_in_the_other_unicode_form_is_found(put: Put) -> None:
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "José")
        other = unicodedata.normalize("NFD" if form == "NFC" else "NFC", "José")
        root = put([f"{name}/{name}_0001.png", f"{name}/{name}_0002.png", "Al/Al_0001.png"])
        protocol = from_pairs(str(root), pairs_file(root, f"{other}\t1\t2", f"{other}\t1\tAl\t1"))
        assert [row.identity for row in protocol.test.rows] == ["José", "José", "Al"]
        assert all(row.path.is_file() for row in protocol.test.rows)


# missing pictures, uneven folds


def test_a_pair_whose_picture_is_missing_is_left_out_and_its_fold_is_shorter(lfw: Path) -> None:
    lines = LFW_LINES[:1] + LFW_LINES[1:] * 2
    lines[0], lines[3] = "4\t3", "Cy\t2\t99"
    with collecting_warnings():
        protocol = from_pairs(str(lfw), pairs_file(lfw, *lines))
        (warning,) = warnings_given()
    assert (
        "1 of 24 pairs are left out, whose pictures are missing (pairs.txt line 4: no picture Cy/Cy_0099.*" in warning
    )
    assert protocol.left_out == [f"pairs.txt line 4: no picture Cy/Cy_0099.* in {lfw}"]
    assert folds(protocol) == [0] * 5 + [1] * 6 + [2] * 6 + [3] * 6
    lines[9] = "Di\t1\t2"
    with pytest.raises(InputError, match=r"pairs.txt: 2 of 24 pairs cannot be compared, over 5%: .*Cy_0099.*Di_0001"):
        from_pairs(str(lfw), pairs_file(lfw, *lines))


def test_uneven_folds_stay_as_they_are(lfw: Path) -> None:
    lines = [*LFW_LINES[:3], *LFW_LINES[4:]]
    with pytest.warns(DataWarning, match=r"holds 11 pairs, and its first line says 2 folds of 2 x 3"):
        protocol = from_pairs(str(lfw), pairs_file(lfw, *lines))
    assert folds(protocol) == [0] * 5 + [1] * 6


@given(st.lists(st.booleans(), min_size=2, max_size=300))
def test_a_list_without_folds_is_dealt_to_folds_of_both_kinds(same: list[bool]) -> None:
    """Fewer folds than FOLDS only where there are too few pairs, and every pair is in one."""
    found, dealt = _folds(Path("pairs.txt"), same, None)
    assert len(found) == len(same)
    assert set(found) == set(range(max(found) + 1))
    if dealt:
        assert max(found) == 9
        for kind in (True, False):
            sizes = [
                sum(own == kind and fold == each for own, fold in zip(same, found, strict=True)) for each in range(10)
            ]
            assert max(sizes) - min(sizes) <= 1
    else:
        assert found == sorted(found)
        assert max(found) <= 9


def test_pairs_with_a_picture_that_cannot_be_read_are_left_out(lfw: Path) -> None:
    def listed(good: int) -> Protocol:
        return from_pairs(str(lfw), pairs_file(lfw, "Al 10 2", *["Al 1 2", "Al 2 Cy 1", "Bo_B 1 Cy 2"] * good))

    broken = lfw / "Al" / "Al_0010.png"
    broken.write_bytes(b"no picture")
    protocol = listed(7)
    kept = {row for row in protocol.test.rows if row.path != broken}
    with pytest.warns(DataWarning, match="1 of 22 pairs are left out, whose pictures cannot be read"):
        left, lines = keep_pictures(protocol, kept)
    assert compared(left) == compared(protocol)[1:]
    assert broken not in {row.path for row in left.test.rows}
    assert lines == ["Al/Al_0010.png: cannot be read"]
    protocol = listed(6)
    with pytest.raises(InputError, match=r"`pairs`: 1 of 19 pairs cannot be compared, over 5%: Al/Al_0010.png"):
        keep_pictures(protocol, kept)


def test_a_pair_may_share_its_picture_with_another(lfw: Path) -> None:
    protocol = from_pairs(str(lfw), pairs_file(lfw, "2", "Al 1 2", "Al 2 10", "Al 2 Cy 1", "Cy 1 Al 1"))
    assert {row.path for row in protocol.test.gallery} & {row.path for row in protocol.test.probes}
    assert find_leaks(protocol) == []


# what is no list of pairs


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["10 300"], r"pairs.txt: names no pairs \(NAME N1 N2; NAME1 N1 NAME2 N2; PATH1 PATH2 0\|1"),
        ([""], r"pairs.txt: names no pairs"),
        (["ten 1", "Al 1 2"], r"pairs.txt line 1: 'ten 1' is none of NAME N1 N2; "),
        (["1 0"], r"pairs.txt line 1: '1 0' is none of"),
        (["1 1", "Al 1 2", "Al 1 Cy"], r"pairs.txt line 3: 'Al 1 Cy' is none of NAME N1 N2"),
        (["1 1", "Al 1", "Al 1 Cy 1"], r"pairs.txt line 2: 'Al 1' is none of"),
        (["1 1", "Al 1 2 Cy 1", "Al 1 Cy 1"], r"pairs.txt line 2: 'Al 1 2 Cy 1' is none of"),
        (["1 1", "Al 1 2", "Al one Cy 1"], r"pairs.txt line 3: 'Al one Cy 1' is none of"),
        (["1 1", "Al 1 -2", "Al 1 Cy 1"], r"pairs.txt line 2: 'Al 1 -2' is none of"),
        (["Al/Al_0001.png Cy/Cy_0001.png yes"], r"pairs.txt line 1: .* is none of"),
        (
            ["1 1", "Al 1 3", "Al 1 Cy 1"],
            r"1 of 2 pairs cannot be compared, .*line 2: no picture Al/Al_0003\.\* in .*lfw",
        ),
        (["1 1", "Al 1 2", "Al 1 Di 1"], r"line 3: no picture Di/Di_0001"),
        (["1 1", "Al 1 2", "Al 1 /etc 1"], r"line 3: no picture /etc/"),
        (["1 1", "Al 1 2", "Al 1 ../.. 1"], r"pairs.txt line 3: '\.\./\.\..*' leaves"),
        (["Al/Al_0001.png ../../x.png 0"], r"pairs.txt line 1: '\.\./\.\./x.png' leaves"),
        (["1 1", "Al 2 2", "Al 1 Cy 1"], r"pairs.txt line 2: 'Al 2 2': a picture is compared with itself"),
        (["1 1", "Al 1 2", "Al 1 Al 1"], r"pairs.txt line 3: 'Al 1 Al 1': a picture is compared with itself"),
        (["Al/Al_0001.png 1", "Al/Al_0002.png 1", "Cy/Cy_0001.png 0"], r"line 3: .* the second picture of its pair"),
        (["Al/Al_0001.png 1", "Al/Al_0002.png 0"], r"pairs.txt line 2: .*another number than its pair's"),
        (["Al/Al_0001.png 1", "Al 1 2"], r"pairs.txt line 2: 'Al 1 2': PATH and a number wanted"),
    ],
)
def test_what_is_no_pairs_file_is_an_input_error(lfw: Path, lines: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        from_pairs(str(lfw), pairs_file(lfw, *lines))
    assert "\n" not in str(error.value)


def test_pairs_that_cannot_be_read_are_an_input_error(lfw: Path) -> None:
    with pytest.raises(InputError, match=r"`pairs` .*pairs.txt: cannot be read \(No such file"):
        from_pairs(str(lfw), str(lfw / "pairs.txt"))
    (lfw / "pairs.txt").write_bytes(b"\0\1\2")
    with pytest.raises(InputError, match=r"pairs.txt: not a text file"):
        from_pairs(str(lfw), str(lfw / "pairs.txt"))


def test_labels_that_contradict_the_names_are_warned_of(lfw: Path) -> None:
    lines = pairs_file(lfw, "Al/Al_0001 Cy/Cy_0001 1", "Al/Al_0001 Al/Al_0002 1", "Al/Al_0001 Bo_B/Bo_B_0001 0")
    with pytest.warns(DataWarning, match=r"contradict 1 of 3 pairs, such as Al/.* and Cy/.* count as one person"):
        from_pairs(str(lfw), lines)


# one photograph on both sides


def test_a_pair_of_one_photograph_is_warned_of_or_left_out(lfw: Path) -> None:
    """Re-encoded, in the same pixels, and the same file by another name."""
    one = read_image(next((lfw / "Al").glob("Al_0001.png")))
    smooth = np.asarray(Image.fromarray(one).resize((12, 12)).resize((128, 128), Image.Resampling.BICUBIC))
    Image.fromarray(smooth).save(lfw / "Al" / "Al_0001.png")
    Image.fromarray(smooth).save(lfw / "Cy" / "Cy_0003.jpg", quality=60)
    Image.fromarray(smooth).save(lfw / "Cy" / "Cy_0004.bmp")
    (lfw / "Cy" / "Cy_0005.png").symlink_to(lfw / "Al" / "Al_0001.png")
    lines = ["Al 1 2", *(f"Al 1 Cy {number}" for number in (1, 3, 4, 5))]
    protocol = from_pairs(str(lfw), pairs_file(lfw, *lines))
    leaks = find_leaks(protocol)
    assert [leak.second.path.stem for leak in leaks] == ["Cy_0003", "Cy_0004", "Cy_0005"]
    assert [leak.reason[:16] for leak in leaks] == ["one photograph (", "the same pixels ", "one file on both"]
    with pytest.warns(DataWarning, match="3 of 5 pairs compare one photograph with itself"):
        assert resolve_leakage(protocol, "refuse") == (protocol, [])
    left, lines = resolve_leakage(protocol, "drop")
    assert compared(left) == [("Al_0001", "Al_0002", True), ("Al_0001", "Cy_0001", False)]
    assert len(lines) == 3
