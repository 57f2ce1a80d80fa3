"""The nine operations of the vendor's page, and how the client reads their replies."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from graphql import FieldNode, OperationDefinitionNode, VariableNode, parse, value_from_ast_untyped
from tblib import pickling_support

from paradime_blocks import (
    BoltClient,
    BoltError,
    BoltRequestError,
    BoltRunState,
    BoltUnavailable,
    BoltUnsupported,
)
from paradime_blocks.client import operations as ops
from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.options import Command
from paradime_blocks.testing import BoltSimulator, SimulatedCommand, faults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from graphql import SelectionSetNode

# The documents of the vendor's page, word for word, and how to make the client send each.
REFERENCE = [
    pytest.param(
        """
mutation TriggerBoltRun {
    triggerBoltRun(scheduleName: "daily") {
        runId
    }
}
""",
        lambda client: client.trigger_bolt_run("daily"),
        id="trigger",
    ),
    pytest.param(
        """
mutation TriggerBoltRun {
    triggerBoltRun(scheduleName: "daily", commands: ["dbt compile", "dbt test"]) {
        runId
    }
}
""",
        lambda client: client.trigger_bolt_run("daily", commands=["dbt compile", "dbt test"]),
        id="trigger with commands",
    ),
    pytest.param(
        """
mutation TriggerBoltRun {
    triggerBoltRun(scheduleName: "daily", branch: "e987a71966bf68c79c7fdcb4c4c19babdaf9b258") {
        runId
    }
}
""",
        lambda client: client.trigger_bolt_run("daily", branch="e987a71966bf68c79c7fdcb4c4c19babdaf9b258"),
        id="trigger on a commit",
    ),
    pytest.param(
        """
mutation CancelBoltRun {
    cancelBoltRun(scheduleRunId: 76033) {
        ok
    }
}
""",
        lambda client: client.cancel_bolt_run(76033),
        id="cancel",
    ),
    pytest.param(
        """
query BoltRunStatus {
    boltRunStatus(runId: 76035) {
        ok
        state
        commands {
            id
            command
            startDttm
            endDttm
            stdout
            stderr
            returnCode
        }
    }
}
""",
        lambda client: client.get_bolt_run(76035),
        id="run status",
    ),
    pytest.param(
        """
query BoltCommand {
    boltCommand(commandId: 243281) {
        command
        startDttm
        endDttm
        stdout
        stderr
        returnCode
        scheduleRunId
        resources {
            id
            path
        }
        ok
    }
}
""",
        lambda client: client.get_bolt_command(243281),
        id="command",
    ),
    pytest.param(
        """
query BoltResourceUrl {
    boltResourceUrl(resourceId: 2023484) {
        ok
        url
    }
}
""",
        lambda client: client.get_bolt_resource_url(2023484),
        id="resource URL",
    ),
    pytest.param(
        """
query ListBoltSchedules {
    listBoltSchedules(offset: 0, limit: 10, showInactive: false) {
        schedules {
            name
            schedule
            owner
            lastRunAt
            lastRunState
            nextRunAt
            id
            uuid
            source
            turboCi {
                enabled
                deferredScheduleName
                successfulRunOnly
            }
            deferredSchedule {
                deferredScheduleName
                enabled
                successfulRunOnly
            }
            commands
            gitBranch
            slackOn
            slackNotify
            emailOn
            emailNotify
        }
        totalCount
    }
}
""",
        lambda client: client.list_bolt_schedules(limit=10),
        id="list schedules",
    ),
    pytest.param(
        """
query BoltScheduleName {
    boltScheduleName(scheduleName: "daily") {
        ok
        latestRunId
        commands
        owner
        schedule
        uuid
        source
    }
}
""",
        lambda client: client.get_bolt_schedule("daily"),
        id="schedule",
    ),
]
# Fields of newer backends that the vendor's page does not have, by operation.
NEWER = {
    "ListBoltSchedules": {"schedules.slug", "schedules.suspended"},
    "BoltScheduleName": {"suspended"},
}
OLD_BACKEND = ["BoltScheduleType.slug", "BoltScheduleType.suspended", "BoltScheduleNameType.suspended"]


def _fields(selection: SelectionSetNode | None, way: str = "") -> list[str]:
    found = []
    for node in selection.selections if selection else ():
        assert isinstance(node, FieldNode)
        found += [f"{way}{node.name.value}", *_fields(node.selection_set, f"{way}{node.name.value}.")]
    return found


def _shape(document: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The operations, fields and arguments of a document, whether arguments are literals or variables."""
    (operation,) = parse(document).definitions
    assert isinstance(operation, OperationDefinitionNode)
    assert operation.name is not None
    (root,) = operation.selection_set.selections
    assert isinstance(root, FieldNode)
    arguments = {
        argument.name.value: variables[argument.value.name.value]
        if isinstance(argument.value, VariableNode)
        else value_from_ast_untyped(argument.value)
        for argument in root.arguments
    }
    return {
        "operation": (operation.operation.value, operation.name.value),
        "root": root.name.value,
        "arguments": arguments,
        "fields": sorted(_fields(root.selection_set)),
    }


