"""The command line of a trainer, on the ear teacher's real options."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import dsr.config
import facial_rec.config
from dsr.config import DSRTrainingConfig
from ear_teacher.config import ALIASES, HELP, PRESETS, EarVAETrainingConfig
from ear_teacher.detector import config as detector
from ear_teacher.detector.config import EarDetectorTrainingConfig
from earface.core.command_line import parse_options, write_options
from earface.core.errors import InputError, OneLineParser
from earface.core.notices import as_flags
from earface.core.options import option, to_plain
from facial_rec.config import EdgeFaceTrainingConfig


def parse(*argv: str) -> EarVAETrainingConfig:
    recipes = {"preset_field": "encoder", "presets": PRESETS}
    return parse_options(EarVAETrainingConfig, argv, prog="ears", aliases=ALIASES, layout=HELP, **recipes)


def refusal(*argv: str) -> str:
    """The line that the command prints."""
    with pytest.raises(InputError) as caught:
        parse(*argv)
    message = as_flags(str(caught.value))
    assert "\n" not in message
    return message


REFERENCE_FLAGS = (  # DESIGN, section 6: flag, value, field it sets, what the field then holds
    ("train-npy", "a.npy", "train_npy", ("a.npy",)),
    ("val-npy", "b.npy", "val_npy", ("b.npy",)),
    ("train-data", "a.npy", "train_npy", ("a.npy",)),
    ("val-data", "b.npy", "val_npy", ("b.npy",)),
    ("epochs", "7", "epochs", 7),
    ("batch-size", "5", "batch_size", 5),
    ("lr", "2e-3", "lr", 2e-3),
    ("learning-rate", "2e-3", "lr", 2e-3),
    ("weight-decay", "0.25", "weight_decay", 0.25),
    ("latent-dim", "33", "latent_dim", 33),
    ("in-channels", "1", "in_channels", 1),
    ("base-channels", "12", "base_channels", 12),
    ("image-size", "96", "image_size", 96),
    ("resnet-version", "resnet18", "encoder", "resnet18"),
    ("freeze-layers", "2", "freeze_layers", 2),
    ("warmup-epochs", "1.5", "warmup_epochs", 1.5),
    ("accumulate-grad-batches", "4", "accumulate_grad_batches", 4),
    ("perceptual-weight", "0.5", "perceptual_weight", 0.5),
    ("ssim-weight", "0.25", "ssim_weight", 0.25),
    ("edge-weight", "0.125", "edge_weight", 0.125),
    ("contrastive-weight", "0.75", "contrastive_weight", 0.75),
    ("center-weight", "0.375", "center_weight", 0.375),
    ("kl-weight", "0.5", "kl_weight", 0.5),
    ("kld-weight", "0.5", "kl_weight", 0.5),
    ("kl-anneal-strategy", "cyclic", "kl_anneal_strategy", "cyclic"),
    ("kl-anneal-epochs", "3", "kl_anneal_epochs", 3),
    ("kl-anneal-threshold-psnr", "21.5", "kl_anneal_threshold_psnr", 21.5),
    ("kld-anneal-strategy", "monotonic", "kl_anneal_strategy", "monotonic"),
    ("kld-anneal-cycles", "9", "kl_anneal_cycles", 9),
    ("kld-anneal-ratio", "0.75", "kl_anneal_ratio", 0.75),
    ("kld-anneal-start", "0.125", "kl_anneal_start", 0.125),
    ("kld-anneal-end", "0.875", "kl_anneal_end", 0.875),
    ("accelerator", "cpu", "accelerator", "cpu"),
    ("devices", "2", "devices", "2"),
    ("precision", "32", "precision", "32"),
    ("precision", "16", "precision", "16"),
    ("precision", "bf16", "precision", "bf16"),
    ("precision", "bf16-mixed", "precision", "bf16-mixed"),
    ("num-workers", "3", "num_workers", 3),
    ("checkpoint-dir", "c", "checkpoint_dir", "c"),
    ("log-dir", "l", "log_dir", "l"),
    ("resume", "never", "resume", "never"),
    ("fast-dev-run", "true", "fast_dev_run", True),
    ("seed", "11", "seed", 11),
    ("compile", "true", "compile", True),
    ("compile-mode", "max-autotune", "compile_mode", "max-autotune"),
)


@pytest.mark.parametrize("spell", [str, lambda flag: flag.replace("-", "_")], ids=["dashes", "underscores"])
@pytest.mark.parametrize(("flag", "value", "field", "expected"), REFERENCE_FLAGS)
def test_a_flag_of_the_references_sets_its_field_and_nothing_else(
    flag: str, value: str, field: str, expected: Any, spell: Any
) -> None:
    assert getattr(EarVAETrainingConfig(), field) != expected
    assert parse(f"--{spell(flag)}", value) == dataclasses.replace(EarVAETrainingConfig(), **{field: expected})


@pytest.mark.parametrize(("alias", "field"), ALIASES.items())
def test_an_alias_reaches_its_field(alias: str, field: str) -> None:
    kind = type(getattr(EarVAETrainingConfig(), field))
    if kind is tuple:
        assert getattr(parse(f"--{alias}", "a", "b"), field) == ("a", "b")
        return
    value = {float: "0.625", int: "3", str: "linear" if field.endswith("strategy") else "cpu"}[kind]
    if field == "encoder":
        value = "resnet34"
    assert getattr(parse(f"--{alias}", value), field) == kind(value)
    assert getattr(parse(f"--{alias}={value}"), field) == kind(value)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("--crop-to-bbox",), True),
        (("--crop_to_bbox", "--epochs", "3"), True),
        (("--epochs", "3", "--crop-to-bbox"), True),
        (("--crop-to-bbox=true",), True),
        (("--crop-to-bbox", "true"), True),
        (("--crop-to-bbox", "false"), False),
        (("--no-crop-to-bbox",), False),
        (("--crop-to-bbox", "--no_crop_to_bbox"), False),
    ],
)
def test_a_boolean_flag_may_stand_alone(argv: tuple[str, ...], expected: bool) -> None:
    assert parse(*argv).crop_to_bbox is expected


@dataclasses.dataclass(frozen=True)
class Counts:
    """Numbers of things, of which one may be none."""

    shown: int = option(8, "how many", low=0)
    steps: int = option(5, "at least two", low=2)


def test_none_of_what_is_counted_may_be_asked_for_by_name() -> None:
    assert parse_options(Counts, ["--no-shown", "--steps", "3"], prog="p") == Counts(0, 3)
    with pytest.raises(InputError, match="no-steps"):
        parse_options(Counts, ["--no-steps"], prog="p")


@dataclasses.dataclass(frozen=True)
class Several:
    """An option of several values."""

    files: tuple[str, ...] = option((), "files")
    count: int = option(1, "another")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("--files", "a b", "-c", "1", "--count", "2"), (("a b", "-c", "1"), 2)),
        (("--count", "2", "--files", "a,b"), (("a,b",), 2)),
        (("--files=a", "--count=2"), (("a",), 2)),
        ((), ((), 1)),
    ],
)
def test_a_tuple_takes_the_values_up_to_the_next_flag(argv: tuple[str, ...], expected: tuple[Any, ...]) -> None:
    options = parse_options(Several, argv, prog="p")
    assert (tuple(options.files), options.count) == expected


def test_a_tuple_from_a_file_is_a_list(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("files: [a, b]")
    assert tuple(parse_options(Several, ("--config", f"{tmp_path}/run.yaml"), prog="p").files) == ("a", "b")
    (tmp_path / "run.yaml").write_text("files: a")
    with pytest.raises(InputError, match=r"^`files` a: expected a list$"):
        parse_options(Several, ("--config", f"{tmp_path}/run.yaml"), prog="p")


def test_an_encoder_brings_its_preset() -> None:
    assert parse("--encoder", "conv") == dataclasses.replace(EarVAETrainingConfig(), encoder="conv", **PRESETS["conv"])


@pytest.mark.parametrize("argv", [("--lr", "0.5", "--encoder", "conv"), ("--encoder", "conv", "--lr", "0.5")])
def test_a_flag_overrides_the_preset(argv: tuple[str, ...]) -> None:
    expected = PRESETS["conv"] | {"encoder": "conv", "lr": 0.5}
    assert parse(*argv) == dataclasses.replace(EarVAETrainingConfig(), **expected)


def test_a_file_overrides_the_preset_that_it_names(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("encoder: conv\nlr: 0.25\n")
    expected = PRESETS["conv"] | {"encoder": "conv", "lr": 0.25}
    assert parse("--config", str(file)) == dataclasses.replace(EarVAETrainingConfig(), **expected)


@pytest.mark.parametrize("before", [True, False], ids=["flag first", "file first"])
@pytest.mark.parametrize("equals", [True, False])
def test_a_flag_overrides_a_file_wherever_it_stands(tmp_path: Path, before: bool, equals: bool) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("lr: 0.25\nepochs: 3\n")
    flag, config = ["--lr", "0.5"], [f"--config={file}"] if equals else ["--config", str(file)]
    options = parse(*(flag + config if before else config + flag))
    assert (options.lr, options.epochs) == (0.5, 3)


def test_print_config_is_read_back_by_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--encoder", "conv", "--lr", "0.5", "--crop-to-bbox", "--precision", "16")
    with pytest.raises(SystemExit) as stopped:
        parse(*given, "--print_config")
    assert stopped.value.code == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    assert parse("--config", str(file)) == parse(*given)


@pytest.mark.parametrize("argv", [(), ("--encoder", "conv", "--max-time", "01:00", "--stop-after-epoch", "3")])
def test_written_options_are_read_back_by_config(tmp_path: Path, argv: tuple[str, ...]) -> None:
    write_options(parse(*argv), tmp_path / "config.yaml")
    assert parse("--config", str(tmp_path / "config.yaml")) == parse(*argv)


def test_plain_options_are_what_yaml_and_a_checkpoint_can_hold() -> None:
    values = to_plain(parse("--encoder", "conv"))
    buffer = io.BytesIO()
    torch.save(values, buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True) == yaml.safe_load(yaml.safe_dump(values)) == values
    assert values.keys() == {field.name for field in dataclasses.fields(EarVAETrainingConfig)}


def test_help_gives_each_flag_its_reason_and_range(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse("--help-all")
    shown = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0
    missing = [
        f.name for f in dataclasses.fields(EarVAETrainingConfig) if f" --{f.name.replace('_', '-')} " not in shown
    ]
    assert missing == []
    assert "peak learning rate of newly initialised layers (above 0 and at most 10)" in shown


# Help in groups

TRAINERS = {
    "ears": (EarVAETrainingConfig, HELP),
    "detector": (EarDetectorTrainingConfig, detector.HELP),
    "dsr": (DSRTrainingConfig, dsr.config.HELP),
    "faces": (EdgeFaceTrainingConfig, facial_rec.config.HELP),
}
GROUPS = ["data", "model", "losses", "optimisation", "outputs", "hardware"]


def flags_by_group(text: str) -> dict[str, list[str]]:
    """Help's headings, and the options shown under each, in its order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if heading := re.fullmatch(r"(\w[\w ]*):", line):
            found[heading[1]] = []
        elif flag := re.match(r"  (?:-\w, )?--([\w-]+)", line):
            found[list(found)[-1]].append(flag[1].replace("-", "_"))
    return found


