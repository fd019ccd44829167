"""One stage of `benchmarks.gpu`, in a process of its own; its parent starts it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.context import Context
from earface.core.command_line import parse_options
from earface.core.errors import entry_point
from earface.core.options import option


@dataclass(frozen=True)
class StageOptions:
    """One stage of benchmarks.gpu."""

    stage: str = option("machine", "its name in the results")
    module: str = option("machine", "of benchmarks.gpu or with a dot anywhere, whose run(part, context) is called")
    part: str = option("", "which of the module's cases")
    work: str = option("runs/gpu/work", "scratch that the stages share")
    assets: str = option(".gpu", "what benchmarks/gpu_setup.sh made")
    out: str = option("runs/gpu", "what is kept")
    seconds: float = option(60.0, "until the stage is killed", above=0)
    smoke: bool = option(False, "tiny models and data, also on a CPU")


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(StageOptions, argv, prog="python -m benchmarks.gpu.stage")
    context = Context(
        options.stage, Path(options.work), Path(options.assets), Path(options.out), options.smoke, options.seconds
    )
    name = options.module if "." in options.module else f"benchmarks.gpu.{options.module}"
    importlib.import_module(name).run(options.part, context)
    return 0


if __name__ == "__main__":
    sys.exit(main())
