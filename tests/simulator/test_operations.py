"""Each operation of the API, with the documents of the vendor's page word for word."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from paradime_blocks.testing import BoltSimulator, SimulatedCommand

Ask = Callable[..., dict[str, Any]]

DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}")

REFERENCE = {
    "trigger": """
mutation TriggerBoltRun {
    triggerBoltRun(scheduleName: "daily") {
        runId
    }
}""",
    "trigger with commands": """
mutation TriggerBoltRun {
    triggerBoltRun(scheduleName: "daily", commands: ["dbt compile", "dbt test"]) {
        runId
    }
}""",
    "trigger with a commit": """
mutation TriggerBoltRun {
    triggerBoltRun(scheduleName: "daily", branch: "e987a71966bf68c79c7fdcb4c4c19babdaf9b258") {
        runId
    }
}""",
    "cancel": """
mutation CancelBoltRun {
    cancelBoltRun(scheduleRunId: 76001) {
        ok
    }
}""",
    "status": """
query BoltRunStatus {
    boltRunStatus(runId: 76001) {
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
}""",
    "command": """
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
}""",
    "resource": """
query BoltResourceUrl {
    boltResourceUrl(resourceId: 2023484) {
        ok
        url
    }
}""",
    "schedules": """
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
}""",
    "schedule": """
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
}""",
}


@pytest.fixture
def ended(simulator: BoltSimulator) -> int:
    """An ended run with command 243281 and resources 2023484 and 2023485."""
    simulator.add_schedule("daily", ["dbt run", "dbt test"], setup_commands=False)
    run_id = simulator.start_run("daily")
    simulator.clock.advance(60)
    return run_id


@pytest.mark.parametrize("name", REFERENCE)
def test_the_documents_of_the_reference_work_unchanged(
    simulator: BoltSimulator, ask: Ask, ended: int, name: str
) -> None:
    """No document of the vendor's page is refused, and each response has the shape shown there."""
    (answer,) = ask(REFERENCE[name]).values()
    assert answer
    assert simulator.bad_requests == []


def test_a_trigger_runs_the_commands_and_the_commit_it_names(
    simulator: BoltSimulator, ask: Ask, ended: int
) -> None:
    """Commands and branch apply to that run only."""
    ask(REFERENCE["trigger with commands"])
    simulator.clock.advance(60)
    ask(REFERENCE["trigger with a commit"])
    plain, commands, commit = simulator.runs("daily")
    assert plain.planned_commands == commit.planned_commands == ("dbt run", "dbt test")
    assert commands.planned_commands == ("dbt compile", "dbt test")
    assert (plain.branch, commands.branch) == ("main", "main")
    assert commit.branch == "e987a71966bf68c79c7fdcb4c4c19babdaf9b258"


def test_a_command_named_in_a_trigger_behaves_as_in_its_schedule(simulator: BoltSimulator, ask: Ask) -> None:
    """A failing command fails, whoever requests it."""
    simulator.add_schedule("daily", ["dbt run", SimulatedCommand("dbt test", return_code=1)])
    ask(REFERENCE["trigger with commands"])
    simulator.clock.advance(60)
    assert simulator.runs("daily")[0].state == "FAILED"


def test_a_second_trigger_is_refused_while_a_run_is_active(
    simulator: BoltSimulator, ask: Ask, refused: Callable[..., str]
) -> None:
    """The error's text contains AlreadyRunningException, and no second run starts."""
    simulator.add_schedule("daily")
    ask(REFERENCE["trigger"])
    assert "AlreadyRunningException" in refused(REFERENCE["trigger"])
    simulator.clock.advance(60)
    ask(REFERENCE["trigger"])
    assert len(simulator.runs("daily")) == 2


