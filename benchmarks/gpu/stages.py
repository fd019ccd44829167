"""The stages, by importance. Neighbours of the same `beside` measure no time and share the machine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from earface.core.errors import InputError


@dataclass(frozen=True)
class Stage:
    name: str
    module: str  # of benchmarks.gpu, or with a dot anywhere
    part: str
    seconds: float  # limit
    beside: str = ""  # empty: alone


def _beside(name: str, module: str, seconds: float, *parts: str) -> tuple[Stage, ...]:
    beside = "data" if name == "data" else "checks"
    return tuple(Stage(f"{name}_{part}", module, part, seconds, beside) for part in parts)


STAGES = (
    Stage("machine", "machine", "", 60),
    *_beside("data", "assets", 90, "faces", "weights", "ears", "scenes", "carried"),
    *_beside("trainers", "trainers", 240, "compile_resnet50", "graphs_resnet50", "ears_32", "faces", "ears_mixed"),
    *_beside("values", "values", 120, "ears", "others"),
    *_beside(
        "trainers", "trainers", 240, "options", "resume", "compile_faces", "graphs_others", "compile_transformers"
    ),
    *_beside("trainers", "trainers", 240, "compile_convolutions", "compile_detector", "fsdp", "limits"),
    *_beside("tools", "tools", 150, "ears", "faces"),
    Stage("tests", "tests", "", 150, "checks"),
    Stage("speed_resnet50", "speed", "resnet50", 60),
    Stage("speed_loader", "loader", "", 60),
    Stage("speed_compile", "speed", "compile", 120),
    Stage("speed_graphs", "speed", "graphs", 120),
    Stage("speed_others", "speed", "others", 100),
    Stage("speed_precisions", "speed", "precisions", 60),
    Stage("race_whole", "race", "whole", 600),
    Stage("race_graphs", "race", "graphs", 600),
    Stage("race_pca", "race", "pca", 60),
    Stage("race_reference", "race", "reference", 120),
    *_beside("recognizers", "recognizers", 300, "xs", "xs_ears", "xs_centers", "xxs", "scratch", "seed_1", "seed_2"),
)


def chosen(names: str) -> list[Stage]:
    """Comma-separated names or beginnings of names, in this order, perhaps with a limit: NAME:SECONDS. Empty: all.

    Raises InputError for one that matches nothing.
    """
    found: list[Stage] = []
    for name, _, seconds in (part.strip().partition(":") for part in names.split(",") if part.strip()):
        matching = [stage for stage in STAGES if stage.name.startswith(name)]
        if not matching or not (seconds or "1").isdecimal():
            raise InputError(f"--stages {name}: choose from {', '.join(stage.name for stage in STAGES)}")
        found += [replace(stage, seconds=float(seconds or stage.seconds)) for stage in matching]
    return found or list(STAGES)
