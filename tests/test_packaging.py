"""What is in the wheel and the source distribution, and what an installation of them offers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from earface.commands import COMMANDS
from tests.conftest import TINY

ROOT = Path(__file__).parents[1]
PACKAGES = {"earface", "ear_teacher", "dsr", "facial_rec", "pipeline"}
FOREIGN = ("data", "training", "utils", "tests", "core", "nn")  # packages that a user's own project may have
IMPORTS = {"ear_teacher": "EarVAE", "dsr": "DSR", "facial_rec": "EdgeFace", "pipeline": "Gallery"}

# In a project of one's own: its packages are its own, and ours work beside them.
APPLICATION = f"""
import {", ".join(FOREIGN)}
for module in ({", ".join(FOREIGN)}):
    assert module.OWN, module
{"".join(f"from {module} import {name}{chr(10)}" for module, name in IMPORTS.items())}
import torch
model = EarVAE(encoder="conv", base_channels=4, image_size=64, latent_dim=8).eval()
print(tuple(model.encode(torch.zeros(2, 3, 64, 64)).shape), DSR.__name__, EdgeFace.__name__, Gallery.__name__)
"""

# Which of the checkout's top-level names can be imported, and are the checkout's.
IMPORTABLE = """
import importlib.util, pathlib, sys
root = pathlib.Path(sys.argv[1])
for name in sorted({path.stem for path in root.iterdir()} | {"training"}):
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    places = [found.origin, *(found.submodule_search_locations or ())] if found else []
    if any(place and root in pathlib.Path(place).parents for place in places):
        print(name)
"""


def uv(*arguments: str | Path) -> None:
    """First with what is cached, as after `make setup`; then with a package index."""
    program = shutil.which("uv", path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
    assert program, "no uv beside this Python; `make setup` installs it"
    for network in (["--offline"], []):
        done = subprocess.run([program, *arguments, *network], capture_output=True, text=True, timeout=300)
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source distribution of the checkout, and a wheel of that."""
    out = tmp_path_factory.mktemp("built")
    uv("build", "--out-dir", out, ROOT)
    return out


def wheel_of(folder: Path) -> Path:
    [wheel] = folder.glob("*.whl")
    return wheel


def files_of_wheel(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}


def files_of_sdist(folder: Path) -> set[str]:
    [archive] = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        return {member.name.partition("/")[2] for member in opened if member.isfile()}


