"""A simulator in this process; its clients and waits use virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.in_process import BoltInProcess, bolt_in_process
from support.virtual_time import VirtualTimeLoop, virtual_time

from paradime_blocks.testing.plugin import complain_about_bad_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from paradime_blocks.testing import BoltSimulator


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], VirtualTimeLoop]]:
    """Run the tests of this folder in virtual time."""
    return {"virtual": VirtualTimeLoop}


@pytest.fixture(autouse=True)
def _in_memory() -> Iterator[None]:
    with virtual_time(), bolt_in_process():
        yield


@pytest.fixture
def bolt_simulator() -> Iterator[BoltSimulator]:
    """A simulator whose time moves only on request; it fails a test that sends invalid requests."""
    with BoltInProcess(speed=0) as simulator:
        yield simulator
    complain_about_bad_requests(simulator)


@pytest.fixture
def simulator(bolt_simulator: BoltSimulator) -> BoltSimulator:
    """The same by a shorter name."""
    return bolt_simulator
