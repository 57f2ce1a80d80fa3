"""The pipeline that corresponds to Bolt's schedules."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from paradime_blocks import BoltRequestError
from paradime_flows.pipeline import Pipeline

if TYPE_CHECKING:
    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.testing import BoltSimulator


def test_a_pipeline_is_proposed_from_bolts_schedules(
    simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """It has all active schedules that are not suspended; there is a sync and an async form."""
    for name in ("one", "two"):
        simulator.add_schedule(name)
    simulator.add_schedule("resting", suspended=True)
    simulator.add_schedule("gone", active=False)
    assert [step.key for step in Pipeline.from_bolt(credentials).steps] == ["one", "two"]
    assert [step.key for step in asyncio.run(Pipeline.afrom_bolt(credentials)).steps] == ["one", "two"]
    simulator.reset()
    with pytest.raises(BoltRequestError, match="no active schedule"):
        Pipeline.from_bolt(credentials)
