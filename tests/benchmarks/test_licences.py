"""What the audit of licences admits, and that the lock passes it."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from benchmarks import licences
from benchmarks.licences import LOCK, PERMISSIVE, audit, is_permissive


def test_the_lock_passes() -> None:
    rows, wrong = audit(LOCK)
    assert wrong == []
    assert len(rows) > 150


@pytest.mark.parametrize(
    "expression", ["{} AND {}", "{} OR {}", "{} AND ({} OR {})", "({} AND {}) OR {}", "({} OR {})"]
)
def test_no_expression_is_admitted_that_does_not_hold(expression: str) -> None:
    """Beside Python's own reading of it, with every choice of permissive licences and others."""
    places = expression.count("{}")
    for names in product(["MIT", "BSD-3-Clause", "GPL-3.0-only"], repeat=places):
        allowed = [str(name in PERMISSIVE) for name in names]
        holds = eval(expression.lower().format(*allowed))
        found = is_permissive(expression.format(*names))
        assert holds or not found, names
        assert found or not holds or "GPL" in " ".join(names), names


def test_what_is_neither_permissive_nor_known_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, field in (
        ("tied", "License-Expression: GPL-3.0-only"),
        ("silent", "Summary: none"),
        ("free", "License: MIT"),
    ):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{field}\n")
    (tmp_path / "lock").write_text(
        "tied==1.0\nsilent==1.0\nfree==1.0\nabsent==1.0\nelsewhere==1.0 ; sys_platform == 'none'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(licences, "EXCEPTIONS", (licences.Accepted("gone", "LGPL", "not in the lock any more"),))
    assert audit(tmp_path / "lock")[1] == [
        "tied 1.0: GPL-3.0-only",
        "silent 1.0: no licence in its metadata",
        "absent is not installed",
        "no package needs the exception of gone any more",
    ]
