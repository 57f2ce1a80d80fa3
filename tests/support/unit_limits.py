"""A pytest plugin: a unit test that opens a socket, starts a process or takes long fails, and is told why.

How long it takes is its own time: by the clock, less what it waited for a core that somebody else had. So a busy
machine fails nobody, and a sleep counts in full.
"""

from __future__ import annotations

import gc
import socket
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.layers import layer_of

_ELSEWHERE = "such a test belongs to another layer (tests/support/layers.py)."
_PROCESSES = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}


class _Watch:
    """Forbids what a unit test must not do while one runs; Python tells it of all that is done."""

    def __init__(self) -> None:
        self.forbidden = ""
        self._others: set[int] | None = None

    def begin(self) -> None:
        self.forbidden = ""
        # Those of a library, say, that tests before this one have left: it cannot help what they do.
        self._others = {thread.ident or 0 for thread in threading.enumerate()} - {threading.get_ident()}

    def end(self) -> None:
        self._others = None

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Stop what is forbidden. An event loop's own pair of sockets is not: it is of the family AF_UNIX."""
        if self._others is None:
            return
        told = ""
        if event == "socket.__new__" and arguments[1] in {socket.AF_INET, socket.AF_INET6}:
            told = "It opens a socket"
        elif event in _PROCESSES:
            told = "It starts a process"
        if told and threading.get_ident() not in self._others:
            self.forbidden = told
            raise RuntimeError(f"{told}: {_ELSEWHERE}")


_watch = _Watch()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("unit_limit_seconds", "how long a unit test may take", default="inf")


def pytest_configure() -> None:
    sys.addaudithook(_watch.hear)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    if layer_of(item.nodeid) != "unit":
        return (yield)
    if "prefect_server" in getattr(item, "fixturenames", ()):
        pytest.fail(f"It asks for a Prefect server: {_ELSEWHERE}", pytrace=False)
    _watch.begin()
    with _nothing_forbidden():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    if layer_of(item.nodeid) != "unit":
        return (yield)
    limit = float(item.config.getini("unit_limit_seconds"))
    # What others have left to collect is no part of this test.
    gc.disable()
    try:
        own_time = _OwnTime()
        with _nothing_forbidden():
            result = yield
        seconds = own_time.seconds()
    finally:
        gc.enable()
    if seconds > limit:
        pytest.fail(
            f"It takes {seconds:.2f} s of the {limit:g} s that a unit test has: {_ELSEWHERE}", pytrace=False
        )
    return result


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    try:
        return (yield)
    finally:
        _watch.end()


@contextmanager
def _nothing_forbidden() -> Generator[None]:
    """Tell of what was forbidden, whatever the test has made of that."""
    try:
        yield
    finally:
        if _watch.forbidden:
            pytest.fail(f"{_watch.forbidden}: {_ELSEWHERE}", pytrace=False)


class _OwnTime:
    """The time that this thread takes from now on, without what it waits for a core."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._waited_before = self._waited()

    def seconds(self) -> float:
        return time.perf_counter() - self._began - (self._waited() - self._waited_before)

    @staticmethod
    def _waited() -> float:
        try:
            return int(Path("/proc/thread-self/schedstat").read_bytes().split()[1]) / 1e9
        except OSError:  # another system than Linux, where all time counts
            return 0.0
