"""The sets that tests/cuda has."""

from tests.cuda.conftest import files  # noqa: F401
