"""Names of people, written in one way, and what is odd about those of a set."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable

from earface.core.notices import warn

# a person is not called so: these are folders of sides, of splits, of yaw angles, of a set's parts
NO_PERSON = re.compile(
    r"left|right|l|r|train|training|val|valid|validation|test|testing|dev|gallery|probes?|query|images?|img|imgs|"
    r"pictures?|photos?|faces?|ears?|hr|vlr|lr|data|dataset|raw|crops?|aligned|processed|unknown|none|nan|null",
    re.IGNORECASE,
)
AROUND = re.compile(r"^[\s\ufeff\u200b-\u200f\u2060\xad]+|[\s\ufeff\u200b-\u200f\u2060\xad]+$")  # what nobody sees
NUMBERED = re.compile(r"0*(\d+?)(\.0+)?")  # 1 by a table that took it for a number: 1.0, 01
UNSAFE = re.compile(r'[\x00-\x1f\x7f"%*/:<>?\\|\ud800-\udfff]|^[. ]|[. ]$')  # refused by some file system, or hidden
SHOWN = 3


def person_name(name: str) -> str:
    """In Unicode's composed form (NFC), with single blanks and none around it: names that look alike are one person."""
    return " ".join(AROUND.sub("", unicodedata.normalize("NFC", name)).split())


def printable(name: str) -> str:
    """With the bytes of a file's name that are not UTF-8 escaped: what fonts and text files take."""
    return name.encode(errors="backslashreplace").decode()


def file_name_part(name: str) -> str:
    """With the characters that some file system refuses or hides percent-encoded."""
    return UNSAFE.sub(percent_encoded, name)


def percent_encoded(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in os.fsencode(found[0]))


def warn_of_odd_names(names: Iterable[str], source: object) -> None:
    """Warn of people whose names differ in case, leading zeros or .0 alone, and of names that look like folders'.

    names: as `person_name` gives them, in any number. source: the file or folder that has them, for the warning.
    """
    people = sorted(set(names))
    by_look: dict[str, list[str]] = {}
    for name in people:
        number = NUMBERED.fullmatch(name)
        by_look.setdefault(number[1] if number else name.casefold(), []).append(name)
    alike = [" and ".join(group) for group in by_look.values() if len(group) > 1]
    if alike:
        warn(
            f"{source}: {len(alike)} names differ in case, leading zeros or .0 alone and count as different people "
            f"({_some(alike)}): write each person's name in one way"
        )
    folders = [name for name in people if NO_PERSON.fullmatch(name)]
    if folders:
        warn(
            f"{source}: {_some(folders)} counted as {'a person' if len(folders) == 1 else 'people'}, which such a "
            "name rarely is: check what the folders stand for, or name the people in an index"
        )
    elif is_yaw_angles(people):
        warn(f"{source}: the people are named by angles ({_some(people)}): check what the folders stand for")


def warn_of_lost_people(before: Iterable[str], after: Iterable[str], source: object) -> None:
    """Warn of people none of whose pictures is left, by their names before and after some were left out."""
    lost = sorted(set(before) - set(after))
    if lost:
        people = "person has" if len(lost) == 1 else "people have"
        warn(f"{source}: {len(lost)} {people} no picture left ({_some(lost)})", lost)


def is_yaw_angles(people: Iterable[str]) -> bool:
    """Whether two or more names are all multiples of 15 up to 90, at least one of them negative, 0 or two-figured."""
    names = list(people)
    return len(names) > 1 and all(re.fullmatch(r"[-+]?(0|15|30|45|60|75|90)", name) for name in names)


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
