"""The pipeline that Bolt's schedules amount to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from paradime_blocks import BoltRequestError
from paradime_flows.pipeline import Pipeline

if TYPE_CHECKING:
    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.testing import BoltSimulator


def test_bolt_proposes_a_pipeline_of_its_schedules(
    simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """All that are active and not suspended, for sync and async callers."""
    for name in ("one", "two"):
        simulator.add_schedule(name)
    simulator.add_schedule("resting", suspended=True)
    simulator.add_schedule("gone", active=False)
    assert [step.key for step in Pipeline.from_bolt(credentials).steps] == ["one", "two"]
    assert [step.key for step in asyncio.run(Pipeline.afrom_bolt(credentials)).steps] == ["one", "two"]
    simulator.reset()
    with pytest.raises(BoltRequestError, match="no active schedule"):
        Pipeline.from_bolt(credentials)
