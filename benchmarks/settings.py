"""The numerical tests under other kernels, threads and Pythons: `make test-settings`.

`python -m benchmarks.settings` does it, too. Each setting is what another processor would choose, or another user would
set; a test that is green under all of them asks for nothing that one processor happens to give. `--environments FOLDER`
holds an environment for each other set of versions: requirements.lock under other Pythons (FOLDER/3.12, ...), and the
oldest that pyproject.toml admits (FOLDER/oldest); one that is not there is made by uv, and left out with a note where
it cannot. `make test-versions` runs a short suite in these.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NUMERICAL = (  # tests whose outcome may depend on kernels
    "tests/test_bit_equality.py",
    "tests/test_old_files.py",
    "tests/dsr/test_losses.py",
    "tests/dsr/test_model.py",
    "tests/dsr/test_upscale.py",
    "tests/dsr/test_export.py",
    "tests/ear_teacher/test_baselines.py",
    "tests/ear_teacher/test_eigenears.py",
    "tests/ear_teacher/test_export.py",
    "tests/ear_teacher/test_extract.py",
    "tests/ear_teacher/test_losses.py",
    "tests/ear_teacher/test_model.py",
    "tests/ear_teacher/test_resume.py",
    "tests/ear_teacher/test_sam.py",
    "tests/ear_teacher/detector/test_landmarker.py",
    "tests/ear_teacher/detector/test_losses.py",
    "tests/ear_teacher/detector/test_predict.py",
    "tests/earface/data/test_degradation.py",
    "tests/earface/data/test_ear_alignment.py",
    "tests/earface/data/test_ear_contract.py",
    "tests/earface/data/test_ear_networks.py",
    "tests/earface/data/test_jpeg.py",
    "tests/earface/metrics",
    "tests/earface/nn",
    "tests/facial_rec/test_contract.py",
    "tests/facial_rec/test_embed.py",
    "tests/facial_rec/test_model.py",
    "tests/pipeline/test_configurations.py",
    "tests/pipeline/test_enroll_identify.py",
    "tests/pipeline/test_gallery.py",
    "tests/pipeline/test_search.py",
)
SHORT = (  # what breaks with other versions: options, readers, all trainers and commands, exports, stored runs
    *("-m", ""),  # slow ones, too
    "tests/earface/core/test_command_line.py",
    "tests/earface/data/test_annotations.py",
    "tests/earface/data/test_images.py",
    "tests/earface/data/test_npy.py",
    "tests/earface/data/test_picture_formats.py",
    "tests/earface/data/test_tables.py",
    "tests/earface/nn/test_checkpoint.py",
    "tests/dsr/test_export.py",
    "tests/ear_teacher/test_export.py",
    "tests/pipeline/test_gallery.py",
    "tests/test_no_network.py",
    "tests/test_old_files.py",
    "tests/test_python_api.py",
)
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}
SETTINGS: dict[str, Mapping[str, str]] = {
    "as it is": {},
    **{
        f"{name}={value}": {name: value}
        for name, value in (
            ("MKL_CBWR", "COMPATIBLE"),
            ("MKL_CBWR", "AVX2"),
            ("MKL_ENABLE_INSTRUCTIONS", "AVX2"),
            ("ATEN_CPU_CAPABILITY", "avx2"),
            ("ATEN_CPU_CAPABILITY", "default"),
            ("ONEDNN_MAX_CPU_ISA", "AVX2"),
        )
    },
    "AVX2 everywhere": AVX2,
    **{f"{count} threads": {"OMP_NUM_THREADS": str(count), "OPENBLAS_NUM_THREADS": str(count)} for count in (2, 3, 4)},
}
PYTHON, EXTRAS = "3.11", "parquet,faiss,heif,onnx"  # of the oldest versions
TOOLS = ("editables", "pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "psutil")
LOCKED = ("-r", str(ROOT / "requirements.lock"))
VERSIONS = {  # name: Python, and what uv installs, in turn
    "3.12": ("3.12", [LOCKED]),
    "3.13": ("3.13", [LOCKED]),
    "oldest": (PYTHON, [("--resolution", "lowest-direct", f"{ROOT}[{EXTRAS}]"), TOOLS]),
}


@dataclass(frozen=True)
class Outcome:
    passed: int
    failed: list[str]  # their names; a run that ended early is one
    skipped: int
    seconds: float


def run(python: str, environment: Mapping[str, str], tests: list[str], workers: int) -> Outcome:
    """The tests in a process of their own."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [python, "-m", "pytest", f"--junitxml={report}", "-p", "no:cacheprovider", "-n", str(workers), *tests]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if done.returncode not in (0, 1) or not report.is_file():
            return Outcome(
                0, [f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-500:]}"], 0, seconds
            )
        cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    names = [f"{case.get('classname')}::{case.get('name')}" for case in failed]
    return Outcome(len(cases) - len(failed) - skipped, names, skipped, seconds)


def interpreter(folder: Path, name: str) -> Path | None:
    """That of an environment of VERSIONS, made where it is not there; None where it cannot be, with a note."""
    home = folder / name
    version, installed = VERSIONS[name]
    python = home / "bin" / "python"
    if python.is_file():
        return python
    uv = str(Path(sys.executable).with_name("uv"))
    install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    steps = [
        [uv, "venv", "--quiet", "--python", version, str(home)],
        *([*install, *what] for what in installed),
        [*install, "--no-deps", "--editable", str(ROOT)],
    ]
    for step in steps:
        try:
            done = subprocess.run(step, capture_output=True, text=True)
        except FileNotFoundError:
            print(f"{name} versions are left out: there is no uv beside {sys.executable}")
            return None
        if done.returncode != 0:
            shutil.rmtree(home, ignore_errors=True)  # so that the next time does not take it for a whole one
            print(f"{name} versions are left out: {' '.join(step[:3])}: {done.stderr.strip()[-300:]}")
            return None
    return python


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="settings whose name holds one of these")
    parser.add_argument("--tests", nargs="+", default=list(NUMERICAL), help="files instead of the numerical ones")
    parser.add_argument("--short", action="store_const", dest="tests", const=list(SHORT), help="the suite of versions")
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1), help="of pytest-xdist")
    parser.add_argument(
        "--environments", type=Path, help="a folder of environments of other versions: 3.12, 3.13, oldest"
    )
    args = parser.parse_args()
    runs = {name: (sys.executable, setting) for name, setting in SETTINGS.items()}
    for name in VERSIONS:
        if args.environments is None:
            print(f"{name} versions are left out: give --environments")
        elif (python := interpreter(args.environments.resolve(), name)) is not None:
            runs[f"{name} versions"] = (str(python), {})
    chosen = {name: each for name, each in runs.items() if not args.only or any(text in name for text in args.only)}
    print("| setting | passed | failed | skipped | seconds |\n|---|---|---|---|---|", flush=True)
    outcomes = {}
    for name, (python, setting) in chosen.items():
        workers = max(1, args.workers // int(setting.get("OMP_NUM_THREADS", 1)))  # no more threads than cores
        found = outcomes[name] = run(str(python), setting, args.tests, workers)
        print(f"| {name} | {found.passed} | {len(found.failed)} | {found.skipped} | {found.seconds:.0f} |", flush=True)
    for name, found in outcomes.items():
        for test in found.failed:
            print(f"{name}: {test}")
    return int(any(found.failed for found in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
