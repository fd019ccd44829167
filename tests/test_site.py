"""The site of the documents, and what the pages name in the code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import DOCUMENTS, PROJECT

PACKAGES = ("dsr", "ear_teacher", "earface", "facial_rec", "pipeline")


def offered(package: str) -> set[str]:
    """What `__init__.pyi` says that a package offers."""
    tree = ast.parse((PROJECT / package / "__init__.pyi").read_text())
    return {
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with warnings as errors: a page in no table of contents, a link that leads nowhere, a broken docstring."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(out / "doctrees"), "-c", "docs"]
    done = subprocess.run([*command, ".", str(out / "html")], cwd=PROJECT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return out / "html"


@pytest.mark.slow
def test_the_reference_has_every_name_that_a_package_offers(site: Path) -> None:
    for package in PACKAGES:
        names = offered(package)
        assert names
        page = (site / "docs" / "reference" / f"{package}.html").read_text(encoding="utf-8")
        assert {name for name in names if f'id="{package}.{name}"' not in page} == set()


@pytest.mark.slow
def test_every_document_is_a_page_and_loads_nothing_from_elsewhere(site: Path) -> None:
    assert (site / "index.html").is_file()
    for document in DOCUMENTS:
        page = (site / document.relative_to(PROJECT).with_suffix(".html")).read_text(encoding="utf-8")
        assert re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(?:https?:)?//[^\"]+", page) == []


def test_every_test_that_a_promise_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (PROJECT / "docs" / "RELIABILITY.md").read_text())
    assert len(named) > 30
    for file, function in named:
        assert f"def {function}(" in (PROJECT / file).read_text() if function else (PROJECT / file).is_file(), function
