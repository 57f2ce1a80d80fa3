"""A schedule that Bolt does not know: the error names schedules with a similar name, and says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from paradime_blocks import BoltClient, BoltRequestError
from paradime_blocks.testing import BoltSimulator, faults

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = [
    pytest.param(lambda client, name: client.get_bolt_schedule(name), id="get"),
    pytest.param(lambda client, name: client.trigger_bolt_run(name), id="trigger"),
    pytest.param(lambda client, name: client.list_bolt_runs(name), id="runs"),
    pytest.param(lambda client, name: client.suspend_bolt_schedule(name), id="suspend"),
    pytest.param(lambda client, name: client.retry_bolt_schedule(name), id="retry"),
]
Call = Any  # a call of the client with the name of a schedule


async def refused(client: BoltClient, call: Call, name: str) -> BoltRequestError:
    async with client:
        with pytest.raises(BoltRequestError) as caught:
            await call(client, name)
    return caught.value


@pytest.mark.parametrize("call", CALLS)
async def test_a_wrong_name_gets_the_similar_names(
    simulator: BoltSimulator, client_of: Callable[..., BoltClient], call: Call
) -> None:
    """This costs one request more. Names and slugs are compared, also if the capital letters differ."""
    for name, slug in [("Daily", "every-day"), ("daily_2", "second"), ("hourly", "hourly"), ("archive", "a")]:
        simulator.add_schedule(name, slug=slug)
    client = client_of(simulator)
    error = await refused(client, call, "dayly")
    assert str(error).startswith(
        f"Bolt refused {error.path[0]}: Bolt schedule 'dayly' was not found. Did you mean 'Daily' or 'daily_2'? "
        "The flow list_schedules shows all schedules of the workspace."
    )
    assert "Bolt schedule 'dayly' was not found." in str(error.graphql_errors)
    assert error.path == [error.graphql_errors[0]["path"][0]]
    assert [request.operations for request in simulator.requests[1:]] == [("listBoltSchedules",)]
    assert "Did you mean 'Daily'? " in str(await refused(client, call, "evry-day"))


async def test_without_a_similar_name_the_error_says_where_the_names_are(
    simulator: BoltSimulator, client_of: Callable[..., BoltClient]
) -> None:
    """The names of other schedules would not help."""
    simulator.add_schedule("hourly")
    error = await refused(client_of(simulator), lambda client, name: client.get_bolt_schedule(name), "xyz")
    assert "Check the name. The flow list_schedules shows" in str(error)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.Status(503, operation="listBoltSchedules", times=None), id="outage"),
        pytest.param(faults.Status(403, operation="listBoltSchedules", times=None), id="refused"),
        pytest.param(faults.CutConnection(operation="listBoltSchedules", times=None), id="cut"),
        pytest.param(faults.Garbage(operation="listBoltSchedules", times=None), id="no JSON"),
    ],
)
async def test_a_list_that_fails_does_not_hide_the_first_error(
    simulator: BoltSimulator, client_of: Callable[..., BoltClient], fault: faults.Fault
) -> None:
    """The list is asked for once, and not again."""
    simulator.add_schedule("daily")
    simulator.inject(fault)
    error = await refused(client_of(simulator), lambda client, name: client.get_bolt_schedule(name), "dayly")
    assert "Bolt refused boltScheduleName: Bolt schedule 'dayly' was not found. Check the name." in str(error)
    assert len(simulator.requests) == 2


async def test_no_name_in_the_error_has_a_secret(
    simulator: BoltSimulator, client_of: Callable[..., BoltClient]
) -> None:
    """A person may paste a secret or a URL with a password into the field. Long names are cut after the removal."""
    client = client_of(simulator)
    secret = simulator.api_secret
    simulator.add_schedule(f"{'x' * 95}{secret}")
    simulator.add_schedule("https://u:pa55word@git.test/one")
    for name in (f"{'x' * 95}{secret}y", "https://u:pa55word@git.test/two"):
        error = await refused(client, lambda client, name: client.trigger_bolt_run(name), name)
        assert "Did you mean" in str(error)
        assert secret[:5] not in str(error)
        assert "pa55" not in str(error)


async def test_only_the_beginnings_of_long_names_are_compared(
    simulator: BoltSimulator, client_of: Callable[..., BoltClient]
) -> None:
    """A thousand names of any length would stop the event loop for seconds."""
    simulator.add_schedule(f"{'a' * 99}b{'c' * 150}", slug="other")
    error = await refused(client_of(simulator), lambda client, name: client.trigger_bolt_run(name), "a" * 60)
    assert "Did you mean 'aaa" in str(error)


@pytest.mark.parametrize(
    "message",
    [
        "Couldn't find the schedule 'dayly'",
        "The schedule doesn't exist: 'dayly'",
        'No such schedule: "dayly"',
        "Schedule dayly does not exist",
    ],
)
async def test_other_words_for_an_unknown_schedule_are_known(
    simulator: BoltSimulator, client_of: Callable[..., BoltClient], message: str
) -> None:
    """The API has no code for this error. The apostrophe is no quotation mark."""
    simulator.add_schedule("daily")
    simulator.inject(faults.GraphQLError(message, operation="triggerBoltRun"))
    error = await refused(client_of(simulator), lambda client, name: client.trigger_bolt_run(name), "dayly")
    assert "Did you mean 'daily'?" in str(error)


@pytest.mark.parametrize(
    "message",
    [
        "Schedule 'daily' has no run that was not found.",
        "The argument 'Bolt schedule was not found' is invalid.",
    ],
)
async def test_another_refusal_costs_no_request(
    simulator: BoltSimulator, client_of: Callable[..., BoltClient], message: str
) -> None:
    """Only an error about the schedule itself is about its name. The error still says what to do."""
    simulator.add_schedule("daily")
    simulator.inject(faults.GraphQLError(message, operation="triggerBoltRun"))
    error = await refused(client_of(simulator), lambda client, name: client.trigger_bolt_run(name), "daily")
    assert message in str(error)
    assert "Correct the value that Bolt names, then try again." in str(error)
    assert len(simulator.requests) == 1


@pytest.mark.parametrize(
    "message", ["Schedule does not exist on main.", "The branch of schedule 'daily' was not found."]
)
async def test_a_schedule_in_the_list_keeps_bolts_own_error(
    simulator: BoltSimulator, client_of: Callable[..., BoltClient], message: str
) -> None:
    """Bolt knows the schedule by its slug, so a wrong name is not the cause."""
    simulator.add_schedule("Daily", slug="daily")
    simulator.inject(faults.GraphQLError(message, operation="triggerBoltRun"))
    error = await refused(client_of(simulator), lambda client, name: client.trigger_bolt_run(name), "daily")
    assert f"Bolt refused triggerBoltRun: {message}" in str(error)


async def test_an_answer_that_only_says_no_gets_the_similar_names_too(
    simulator: BoltSimulator, client_of: Callable[..., BoltClient]
) -> None:
    """On the vendor's API page, `ok: false` is the only sign of a refusal."""
    simulator.add_schedule("daily")
    simulator.inject(faults.MissingData(operation="boltScheduleName", shape="not_ok"))
    error = await refused(client_of(simulator), lambda client, name: client.get_bolt_schedule(name), "dayly")
    assert "ok: false for boltScheduleName(scheduleName: 'dayly'). Did you mean 'daily'? " in str(error)