def git_files(*options: str) -> set[str]:
    """The checkout's files that git tracks, or with options others, and that are there."""
    listed = subprocess.run(["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip(f"not a checkout: {listed.stderr.strip()}")
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}


# What is in them


def test_the_wheel_holds_the_five_packages_alone(built: Path) -> None:
    names = files_of_wheel(wheel_of(built))
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == PACKAGES


def test_the_wheel_holds_every_file_of_the_packages(built: Path) -> None:
    names = files_of_wheel(wheel_of(built))
    left_out = {"ear_teacher/requirements.txt"}  # it names the lock file, which only a checkout has
    assert {name for name in git_files() if name.partition("/")[0] in PACKAGES} - left_out <= names
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert {name for name in names if name.endswith(".onnx")} == {"earface/data/ear_landmarks.onnx"}


def test_the_wheel_holds_every_program(built: Path) -> None:
    names = files_of_wheel(wheel_of(built))
    assert {f"{each.module.replace('.', '/')}.py" for each in COMMANDS.values()} <= names


def test_the_source_distribution_holds_what_git_tracks_and_no_ignored_file(built: Path) -> None:
    names = files_of_sdist(built) - {"PKG-INFO"}
    assert git_files() <= names
    assert names <= git_files("--cached", "--others", "--exclude-standard")


def test_a_users_files_in_the_checkout_are_in_neither(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for name in git_files("--cached", "--others", "--exclude-standard"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    theirs = [
        *("data/preprocessed/train_teacher.npy", "data/anna/1.jpg", "photographs/anna/1.jpg"),
        *("ear_teacher/checkpoints/last.ckpt", "ear_teacher/logs/ear_vae/hparams.yaml", "dsr/evaluation/metrics.json"),
        *("ear_teacher/eigenears/pc01.png", "ear_teacher/eigenears/eigenears.json", "gallery.npz", "runs/notes.py"),
    ]
    for name in theirs:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("theirs")
    for kind in ("--sdist", "--wheel"):  # each of the checkout itself
        uv("build", kind, "--out-dir", tmp_path / "out", checkout)
    assert not files_of_sdist(tmp_path / "out") & set(theirs)
    assert not files_of_wheel(wheel_of(tmp_path / "out")) & set(theirs)


# What an installation offers


def environment(folder: Path, *install: str | Path) -> Path:
    """An environment with this project installed, and this one's dependencies within reach; its programs' folder."""
    venv.create(folder, symlinks=True)
    programs = folder / "bin"
    site_packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    # a path alone, since reading the .pth files there would offer this checkout; read before an editable install's own
    dependencies = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site_packages / "00_dependencies.pth").write_text("\n".join(dependencies))
    uv("pip", "install", "--python", programs / "python", "--no-deps", *install)
    return programs


@pytest.fixture(scope="module", params=["wheel", "editable"])
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "editable":
        return environment(folder, "--editable", ROOT)
    return environment(folder, wheel_of(request.getfixturevalue("built")))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Somebody's project, whose packages have common names."""
    for name in FOREIGN:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("OWN = True\n")
    (tmp_path / "application.py").write_text(APPLICATION)
    return tmp_path


def run(project: Path, *command: str | Path) -> str:
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=project, env=bare, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_models_are_imported_beside_a_project_with_packages_of_its_own(programs: Path, project: Path) -> None:
    assert run(project, programs / "python", "application.py") == "(2, 8) DSR EdgeFace Gallery\n"


@pytest.mark.slow
def test_the_command_works_beside_a_project_with_packages_of_its_own(programs: Path, project: Path) -> None:
    (project / "pipeline").mkdir()
    (project / "pipeline" / "__init__.py").write_text("raise ImportError('not ours')\n")
    assert run(project, programs / "earface", "--version").startswith("earface ")
    assert run(project, programs / "earface", "--help").startswith("usage: earface COMMAND")
    assert run(project, programs / "earface", "identify", "--help").startswith("usage: ")
    small = ("--subjects", "10", "--images-per-subject", "2", "--image-size", "64", "--num-workers", "1")
    run(project, programs / "earface", "ears", "synthesize", *small, "--out", "ears")
    files = ("--train-npy", "ears/train_teacher.npy", "--val-npy", "ears/val_teacher.npy")
    run(project, programs / "earface", "ears", "train", *TINY, *files, "--num-workers", "2", "--fast-dev-run")


@pytest.mark.slow
def test_an_installation_offers_the_five_packages_alone(programs: Path, project: Path) -> None:
    installed = programs.parent.rglob("site-packages/*")
    names = {path.name for path in installed if path.suffix not in (".dist-info", ".pth")} - {"__pycache__"}
    if "_editable_impl_earface.py" in names:
        names -= {"_editable_impl_earface.py"}
        names |= set(run(project, programs / "python", "-I", "-c", IMPORTABLE, str(ROOT)).split())
    assert names == PACKAGES


@pytest.mark.slow
def test_the_unpacked_source_distribution_has_all_that_its_tests_import(built: Path, tmp_path: Path) -> None:
    [archive] = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    [folder] = tmp_path.iterdir()
    collected = run(folder, sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "-p", "no:cacheprovider")
    assert "tests/test_packaging.py" in collected


def test_every_place_that_names_the_version_names_the_same_one() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_image_copies_every_package_and_nothing_that_is_missing() -> None:
    copied = re.findall(r"^COPY (.+) /source/", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*wheel["packages"], "pyproject.toml", "README.md", "LICENSE"} == names
    assert all((ROOT / name).exists() for name in names)
    kept = (ROOT / ".dockerignore").read_text()
    assert all(f"!{name}" in kept for name in names)
