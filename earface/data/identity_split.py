"""One split of the identities of a face set, kept in `splits.json` and used by super-resolver, recogniser and pipeline.

Of the identities with two or more pictures, 60 % are for training (role `train`), 15 % for validation and calibration
(`tune`) and 25 % for the test (`score`). Of the identities with a single picture, half are for training
(`train_single`) and half are non-mated probes in the test (`nonmated`). No identity has two roles.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from earface.core.errors import InputError
from earface.core.files import atomic_write, read_json
from earface.data.names import person_name
from earface.data.splits import in_seeded_order

CALIBRATION_FRACTION, TEST_FRACTION = 0.15, 0.25  # of identities with two or more pictures; the rest are for training
NONMATED_FRACTION = 0.5  # of identities with a single picture
SPLIT_OF_ROLE = {"train": "train", "train_single": "train", "tune": "val", "score": "test", "nonmated": "test"}
MEANING = {
    "train": "training identities with two or more pictures",
    "train_single": "training identities with a single picture",
    "tune": "validation and calibration identities: for model selection and thresholds",
    "score": "test identities with two or more pictures: for the final metrics",
    "nonmated": "test identities with a single picture: non-mated probes, in no gallery",
}


@dataclass(frozen=True)
class IdentitySplit:
    """Each identity's role, one of SPLIT_OF_ROLE, and the seed of the split."""

    roles: dict[str, str]
    seed: int

    def split_of(self, identity: str) -> str:
        """train, val or test."""
        return SPLIT_OF_ROLE[self.roles[identity]]


def deal_identities(
    identities: Iterable[str],
    seed: int,
    fixed: IdentitySplit | None = None,
    groups: Mapping[str, str] | None = None,
) -> IdentitySplit:
    """The split of a set in which `identities` has one entry a picture, in any order.

    Identities are taken in the order of a hash of (seed, identity): `score` first, then `tune`, then `train`. So the
    order of the pictures does not matter, and an added identity changes the role of at most one other at each border.
    fixed: an earlier split, whose identities keep their roles, also those without a picture now; only the others are
        split, among themselves.
    groups: identity -> group of identities that must stay in one split; a group of several counts as one identity with
        two or more pictures.
    Raises InputError if there are fewer than three identities (or groups) with two or more pictures, one for each of
    `train`, `tune` and `score`, and for a group that `fixed` puts into two splits.
    """
    identities, seed = list(identities), seed if fixed is None else fixed.seed
    group_of = {identity: identity if groups is None else groups.get(identity, identity) for identity in identities}
    pictures = Counter(group_of[identity] for identity in identities)
    known: dict[str, str] = {}
    for identity, group in group_of.items():
        role = None if fixed is None else fixed.roles.get(identity)
        if role is not None and SPLIT_OF_ROLE[known.setdefault(group, role)] != SPLIT_OF_ROLE[role]:
            raise InputError(f"{identity} and others of one photograph stand in two splits of `splits`")
    several = in_seeded_order((group for group, count in pictures.items() if count > 1 and group not in known), seed)
    single = in_seeded_order((group for group, count in pictures.items() if count == 1 and group not in known), seed)
    if fixed is None and len(several) < 3:
        raise InputError(
            f"{len(pictures)} identities, {len(several)} with two or more pictures: at least three of these are "
            "needed, one each for training, calibration and test"
        )
    least = 0 if fixed is not None else 1
    score = max(least, round(TEST_FRACTION * len(several)))
    tune = max(least, round(CALIBRATION_FRACTION * len(several)))
    nonmated = round(NONMATED_FRACTION * len(single))
    known |= {
        group: "score" if place < score else "tune" if place < score + tune else "train"
        for place, group in enumerate(several)
    }
    known |= {group: "nonmated" if place < nonmated else "train_single" for place, group in enumerate(single)}
    roles = dict(fixed.roles) if fixed is not None else {}
    roles |= {identity: roles.get(identity, known[group]) for identity, group in group_of.items()}
    return IdentitySplit(roles, seed)


def write_splits(path: Path, split: IdentitySplit, identities: Iterable[str]) -> None:
    """identities: one entry a picture, for the counts."""
    pictures = Counter(split.roles[identity] for identity in identities)
    listed = {role: sorted(name for name, own in split.roles.items() if own == role) for role in SPLIT_OF_ROLE}
    content = {
        "seed": split.seed,
        "rule": f"in the order of SHA-256(seed, NUL, identity); two or more pictures: the first {TEST_FRACTION:.0%} "
        f"score, the next {CALIBRATION_FRACTION:.0%} tune, the others train; one picture: the first "
        f"{NONMATED_FRACTION:.0%} nonmated, the others train_single",
        "meaning": MEANING,
        "split_of_role": SPLIT_OF_ROLE,
        "counts": {role: {"identities": len(names), "pictures": pictures[role]} for role, names in listed.items()},
        "roles": listed,
    }
    with atomic_write(path) as temporary:
        temporary.write_text(as_json(content), encoding="utf-8", errors="backslashreplace")


def read_splits(path: Path) -> IdentitySplit:
    """What `write_splits` wrote, or any JSON {"roles": {role: [identities]}}.

    Raises InputError for any other file, an unknown role, and an identity with two roles.
    """
    content = read_json(path)
    listed = content.get("roles") if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not all(isinstance(names, list) for names in listed.values()):
        raise InputError(f'{path}: expected {{"roles": {{"train": [identities], ...}}}}')
    unknown = sorted(set(listed) - set(SPLIT_OF_ROLE))
    if unknown:
        raise InputError(f"{path}: role {unknown[0]!r} is none of {', '.join(SPLIT_OF_ROLE)}")
    roles: dict[str, str] = {}
    for role, names in listed.items():
        for name in (person_name(str(name)) for name in names):
            if roles.setdefault(name, role) != role:
                raise InputError(f"{path}: {name} is in two roles, {roles[name]} and {role}")
    if not roles:
        raise InputError(f"{path}: names no identity")
    seed = content.get("seed", 0)
    return IdentitySplit(roles, seed if isinstance(seed, int) else 0)


def identity_digests(identities: Iterable[str]) -> list[str]:
    """Of each identity, once and sorted, the first 16 hex digits of its SHA-256.

    A model stores those of its training identities, so that it is not tested on them, without naming them. Names are
    taken in the form of `person_name`.
    """
    names = {person_name(name) for name in identities}
    return sorted({hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16] for name in names})


def person(collection: str, subject: str) -> str:
    """The name of a subject among those of all sets. collection: TeacherData.collection, empty where it is unknown."""
    return f"{collection}/{subject}" if collection else subject


def as_json(content: object) -> str:
    """Readable JSON. Written with errors="backslashreplace", names that are no Unicode are escaped as JSON wants it."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
