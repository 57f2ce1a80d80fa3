"""Bolt and Prefect for what bodies of flow runs do, one after the other, in one process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from faults.bench import SPEED, bolt, fast_time
from faults.prefect_in_memory import PrefectInMemory, in_place_of_prefect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paradime_blocks.testing import BoltSimulator


@pytest.fixture
def simulator() -> Iterator[BoltSimulator]:
    """A Bolt whose runs go on for ever, as fast as the package's clock."""
    simulator = bolt("timeout")
    simulator.clock.speed = SPEED
    with fast_time(), simulator:
        yield simulator


@pytest.fixture
def prefect() -> Iterator[PrefectInMemory]:
    """A Prefect that is a dictionary."""
    prefect = PrefectInMemory()
    with in_place_of_prefect(prefect):
        yield prefect
