"""A pytest plugin: a unit test fails, with the reason, if it opens a socket, starts a process or takes too long.

The limit counts processor time, so that a busy machine fails no test. Wall time counts only for a test that sleeps for
seconds. Memory tests have no time limit; the other rules apply to them too.
"""

from __future__ import annotations

import gc
import importlib
import socket
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from traceback import extract_stack
from typing import Any

import pytest
from support.layers import layer_of

with suppress(ImportError):
    # When it is imported first, it opens a socket. Hypothesis, for one, imports it in the middle of a test.
    importlib.import_module("urllib3.util.connection")

_LIMITED = {"unit", "memory"}
# Longer than a busy machine interrupts a test.
_ASLEEP_SECONDS = 5.0
# The thread that observes the flow runs of earlier tests may begin again at any time.
_OBSERVER = "paradime-observer"
_ELSEWHERE = "such a test belongs to another layer (tests/support/layers.py)."
# The same code takes up to twice as long on Python 3.10 as on later versions.
_SLOWER = 2 if sys.version_info < (3, 11) else 1
_PROCESSES = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}


class _Watch:
    """Forbids sockets and processes while a limited test runs; Python's audit hook reports them."""

    def __init__(self) -> None:
        self.forbidden = ""
        self._others: set[int] | None = None

    def begin(self) -> None:
        self.forbidden = ""
        # Threads from earlier tests, such as a library's: this test is not responsible for them.
        self._others = {thread.ident or 0 for thread in threading.enumerate()} - {threading.get_ident()}

    def end(self) -> None:
        self._others = None

    def check(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Stop a forbidden action. The event loop's own socket pair is allowed: its family is AF_UNIX."""
        if self._others is None or threading.current_thread().name == _OBSERVER:
            return
        problem = ""
        if event == "socket.__new__" and arguments[1] in {socket.AF_INET, socket.AF_INET6}:
            problem = "It opens a socket"
        elif event in _PROCESSES:
            problem = "It starts a process"
        if problem and threading.get_ident() not in self._others:
            stack = " > ".join(
                f"{Path(each.filename).name}:{each.lineno}" for each in extract_stack(limit=12)
            )
            self.forbidden = f"{problem}, in the thread {threading.current_thread().name} ({stack})"
            raise RuntimeError(f"{problem}: {_ELSEWHERE}")


_watch = _Watch()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("unit_limit_seconds", "how long a unit test may take", default="inf")


def pytest_configure() -> None:
    sys.addaudithook(_watch.check)


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
    """Stop watching: a teardown that follows may end a server, whatever the layer."""
    _watch.end()


@contextmanager
def _nothing_forbidden() -> Generator[None]:
    """Report a forbidden action, even if the test has swallowed the error."""
    try:
        yield
    except BaseException:
        if not _watch.forbidden:
            raise
    if _watch.forbidden:
        raise pytest.fail.Exception(f"{_watch.forbidden}: {_ELSEWHERE}", pytrace=False) from None


@contextmanager
def _takes_at_most(limit: float) -> Generator[None]:
    """Fail a test that uses too much processor time, or sleeps. Wall time would count other processes' work."""
    # Garbage of other tests does not count.
    gc.disable()
    began, cpu = time.perf_counter(), time.thread_time()
    try:
        yield
    finally:
        gc.enable()
    seconds, whole = time.thread_time() - cpu, time.perf_counter() - began
    if seconds > limit or whole > seconds + _ASLEEP_SECONDS:
        problem = (
            f"It takes {seconds:.2f} s of a processor, and {whole:.2f} s in all; a unit test has {limit:g} s"
        )
        pytest.fail(f"{problem}: {_ELSEWHERE}", pytrace=False)