def test_a_schedule_may_allow_a_second_run(simulator: BoltSimulator, ask: Ask) -> None:
    """With already_running="allow", runs overlap."""
    simulator.add_schedule("daily", already_running="allow")
    ask(REFERENCE["trigger"])
    ask(REFERENCE["trigger"])
    assert len(simulator.active_runs()) == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        pytest.param('scheduleName: "nope"', "was not found", id="unknown schedule"),
        pytest.param('scheduleName: "daily", slug: "daily"', "exactly one", id="both names"),
        pytest.param("reason: null", "exactly one", id="no name"),
        pytest.param('slug: "daily", commands: []', "at least one command", id="no commands"),
        pytest.param('slug: "daily", commands: [""]', "at least one command", id="empty command"),
        pytest.param(
            'slug: "daily", commands: ["a"], commandConfigs: [{command: "a"}]',
            "at most one",
            id="commands twice",
        ),
    ],
)
def test_a_contradictory_trigger_is_refused(
    simulator: BoltSimulator, refused: Callable[..., str], arguments: str, message: str
) -> None:
    """A GraphQL error says why, and nothing runs."""
    simulator.add_schedule("daily")
    assert message in refused(f"mutation {{ triggerBoltRun({arguments}) {{ runId }} }}")
    assert simulator.runs() == []


def test_a_slug_names_a_schedule_too(simulator: BoltSimulator, ask: Ask) -> None:
    """`slug` and `scheduleName` are two arguments for the same identifier."""
    simulator.add_schedule("Daily build", slug="daily-build")
    run_id = ask('mutation { triggerBoltRun(slug: "daily-build") { runId } }')["triggerBoltRun"]["runId"]
    for name in ('slug: "daily-build"', 'scheduleName: "Daily build"', 'scheduleName: "daily-build"'):
        found = ask(f"{{ boltScheduleName({name}) {{ latestRunId }} }}")
        assert found["boltScheduleName"]["latestRunId"] == run_id


def test_all_arguments_of_a_trigger_are_stored(simulator: BoltSimulator, ask: Ask) -> None:
    """The test can see the reason and the pull request; clients cannot see the reason."""
    simulator.add_schedule("daily")
    ask('mutation { triggerBoltRun(slug: "daily", prNumber: 12, reason: "prefect") { runId } }')
    run = simulator.runs("daily")[0]
    assert (run.pr_number, run.reason, run.actor) == (12, "prefect", "API")
    found = ask('{ listBoltRuns(slug: "daily", offset: 0, limit: 1) { runs { gitInfo { pullRequestId } } } }')
    assert found["listBoltRuns"]["runs"][0]["gitInfo"]["pullRequestId"] == "12"


def test_dates_are_text_without_a_zone(ask: Ask, ended: int) -> None:
    """The format is the vendor's: 2023-10-15 16:44:16.986049."""
    command = ask(REFERENCE["command"])["boltCommand"]
    assert DATE.fullmatch(command["startDttm"])
    assert DATE.fullmatch(command["endDttm"])


@pytest.mark.parametrize(
    "query",
    [
        "{ boltRunStatus(runId: 1) { ok } }",
        "{ boltCommand(commandId: 1) { ok } }",
        "{ boltCommandLogs(commandId: 1) { cursor } }",
        "{ boltResourceUrl(resourceId: 1) { ok } }",
        '{ boltScheduleName(scheduleName: "nope") { ok } }',
        'query { listBoltRuns(slug: "nope", offset: 0, limit: 1) { ok } }',
        "mutation { cancelBoltRun(scheduleRunId: 1) { ok } }",
        "mutation { retryBoltRun(scheduleRunId: 1) { runId } }",
        "mutation { retryAllBoltRun(scheduleRunId: 1) { runId } }",
        'mutation { retryBoltRunFromFailure(slug: "nope") { runId } }',
        'mutation { suspendBoltSchedule(slug: "nope", suspend: true) { ok } }',
    ],
)
def test_a_missing_object_is_a_graphql_error(
    simulator: BoltSimulator, refused: Callable[..., str], query: str
) -> None:
    """The request is valid, so it is not a bad request."""
    assert "was not found" in refused(query)
    assert simulator.bad_requests == []


