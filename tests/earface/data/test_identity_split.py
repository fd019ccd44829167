"""The one split of identities."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from earface.core.errors import InputError
from earface.data.identity_split import (
    SPLIT_OF_ROLE,
    IdentitySplit,
    deal_identities,
    identity_digests,
    read_splits,
    write_splits,
)

SEVERAL = [f"m{number}" for number in range(200) for _ in range(2 + number % 3)]
SINGLE = [f"s{number}" for number in range(101)]
PICTURES = SEVERAL + SINGLE


def sizes(split: IdentitySplit) -> Counter[str]:
    return Counter(split.roles.values())


def test_each_role_gets_its_fraction() -> None:
    split = deal_identities(PICTURES, 1)
    assert sizes(split) == {"score": 50, "tune": 30, "train": 120, "nonmated": 50, "train_single": 51}
    for identity, role in split.roles.items():
        assert role in (("score", "tune", "train") if identity.startswith("m") else ("nonmated", "train_single"))
        assert split.split_of(identity) == SPLIT_OF_ROLE[role]


def test_the_order_of_the_pictures_does_not_matter_and_the_seed_does() -> None:
    shuffled = [PICTURES[place] for place in np.random.default_rng(0).permutation(len(PICTURES))]
    assert deal_identities(shuffled, 5) == deal_identities(PICTURES, 5)
    assert deal_identities(PICTURES, 6).roles != deal_identities(PICTURES, 5).roles


def test_more_pictures_of_an_identity_move_nobody() -> None:
    assert deal_identities(PICTURES + ["m3"] * 50, 5) == deal_identities(PICTURES, 5)


@pytest.mark.parametrize("added", [["new"], ["new", "new"]])
def test_an_added_identity_moves_at_most_one_across_each_border(added: list[str]) -> None:
    for seed in range(20):
        before, after = deal_identities(PICTURES, seed).roles, deal_identities(PICTURES + added, seed).roles
        assert sum(before[identity] != after[identity] for identity in before) <= 2


@pytest.mark.parametrize("count", range(3, 12))
def test_small_sets_have_somebody_in_each_split(count: int) -> None:
    split = deal_identities([f"i{number}" for number in range(count)] * 2, 3)
    assert set(sizes(split)) == {"train", "tune", "score"}
    assert sizes(split)["train"] >= sizes(split)["tune"]


@pytest.mark.parametrize("pictures", [[], ["a"], ["a", "a"], ["a", "a", "b", "b"], ["a", "b", "c", "d", "e", "e"]])
def test_too_few_identities_are_refused(pictures: list[str]) -> None:
    with pytest.raises(InputError, match="at least three"):
        deal_identities(pictures, 0)


def test_a_fixed_split_is_kept_and_only_other_identities_are_split() -> None:
    fixed = deal_identities(PICTURES, 5)
    grown = deal_identities([*PICTURES[7:], "new", "other", "other", "s0"], 99, fixed)
    assert fixed.roles.items() <= grown.roles.items()
    assert set(grown.roles) - set(fixed.roles) == {"new", "other"}
    assert grown.roles["new"] in ("nonmated", "train_single")
    many = [f"n{number}" for number in range(40)] * 2
    dealt = Counter(
        role for name, role in deal_identities(PICTURES + many, 1, fixed).roles.items() if name.startswith("n")
    )
    assert dealt == {"score": 10, "tune": 6, "train": 24}


def test_groups_stay_together() -> None:
    groups = {"m1": "m1", "m2": "m1", "s3": "m1", "s4": "s4", "s5": "s4"}
    for seed in range(30):
        roles = deal_identities(PICTURES, seed, None, groups).roles
        assert roles["m1"] == roles["m2"] == roles["s3"]
        assert roles["s4"] == roles["s5"]
        assert {roles["m1"], roles["s4"]} <= {"train", "tune", "score"}


def test_a_group_that_a_fixed_split_divides_is_refused() -> None:
    fixed = IdentitySplit({"a": "train", "b": "score", "c": "tune"}, 1)
    with pytest.raises(InputError, match="in two splits"):
        deal_identities(["a", "b", "c"] * 2, 1, fixed, {"a": "a", "b": "a", "c": "c"})


def test_a_group_in_one_split_keeps_its_fixed_roles() -> None:
    fixed = IdentitySplit({"a": "score", "b": "nonmated"}, 1)
    roles = deal_identities(["a", "a", "b", "c"], 1, fixed, {"a": "a", "b": "a", "c": "a"}).roles
    assert roles == {"a": "score", "b": "nonmated", "c": "score"}


def test_the_file_gives_the_split_back(tmp_path: Path) -> None:
    odd = ["Zoë", "a b", 'quote"', "name\udcff"]
    split = deal_identities(PICTURES + odd * 2, 8)
    write_splits(tmp_path / "splits.json", split, PICTURES + odd * 2)
    assert read_splits(tmp_path / "splits.json") == split
    content = json.loads((tmp_path / "splits.json").read_text(encoding="utf-8"))
    assert content["seed"] == 8
    counted = Counter(split.roles[identity] for identity in PICTURES + odd * 2)
    for role, entry in content["counts"].items():
        assert entry == {"identities": len(content["roles"][role]), "pictures": counted[role]}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "not JSON"),
        ("[]", "expected"),
        ('{"roles": ["a"]}', "expected"),
        ('{"roles": {"train": "abc"}}', "expected"),
        ('{"roles": {"probe": ["a"]}}', "role 'probe' is none of train"),
        ('{"roles": {"train": ["a", "b"], "score": ["b"]}}', "b is in two roles, train and score"),
        ('{"roles": {"train": []}}', "names no identity"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(InputError, match=expected):
        read_splits(tmp_path / "s.json")


def test_digests_name_each_identity_once_and_nobody_by_name() -> None:
    found = identity_digests(["Zoë", "b", "b", "a", "name\udcff"])
    assert found == sorted(found) == identity_digests(["name\udcff", "a", "b", "Zoë"])
    assert len(found) == 4
    assert identity_digests(["a"]) == [hashlib.sha256(b"a").hexdigest()[:16]]
    assert len(identity_digests(map(str, range(10_000)))) == 10_000
    assert identity_digests([]) == []
