"""The model card of the hub's folder: that of `save_pretrained`, with the run, its evaluations and the files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from earface.core.errors import InputError
from earface.core.files import atomic_write, is_exported, read_json
from earface.core.notices import warn
from earface.data.data_digest import DataDigest
from earface.export.onnx_export import Difference
from earface.export.options import ExportOptions
from earface.export.quantization import Loss
from earface.nn.checkpoint import find_checkpoint, read_checkpoint
from earface.nn.trained_model import TrainedModel

Model = TrainedModel[Any]
DATA_FILES = ("train_npy", "train_json", "dataset_root")
ABOUT = ("encoder", "backbone", "classes", "upsampler", "vlr_size", "degradation", "crop", "epochs", "seed")
REMARKS = ("notes", "warnings")


def licence_of(model: Model, given: str | None) -> str:
    """The hub's id of the licence: the one that the weights inherit, or what is given.

    Raises InputError if there is neither, or if they differ.
    """
    inherited: str | None = vars(model.generate_model_card().data).get("license")
    licence = (given or "").strip().lower()
    if inherited is None and not licence:
        raise InputError("`format` hub: a model card needs a licence; give `license`: mit, cc-by-4.0, other, ...")
    if licence and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise InputError(f"`license` {given}: the hub's id of a licence is wanted: mit, cc-by-4.0, other, ...")
    if inherited is not None and licence not in ("", inherited):
        raise InputError(
            f"`license` {given}: the weights began with EdgeFace's and inherit {inherited}; leave `license` out"
        )
    return inherited or licence


def check_card(model: Model, options: ExportOptions) -> None:
    """Before any work: raise InputError for what `write_card` would refuse."""
    licence_of(model, options.license)
    for name in options.report:
        read_report(name)


def write_card(
    path: Path,
    model: Model,
    options: ExportOptions,
    differences: Sequence[Difference],
    losses: Mapping[str, Loss],
) -> None:
    """The card at `path`, after `check_card`."""
    card: Any = model.generate_model_card()
    card.data.license = licence_of(model, options.license)
    reports = {name: read_report(name) for name in options.report}
    source = None if is_exported(options.checkpoint) else find_checkpoint(options.checkpoint)
    run = {} if source is None else read_checkpoint(source)
    for name, report in reports.items():
        measured = report.get("checkpoint")
        if source is not None and measured and Path(measured).resolve() != source.resolve():
            warn(f"{name}: evaluates {measured}, and {source} is exported")
    sections = {
        "Training": _bullets(training_facts(model, run, options.data)),
        "Metrics": _metrics(run, reports),
        "Limits": model.format.limits + _bullets(_remarks(reports)),
        "Files": _files(options, differences, losses),
    }
    text = "".join(f"\n## {title}\n\n{section.strip()}\n" for title, section in sections.items() if section.strip())
    card.text = card.text.rstrip("\n") + "\n" + text
    with atomic_write(path) as temporary:
        temporary.write_text(str(card), encoding="utf-8")


def training_facts(model: Model, run: Mapping[str, Any], described: str | None) -> Iterator[str]:
    """Lines about what a model was trained on. run: its checkpoint, or empty for an exported folder."""
    yield described or "The pictures: not described by whoever exported it (option `data`)."
    options = run.get("hyper_parameters", {}).get("options", {})
    about = model.saved_provenance() or {}
    if files := [Path(name).name for key in DATA_FILES for name in _several(options.get(key))]:
        yield f"Read from: {', '.join(files)}."
    if run.get("data"):
        digest = DataDigest.read(run["data"])
        train, val = (digest.counted(len(side)) for side in (digest.train, digest.val))
        yield f"Trained on {train}, validated on {val}."
    elif people := about.get("trained_on"):
        yield f"Trained on {len(people)} people."
    known = {**options, **{name: value for name, value in about.items() if isinstance(value, str)}}
    settings = [f"{name.replace('_', ' ')} {known[name]}" for name in ABOUT if known.get(name) not in (None, "")]
    if settings:
        yield f"Settings: {', '.join(settings)}."
    if "epoch" in run:
        yield f"Checkpoint of epoch {run['epoch'] + 1}, step {run.get('global_step', 0)}."


def _metrics(run: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]]) -> str:
    best = {
        state["monitor"]: (float(state["best_model_score"]), None)
        for name, state in run.get("callbacks", {}).items()
        if name.startswith("ModelCheckpoint") and state.get("monitor") and state.get("best_model_score") is not None
    }
    tables = [_table("Best of the run, on its validation pictures:", best)] if best else []
    for report in reports.values():
        tables.append(_table("Of an evaluation:", dict(measured(report))))
        if isinstance(convention := report.get("convention"), str):
            tables.append(convention + "\n")
    return "\n".join(tables) or "None: the export was given no evaluation (option `report`).\n"


def measured(report: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[float, Any]]]:
    """Every number of an evaluation's metrics.json by its name, with its interval, or None."""
    for key, found in report.items():
        name = (*above, Path(key).name.replace("_", " "))
        if isinstance(found, Mapping) and "value" in found:
            if found["value"] is not None:
                yield ", ".join(name), (found["value"], found.get("interval"))
        elif isinstance(found, Mapping):
            yield from measured(found, name)
        elif isinstance(found, (int, float)) and not isinstance(found, bool):
            yield ", ".join(name), (found, None)


def _table(title: str, rows: Mapping[str, tuple[float, Any]]) -> str:
    lines = [title, "", "| metric | value | 95 % interval |", "|---|---|---|"]
    for name, (value, interval) in rows.items():
        between = f"{interval[0]:.4g} to {interval[1]:.4g}" if interval else "-"
        lines.append(f"| {name.replace('|', '/')} | {value:.5g} | {between} |")
    return "\n".join(lines) + "\n"


def _files(options: ExportOptions, differences: Sequence[Difference], losses: Mapping[str, Loss]) -> str:
    largest: dict[str, float] = {}
    for each in differences:
        largest[each.file] = max(largest.get(each.file, 0.0), each.largest)
    lines = [f"`{file}`: differs from PyTorch by {value:.1e} at most." for file, value in largest.items()]
    lines += [f"`{file}`: int8; {loss}, on pictures that it was not calibrated on." for file, loss in losses.items()]
    if options.opset is not None:
        lines.append(f"ONNX operator set {options.opset}.")
    return _bullets(lines)


def _remarks(reports: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for report in reports.values():
        for key in REMARKS:
            yield from (each for each in report.get(key) or () if isinstance(each, str))


def read_report(name: str) -> dict[str, Any]:
    content = read_json(Path(name))
    if not isinstance(content, dict) or not any(measured(content)):
        raise InputError(f"{name}: not the metrics.json of an evaluation")
    return content


def _several(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _bullets(lines: Iterable[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)
