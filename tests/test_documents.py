"""What the documents say to type works: command lines, snippets, and the tables of commands."""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from ear_teacher.train import main as train
from earface.commands import COMMANDS
from earface.commands import main as earface
from earface.core import command_line
from earface.reports.run_kinds import RUN_KINDS
from tests.conftest import PERCEPTUAL, TINY, VLR
from tests.support.documents import COMMANDS_PAGE, DOCUMENTS, PROJECT, TUTORIALS, fenced, lines, spans, table
from tests.support.shared_files import DOCUMENTS_OF_ORIGIN, needs
from tests.support.training import watch_first_step

pytestmark = pytest.mark.runs

COMMANDS_OF_ORIGIN = PROJECT / "tests" / "commands_of_origin.txt"
ORIGIN_PAGE = PROJECT / "docs" / "COMING_FROM.md"
PROGRAM = re.compile(r"python (-m (data|earface|ear_teacher|dsr|facial_rec|pipeline)\.|[\w/]+\.py)|earface [a-z]")
COMMAND = re.compile(rf"^earface ({'|'.join(sorted(COMMANDS, key=len, reverse=True))})(?= |$)")


class Row(NamedTuple):
    """A row of the table of what the documents of origin type."""

    folder: str  # below the project's
    typed: tuple[str, ...]  # there
    here: tuple[str, ...]  # the same, or what stands in for it


def expanded(cell: str) -> tuple[str, ...]:
    """The code of a cell; options alone are given to the command that comes first."""
    first, *others = spans(cell)
    return (first, *(f"{first} {each}" if each.startswith("--") else each for each in others))


def rows() -> Iterator[Row]:
    for typed, here in table(ORIGIN_PAGE):
        place = re.match(r"in `(\S+)/`: ", typed)
        written = expanded(typed[place.end() :] if place else typed)
        yield Row(place[1] if place else ".", written, written if here.startswith("the same") else expanded(here))


ROWS = list(rows())
SNIPPETS = [(row.folder, code) for row in ROWS for code in row.here if re.match("from |import ", code)]


def documented() -> dict[str, str]:
    """Every command line of the documents that starts a program of the project, and the folder it is typed in; those of
    the runs' pages too."""
    found = {line: row.folder for row in ROWS for line in row.here}
    for path in DOCUMENTS:
        text = path.read_text()
        typed = [each for block in fenced(text, "bash") for each in lines(block)]
        inline = spans(text) if path != ORIGIN_PAGE else []  # whose rows are above
        found |= dict.fromkeys((each for each in [*typed, *inline] if each not in found), ".")
    on_pages = [command for kind in RUN_KINDS.values() for command in kind.commands]
    found |= dict.fromkeys((each.format(run="checkpoints", parent="facial_rec") for each in on_pages), ".")
    return {line: folder for line, folder in found.items() if PROGRAM.match(line)}


class Parsed(BaseException):
    """Raised when a program has its options, which it carries."""


def stopping(parse: Callable[..., Any]) -> Callable[..., Any]:
    def parsed(*args: Any, **kwargs: Any) -> Any:
        raise Parsed(parse(*args, **kwargs))

    return parsed