def help_of(trainer: str, flag: str, capsys: pytest.CaptureFixture[str]) -> str:
    options, layout = TRAINERS[trainer]
    with pytest.raises(SystemExit) as stopped:
        parse_options(options, [flag], prog="p", layout=layout)
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("flag", ["--help-all", "--help_all"])
def test_all_help_shows_every_field_in_one_group(trainer: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = flags_by_group(help_of(trainer, flag, capsys))
    assert list(shown) == [*GROUPS, "options"]
    names = [name for group in GROUPS for name in shown[group]]
    assert sorted(names) == sorted(field.name for field in dataclasses.fields(TRAINERS[trainer][0]))
    assert all(shown[group] for group in GROUPS)


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_shows_ten_options_and_names_what_shows_all(
    trainer: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(trainer, flag, capsys)
    first, rest = flags_by_group(text).items()
    assert first == ("the options that most people need", list(TRAINERS[trainer][1].first))
    assert len(first[1]) == 10
    assert "help_all" in rest[1]
    count = len(dataclasses.fields(TRAINERS[trainer][0]))
    assert f"all {count} options, in groups: {', '.join(GROUPS)}" in " ".join(text.split())


def test_help_of_few_options_shows_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(Several, ["--help"], prog="p")
    assert flags_by_group(capsys.readouterr().out)["options"][-2:] == ["files", "count"]


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("--epoch", "--epochs"),
        ("--learnig-rate=3", "--learning-rate"),
        ("--checkpoints-dir", "--checkpoint-dir"),
        ("--kl-anneal", "--kl-anneal-"),
        ("--hlep", "--help"),
        ("--xyzzy", "ears --help-all"),
    ],
)
def test_an_unknown_flag_is_answered_with_the_nearest(given: str, nearest: str) -> None:
    assert re.fullmatch(rf"unrecognized arguments: \S+ .*{re.escape(nearest)}\S*", refusal(given, "3"))