async def _last_request(
    simulator: BoltSimulator, client: BoltClient, call: Callable[..., Awaitable[Any]]
) -> Any:
    async with client:
        with contextlib.suppress(BoltRequestError):  # what the vendor's page asks for need not exist here
            await call(client)
    return simulator.requests[-1]


@pytest.mark.parametrize("reference, call", REFERENCE)
async def test_each_operation_sends_the_document_of_the_vendors_page(simulator, client_of, reference, call):
    """The same operation, root field, arguments and fields; more fields only if they are known to be newer."""
    simulator.add_schedule("daily")
    request = await _last_request(simulator, client_of(simulator), call)
    wanted, sent = _shape(reference, {}), _shape(request.query, request.variables)
    newer = NEWER.get(wanted["operation"][1], set())
    assert set(sent["fields"]) - set(wanted["fields"]) == newer
    sent["fields"] = [name for name in sent["fields"] if name not in newer]
    assert sent == wanted


@pytest.mark.parametrize("reference, call", REFERENCE)
async def test_an_older_backend_gets_exactly_the_vendors_document(simulator, client_of, reference, call):
    """A backend that refuses the newer fields gets the vendor's own document, argument for argument."""
    simulator.add_schedule("daily")
    simulator.lacks(fields=OLD_BACKEND)
    request = await _last_request(simulator, client_of(simulator), call)
    assert _shape(request.query, request.variables) == _shape(reference, {})


async def test_a_refused_field_is_not_requested_again_on_this_connection(simulator, client_of):
    """The first refusal shows everything about this backend."""
    simulator.add_schedule("daily")
    simulator.lacks(fields=["boltScheduleName.suspended"])
    async with client_of(simulator) as client:
        first = await client.get_bolt_schedule("daily")
        await client.get_bolt_schedule("daily")
    assert first.suspended is None
    assert ["suspended" in request.query for request in simulator.requests] == [True, False, False]


async def test_a_trigger_starts_one_run_with_the_given_options(simulator, client_of):
    """Commands and branch reach Bolt as typed, without surrounding spaces."""
    simulator.add_schedule("daily", commands=["dbt run"], setup_commands=False)
    async with client_of(simulator) as client:
        run_id = await client.trigger_bolt_run(" daily ", commands=[" dbt compile"], branch="feature ")
    (run,) = simulator.runs("daily")
    assert (run.id, run.branch, list(run.planned_commands)) == (run_id, "feature", ["dbt compile"])


@pytest.mark.parametrize(
    "lacking, arguments, left",
    [
        pytest.param(
            ["reason"], {"schedule_name": "daily", "reason": "a test"}, {"scheduleName"}, id="reason"
        ),
        pytest.param(
            ["commandConfigs"],
            {
                "schedule_name": "daily",
                "commands": ["dbt run", {"command": "dbt test", "continue_on_error": False}],
            },
            {"scheduleName", "commands"},
            id="commandConfigs",
        ),
        pytest.param(
            ["commandConfigs", "reason"],
            {
                "schedule_name": "daily",
                "commands": [{"command": "dbt test", "continue_on_error": False}],
                "reason": "a test",
            },
            {"scheduleName", "commands"},
            id="two arguments",
        ),
    ],
)
async def test_an_older_backend_gets_the_vendors_trigger(simulator, client_of, lacking, arguments, left):
    """After a refused argument, the client uses the older form of the same request, for one run."""
    simulator.add_schedule("daily")
    simulator.lacks(arguments=[f"triggerBoltRun.{name}" for name in lacking])
    async with client_of(simulator) as client:
        run_id = await client.trigger_bolt_run(**arguments)
    assert [run.id for run in simulator.runs()] == [run_id]
    assert set(simulator.requests[-1].variables) == left


@pytest.mark.parametrize(
    "lacking, arguments",
    [
        pytest.param("prNumber", {"pr_number": 7}, id="prNumber"),
        pytest.param("continueOnError", {"continue_on_error": True}, id="continueOnError"),
        pytest.param(
            "commandConfigs",
            {"commands": [{"command": "dbt test", "continue_on_error": True}]},
            id="commandConfigs that continue",
        ),
    ],
)
async def test_an_option_that_an_older_backend_lacks_is_refused(simulator, client_of, lacking, arguments):
    """If the vendor's page has no form for it, no run is started that does something else."""
    simulator.add_schedule("daily")
    simulator.lacks(arguments=[f"triggerBoltRun.{lacking}"])
    async with client_of(simulator) as client:
        with pytest.raises(BoltUnsupported, match=lacking) as caught:
            await client.trigger_bolt_run("daily", **arguments)
    assert caught.value.missing == lacking
    assert simulator.runs() == []