def options_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a program makes of its command line, which is `python` with these words.

    Raises SystemExit for what it refuses.
    """
    path = Path(words[0]).resolve()
    name = words[1] if words[0] == "-m" else ".".join(path.relative_to(PROJECT).with_suffix("").parts)
    import_module(name)  # first, so that what is replaced below is in no module but for this while
    real = command_line.parse_options
    for module in list(sys.modules.values()):
        if vars(module).get("parse_options") is real:
            monkeypatch.setattr(module, "parse_options", stopping(real))
    monkeypatch.setattr(ArgumentParser, "parse_args", stopping(ArgumentParser.parse_args))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", words[words[0] == "-m" :])
    try:
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
    except Parsed as stop:
        return stop.args[0]


def leaves(value: Any) -> Iterator[str]:
    """The numbers and strings of an option, each as one text however it is written."""
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from leaves(each)
    else:
        text = str(value).lower().rstrip("/")
        with contextlib.suppress(ValueError):
            text = repr(float(text))
        yield text


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize(("line", "folder"), documented().items())
def test_a_documented_command_is_understood(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, folder: str
) -> None:
    """Each option exists, and each value that is typed is one that the program has."""
    monkeypatch.chdir(PROJECT / folder)
    words = shlex.split(COMMAND.sub(lambda found: f"python -m {COMMANDS[found[1]].module}", line))[1:]
    try:
        options = options_of(words, monkeypatch)
    except SystemExit:
        assert {"--help", "--help-all"} & {*words}, capsys.readouterr().err
        return
    typed = words[2 if words[0] == "-m" else 1 :]
    values = [word for before, word in pairwise(["", *typed]) if not word.startswith("--") and before != "--config"]
    assert {text for value in values for text in leaves(value)} <= set(leaves(list(vars(options).values())))


def test_every_command_of_the_documents_of_origin_is_in_the_table() -> None:
    """Their commands and imports stand in a file of the tests; a row with code begins with its import."""
    typed = {each for row in ROWS for each in row.typed}
    known = typed | {code.partition(";")[0] for code in typed} | {"cd ear_teacher", "cd technical"}
    listed = COMMANDS_OF_ORIGIN.read_text().splitlines()
    assert [line for line in listed if line not in known] == []
    assert len(listed) > 40


@needs(DOCUMENTS_OF_ORIGIN)
def test_the_list_of_their_commands_is_whole() -> None:
    texts = [path.read_text() for path in sorted(DOCUMENTS_OF_ORIGIN.glob("*.md"))]
    commands = [line for text in texts for block in fenced(text, "bash") for line in lines(block)]
    commands += [each for text in texts for each in spans(text) if each.startswith("python ")]
    codes = "".join(code for text in texts for code in fenced(text, "python"))
    imports = [line for line in codes.splitlines() if line.startswith("from ")]
    assert COMMANDS_OF_ORIGIN.read_text().splitlines() == sorted({*commands, *imports})


# The command `earface`


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_the_table_of_the_command_names_every_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`earface` and `python -m` show the same help."""
    named = {
        command: module
        for commands, modules in table(COMMANDS_PAGE)
        for command, module in zip(spans(commands), spans(modules), strict=True)
    }
    assert named.keys() == COMMANDS.keys()
    for command, module in named.items():
        with pytest.raises(SystemExit, match=r"^0$"):
            earface([*command.split(), "--help"])
        shown = capsys.readouterr().out
        monkeypatch.setattr(sys, "argv", [module, "--help"])
        with pytest.raises(SystemExit, match=r"^0$"):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        assert capsys.readouterr().out == shown


# In a checkout that is not installed


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's folder as far as the ear teacher needs it."""
    folder = tmp_path_factory.mktemp("checkout")
    made = shutil.ignore_patterns("__pycache__", "checkpoints", "logs", "evaluation", "*.png")
    for package in ("earface", "ear_teacher"):
        shutil.copytree(PROJECT / package, folder / package, ignore=made)
    return folder


@pytest.fixture(scope="module")
def checkout(packages: Path, ear_set: Path) -> Path:
    """The same with a user's ears and one epoch of training on them, all where the default paths are."""
    shutil.copytree(ear_set, packages / "data" / "preprocessed")
    with contextlib.chdir(packages):
        assert train([*TINY, "--epochs", "1"]) == 0
    return packages


