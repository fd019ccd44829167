"""What the ear and face packages share, under a name of its own; `__version__` is the installed distribution's."""

from __future__ import annotations

from earface.interrupts import quiet_interrupts

quiet_interrupts()

__version__: str
__all__ = ["TrainedRun", "__version__", "train"]


def __getattr__(name: str) -> object:
    # on first use: reading the distribution's metadata takes longer than the rest of `earface --help`
    if name in ("train", "TrainedRun"):
        from importlib import import_module

        return getattr(import_module("earface.runs"), name)
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("earface")
    except PackageNotFoundError:  # run from its source, not installed
        return "0+unknown"
