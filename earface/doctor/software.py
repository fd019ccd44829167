"""Which versions are installed, and whether they go together."""

from __future__ import annotations

import platform
import re
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version

from earface.doctor.finding import Finding

GROUP = "software"
SHOWN = ("torch", "torchvision", "pytorch-lightning", "timm", "albumentations", "opencv-python-headless", "numpy")
OPTIONAL = {
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "the check of an export",
    "faiss-cpu": "another exact search of galleries",
    "pi-heif": "photographs of iPhones",
    "pyarrow": "embeddings as a table",
}
LONGEST = 80  # characters of an import's failure


def software() -> list[Finding]:
    from earface import __version__

    found = [
        Finding(GROUP, "earface", __version__),
        Finding(GROUP, "Python", f"{platform.python_version()} on {platform.platform(terse=True)}"),
    ]
    minimum = _minimums()
    for name in SHOWN:
        found.append(_required(name, minimum.get(name, "")))
    failure = _import_failure("torchvision")
    if failure:
        advice = "install the versions of requirements.lock together: torch and torchvision come in pairs"
        found.append(Finding(GROUP, "torchvision with torch", failure, "problem", advice))
    for name, what in OPTIONAL.items():
        try:
            found.append(Finding(GROUP, name, version(name)))
        except PackageNotFoundError:
            found.append(Finding(GROUP, name, f"missing ({what})", "note", f"pip install {name}"))
    return found


def _required(name: str, minimum: str) -> Finding:
    try:
        installed = version(name)
    except PackageNotFoundError:
        return Finding(GROUP, name, "missing", "problem", f"pip install {name}{minimum and f'>={minimum}'}")
    if minimum and _numbers(installed) < _numbers(minimum):
        return Finding(GROUP, name, installed, "problem", f"pip install '{name}>={minimum}'")
    return Finding(GROUP, name, installed)


def _minimums() -> dict[str, str]:
    """The lowest version of each requirement of the installed distribution; empty where there is none."""
    try:
        declared = requires("earface") or []
    except PackageNotFoundError:
        return {}
    found = (re.match(r"([\w.-]+).*?>=\s*([\d.]+)", line) for line in declared if "extra ==" not in line)
    return {match[1]: match[2] for match in found if match}


def _numbers(written: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", written.partition("+")[0])[:3]))


def _import_failure(name: str) -> str:
    if name in sys.modules:
        return ""
    try:
        import_module(name)
    except Exception as error:  # a pair of versions that do not fit fails in many ways
        return f"{type(error).__name__}: {error}"[:LONGEST]
    return ""
