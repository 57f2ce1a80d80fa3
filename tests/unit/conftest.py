"""Fixtures for the unit tests: clients that do not sleep."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from support.clients import Naps, client_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from paradime_blocks import BoltClient


@pytest.fixture
def naps() -> Naps:
    return Naps()


@pytest.fixture
def client_of(naps: Naps) -> Callable[..., BoltClient]:
    """Makes a client of an endpoint that notes its waits in `naps`."""
    return partial(client_for, sleep=naps)