def test_schedules_are_listed_page_by_page(simulator: BoltSimulator, ask: Ask) -> None:
    """offset and limit select a page of the list; totalCount counts the whole list."""
    for number in range(5):
        simulator.add_schedule(f"schedule-{number}")
    query = """query($o: Int!) {
        listBoltSchedules(offset: $o, limit: 2, showInactive: false) { schedules { name } totalCount }
    }"""
    pages = [ask(query, o=offset)["listBoltSchedules"] for offset in (0, 2, 4, 6)]
    assert [[each["name"][-1] for each in page["schedules"]] for page in pages] == [
        ["0", "1"],
        ["2", "3"],
        ["4"],
        [],
    ]
    assert {page["totalCount"] for page in pages} == {5}


def test_schedules_are_filtered(simulator: BoltSimulator, ask: Ask) -> None:
    """showInactive lists the inactive ones instead; the filter selects suspended ones or the others."""
    simulator.add_schedule("plain")
    simulator.add_schedule("resting", suspended=True)
    simulator.add_schedule("gone", active=False)
    query = """query($i: Boolean!, $f: BoltScheduleFilter) {
        listBoltSchedules(offset: 0, limit: 9, showInactive: $i, filter: $f) { schedules { name } }
    }"""

    def names(*, inactive: bool = False, **variables: Any) -> list[str]:
        return [
            each["name"] for each in ask(query, i=inactive, **variables)["listBoltSchedules"]["schedules"]
        ]

    assert names() == names(f=None) == names(f={}) == ["plain", "resting"]
    assert names(inactive=True) == ["gone"]
    assert names(f={"suspended": True}) == ["resting"]
    assert names(f={"suspended": False}) == ["plain"]


def test_a_schedule_shows_its_last_and_next_run(simulator: BoltSimulator, ask: Ask, ended: int) -> None:
    """lastRunAt, lastRunState and, for a daily schedule, nextRunAt are right."""
    schedule = ask(REFERENCE["schedules"])["listBoltSchedules"]["schedules"][0]
    assert schedule["lastRunState"] == "SUCCESS"
    assert schedule["lastRunAt"].startswith(f"{simulator.run(ended).started_at:%Y-%m-%d %H:%M:%S}")
    assert schedule["nextRunAt"].endswith("03:00:00.000000")
    assert schedule["nextRunAt"] > f"{simulator.clock.now():%Y-%m-%d %H:%M:%S}"


def test_a_schedule_that_never_ran_has_no_last_run(simulator: BoltSimulator, ask: Ask) -> None:
    """Its fields are null."""
    simulator.add_schedule("daily", cron="OFF")
    schedule = ask(REFERENCE["schedules"])["listBoltSchedules"]["schedules"][0]
    assert (schedule["lastRunAt"], schedule["lastRunState"], schedule["nextRunAt"]) == (None, None, None)
    assert ask(REFERENCE["schedule"])["boltScheduleName"]["latestRunId"] is None


def test_runs_are_listed_newest_first(simulator: BoltSimulator, ask: Ask) -> None:
    """Pages of listBoltRuns go back in time, one schedule at a time."""
    simulator.add_schedule("daily")
    simulator.add_schedule("other")
    ids = [simulator.start_run("daily") for _ in range(3)]
    simulator.start_run("other")
    query = """query($o: Int!) {
        listBoltRuns(slug: "daily", offset: $o, limit: 2) { ok runs { id state endDttm parentScheduleRunId } }
    }"""
    pages = [ask(query, o=offset)["listBoltRuns"]["runs"] for offset in (0, 2)]
    assert [run["id"] for page in pages for run in page] == ids[::-1]
    assert pages[0][0] == {"id": ids[2], "state": "RUNNING", "endDttm": None, "parentScheduleRunId": None}


@pytest.mark.parametrize("offset, limit", [(-1, 1), (0, 0), (0, 1001)])
def test_a_page_of_runs_has_bounds(
    simulator: BoltSimulator, refused: Callable[..., str], offset: int, limit: int
) -> None:
    """offset is not negative, and limit is between 1 and 1000."""
    simulator.add_schedule("daily")
    query = 'query($o: Int!, $l: Int!) { listBoltRuns(slug: "daily", offset: $o, limit: $l) { ok } }'
    assert "limit at least 1" in refused(query, o=offset, l=limit)


