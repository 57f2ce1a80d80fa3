"""A pytest plugin: the fixture `bolt_simulator`.

Put `pytest_plugins = ["paradime_blocks.testing.plugin"]` into the `conftest.py` at the top of your tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .simulator import BoltSimulator


@pytest.fixture
def bolt_simulator() -> Iterator[BoltSimulator]:
    """A fresh Bolt simulator for one test.

    Sets no environment variables: do that with `monkeypatch` and `bolt_simulator.environment()`, if your code
    reads them. A request that the simulator could not understand fails the test at its end, unless the test
    has called `bolt_simulator.allow_bad_requests()`: the real service would not have understood it either.
    """
    with BoltSimulator() as simulator:
        yield simulator
    complain_about_bad_requests(simulator)


def complain_about_bad_requests(simulator: BoltSimulator) -> None:
    """Fail the test if the simulator got what it could not understand; for fixtures of your own."""
    if simulator.bad_requests and not simulator.bad_requests_allowed:
        lines = [
            f"{request.method} {request.path}: {request.not_understood}\n"
            f"  document: {' '.join(request.query.split())}\n  variables: {dict(request.variables)}"
            for request in simulator.bad_requests
        ]
        pytest.fail(
            "The Bolt simulator got requests that it did not understand:\n" + "\n".join(lines), pytrace=False
        )