async def test_a_schedule_is_found_by_its_name_and_by_its_slug(simulator, client_of):
    """Bolt accepts both as the name."""
    simulator.add_schedule("Daily run", slug="daily-run")
    async with client_of(simulator) as client:
        for schedule_name in ("Daily run", "daily-run"):
            assert (await client.get_bolt_schedule(schedule_name)).ok is True


async def test_commands_with_continue_on_error_are_sent_as_configs(simulator, client_of):
    """The others are sent in the form of the vendor's page."""
    simulator.add_schedule("daily", already_running="allow")
    async with client_of(simulator) as client:
        await client.trigger_bolt_run("daily", commands=["dbt run", {"command": "dbt test"}])
        await client.trigger_bolt_run(
            "daily", commands=["dbt run", Command(command="dbt test", continue_on_error=True)]
        )
    first, second = [request.variables for request in simulator.requests]
    assert first == {"scheduleName": "daily", "commands": ["dbt run", "dbt test"]}
    assert second == {
        "scheduleName": "daily",
        "commandConfigs": [{"command": "dbt run"}, {"command": "dbt test", "continueOnError": True}],
    }


async def test_an_operation_that_a_backend_lacks_is_named(simulator, client_of):
    """The caller can distinguish an old backend from a wrong request."""
    simulator.add_schedule("daily")
    simulator.lacks(operations=["listBoltRuns"])
    async with client_of(simulator) as client:
        with pytest.raises(BoltUnsupported, match="does not know 'listBoltRuns'"):
            await client.list_bolt_runs("daily")


@pytest.mark.parametrize("status", [200, 400])
async def test_validation_errors_are_recognised_with_any_http_status(client_of, status):
    """Some GraphQL servers answer 400 to a document that does not fit their schema."""
    with BoltSimulator(speed=0, validation_status=status) as simulator:
        simulator.add_schedule("daily")
        simulator.lacks(fields=OLD_BACKEND)
        async with client_of(simulator) as client:
            page = await client.list_bolt_schedules()
    assert [schedule.name for schedule in page.schedules] == ["daily"]


async def test_status_shows_state_and_commands_of_a_run(simulator, client_of):
    """A running command has no end and no return code; a command that has not started is not listed."""
    simulator.add_schedule(
        "daily",
        commands=[SimulatedCommand("dbt run", duration_seconds=10, stdout="one\ntwo\n"), "dbt test"],
        setup_commands=False,
        starting_seconds=1,
    )
    run_id = simulator.start_run("daily")
    async with client_of(simulator) as client:
        starting = await client.get_bolt_run(run_id)
        simulator.clock.advance(6)
        running = await client.get_bolt_run(run_id)
        simulator.clock.advance(60)
        ended = await client.get_bolt_run(run_id)
    assert (starting.state, starting.commands) == (BoltRunState.STARTING, [])
    assert running.state is BoltRunState.RUNNING
    assert [(c.command, c.end_dttm, c.return_code) for c in running.commands] == [("dbt run", None, None)]
    assert ended.state is BoltRunState.SUCCESS
    assert [(c.command, c.return_code) for c in ended.commands] == [("dbt run", 0), ("dbt test", 0)]
    assert ended.commands[0].stdout == "one\ntwo\n"
    assert ended.commands[0].duration_seconds == 10


async def test_a_poll_leaves_the_logs_out(simulator, client_of):
    """A long run's logs are megabytes, and no poll needs them."""
    simulator.add_schedule("daily", commands=[SimulatedCommand("dbt run", stdout="x" * 100_000)])
    run_id = simulator.start_run("daily")
    simulator.clock.advance(600)
    async with client_of(simulator) as client:
        whole = await client.get_bolt_run(run_id)
        brief = await client.get_bolt_run(run_id, logs=False)
    assert [c.return_code for c in brief.commands] == [c.return_code for c in whole.commands]
    assert max(len(c.stdout) for c in whole.commands) == 100_000
    assert simulator.requests[-1].bytes < 2_000