def started(checkout: Path, folder: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`python` with these words in a folder of the checkout; installed is what the project needs, not the project."""
    environment = os.environ | {"PYTHONPATH": sysconfig.get_path("purelib")}
    command = [sys.executable, "-S", *words]  # -S: no path files, by one of which the project is installed
    return subprocess.run(command, cwd=checkout / folder, env=environment, capture_output=True, text=True)


CHECKS = """
import ear_teacher.detector.model, ear_teacher.model, pathlib, torch
assert pathlib.Path(ear_teacher.__file__).is_relative_to(pathlib.Path.cwd())
assert EarVAE is ear_teacher.model.EarVAE is ear_teacher.EarVAE
assert EarDetector is ear_teacher.detector.model.EarDetector is ear_teacher.EarDetector
assert torch.allclose(mu, model.encode_posterior(images)[0], atol=1e-5) and mu.shape == (8, 8)  # of `model.encoder`
kept = detector.boxes.state_dict()
assert all(torch.equal(kept[name], there) for name, there in model.state_dict().items() if name in kept)
print("done")
"""


def test_the_snippets_of_the_packages_folder_work_where_nothing_is_installed(checkout: Path) -> None:
    codes = [code for folder, code in SNIPPETS if folder == "ear_teacher"]
    assert len(codes) == 2
    images = "import torch; images = torch.rand(8, 3, 64, 64) * 2 - 1"
    (checkout / "ear_teacher" / "mine.py").write_text("\n".join([images, *codes, CHECKS]))
    done = started(checkout, ".", "ear_teacher/mine.py")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize(
    ("folder", "script", "option"),
    [
        (".", "ear_teacher/train.py", "--latent-dim"),
        ("ear_teacher", "train.py", "--latent-dim"),
        (".", "ear_teacher/eigenears/create_eigenears.py", "--sigmas"),
        ("ear_teacher", "eigenears/create_eigenears.py", "--sigmas"),
        ("ear_teacher/eigenears", "create_eigenears.py", "--sigmas"),
    ],
)
def test_a_script_starts_where_nothing_is_installed(packages: Path, folder: str, script: str, option: str) -> None:
    done = started(packages, folder, script, "--help")
    assert done.returncode == 0, done.stderr
    assert option in done.stdout


@pytest.mark.slow
def test_the_default_paths_start_at_the_projects_folder_also_inside_the_package(checkout: Path) -> None:
    """`python train.py` there finds the run made by `python -m ear_teacher.train`; with a path, all start there."""
    done = started(checkout, "ear_teacher", "train.py", *TINY, "--epochs", "1")
    assert "finished: ear_teacher/checkpoints/last.ckpt" in done.stdout, done.stderr
    other = started(checkout, "ear_teacher", "train.py", *TINY, "--train-npy", "../data/preprocessed/train_teacher.npy")
    assert other.stderr.startswith("error: data/preprocessed/val_teacher.npy: no such file")


@pytest.mark.slow
def test_eigenears_are_made_in_the_packages_folder(checkout: Path) -> None:
    (row,) = [row for row in ROWS if row.folder != "." and "create_eigenears" in row.here[0]]
    done = started(checkout, row.folder, *shlex.split(row.here[0])[1:])
    assert done.returncode == 0, done.stderr
    assert (checkout / "ear_teacher" / "eigenears" / "eigenears_grid.png").is_file()


# What runs


def ran(code: str, given: dict[str, Any]) -> dict[str, Any]:
    """What a snippet has made of the names that it is given."""
    names = dict(given)
    exec(code, names)
    return {name: value for name, value in names.items() if name not in given and name != "__builtins__"}


def assert_finite(names: dict[str, Any]) -> None:
    """A snippet has made something, and its tensors are numbers."""
    assert names
    for name, value in names.items():
        if isinstance(value, torch.Tensor):
            assert value.isfinite().all(), name


@pytest.mark.parametrize(("folder", "code"), [each for each in SNIPPETS if each[0] == "."])
def test_a_snippet_runs(checkout: Path, monkeypatch: pytest.MonkeyPatch, folder: str, code: str) -> None:
    monkeypatch.chdir(checkout / folder)
    assert_finite(ran(code, {"images": torch.rand(3, 3, 64, 64) * 2 - 1}))


@pytest.mark.parametrize("code", [shlex.split(line)[2] for row in ROWS for line in row.here if "python -c" in line])
def test_the_size_of_a_face_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    face = Path("dataset/train_processed/vlr_images/001_01_01_010_00_crop_128.png")
    face.parent.mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(face)
    exec(code)
    assert capsys.readouterr().out == "(32, 32)\n"


def test_tensorboard_is_pointed_at_the_events_of_a_run(checkout: Path) -> None:
    (run,) = (checkout / "ear_teacher" / "logs" / "ear_vae").rglob("events.out.tfevents.*")
    folders = {
        checkout / row.folder / line.split()[-1] for row in ROWS for line in row.here if line.startswith("tensorboard")
    }
    assert len(folders) == 2
    assert folders <= set(run.parents)


@pytest.mark.parametrize("folder", [".", "ear_teacher"])
def test_the_requirements_are_those_of_the_lock_file(folder: str) -> None:
    """Where the environment is the lock file's, pip finds nothing to install, and asks no index."""
    (line,) = [line for row in ROWS for line in row.here if row.folder == folder and line.startswith("pip install")]
    command = [sys.executable, "-m", *shlex.split(line), "--dry-run", "--no-deps", "--no-index", "--no-color"]
    done = subprocess.run(command, cwd=PROJECT / folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = re.findall(r"^[\w.-]+==", (PROJECT / "requirements.lock").read_text(), re.MULTILINE)
    assert 0 < done.stdout.count("already satisfied") <= len(wanted)
    assert "Would install" not in done.stdout


TRAINERS = {
    "ear_teacher.train": (*TINY, "--perceptual-backbone", PERCEPTUAL, "--perceptual-weights", "perceptual.pth"),
    "dsr.train_dsr": (
        *("--vlr-size", VLR, "--base-channels", "8", "--residual-blocks", "1", "--batch-size", "8"),
        *("--recognizer", "none", "--second-recognizer", "none", "--lambda-identity", "0"),
        *("--lambda-feature-match", "0", "--lambda-perceptual", "0"),
        *("--precision", "32", "--num-workers", "0", "--progress", "none"),
    ),
    "facial_rec.finetune_edgeface": (
        *("--inputs", "bicubic", "--vlr-size", VLR, "--batch-size", "4", "--precision", "32"),
        *("--num-workers", "0", "--progress", "none", "--weights", "edgeface_xxs_q.pt"),
    ),
}


def trainings() -> list[tuple[str, str]]:
    """Module and options of the trainings in the table, but for those of another network or of a user's own files."""
    found = []
    for line in (line for row in ROWS for line in row.here):
        words = re.match(r"python (?:-m )?(\S+) ?((?!.*(?:--encoder |--train-npy |\.ckpt)).*)", line)
        module = words and re.sub(r"^(ear_teacher/)?train\.py$", "ear_teacher.train", words[1])
        if words and module in TRAINERS:
            found.append((module, words[2]))
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def everything(checkout: Path, face_set: Path, edgeface: Path) -> Path:
    """The checkout's folder with what the documents' snippets name: faces, photographs, trained models, tables."""
    import timm

    from dsr.train_dsr import main as train_dsr
    from ear_teacher.detector.train import main as train_detector
    from ear_teacher.extract import main as extract
    from earface.synthetic.draw_scenes import main as draw_scenes
    from facial_rec.embed import main as embed

    shutil.copytree(face_set, checkout / "dataset")
    shutil.copytree(checkout / "data/preprocessed/images", checkout / "data/preprocessed/ears")  # prepared
    shutil.copy(edgeface, checkout / "edgeface_xxs_q.pt")
    torch.save(timm.create_model(PERCEPTUAL.removeprefix("timm:")).state_dict(), checkout / "perceptual.pth")
    few = ("--epochs", "1", "--num-workers", "0", "--progress", "none", "--precision", "32")
    small = ("--encoder", "conv", "--base-channels", "4", "--image-size", "64", "--pyramid-width", "16")
    with contextlib.chdir(checkout):
        for part, seed in (("train", "1"), ("val", "2")):
            size = ("--photographs", "8", "--width", "96", "--height", "72")
            assert draw_scenes(["--out", f"scenes/{part}", *size, "--seed", seed]) == 0
        photographs = ("--train-json", "scenes/train/annotations.json", "--val-json", "scenes/val/annotations.json")
        assert train_detector([*photographs, *small, "--encoder-weights", "none", "--crop-size", "32", *few]) == 0
        assert train_dsr([*TRAINERS["dsr.train_dsr"], "--vlr-size", "32", "--epochs", "1"]) == 0
        for name in ("ears.npz", "ears.parquet"):
            assert extract(["--input", "data/preprocessed/val_teacher.npy", "--out", name]) == 0
        for face in Path("dataset/train_processed/hr_images").iterdir():
            person = Path("people") / face.name.split("_")[0]
            person.mkdir(parents=True, exist_ok=True)
            shutil.copy(face, person)
        assert embed(["--input", "people", "--weights", "edgeface_xxs_q.pt", "--out", "gallery.npz"]) == 0
    return checkout


@pytest.mark.slow
@pytest.mark.parametrize(("module", "options"), trainings())
def test_a_documented_training_runs_a_batch(
    everything: Path, monkeypatch: pytest.MonkeyPatch, module: str, options: str
) -> None:
    """As typed, but for a small network, and on the CPU."""
    monkeypatch.chdir(everything)
    step = watch_first_step(monkeypatch)
    last = ("--accelerator", "cpu", "--devices", "1", "--fast_dev_run")
    assert import_module(module).main([*shlex.split(options), *TRAINERS[module], *last]) == 0
    assert step.changed()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("document", "code"),
    [
        (str(path.relative_to(PROJECT)), code)
        for path in DOCUMENTS
        if path not in TUTORIALS
        for code in fenced(path.read_text(), "python")
    ],
)
def test_a_documents_code_runs(everything: Path, monkeypatch: pytest.MonkeyPatch, document: str, code: str) -> None:
    monkeypatch.chdir(everything)
    rng = np.random.default_rng(0)
    given = {
        "images": torch.rand(3, 3, 64, 64) * 2 - 1,
        "vlr": torch.rand(3, 3, 32, 32) * 2 - 1,
        "crops": torch.rand(3, 3, 128, 128) * 2 - 1,
        "photograph": rng.integers(0, 256, (72, 96, 3), dtype=np.uint8),
        "embeddings": np.eye(512, dtype=np.float32)[:3],
    }
    assert_finite(ran(f"import json, numpy, pyarrow.parquet, torch\n{code}", given))
