"""A pytest plugin: the folder of a test is its layer. The layer sets its mark and its order, and sums its time.

unit        no socket, no process, no Prefect server; a tenth of a second at most (`support.limits`)
memory      the simulator in this process, Prefect in memory, virtual time
simulator   the simulator over real sockets of the loopback interface, no Prefect server
e2e         a real Prefect server, one for the whole test run (`support.shared_server`)
processes   scripts, `serve` programs and workers as processes of their own
ui          a real browser on Prefect's pages
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xdist.scheduler import LoadScopeScheduling

# By folder, in starting order: first the process tests, which mostly wait; then tests without a server, while it
# starts; the tests on the real server last and one by one, so that no xdist process is idle at the end.
LAYERS = {
    "processes": "processes",
    "scale": "processes",
    "unit": "unit",
    "simulator": "simulator",
    "client": "simulator",
    "memory": "memory",
    "faults": "memory",
    "ui": "ui",
    "e2e": "e2e",
}
# Tests on the real server that are not distributed one by one. Those of one name run in one process, in order.
TOGETHER = {
    # Their examples save blocks of the same names and deploy the same flow.
    "e2e/test_docstrings.py": "documents",
    "e2e/test_readme.py": "documents",
    "e2e/test_composing.py::test_the_example_of_a_deployment": "documents",
    # Each test applies its automations, and so deletes those of the others.
    "e2e/test_automations.py": "automations",
}
# Marks of tests that `make test` leaves to longer runs, the longest first: `-m full` runs only those,
# `--include full` runs them as well.
LEFT_OUT = ("exhaustive", "full")


def layer_of(nodeid: str) -> str | None:
    """Return the layer of a test by its id; None for a test outside the layers' folders."""
    _, _, below = nodeid.partition("tests/")
    return LAYERS.get(below.partition("/")[0])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--include",
        action="append",
        default=[],
        choices=LEFT_OUT,
        help="also run the tests of this mark, which are left to longer runs",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test with its layer, deselect tests of longer runs, and sort by duration, longest first."""
    for item in items:
        layer = layer_of(item.nodeid)
        if layer is None:
            raise pytest.UsageError(
                f"{item.nodeid} is in none of the folders {', '.join(sorted(LAYERS))} of tests/."
            )
        item.add_marker(layer)
    named = {*config.getoption("include"), *re.findall(r"\w+", config.getoption("markexpr") or "")}
    if left_out := [item for item in items if _length(item) not in {None, *named}]:
        config.hook.pytest_deselected(items=left_out)
        unwanted = set(left_out)
        items[:] = [item for item in items if item not in unwanted]
    order = list(dict.fromkeys(LAYERS.values()))
    # Within a layer, groups of tests that stay together come first.
    items.sort(key=lambda item: (order.index(layer_of(item.nodeid) or ""), not _together(item.nodeid)))


def _length(item: pytest.Item) -> str | None:
    """Return the mark of the longer run that a test is left to."""
    return next((mark for mark in LEFT_OUT if item.get_closest_marker(mark)), None)


def _together(nodeid: str) -> str | None:
    return next((name for begin, name in TOGETHER.items() if f"tests/{begin}" in nodeid), None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Distribute tests by layer, unless another way than xdist's default was requested."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByLayer(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            layer = layer_of(nodeid)
            if layer == "processes":
                # They share a worker and a `serve` program, which take longer to start than most tests take to run.
                return layer
            # A real flow takes seconds, so these are distributed one by one; other files stay together.
            return (_together(nodeid) or nodeid) if layer == "e2e" else nodeid.partition("::")[0]

    # In the order in which they were added.
    config.option.loadscopereorder = False
    return ByLayer(config, log)


@dataclass
class _Times:
    tests: int = 0
    summed: float = 0.0
    begun: float = float("inf")
    ended: float = 0.0


class LayerTimes:
    """Sums the reports of a test run from all processes."""

    def __init__(self) -> None:
        self.times: dict[str, _Times] = defaultdict(_Times)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        times = self.times[layer_of(report.nodeid) or "?"]
        times.tests += report.when == "call" or (report.when == "setup" and not report.passed)
        times.summed += report.duration
        times.begun = min(times.begun, report.start)
        times.ended = max(times.ended, report.stop)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.times:
            return
        terminalreporter.section("layers")
        for line in self.lines():
            terminalreporter.write_line(line)

    def lines(self) -> Iterable[str]:
        """A line for each layer. Layers run at the same time, so a layer takes longer than its share of the total."""
        yield f"{'layer':<12}{'tests':>8}{'from first to last':>20}{'summed':>10}"
        for layer in dict.fromkeys(LAYERS.values()):
            if layer in self.times:
                times = self.times[layer]
                whole = f"{times.ended - times.begun:.1f} s"
                yield f"{layer:<12}{times.tests:>8}{whole:>20}{f'{times.summed:.1f} s':>10}"


def pytest_configure(config: pytest.Config) -> None:
    """Sum in the process that gets all reports, not in the xdist processes that send them."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(LayerTimes(), "layer-times")