async def test_command_details_have_log_resources_and_run(simulator, client_of):
    """The client returns all data of a command, and its id, which the API does not repeat."""
    simulator.add_schedule(
        "daily",
        commands=[
            SimulatedCommand(
                "dbt run", return_code=2, stdout="out", stderr="err", resources={"target/a.json": "{}"}
            )
        ],
        setup_commands=False,
    )
    run_id = simulator.start_run("daily")
    simulator.clock.advance(600)
    (listed,) = simulator.run(run_id).commands
    async with client_of(simulator) as client:
        command = await client.get_bolt_command(listed.id)
    assert (command.id, command.schedule_run_id, command.return_code) == (listed.id, run_id, 2)
    assert (command.stdout, command.stderr, command.failed) == ("out", "err", True)
    assert [resource.path for resource in command.resources] == ["target/a.json"]


async def test_a_cancel_is_accepted_and_can_be_repeated(simulator, client_of):
    """A second cancel does no harm."""
    simulator.add_schedule("daily")
    run_id = simulator.start_run("daily")
    async with client_of(simulator) as client:
        assert [await client.cancel_bolt_run(run_id) for _ in range(2)] == [True, True]
        simulator.clock.advance(60)
        assert (await client.get_bolt_run(run_id)).state is BoltRunState.CANCELED


async def test_a_cancel_that_bolt_does_not_accept_is_reported(simulator, client_of):
    """`ok: false` is a reply, not an error: the run may have ended on its own."""
    simulator.add_schedule("daily", cancel="not_ok")
    async with client_of(simulator) as client:
        assert await client.cancel_bolt_run(simulator.start_run("daily")) is False


async def test_a_cancel_whose_answer_is_lost_is_sent_again(simulator, client_of):
    """A second cancel does the same as the first."""
    simulator.add_schedule("daily")
    simulator.inject(faults.CutConnection(operation="cancelBoltRun", after_acting=True, times=2))
    async with client_of(simulator) as client:
        assert await client.cancel_bolt_run(simulator.start_run("daily")) is True
    assert simulator.count("cancelBoltRun") == 3


async def test_schedule_details_lead_to_the_latest_run(simulator, client_of):
    """They have the schedule's commands and its latest run."""
    simulator.add_schedule("daily", commands=["dbt run", "dbt test"], owner="ann@example.com")
    async with client_of(simulator) as client:
        before = await client.get_bolt_schedule("daily")
        run_id = simulator.start_run("daily")
        after = await client.get_bolt_schedule("daily")
    assert (before.latest_run_id, after.latest_run_id) == (None, run_id)
    assert (after.commands, after.owner, after.suspended) == (
        ["dbt run", "dbt test"],
        "ann@example.com",
        False,
    )


@pytest.mark.parametrize(
    "page_size, offsets",
    [
        pytest.param(1, [0, 1, 2, 3, 4, 5, 6], id="one at a time"),
        pytest.param(3, [0, 3, 6], id="odd last page"),
        pytest.param(7, [0], id="exactly one page"),
        pytest.param(8, [0], id="more than exist"),
        pytest.param(1000, [0], id="largest page"),
    ],
)
async def test_iterating_gives_every_schedule_once_in_few_requests(simulator, client_of, page_size, offsets):
    """The pages have no gap, no overlap and no empty page at the end."""
    for n in range(7):
        simulator.add_schedule(f"schedule-{n}")
    async with client_of(simulator) as client:
        names = [schedule.name async for schedule in client.iter_bolt_schedules(page_size=page_size)]
    assert sorted(names) == [f"schedule-{n}" for n in range(7)]
    assert [request.variables["offset"] for request in simulator.requests] == offsets


async def test_iterating_an_empty_workspace_gives_nothing(simulator, client_of):
    """It takes one request, without an endless loop."""
    async with client_of(simulator) as client:
        assert [schedule async for schedule in client.iter_bolt_schedules()] == []
    assert simulator.count("listBoltSchedules") == 1


async def test_inactive_schedules_are_listed_on_demand(simulator, client_of):
    """`showInactive` reaches Bolt."""
    simulator.add_schedule("daily")
    simulator.add_schedule("old", active=False)
    async with client_of(simulator) as client:
        assert [s.name async for s in client.iter_bolt_schedules()] == ["daily"]
        assert "old" in [s.name async for s in client.iter_bolt_schedules(show_inactive=True)]


async def test_unknown_states_are_kept_and_are_not_terminal(simulator, client_of):
    """Both before and at the end of a run, an unknown state is kept by name."""
    simulator.add_schedule(
        "daily", intermediate_states=["POLISHING"], starting_seconds=5, final_state="PETRIFIED"
    )
    run_id = simulator.start_run("daily")
    async with client_of(simulator) as client:
        first = (await client.get_bolt_run(run_id)).state
        while simulator.active_runs():
            simulator.clock.advance(1)
        last = (await client.get_bolt_run(run_id)).state
    assert [(state.value, state.is_terminal) for state in (first, last)] == [
        ("POLISHING", False),
        ("PETRIFIED", False),
    ]


