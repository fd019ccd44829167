"""What the ear and face packages share, under a name of its own; `__version__` is the installed distribution's."""

from __future__ import annotations

from earface.interrupts import quiet_interrupts

quiet_interrupts()

__version__: str


def __getattr__(name: str) -> str:
    # on first use: reading the distribution's metadata takes longer than the rest of `earface --help`
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("earface")
    except PackageNotFoundError:  # run from its source, not installed
        return "0+unknown"
