"""The licence of every package of requirements.lock, by its metadata: `make licences`.

`python -m benchmarks.licences` does it, too. The exit code is 1 where a licence is neither permissive nor among
EXCEPTIONS, is not known, or where an exception is of no use any more. Libraries inside wheels are not looked at.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from earface.core.errors import entry_point

LOCK = Path(__file__).parents[1] / "requirements.lock"
PERMISSIVE = {
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0"),
    *("CNRI-Python", "HPND", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Unlicense", "Zlib"),
    # as classifiers and older fields write them
    *("Apache 2.0", "Apache 2.0 License", "Apache Software License", "BSD", "3-Clause BSD License", "BSD License"),
    *("FreeBSD", "ISC License (ISCL)", "MIT License", "Python Software Foundation License"),
}
MPL, OLD_MPL = "MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)"
NVIDIA = "LicenseRef-NVIDIA-Proprietary"
CUDA = (
    "CUDA's libraries, free to use and to pass on by NVIDIA's terms; torch brings them on Linux, its CPU builds do not"
)


class Accepted(NamedTuple):
    pattern: str  # of the package's name, whole
    licence: str
    reason: str


EXCEPTIONS = (
    Accepted("certifi", OLD_MPL, "a list of certificates, used unchanged; copyleft of its own files alone"),
    Accepted("tqdm", f"{MPL} AND MIT", "used unchanged; copyleft of its own files alone"),
    Accepted("pi-heif", "GNU Lesser General Public License v3 (LGPLv3)", "optional; a library of its own, unchanged"),
    Accepted("hypothesis", MPL, "runs tests; copyleft of its own files alone"),
    Accepted("pathspec", OLD_MPL, "of mypy; copyleft of its own files alone"),
    Accepted(
        "docutils",
        "Public Domain AND BSD License AND GNU General Public License (GPL)",
        "makes the documents' site; the GPL is that of an Emacs mode, which is not used",
    ),
    Accepted("nvidia-(?!cusparselt).*", NVIDIA, CUDA),
    Accepted("nvidia-cusparselt-.*", "NVIDIA Proprietary Software", CUDA),
    Accepted("cuda-toolkit", "", "names NVIDIA's packages, and holds no file"),
)


def licence_of(package: Distribution) -> str:
    """Its SPDX expression, or its classifiers joined by AND, or its free text; empty where it has none of them."""
    fields = package.metadata
    if expression := fields.get("License-Expression"):
        return expression
    names = [each.rpartition(" :: ")[2] for each in fields.get_all("Classifier", []) if each.startswith("License :: ")]
    names = [name for name in names if name not in ("OSI Approved", "DFSG approved")]
    return " AND ".join(names) or (fields.get("License") or "").partition("\n")[0]


def is_permissive(licence: str) -> bool:
    """Whether everything that an expression asks for is permissive.

    OR is read before AND, whatever the brackets say: that never admits what the expression does not.
    """
    return all(any(_is_known(each) for each in part.split(" OR ")) for part in licence.split(" AND "))


def _is_known(name: str) -> bool:
    return name in PERMISSIVE or name.strip("() ") in PERMISSIVE


def locked(lock: Path) -> Iterator[Requirement]:
    for line in lock.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", " ", "-")):
            yield Requirement(line)


def audit(lock: Path) -> tuple[list[tuple[str, str, str, str]], list[str]]:
    """(name, version, licence, verdict) of each package for this system, and what is wrong."""
    rows, wrong, used = [], [], set()
    for each in locked(lock):
        if each.marker and not each.marker.evaluate():
            continue
        try:
            package = distribution(each.name)
        except PackageNotFoundError:
            wrong.append(f"{each.name} is not installed")
            continue
        licence = licence_of(package)
        verdict = "permissive"
        if not is_permissive(licence):
            accepted = [it for it in EXCEPTIONS if re.fullmatch(it.pattern, each.name) and it.licence == licence]
            used.update(accepted)
            verdict = accepted[0].reason if accepted else "NOT PERMISSIVE" if licence else "UNKNOWN"
            if not accepted:
                wrong.append(f"{each.name} {package.version}: {licence or 'no licence in its metadata'}")
        rows.append((each.name, package.version, licence, verdict))
    wrong += [f"no package needs the exception of {it.pattern} any more" for it in EXCEPTIONS if it not in used]
    return rows, wrong


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.licences", description=__doc__)
    parser.parse_args(argv)
    rows, wrong = audit(LOCK)
    for name, version, licence, verdict in rows:
        print(f"{name:<30}{version:<18}{licence:<45} {verdict}")
    others = sum(1 for _ in locked(LOCK)) - len(rows)
    permissive = sum(verdict == "permissive" for *_, verdict in rows)
    print(
        f"{len(rows)} packages: {permissive} permissive, {len(rows) - permissive} others; "
        f"{others} of the lock are for other systems"
    )
    for line in wrong:
        print(line, file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