async def test_dates_are_aware_and_in_utc(simulator, client_of):
    """The API names no zone; every date that leaves the client has one."""
    simulator.add_schedule("daily", setup_commands=False, cron="0 6 * * *")
    before = simulator.clock.now()
    run_id = simulator.start_run("daily")
    simulator.clock.advance(600)
    async with client_of(simulator) as client:
        status = await client.get_bolt_run(run_id)
        (schedule,) = (await client.list_bolt_schedules()).schedules
        (record,) = (await client.list_bolt_runs("daily")).runs
    found = [
        status.started_at,
        status.ended_at,
        schedule.last_run_at,
        schedule.next_run_at,
        record.start_dttm,
        record.end_dttm,
    ]
    assert all(isinstance(date, datetime) and date.tzinfo is timezone.utc for date in found)
    assert timedelta(0) <= status.started_at - before.astimezone(timezone.utc) < timedelta(seconds=60)


async def test_many_resources_are_requested_at_once(simulator, client_of):
    """With aliases: one request for all commands, one for all URLs."""
    command_ids, paths = _finished_run(simulator)
    async with client_of(simulator) as client:
        resources = await client.get_bolt_command_resources(command_ids)
        ids = [resource.id for found in resources.values() for resource in found]
        urls = await client.get_bolt_resource_urls(ids)
    assert [[r.path for r in resources[id_]] for id_ in command_ids] == paths
    assert list(urls) == ids
    assert len(simulator.requests) == 2


@pytest.mark.parametrize("aliases", [True, False], ids=["aliases", "one by one"])
async def test_the_details_of_ended_commands_are_requested_once(simulator, client_of, aliases, tmp_path):
    """They do not change any more: also their resources are known then, and to later clients, too."""
    command_ids, paths = _finished_run(simulator)
    if not aliases:
        simulator.lacks(aliases=True)
    async with client_of(simulator) as client:
        commands = await client.spool_bolt_commands(command_ids, tmp_path)
    assert list(commands) == command_ids
    assert all(command.stdout.whole() for command in commands.values())
    asked = len(simulator.requests)
    async with client_of(simulator) as client:
        resources = await client.get_bolt_command_resources(command_ids)
        assert await client.spool_bolt_commands(command_ids, tmp_path) == commands
    assert [[r.path for r in resources[id_]] for id_ in command_ids] == paths
    assert len(simulator.requests) == asked == (1 if aliases else 1 + len(command_ids))


async def test_the_details_of_running_commands_are_requested_each_time(simulator, client_of, tmp_path):
    """Their output grows."""
    simulator.add_schedule("daily", [SimulatedCommand("dbt run", 10, stdout="a\nb\n")], setup_commands=False)
    run_id = simulator.start_run("daily")
    (command,) = simulator.run(run_id).commands
    found = []
    async with client_of(simulator) as client:
        for _ in range(2):
            simulator.clock.advance(5)
            found.append(
                (await client.spool_bolt_commands([command.id], tmp_path))[command.id].stdout.whole()
            )
    assert found == ["a\n", "a\nb\n"]


async def test_output_that_was_read_page_by_page_is_not_requested_again(client_of, tmp_path):
    """Only the files of such a command are."""
    with BoltSimulator(speed=0, log_batch_lines=2) as simulator:
        command = SimulatedCommand("dbt run", stdout="a\nb\nc\n", stderr="oh\n")
        simulator.add_schedule("daily", [command], setup_commands=False)
        run_id = simulator.start_run("daily")
        simulator.clock.advance(10)
        command_id = simulator.run(run_id).commands[0].id
        async with client_of(simulator) as client:
            assert len([line async for line in client.stream_bolt_command_logs(command_id)]) == 4
            found = (await client.spool_bolt_commands([command_id], tmp_path))[command_id]
            assert (found.stdout.whole(), found.stderr.whole()) == ("a\nb\nc\n", "oh\n")
            assert [each.path for each in found.resources] == [
                "target/manifest.json",
                "target/run_results.json",
            ]
            assert await client.get_bolt_command_resources([command_id]) == {command_id: found.resources}
        (asked,) = [each for each in simulator.requests if each.operations == ("boltCommand",)]
        assert "stdout" not in asked.query


