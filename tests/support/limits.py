"""A pytest plugin: a unit test that opens a socket, starts a process or takes long fails, and is told why.

How long it takes is the time that it had a processor, so that a busy machine fails nobody; only who waits for seconds
fails by the clock. The tests in memory may take their time, and nothing else of that.
"""

from __future__ import annotations

import gc
import socket
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from support.layers import layer_of

_LIMITED = {"unit", "memory"}
# More than a busy machine keeps a test from going on.
_ASLEEP_SECONDS = 5.0
_ELSEWHERE = "such a test belongs to another layer (tests/support/layers.py)."
# The same code takes up to twice as long on Python 3.10 as on those after it.
_SLOWER = 2 if sys.version_info < (3, 11) else 1
_PROCESSES = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}


class _Watch:
    """Forbids what such a test must not do while one runs; Python tells it of all that is done."""

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


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    if layer_of(item.nodeid) not in _LIMITED:
        return (yield)
    if "prefect_server" in getattr(item, "fixturenames", ()):
        pytest.fail(f"It asks for a Prefect server: {_ELSEWHERE}", pytrace=False)
    _watch.begin()
    with _nothing_forbidden():
        return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    layer = layer_of(item.nodeid)
    if layer not in _LIMITED:
        return (yield)
    limit = float(item.config.getini("unit_limit_seconds")) * _SLOWER
    with _nothing_forbidden(), _takes_at_most(limit) if layer == "unit" else nullcontext():
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    """Watch no longer: what ends with the last test of a process, of whatever layer, may be a server."""
    _watch.end()


@contextmanager
def _nothing_forbidden() -> Generator[None]:
    """Tell of what was forbidden, whatever the test has made of that."""
    try:
        yield
    except BaseException:
        if not _watch.forbidden:
            raise
    if _watch.forbidden:
        raise pytest.fail.Exception(f"{_watch.forbidden}: {_ELSEWHERE}", pytrace=False) from None


@contextmanager
def _takes_at_most(limit: float) -> Generator[None]:
    """Fail what takes more of a processor's time, or sleeps: on a busy machine, the clock would tell of others."""
    # What others have left to collect is no part of this test.
    gc.disable()
    began, cpu = time.perf_counter(), time.thread_time()
    try:
        yield
    finally:
        gc.enable()
    seconds, whole = time.thread_time() - cpu, time.perf_counter() - began
    if seconds > limit or whole > seconds + _ASLEEP_SECONDS:
        told = (
            f"It takes {seconds:.2f} s of a processor, and {whole:.2f} s in all; a unit test has {limit:g} s"
        )
        pytest.fail(f"{told}: {_ELSEWHERE}", pytrace=False)