def test_logs_come_in_batches_and_continue_from_the_cursor(post_to: Callable[..., Any]) -> None:
    """No line is repeated or lost, and `finished` comes with the very last line."""
    out, err = [f"out {number}\n" for number in range(7)], [f"err {number}\n" for number in range(4)]
    with BoltSimulator(speed=0, log_batch_lines=3) as simulator:
        simulator.add_schedule(
            "daily",
            [SimulatedCommand("dbt run", duration_seconds=10, stdout="".join(out), stderr="".join(err))],
            setup_commands=False,
        )
        simulator.start_run("daily")
        cursor, finished, lines, unfinished = "0:0", False, [], 0
        while not finished:
            query = """query($c: String) {
                boltCommandLogs(commandId: 243281, cursor: $c) { lines { stream line } cursor finished }
            }"""
            logs = post_to(simulator, query, c=cursor).json()["data"]["boltCommandLogs"]
            assert len(logs["lines"]) <= 3
            lines += [(line["stream"], line["line"]) for line in logs["lines"]]
            cursor, finished = logs["cursor"], logs["finished"]
            unfinished += not finished
            simulator.clock.advance(1)
    assert [line for stream, line in lines if stream == "STDOUT"] == out
    assert [line for stream, line in lines if stream == "STDERR"] == err
    assert unfinished >= 10


def test_an_invented_cursor_is_refused(
    simulator: BoltSimulator, refused: Callable[..., str], ended: int
) -> None:
    """Cursors are opaque: only those from the simulator are valid."""
    assert "Not a cursor" in refused('{ boltCommandLogs(commandId: 243281, cursor: "x") { finished } }')


def test_resources_appear_when_their_command_has_ended(simulator: BoltSimulator, ask: Ask) -> None:
    """A running command has none; a failed one has them too."""
    simulator.add_schedule(
        "daily",
        [SimulatedCommand("dbt test", return_code=1, resources={"target/run_results.json": "{}"})],
        setup_commands=False,
    )
    simulator.start_run("daily")
    assert ask(REFERENCE["command"])["boltCommand"]["resources"] == []
    simulator.clock.advance(1)
    assert ask(REFERENCE["command"])["boltCommand"]["resources"] == [
        {"id": 2023484, "path": "target/run_results.json"}
    ]


def test_a_schedule_is_suspended_and_resumed(simulator: BoltSimulator, ask: Ask) -> None:
    """suspendBoltSchedule sets the flag that the schedule shows; a trigger still works."""
    simulator.add_schedule("daily")
    suspend = 'mutation($s: Boolean!) { suspendBoltSchedule(slug: "daily", suspend: $s) { ok } }'
    show = '{ boltScheduleName(slug: "daily") { suspended } }'
    for value in (True, False):
        assert ask(suspend, s=value)["suspendBoltSchedule"] == {"ok": True}
        assert ask(show)["boltScheduleName"] == {"suspended": value}


def test_a_schedule_from_yaml_cannot_be_suspended(
    simulator: BoltSimulator, refused: Callable[..., str]
) -> None:
    """Only schedules made in the UI or through the API can."""
    simulator.add_schedule("daily", source="YAML")
    assert "YAML" in refused('mutation { suspendBoltSchedule(slug: "daily", suspend: true) { ok } }')


def test_one_request_can_have_many_fields(simulator: BoltSimulator, ask: Ask, ended: int) -> None:
    """Aliases and several root fields work as everywhere in GraphQL."""
    found = ask("""{
        a: boltCommand(commandId: 243281) { command }
        b: boltCommand(commandId: 243282) { command }
        boltRunStatus(runId: 76001) { state }
    }""")
    assert found == {
        "a": {"command": "dbt run"},
        "b": {"command": "dbt test"},
        "boltRunStatus": {"state": "SUCCESS"},
    }
    assert simulator.requests[-1].operations == ("boltCommand", "boltRunStatus")


def test_one_failing_field_does_not_affect_the_others(post: Callable[..., Any], ended: int) -> None:
    """Data and errors come together, the error with the path of its field."""
    answer = post("{ a: boltRunStatus(runId: 76001) { state } b: boltRunStatus(runId: 1) { state } }").json()
    assert answer["data"] == {"a": {"state": "SUCCESS"}, "b": None}
    assert answer["errors"][0]["path"] == ["b"]