def test_an_unknown_key_of_a_file_is_answered_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("latent_dims: 3\n")
    message = refusal("--config", f"{tmp_path}/run.yaml")
    assert message == "latent_dims: no such option; did you mean latent_dim?"


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        (["--val_fracton", "3"], "did you mean --val-fraction?"),
        (["--val_fraction=3"], "did you mean --val-fraction?"),
        (["--imagess", "x"], "did you mean --images?"),
        (["--xyzzy"], "(see prepare --help)"),
    ],
)
def test_an_unknown_flag_of_argparse_is_answered_before_what_is_missing(given: list[str], nearest: str) -> None:
    parser = OneLineParser(prog="prepare")
    parser.add_argument("--images", required=True)
    parser.add_argument("--val-fraction", type=float)
    with pytest.raises(InputError, match=r"^unrecognized arguments: --") as caught:
        parser.parse_args(given)
    assert str(caught.value).endswith(nearest)


@pytest.mark.parametrize("flag", ["--epoc", "--batch", "--kl-weigh", "--conf"])
def test_an_abbreviation_is_unknown(flag: str) -> None:
    assert flag in refusal(flag, "3")


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (("--nonsense", "3"), ("--nonsense",)),
        (("stray",), ("stray",)),
        (("--epochs",), ("--epochs", "expected one argument")),
        (("--epochs", "three"), ("--epochs three", "a whole number")),
        (("--epochs", "2.5"), ("--epochs 2.5", "a whole number")),
        (("--lr", "fast"), ("--lr fast", "a number")),
        (("--lr", "nan"), ("--lr nan", "a number")),
        (("--crop-to-bbox", "maybe"), ("--crop-to-bbox maybe", "true or false")),
        (("--stop-after-epoch", "soon"), ("--stop-after-epoch soon", "a whole number")),
        (("--epochs", "0"), ("--epochs 0", "at least 1")),
        (("--lr", "0"), ("--lr 0", "above 0 and at most 10")),
        (("--learning-rate", "11"), ("--lr 11", "above 0 and at most 10")),
        (("--ema-decay", "1"), ("--ema-decay 1", "at most 0.999999")),
        (("--stop-after-epoch", "0"), ("--stop-after-epoch 0", "at least 1")),
        (("--schedule", "cosin"), ("--schedule cosin", "cosine, onecycle, plateau, constant")),
        (
            ("--kld-anneal-strategy", "x"),
            ("--kl-anneal-strategy x", "threshold, epoch, linear, monotonic, cyclic, none"),
        ),
        (("--precision", "8"), ("--precision 8", "32, 16, bf16, 16-mixed, bf16-mixed")),
        (("--image-size", "100"), ("--image-size 100", "multiple of 32")),
        (("--in-channels", "2"), ("--in-channels 2", "1 (grey) or 3 (RGB)")),
        (("--linear-path-size", "256"), ("--linear-path-size 256", "at most --image-size 128")),
        (("--denoise", "--augment", "none"), ("--denoise", "--augment light or full")),
        (("--config", "absent.yaml"), ("absent.yaml", "not exist")),
    ],
)
def test_a_bad_argument_is_one_line_that_names_it_and_what_is_allowed(
    argv: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    message = refusal(*argv)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("epoch: 3", ("epoch",)),
        ("epochs: many", ("--epochs many", "a whole number")),
        ("epochs: 0", ("--epochs 0", "at least 1")),
        ("schedule: cosin", ("--schedule cosin", "cosine, onecycle, plateau, constant")),
        ("lr: [", ("config",)),
        ("- 1", ("config",)),
    ],
)
def test_a_bad_file_is_one_line_that_names_the_key(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text + "\n")
    message = refusal("--config", str(file))
    assert all(part in message for part in parts), message
