"""Which of the categories that a labelling tool wrote are ears, and which ear each names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from earface.core.errors import InputError
from earface.core.notices import warn

_EAR = re.compile(
    r"(?:human_)?(?:(?P<a>left|right)_?|(?P<b>l|r)_)?(?:human_)?ears?(?:_?(?P<c>left|right)|_(?P<d>l|r))?"
)
Key = int | str
SHOWN = 8


def side_in_name(name: str) -> str | None:
    """l or r of a category such as left_ear or EarRight, empty of one such as Ears; None if it names no ear."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    found = _EAR.fullmatch(re.sub(r"[\W_]+", "_", apart.casefold()).strip("_"))
    if found is None:
        return None
    sides = {word[0] for word in found.groups() if word}
    return sides.pop() if len(sides) == 1 else ""


def ear_categories(
    source: object, names: Mapping[Key, str], counts: Mapping[Key, int], chosen: str | None
) -> dict[Key, str]:
    """The categories that are ears, at least one, with the side that each name gives: l, r or empty.

    names: of all. counts: annotations of each; a category without any is not looked at where another has some.
    chosen: the user's names, between commas, in any case of their letters; None: those named like ears, or the only
    one. Raises InputError where that leaves none, or a choice. Warns of what is merged and what is left out.
    """
    if not names:
        raise InputError("no categories: expected one for the ears")
    used = {key: name for key, name in names.items() if counts.get(key)} or dict(names)
    if chosen is not None:
        wanted = [name.strip().casefold() for name in chosen.split(",")]
        absent = [name for name in wanted if name not in {each.casefold() for each in names.values()}]
        if absent:
            raise InputError(f"`category` {chosen}: the categories are {_listed(names, counts)}")
        ears = {key: side_in_name(name) or "" for key, name in names.items() if name.casefold() in wanted}
        ears = {key: side for key, side in ears.items() if key in used} or ears
    else:
        alike = {key: side for key, name in names.items() if (side := side_in_name(name)) is not None}
        ears = {key: side for key, side in alike.items() if key in used} or alike
        if not ears and len(used) > 1:
            raise InputError(
                f"none of the categories {_listed(used, counts)} is named ear: choose by `category` of "
                "earface ears annotations"
            )
        if not ears:
            ears = dict.fromkeys(used, "")
            warn(f"{source}: all annotations are taken as ears, although their category is {_listed(used, counts)}")
    if len(ears) > 1:
        with_side = ", with the side that each names" if any(ears.values()) else ""
        warn(f"{source}: the categories {_listed({key: names[key] for key in ears}, counts)} count as ears{with_side}")
    others = {key: name for key, name in names.items() if key not in ears and counts.get(key)}
    others |= {key: f"id {key}, which is not listed" for key in counts if key not in names and counts[key]}
    if others:
        total = sum(counts[key] for key in others)
        warn(f"{source}: {total} annotations of other categories are left out: {_listed(others, counts)}")
    return ears


def _listed(names: Mapping[Key, str], counts: Mapping[Key, int]) -> str:
    shown = [f"{name} ({counts.get(key, 0)})" for key, name in [*names.items()][:SHOWN]]
    return ", ".join(shown + ["..."] * (len(names) > SHOWN))
