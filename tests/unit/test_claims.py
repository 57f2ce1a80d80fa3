"""Which intent a flow run resumes."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun

from paradime_blocks.errors import BoltRequestError
from paradime_blocks.models import BoltRunRecord, BoltRunState
from paradime_blocks.options import Command
from paradime_blocks.trigger.request import TriggerIntent, TriggerRequest, fingerprint_of
from paradime_blocks.trigger.search import Fit, fit
from paradime_flows.ledger.record import FLOW_KEY, Record, read_records
from paradime_flows.ledger.store import Lease, Superseded, put
from paradime_flows.prefect_api.supervisor import start_new_supervisor
from paradime_flows.runner.begin import claim

FLOW_RUN = UUID(int=1)


@pytest.fixture(autouse=True)
def new_supervisor() -> None:
    """No claims of other tests are known."""
    start_new_supervisor()


def intent(key: str, called_in: str = "now", **request: Any) -> Record:
    """The record of an intent, as an execution of a flow run makes it."""
    asked = TriggerRequest(**{"schedule_name": "extract", **request})
    return Record(key=key, flow_run_id=FLOW_RUN, request=asked, asked=asked.fingerprint, called_in=called_in)


def test_a_flow_run_with_another_schedules_run_is_refused():
    """Prefect can give a retried parent the flow run of another call."""
    old = intent(FLOW_KEY)
    assert claim([old], intent(FLOW_KEY, options={"commands": ["dbt run"]})) is old
    with pytest.raises(
        BoltRequestError, match="ran 'extract' in an earlier attempt and now asks for 'orders'"
    ):
        claim([old], intent(FLOW_KEY, schedule_name="orders"))


def test_a_retried_task_claims_the_same_record_again():
    """It had written no record of its own; another task with an equal request must not get it, now or later."""
    old = intent("first", "before.first.1")
    second, again, third = (f"now.{task}" for task in ("second.1", "second.2", "third.1"))
    assert claim([old], intent("second", second)) is old
    assert claim([old], intent("third", third)) is None
    assert claim([old], intent("second", again)) is old
    old.called_in = again
    assert claim([old], intent("second", "now.second.3")) is old
    assert claim([old], intent("third", third)) is None


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"schedule_name": "orders"}, id="schedule"),
        pytest.param({"options": {"commands": ["dbt test"]}}, id="commands"),
        pytest.param(
            {"options": {"commands": [Command(command="dbt run", continue_on_error=True)]}}, id="goes on"
        ),
        pytest.param({"options": {"commands": ["dbt run"], "branch": "dev"}}, id="branch"),
        pytest.param({"retry_of": 7}, id="retry"),
        pytest.param({"retry_of": 7, "retry_everything": True}, id="retry of everything"),
    ],
)
def test_a_fingerprint_identifies_a_request(other):
    """Nothing else of the request is stored."""
    plain: dict[str, Any] = {"schedule_name": "extract", "options": {"commands": ["dbt run"]}}
    request = TriggerRequest(**plain)
    assert request.fingerprint == TriggerRequest(**plain).with_options(reason="another").fingerprint
    assert request.fingerprint != TriggerRequest(**{**plain, **other}).fingerprint


def test_commands_are_stored_as_fingerprints():
    """The label is short even for 400 kB of commands, which may contain secrets."""
    commands = [f"dbt run -s {'orders+ ' * 50_000}"]
    request = TriggerRequest(schedule_name="daily", options={"commands": commands, "branch": "dev"})
    intent = TriggerIntent(7, 0.0, tuple(map(fingerprint_of, commands)))
    record = Record(
        flow_run_id=uuid4(),
        request=request,
        asked=request.fingerprint,
        intent=intent,
    )
    flow_run = FlowRun(flow_id=uuid4(), id=record.flow_run_id, labels=record.to_labels())
    assert sum(len(str(value)) for value in flow_run.labels.values()) < 2000
    (kept,) = read_records(flow_run)
    assert kept.asked == request.fingerprint
    assert (kept.schedule, kept.request.branch, kept.intent) == ("daily", "dev", intent)
    record = BoltRunRecord(id=8, state=BoltRunState.RUNNING)
    assert fit(kept.request, kept.intent, record, ["git clone x", *commands]) is Fit.YES
    assert fit(kept.request, kept.intent, record, ["git clone x", "dbt test"]) is Fit.NO


async def test_labels_that_another_writer_overwrote_are_written_again():
    """This can happen on a database where two requests read and write all labels at once."""
    flow_run = FlowRun(flow_id=uuid4(), labels={})
    writes = []

    class Prefect:
        async def update_flow_run_labels(self, _: object, labels: dict[str, str]) -> None:
            writes.append(labels)
            if len(writes) > 1:
                flow_run.labels.update(labels)

        async def read_flow_runs(self, **_: object) -> list[FlowRun]:
            return [flow_run]

    await put(Prefect(), flow_run.id, {"a": "1"})
    assert (len(writes), flow_run.labels) == (2, {"a": "1"})


async def test_labels_of_a_newer_attempt_are_not_overwritten():
    """The record that it finds there instead of its own is newer."""
    flow_run = FlowRun(flow_id=uuid4(), labels={Lease(2, "newer").label: ""})

    class Prefect:
        async def update_flow_run_labels(self, _: object, labels: dict[str, str]) -> None:
            flow_run.labels.update({"a": "newer"} if "a" not in flow_run.labels else labels)

        async def read_flow_runs(self, **_: object) -> list[FlowRun]:
            return [flow_run]

    with pytest.raises(Superseded):
        await put(Prefect(), flow_run.id, {"a": "1"}, Lease(1, "older"))
    assert flow_run.labels["a"] == "newer"


async def test_a_later_sign_of_life_of_another_task_does_not_lose_the_lease():
    """The tasks of one execution write to the same lease."""
    flow_run = FlowRun(flow_id=uuid4(), labels={})
    writes = []

    class Prefect:
        async def update_flow_run_labels(self, _: object, labels: dict[str, str]) -> None:
            writes.append(labels)
            flow_run.labels.update(dict.fromkeys(labels, "a later sign"))

        async def read_flow_runs(self, **_: object) -> list[FlowRun]:
            return [flow_run]

    await put(Prefect(), flow_run.id, {Lease(1, "us").label: "a sign"})
    assert len(writes) == 1
