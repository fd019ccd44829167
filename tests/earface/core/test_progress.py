"""Progress of work: when a line comes, what it says, and that it leaves the work alone."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from earface.core import progress as module
from earface.core.progress import progress, tracked


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_LINE_S", 0.001)
    monkeypatch.setattr(module, "NEXT_LINES_S", 0.001)


class Printed:
    """Waits until stdout has had a line that holds a text."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        self.came = threading.Condition()
        monkeypatch.setattr("builtins.print", self)

    def __call__(self, text: str, flush: bool) -> None:
        with self.came:
            self.lines.append(text)
            self.came.notify_all()

    def wait_for(self, text: str) -> None:
        with self.came:
            assert self.came.wait_for(lambda: any(text in line for line in self.lines), 30), self.lines


@pytest.fixture
def printed(at_once: None, monkeypatch: pytest.MonkeyPatch) -> Printed:
    return Printed(monkeypatch)


def test_what_is_done_is_said_with_the_total(printed: Printed) -> None:
    with progress("reading", 12000) as state:
        printed.wait_for("reading: 0 of 12,000, 0 s")
        state.advance(5)
        state.advance()
        printed.wait_for("reading: 6 of 12,000,")
        state.update(700, 13000)
        printed.wait_for("reading: 700 of 13,000,")


def test_work_without_steps_shows_that_time_passes(printed: Printed) -> None:
    with progress("fitting"):
        printed.wait_for("fitting: 0 s")


def test_of_one_inside_another_the_inner_one_is_shown(printed: Printed) -> None:
    with progress("measuring"):
        printed.wait_for("measuring: 0 s")
        with progress("fitting"):
            printed.wait_for("fitting: 0 s")
            printed.lines.clear()
            printed.wait_for("fitting: 0 s")
            assert not any("measuring" in line for line in printed.lines)
        printed.lines.clear()
        printed.wait_for("measuring")


def test_tracked_gives_every_item_and_counts_those_that_are_done(printed: Printed) -> None:
    seen = []
    for item in tracked(["a", "b", "c"], "letters"):
        seen.append(item)
        printed.wait_for(f"letters: {len(seen) - 1} of 3")
    assert seen == ["a", "b", "c"]


def test_items_without_a_length_are_counted_without_a_total(printed: Printed) -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2

    for item in tracked(items(), "numbers"):
        if item == 2:
            printed.wait_for("numbers: 1,")


@pytest.mark.parametrize("case", ["quiet", "second process"])
def test_nothing_is_said_when_it_shall_not(case: str, printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    if case == "second process":
        monkeypatch.setenv("LOCAL_RANK", "1")
    before = threading.active_count()
    with progress("reading", 3, quiet=case == "quiet"):
        assert threading.active_count() == before
    assert printed.lines == []


def test_an_error_goes_through_and_the_thread_ends(printed: Printed) -> None:
    before = threading.active_count()

    def fail() -> None:
        with progress("reading"):
            printed.wait_for("reading")
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail()
    assert threading.active_count() == before


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked(range(3), "short")) == [0, 1, 2]
    assert capsys.readouterr().out == ""


def test_it_imports_nothing_heavy() -> None:
    code = "import sys, earface.core.progress as p; list(p.tracked([1], 'x')); print('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
