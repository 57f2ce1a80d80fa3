"""A pytest plugin: the fixture `bolt_simulator`.

Put `pytest_plugins = ["paradime_blocks.testing.plugin"]` into your top-level `conftest.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .simulator import BoltSimulator


@pytest.fixture
def bolt_simulator() -> Iterator[BoltSimulator]:
    """A fresh Bolt simulator for one test.

    The fixture sets no environment variables. If your code reads the `PARADIME_*` variables, set them with
    `monkeypatch` and `bolt_simulator.environment()`. If the simulator received a request that it could not understand,
    the test fails at its end: the real service would reject such a request, too. `bolt_simulator.allow_bad_requests()`
    turns this check off.
    """
    with BoltSimulator() as simulator:
        yield simulator
    complain_about_bad_requests(simulator)


def complain_about_bad_requests(simulator: BoltSimulator) -> None:
    """Fail the test if the simulator received requests that it could not understand. Call this in your own fixtures."""
    if simulator.bad_requests and not simulator.bad_requests_allowed:
        lines = [
            f"{request.method} {request.path}: {request.not_understood}\n"
            f"  document: {' '.join(request.query.split())}\n  variables: {dict(request.variables)}"
            for request in simulator.bad_requests
        ]
        pytest.fail(
            "The Bolt simulator received requests that it did not understand:\n" + "\n".join(lines),
            pytrace=False,
        )
