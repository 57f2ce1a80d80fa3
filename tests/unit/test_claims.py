"""Which intent a flow run goes on with."""

from __future__ import annotations

from uuid import uuid4

import pytest

from paradime_blocks.errors import BoltRequestError
from paradime_blocks.trigger_intent import TriggerRequest
from paradime_flows.claims import claim
from paradime_flows.ownership import Ownership


def test_a_flow_run_that_answers_for_another_schedules_run_is_refused():
    """Prefect gives a parent that calls others in its next attempt the flow run of another call."""
    old = Ownership(flow_run_id=uuid4(), request=TriggerRequest(schedule_name="extract"), run_id=1)
    same = TriggerRequest(schedule_name="extract", commands=["dbt run"])
    assert claim([old], old.key, same, "body") is old
    with pytest.raises(BoltRequestError, match="'extract' before and is to run 'orders' now"):
        claim([old], old.key, TriggerRequest(schedule_name="orders"), "body")
