"""The site of the documents: `make docs`. Its source folder is the project's, so links work there as on a forge.

Docstrings are plain text with code in single backticks, not reStructuredText.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from sphinx.util.inspect import signature, stringify_signature

import earface

PROJECT = Path(__file__).resolve().parent.parent
DOCUMENTED = ("dsr", "ear_teacher", "earface", "facial_rec", "pipeline")

project = "earface"
author = copyright = "the earface authors"
version = release = earface.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", *(f"{name}/**.md" for name in DOCUMENTED)]
# a user's folders are not searched
exclude_patterns = [
    "docs/_build",
    *(path.name for path in PROJECT.iterdir() if path.is_dir() and path.name not in ("docs", *DOCUMENTED)),
]

myst_heading_anchors = 4
myst_links_external_new_tab = False
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types of other libraries, whose sites are not asked

html_theme = "furo"
html_title = "earface"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_extra_path = ["site/index.html"]
html_copy_source = False
html_show_copyright = False

autodoc_default_options = {
    "members": True,
    "inherited-members": "Module, LightningModule, LightningDataModule, HyperparametersMixin, _DeviceDtypeModuleMixin, "
    "ModelHooks, DataHooks, CheckpointHooks",
}
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100


def paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """The texts of a docstring, one a line however it was wrapped; what describes a parameter begins a line."""
    for block in re.split(r"\n\s*\n", "\n".join(lines).strip()):
        texts: list[str] = []
        for line in block.splitlines():
            begins = re.match(r"(- |\S[\w, *]*: |Returns? |Raises |-> )", line)
            if texts and not begins:
                texts[-1] += f" {line.strip()}"
            else:
                texts.append(line.strip())
        yield texts


def literal(text: str) -> str:
    """reStructuredText that shows the text, code in backticks as code."""
    pieces = re.split(r"`+([^`]+)`+", text)
    return "".join(
        f"``{piece}``" if place % 2 else re.sub(r"([\\*_|`<>:\[\]])", r"\\\1", piece)
        for place, piece in enumerate(pieces)
    )


def fields_of(options: type) -> Iterator[str]:
    """A list of the options of a dataclass: name, default and help, as `--help` shows them."""
    for field in dataclasses.fields(options):
        text = field.metadata.get("help", "")
        default = "" if field.default is dataclasses.MISSING else f" = {field.default!r}"
        yield f"* ``{field.name}{default}``{': ' + literal(text) if text else ''}"


def plain_docstring(app: Any, what: str, name: str, documented: Any, options: Any, lines: list[str]) -> None:
    texts = list(paragraphs(lines)) if any(lines) else []
    if str(getattr(documented, "__module__", None) or "earface").partition(".")[0] not in DOCUMENTED:
        texts = texts[:1]  # of another library's method, whose documents say the rest
    lines[:] = [each for block in texts for each in ("", *(f"| {literal(text)}" for text in block), "")]
    if isinstance(documented, type) and dataclasses.is_dataclass(documented):
        lines += ["", *fields_of(documented), ""]


def short_signature(app: Any, what: str, name: str, documented: Any, options: Any, *written: Any) -> Any:
    if what != "class":
        return None
    if dataclasses.is_dataclass(documented):  # its fields stand below it
        return "", None
    # not that of the hub's __new__
    return stringify_signature(signature(documented.__init__, bound_method=True), unqualified_typehints=True), None


def keep_units(app: Any, page: str, source: list[str]) -> None:
    """In tables a number and its unit stay in one line."""
    source[0] = re.sub(
        r"^\|.*", lambda row: re.sub(r"(?<=\d) (?=%|dB)", "\u00a0", row[0]), source[0], flags=re.MULTILINE
    )


def import_all(app: Any) -> None:
    """The packages import their names on first use; autodoc lists those that are there."""
    for package in map(import_module, DOCUMENTED):
        vars(package).update({name: getattr(package, name) for name in package.__all__})


def setup(app: Any) -> None:
    app.connect("builder-inited", import_all)
    app.connect("source-read", keep_units)
    app.connect("autodoc-process-docstring", plain_docstring)
    app.connect("autodoc-process-signature", short_signature)
