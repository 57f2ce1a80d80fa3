"""End-to-end tests: a real Prefect server, the flow itself, and the simulator over a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from paradime_blocks import ParadimeCredentials

if TYPE_CHECKING:
    from paradime_blocks.testing import BoltSimulator

pytestmark = pytest.mark.e2e


@pytest.fixture
def credentials(bolt_simulator: BoltSimulator) -> ParadimeCredentials:
    """Credentials of the test's own simulator."""
    return ParadimeCredentials(
        api_endpoint=bolt_simulator.api_endpoint,
        api_key=bolt_simulator.api_key,
        api_secret=bolt_simulator.api_secret,
        request_timeout_seconds=5,
    )
