"""Fixtures for the unit tests: clients that do not sleep."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import find
from hypothesis import strategies as st
from support.clients import Naps, client_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from paradime_blocks import BoltClient


@pytest.fixture(autouse=True, scope="session")
def _tables_of_characters() -> None:
    """Hypothesis builds them for its first text; no test's time limit should count that."""
    find(st.text(), lambda _: True)


@pytest.fixture
def naps() -> Naps:
    return Naps()


@pytest.fixture
def client_of(naps: Naps) -> Callable[..., BoltClient]:
    """Makes a client of an endpoint that records its waits in `naps`."""
    return partial(client_for, sleep=naps)