@pytest.mark.parametrize("aliases", [True, False], ids=["aliases", "one by one"])
async def test_long_output_is_written_to_files(simulator, client_of, aliases, tmp_path):
    """Also if a reply has the output of several commands, and if a reply is cut and requested again."""
    texts = [f"é {n} \\" * 10 + "\n" for n in range(3)]
    texts = [text * (4_000_000 // len(text)) for text in texts]
    commands = [SimulatedCommand(f"dbt run {n}", stdout=text, stderr="!") for n, text in enumerate(texts)]
    simulator.add_schedule("daily", commands, setup_commands=False)
    run_id = simulator.start_run("daily")
    simulator.clock.advance(60)
    command_ids = [command.id for command in simulator.run(run_id).commands]
    simulator.inject(faults.Truncated(operation="boltCommand", after_acting=True))
    if not aliases:
        simulator.lacks(aliases=True)
    async with client_of(simulator) as client:
        found = await client.spool_bolt_commands(command_ids, tmp_path)
    assert [found[id_].stdout.whole() for id_ in command_ids] == texts
    assert [found[id_].stderr.text for id_ in command_ids] == ["!"] * 3
    assert all(path.stat().st_size for path in tmp_path.iterdir())
    assert {found[id_].stdout.path for id_ in command_ids} <= set(tmp_path.iterdir())


async def test_a_backend_that_refuses_aliases_is_asked_one_by_one(simulator, client_of):
    """The replies are the same, in more requests; aliases are not tried again on this connection."""
    command_ids, paths = _finished_run(simulator)
    simulator.lacks(aliases=True)
    async with client_of(simulator) as client:
        resources = await client.get_bolt_command_resources(command_ids)
        again = await client.get_bolt_command_resources(command_ids)
    assert [[r.path for r in resources[id_]] for id_ in command_ids] == paths
    assert again == resources
    assert len(simulator.requests) == 1 + 2 * len(command_ids)


async def test_one_missing_thing_among_many_is_named(simulator, client_of):
    """Aliases fail together; the error is that of the missing one, and aliases stay in use."""
    command_ids, _ = _finished_run(simulator)
    async with client_of(simulator) as client:
        with pytest.raises(BoltRequestError, match="999999"):
            await client.get_bolt_command_resources([*command_ids, 999_999])
        asked = len(simulator.requests)
        await client.get_bolt_command_resources(command_ids)
    assert len(simulator.requests) == asked + 1


@pytest.mark.parametrize("aliases", [True, False], ids=["aliases", "one by one"])
async def test_one_missing_thing_does_not_affect_the_others(simulator, client_of, aliases):
    """If Bolt fails the whole request because of it, the others are requested one by one."""
    command_ids, paths = _finished_run(simulator)
    if not aliases:
        simulator.lacks(aliases=True)
    errors: dict[int, BoltError] = {}
    async with client_of(simulator) as client:
        found = await client.get_bolt_command_resources([999_999, *command_ids], errors=errors)
    assert [[resource.path for resource in found[id_]] for id_ in command_ids] == paths
    assert list(errors) == [999_999]


async def test_an_outage_is_not_an_error_of_one_thing(simulator, client_of):
    """It is raised even to a caller that wants errors: the client does not wait for it once per thing."""
    command_ids, _ = _finished_run(simulator)
    simulator.inject(faults.Status(503, operation="boltCommand", times=None))
    errors: dict[int, BoltError] = {}
    async with client_of(simulator, retry_policy=RetryPolicy(attempts=2, first_wait_seconds=0)) as client:
        with pytest.raises(BoltUnavailable):
            await client.get_bolt_command_resources(command_ids, errors=errors)
    assert errors == {}
    assert len(simulator.requests) == 2


async def test_more_than_a_hundred_things_take_several_requests(simulator, client_of):
    """A backend may limit the size of one document."""
    simulator.add_schedule(
        "daily",
        commands=[
            SimulatedCommand("dbt run", resources={f"target/{n}.json": "{}" for n in range(101)}),
        ],
        setup_commands=False,
    )
    run_id = simulator.start_run("daily")
    simulator.clock.advance(60)
    async with client_of(simulator) as client:
        found = await client.get_bolt_command_resources([simulator.run(run_id).commands[0].id])
        ids = [resource.id for resources in found.values() for resource in resources]
        assert len(await client.get_bolt_resource_urls(ids)) == 101
    assert simulator.count("boltResourceUrl") == 2


async def test_an_empty_list_sends_no_request(simulator, client_of):
    """A run without commands has no resources to request."""
    async with client_of(simulator) as client:
        assert await client.get_bolt_command_resources([]) == {}
    assert simulator.requests == []


async def test_logs_are_read_from_a_cursor(client_of):
    """The pages have each piece once, to the end."""
    with BoltSimulator(speed=0, log_batch_lines=2) as simulator:
        text = "".join(f"line {n}\n" for n in range(5))
        simulator.add_schedule(
            "daily", commands=[SimulatedCommand("dbt run", stdout=text)], setup_commands=False
        )
        run_id = simulator.start_run("daily")
        simulator.clock.advance(60)
        command_id = simulator.run(run_id).commands[0].id
        async with client_of(simulator) as client:
            pages = [await client.get_bolt_command_logs(command_id)]
            while not pages[-1].finished:
                pages.append(await client.get_bolt_command_logs(command_id, pages[-1].cursor))
    assert "".join(line.line for page in pages for line in page.lines) == text
    assert len(pages) == 3


@pytest.mark.parametrize("everything", [False, True])
async def test_a_run_is_retried_in_a_new_run(simulator, client_of, everything):
    """The new run starts from the failure, or from the beginning."""
    simulator.add_schedule("daily", commands=["dbt run", SimulatedCommand("dbt test", return_code=(1, 0))])
    failed = simulator.start_run("daily")
    simulator.clock.advance(600)
    async with client_of(simulator) as client:
        again = await client.retry_bolt_run(failed, everything=everything)
        (newest, *_) = (await client.list_bolt_runs("daily")).runs
    assert (newest.id, newest.parent_schedule_run_id) == (again, failed)
    assert simulator.count("retryAllBoltRun" if everything else "retryBoltRun") == 1


async def test_a_resource_is_downloaded_unchanged(simulator, client_of):
    """Its bytes are unchanged; the signed URL gets no credentials, or the simulator would fail the test."""
    content = bytes(range(256)) * 400
    resource_id = _resource(simulator, content)
    async with client_of(simulator) as client:
        assert await client.download_bolt_resource(resource_id) == content


async def test_an_expired_url_is_requested_again(simulator, client_of):
    """Each try of a download uses a new URL."""
    resource_id = _resource(simulator, b"{}")
    simulator.inject(faults.Status(403, operation="resource"), faults.CutConnection(operation="resource"))
    async with client_of(simulator) as client:
        assert await client.download_bolt_resource(resource_id) == b"{}"
    assert simulator.count("boltResourceUrl") == simulator.count("resource") == 3


async def test_the_error_of_a_download_hides_its_signature(simulator, client_of):
    """A reader of the error must not be able to fetch the file."""
    resource_id = _resource(simulator, b"{}")
    simulator.inject(faults.Status(404, operation="resource", times=None))
    async with client_of(simulator) as client:
        url = await client.get_bolt_resource_url(resource_id)
        with pytest.raises(BoltUnavailable, match=f"resource {resource_id} refused its signed URL") as caught:
            await client.download_bolt_resource(resource_id)
    assert caught.value.status_code == 404
    assert url.rpartition("?")[2] not in repr(caught.value.__reduce__())


@pytest.mark.parametrize(
    "fault",
    [faults.Status(404, operation="resource", times=None), faults.CutConnection(operation="resource")],
)
async def test_a_pickle_of_a_failed_download_holds_no_signature(simulator, client_of, fault):
    """Dask also pickles the causes of an error, and httpx's errors contain their request."""
    pickling_support.install()
    resource_id = _resource(simulator, b"{}")
    simulator.inject(fault)
    async with client_of(simulator, retry_policy=RetryPolicy(attempts=1)) as client:
        with pytest.raises(BoltUnavailable) as caught:
            await client.download_bolt_resource(resource_id)
    pickled = pickle.dumps(caught.value)
    assert b"tblib" in pickled
    assert b"X-Signature" not in pickled


async def test_a_closed_client_says_how_to_open_it(simulator, client_of):
    """This is a common mistake."""
    with pytest.raises(BoltRequestError, match="async with"):
        await client_of(simulator).get_bolt_run(1)


async def test_a_client_is_opened_once(simulator, client_of):
    """Entering it a second time would close it for the first user."""
    simulator.add_schedule("daily")
    async with client_of(simulator) as client:
        with pytest.raises(BoltRequestError, match="already open"):
            await client.__aenter__()
        assert (await client.get_bolt_schedule("daily")).ok


@pytest.fixture
def open_http(monkeypatch) -> Callable[[], list[httpx.AsyncClient]]:
    """Tells which of httpx's clients are open; each has its own pool."""
    made = []

    class Noted(httpx.AsyncClient):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self)

    monkeypatch.setattr(httpx, "AsyncClient", Noted)
    return lambda: [each for each in made if not each.is_closed]


async def test_clients_with_the_same_settings_share_one_tcp_connection(recorder, client_of, open_http):
    """They share it while one of them is open; the last to leave closes it."""
    async with client_of(recorder.url) as first:
        await first.get_bolt_run(1)
        for _ in range(3):
            async with client_of(recorder.url) as client:
                await client.get_bolt_run(1)
        assert len(open_http()) == 1
    assert open_http() == []
    assert (recorder.connections, len(recorder.requests)) == (1, 4)


async def test_other_credentials_get_their_own_connection(recorder, client_of, open_http):
    """A pool sends the headers of one key pair only."""
    async with client_of(recorder.url) as one, client_of(recorder.url, api_secret="another") as other:
        await one.get_bolt_run(1)
        await other.get_bolt_run(1)
        assert len(open_http()) == 2
    assert [headers["x-api-secret"] for _, headers in recorder.requests] == ["a-secret", "another"]


async def test_a_clone_is_closed_and_like_its_original(simulator, client_of):
    """It is for another event loop or thread."""
    simulator.add_schedule("daily")
    original = client_of(simulator)
    async with original, original.clone() as clone:
        assert clone.settings == original.settings
        assert (await clone.get_bolt_schedule("daily")).ok


def test_clients_work_in_several_event_loops_and_threads_at_once(simulator, client_of, open_http):
    """Each loop has its own connection, and none is left behind."""
    simulator.add_schedule("daily", already_running="allow")

    async def work() -> int:
        async with client_of(simulator) as client, anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(client.get_bolt_schedule, "daily")
            return await client.trigger_bolt_run("daily")

    with ThreadPoolExecutor(4) as pool:
        run_ids = list(pool.map(lambda _: asyncio.run(work()), range(8)))
    assert sorted(run_ids) == sorted(run.id for run in simulator.runs())
    assert len(set(run_ids)) == 8
    assert open_http() == []


def _resource(simulator: BoltSimulator, content: bytes) -> int:
    """The id of a resource with that content."""
    command = SimulatedCommand("dbt run", resources={"target/a.bin": content})
    simulator.add_schedule("daily", commands=[command], setup_commands=False)
    run_id = simulator.start_run("daily")
    simulator.clock.advance(60)
    return simulator.run(run_id).commands[0].resources[0].id


def _finished_run(simulator: BoltSimulator) -> tuple[list[int], list[list[str]]]:
    """The commands of an ended run, and the paths that each wrote."""
    paths = [["target/a.json", "target/b.json"], [], ["target/c.json"]]
    commands = [
        SimulatedCommand(f"dbt run {n}", resources=dict.fromkeys(each, "{}")) for n, each in enumerate(paths)
    ]
    simulator.add_schedule("daily", commands=commands, setup_commands=False)
    run_id = simulator.start_run("daily")
    simulator.clock.advance(600)
    return [command.id for command in simulator.run(run_id).commands], paths


def test_every_operation_has_one_document():
    """One document per name: a second one would drift apart from the first."""
    written = [value for value in vars(ops).values() if isinstance(value, ops.Operation)]
    assert len({operation.name for operation in written}) == len(written)


def test_a_client_of_another_event_loop_says_so(simulator, client_of):
    """A task may run in its own event loop, but get a client that its flow has opened."""
    simulator.add_schedule("daily")

    async def lend() -> None:
        async with client_of(simulator) as client:
            await anyio.to_thread.run_sync(asyncio.run, client.get_bolt_schedule("daily"))

    with pytest.raises(BoltRequestError, match="another event loop") as caught:
        asyncio.run(lend())
    assert "async with credentials.get_client() as client:" in str(caught.value)
    assert simulator.count("boltScheduleName") == 0


def internal_error(operation: str, times: int | None) -> faults.GraphQLError:
    return faults.GraphQLError("Internal error", operation=operation, times=times)


async def test_an_internal_error_before_a_trigger_is_survived(simulator, client_of, naps):
    """A read that fails inside Bolt is repeated within the usual limits, like one without an answer."""
    simulator.add_schedule("daily")
    simulator.inject(internal_error("boltScheduleName", 2))
    async with client_of(simulator) as client:
        assert (await client.get_bolt_schedule("daily")).ok
    assert (simulator.count("boltScheduleName"), len(naps)) == (3, 2)


async def test_a_lasting_internal_error_ends_a_read_within_its_limits(simulator, client_of):
    """The error quotes Bolt."""
    simulator.inject(internal_error("boltScheduleName", None))
    async with client_of(simulator, retry_policy=RetryPolicy(attempts=3)) as client:
        with pytest.raises(BoltUnavailable, match="Internal error"):
            await client.get_bolt_schedule("daily")
    assert simulator.count("boltScheduleName") == 3


async def test_an_unknown_error_about_aliases_leads_to_single_reads(client_of, simulator):
    """A backend that refuses several reads in one request can use any words."""
    simulator.add_schedule("daily", ["dbt run"], setup_commands=False, already_running="allow")
    runs = [simulator.start_run("daily") for _ in range(2)]
    simulator.inject(faults.GraphQLError("One at a time, please.", operation="boltRunStatus", times=2))
    async with client_of(simulator, retry_policy=RetryPolicy(attempts=2)) as client:
        assert list(await client.get_bolt_runs(runs)) == runs
