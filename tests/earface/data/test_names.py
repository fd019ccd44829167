"""Names of people: one form, and a warning of what is odd about them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earface.core.notices import collecting_warnings, warnings_given
from earface.data.names import person_name, warn_of_lost_people, warn_of_odd_names


@given(st.text(max_size=12))
def test_every_writing_of_a_name_is_one_name(name: str) -> None:
    written = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    assert {
        person_name(f"{blank}{each}{blank}")
        for each in written
        for blank in ("", " ", "\t", "\xa0", "\ufeff", "\u200b ")
    } == {person_name(name)}
    assert person_name(person_name(name)) == person_name(name)


def test_blanks_inside_a_name_are_single() -> None:
    assert person_name("Ada  King\xa0Lovelace") == "Ada King Lovelace"


def odd(names: list[str]) -> list[str]:
    with collecting_warnings():
        warn_of_odd_names(names, "SET")
        return warnings_given()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["left", "right"], "left, right counted as people"),
        (["Train", "val", "test"], "Train, test, val counted as people"),
        (["ada", "unknown"], "unknown counted as a person"),
        (["75", "90"], "named by angles (75, 90)"),
        (["-15", "0", "+15"], "named by angles"),
        (["1", "001", "1.0", "2"], "count as different people (001 and 1 and 1.0)"),
        (
            ["Alice", "alice", "Bob"],
            "1 names differ in case, leading zeros or .0 alone and count as different people (Alice and alice)",
        ),
    ],
)
def test_names_that_are_odd_are_warned_of(names: list[str], expected: str) -> None:
    (line,) = odd(names * 2)
    assert line.startswith("SET: ")
    assert expected in line


@pytest.mark.parametrize(
    "names", [["ada", "bob"], ["001", "002"], ["15", "16"], ["75"], ["0"], ["Lefty", "Valerie"], ["1", "10", "100"], []]
)
def test_other_names_are_not(names: list[str]) -> None:
    assert odd(names) == []


def test_people_without_pictures_are_named() -> None:
    with collecting_warnings():
        warn_of_lost_people(["ada", "bob", "bob", "eve"], ["ada"], "SET")
        warn_of_lost_people(["ada", "ada"], ["ada"], "SET")
        assert warnings_given() == ["SET: 2 people have no picture left (bob, eve)"]
