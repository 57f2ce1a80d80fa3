"""Bolt and Prefect in one process, for flow runs without a network and in virtual time."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest
from faults.bench import bolt
from faults.prefect_in_memory import PrefectInMemory, in_place_of_prefect
from prefect.context import SettingsContext
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_LOGGING_LEVEL,
    PREFECT_LOGGING_TO_API_ENABLED,
    Settings,
    temporary_settings,
)
from support.in_process import bolt_in_process
from support.virtual_time import VirtualTimeLoop, virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from paradime_blocks.testing import BoltSimulator


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], VirtualTimeLoop]]:
    """Run the tests of this folder in virtual time."""
    return {"virtual": VirtualTimeLoop}


@functools.cache
def _quiet() -> Settings:
    """Settings that make Prefect log nothing. Made once, since that takes longer than most tests."""
    # Without an address, Prefect starts no thread that sends events.
    quiet = {PREFECT_LOGGING_LEVEL: "CRITICAL", PREFECT_LOGGING_TO_API_ENABLED: False, PREFECT_API_URL: None}
    with temporary_settings(quiet) as settings:
        return settings


@pytest.fixture(autouse=True)
def _in_memory() -> Iterator[None]:
    settings = SettingsContext(profile=SettingsContext.get().profile, settings=_quiet())
    with settings, virtual_time(), bolt_in_process():
        yield


@pytest.fixture
def simulator() -> Iterator[BoltSimulator]:
    """A Bolt whose runs never end."""
    with bolt("timeout", speed=1) as simulator:
        yield simulator


@pytest.fixture
def prefect() -> Iterator[PrefectInMemory]:
    """A Prefect in memory."""
    prefect = PrefectInMemory()
    with in_place_of_prefect(prefect):
        yield prefect
