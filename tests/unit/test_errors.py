"""Errors say what happened, survive pickling, and contain no secret."""

from __future__ import annotations

import copy
import pickle
import traceback
from typing import Any

import cloudpickle
import pytest
from support.clients import client_for
from tblib import pickling_support

from paradime_blocks import (
    BoltAlreadyRunning,
    BoltAuthError,
    BoltCancelUnconfirmed,
    BoltError,
    BoltPipelineFailed,
    BoltRequestError,
    BoltRunCanceled,
    BoltRunError,
    BoltRunFailed,
    BoltRunSkipped,
    BoltRunState,
    BoltRunTimedOut,
    BoltSchedule,
    BoltTriggerUnknown,
    BoltUnavailable,
    BoltUnsupported,
    ParadimeCredentials,
)
from paradime_blocks.client import ConnectionSettings

# Dask installs tblib: a pickle of an error then also holds its causes.
pickling_support.install()

URL = "https://app.paradime.io/bolt/run_id/76035"
RUN = {"schedule_name": "daily", "run_id": 76035, "url": URL}
# Each class with all the facts of its docstring, and the further texts of its message.
ERRORS = [
    pytest.param(
        BoltError, {**RUN, "state": "RUNNING", "guidance": "Look there."}, ["Look there."], id="BoltError"
    ),
    pytest.param(
        BoltAuthError,
        {
            "status_code": 401,
            "source": "block 'paradime-credentials/production'",
            "operation": "BoltRunStatus",
        },
        ["HTTP status: 401", "operation: BoltRunStatus", "Paradime workspace settings"],
        id="BoltAuthError",
    ),
    pytest.param(
        BoltRequestError,
        {
            "operation": "BoltRunStatus",
            "path": ["boltRunStatus", "commands", 0],
            "graphql_errors": [{"message": "no", "path": ["boltRunStatus"]}],
            "status_code": 400,
        },
        ["operation: BoltRunStatus", "path: boltRunStatus.commands.0", "HTTP status: 400"],
        id="BoltRequestError",
    ),
    pytest.param(
        BoltUnsupported,
        {"missing": "listBoltRuns", "operation": "ListBoltRuns"},
        ["operation: ListBoltRuns", "newer backend"],
        id="BoltUnsupported",
    ),
    pytest.param(
        BoltUnavailable,
        {
            "operation": "TriggerBoltRun",
            "status_code": 503,
            "may_have_acted": False,
            "may_still_act": True,
            "retry_after_seconds": 7.0,
        },
        ["HTTP status: 503", "try again"],
        id="BoltUnavailable",
    ),
    pytest.param(
        BoltTriggerUnknown,
        {"schedule_name": "daily", "candidates": [76035, 76036]},
        ["Runs that the trigger may have started: 76035, 76036.", "Check the schedule's runs in Paradime"],
        id="BoltTriggerUnknown",
    ),
    pytest.param(
        BoltPipelineFailed,
        {"steps": [f"step-{n} failed." for n in range(12)]},
        ["- step-0 failed.", "- step-9 failed.", "- and 2 more", "steps that succeeded are skipped"],
        id="BoltPipelineFailed",
    ),
    pytest.param(BoltAlreadyRunning, dict(RUN), ["on_already_running"], id="BoltAlreadyRunning"),
    *[
        pytest.param(
            kind,
            {
                **RUN,
                "state": state,
                "command": "dbt test",
                "return_code": 2,
                "log_tail": "ERROR in model orders",
                "dbt_errors": ["model.shop.orders: column is missing"],
                "waited_seconds": 600.0,
            },
            [
                f"state in Bolt: {state}",
                'Command "dbt test" ended with return code 2.',
                "End of the command's log:\nERROR in model orders",
                "model.shop.orders: column is missing",
                guidance,
            ],
            id=kind.__name__,
        )
        for kind, state, guidance in [
            (BoltRunError, "RUNNING", ""),
            (BoltRunFailed, "FAILED", "Fix the error shown in the log"),
            (BoltRunCanceled, "CANCELED", "Find out who cancelled the Bolt run"),
            (BoltRunSkipped, "SKIPPED", "Check in Paradime why"),
            (BoltRunTimedOut, "RUNNING", "Raise timeout_seconds"),
            (BoltCancelUnconfirmed, "RUNNING", "cancel it there"),
        ]
    ],
]


def _all_kinds(kind: type[BoltError]) -> set[type[BoltError]]:
    return {kind}.union(*(_all_kinds(below) for below in kind.__subclasses__()))


def test_the_table_above_has_every_error():
    """A new error must be tested too."""
    assert {case.values[0] for case in ERRORS} == _all_kinds(BoltError)


@pytest.mark.parametrize("kind, facts, shown", ERRORS)
def test_a_message_says_what_happened_and_what_to_do(kind, facts, shown):
    """First the cause, then details and guidance, at the end schedule, run, state and address."""
    message = str(kind("It went wrong.", **facts))
    begins = {BoltRunFailed: "Schedule 'daily' failed: dbt test: model.shop.orders: column is missing"}
    begin = "Schedule 'daily': It went wrong." if issubclass(kind, BoltRunError) else "It went wrong."
    assert message.startswith(begins.get(kind, begin))
    wanted = list(shown)
    titles = {"schedule_name": "schedule: ", "run_id": "Bolt run: ", "url": "url: "}
    wanted += [f"{title}{facts[name]}" for name, title in titles.items() if name in facts]
    assert [text for text in wanted if text not in message] == []


@pytest.mark.parametrize("kind, facts, shown", ERRORS)
def test_an_error_in_one_line_keeps_the_cause_and_what_to_do(kind, facts, shown):
    """Prefect logs the state of a flow run as a Python string, and its pages show the beginning."""
    error = kind("It 'went' \"wrong\".\n" + "x" * 5_000, **facts)
    line = error.in_one_line()
    assert line[:10] == str(error)[:10]
    assert error.guidance in line
    assert len(line) <= 500
    assert "End of the command's log" not in line
    assert "\\" not in repr(line)


@pytest.mark.parametrize("kind, facts, shown", ERRORS)
@pytest.mark.parametrize("length", [1, 120, 5_000])
def test_an_error_in_one_line_leads_to_the_bolt_run(kind, facts, shown, length):
    """A short message leaves room for all facts, and a long one never hides where the run is."""
    url = "https://app.paradime.io/bolt/run_id/1234567"
    schedule = "a-schedule-with-a-rather-long-name-for-tenant-42"
    more = {**facts, "run_id": 1234567, "url": url, "schedule_name": schedule, "dbt_errors": ["x" * length]}
    line = kind("x" * length, **more).in_one_line()
    assert "Bolt run: 1234567, " in line
    assert f"url: {url}" in line
    assert line.endswith(")")
    assert len(line) <= 500
    if length == 1:
        assert schedule in line


@pytest.mark.parametrize("kind, facts, message", ERRORS)
@pytest.mark.parametrize(
    "through",
    [
        pytest.param(lambda error: pickle.loads(pickle.dumps(error)), id="pickle"),  # noqa: S301 - our own
        pytest.param(lambda error: cloudpickle.loads(cloudpickle.dumps(error)), id="cloudpickle"),
        pytest.param(copy.copy, id="copy"),
        pytest.param(copy.deepcopy, id="deepcopy"),
    ],
)
def test_an_error_survives_with_its_facts_and_its_message(kind, facts, message, through):
    """Prefect pickles the exception of a flow."""
    error = kind("It went wrong.", **facts)
    again = through(error)
    assert type(again) is kind
    assert str(again) == str(error)
    assert {name: getattr(again, name) for name in facts} == facts
    assert (again.message, again.guidance) == (error.message, error.guidance)


@pytest.mark.parametrize("state", [BoltRunState.FAILED, BoltRunState("POLISHING")], ids=str)
def test_a_state_survives_pickling_known_or_not(state):
    """A state that a newer Bolt adds must not break the report of an error."""
    error = pickle.loads(pickle.dumps(BoltRunError("It went wrong.", state=state)))  # noqa: S301 - our own
    assert error.state == state
    assert f"state in Bolt: {state.value}" in str(error)


def test_an_error_accepts_missing_facts_and_keeps_its_own():
    """A caller that knows the schedule adds it; facts from Bolt are not overwritten."""
    cause = OSError("cut")
    error = BoltUnavailable("It went wrong.", run_id=1, may_have_acted=False)
    error.__cause__ = cause
    more = error.with_facts(schedule_name="daily", run_id=2)
    assert (more.schedule_name, more.run_id, more.may_have_acted) == ("daily", 1, False)
    assert more.__cause__ is cause
    assert error.schedule_name is None


def test_dbts_errors_replace_its_log_in_the_message():
    """A state message in Prefect's UI is short: the errors are the better half of the log."""
    errors = [f"model.shop.m{n}: " + "x" * 300 for n in range(5)]
    message = str(BoltRunFailed("It went wrong.", log_tail="y" * 5_000, dbt_errors=errors))
    assert [error for error in errors if error not in message] == []
    assert "yyy" not in message


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({"command": "dbt run\n\x1b[31m" + "x" * 30_000, "return_code": 1}, id="command"),
        pytest.param({"schedule_name": "\x1b[31m" + "x" * 30_000}, id="schedule"),
        pytest.param({"state": "\x1b[31m" + "x" * 30_000}, id="state"),
        pytest.param({"dbt_errors": ["\x1b[31ma\nb" + "x" * 30_000] * 5}, id="dbt errors"),
        pytest.param({"log_tail": "\x1b[31m" + "x" * 30_000}, id="log"),
    ],
)
def test_a_message_is_bounded_and_clean_whatever_its_facts_are(facts):
    """Commands, states and names come from Bolt; Prefect shows the message in its lists."""
    message = str(BoltRunFailed("It went wrong.", **facts))
    assert "\x1b" not in message
    assert len(message) < 2500


def test_the_message_names_the_running_command():
    """For a cancelled or timed-out run, it is the first thing that a person wants to know."""
    error = BoltRunTimedOut("It took too long.", command="dbt run")
    assert 'Command "dbt run" was running.' in str(error)
    assert pickle.loads(pickle.dumps(error)).command == "dbt run"  # noqa: S301 - our own


def test_absent_facts_leave_no_trace_in_the_message():
    """It has no `None` and no empty brackets."""
    assert str(BoltError("It went wrong.")) == "It went wrong."


def test_the_message_has_only_the_end_of_a_long_log():
    """The end has the error; a state message in Prefect's UI has no room for the whole log."""
    message = str(BoltRunFailed("It went wrong.", log_tail="x" * 100_000 + "the end"))
    assert "the end" in message
    assert len(message) < 2_000


def test_the_already_running_error_helps_every_caller():
    """A flow has the parameter that it names; a task and the client do not."""
    message = str(BoltAlreadyRunning("The schedule runs."))
    assert "run_schedule's on_already_running" in message
    assert "try again when the running Bolt run has ended" in message


@pytest.mark.parametrize(
    "candidates, message", [([], "No new run of the schedule was found."), ([5], "started: 5.")]
)
def test_an_unknown_trigger_names_the_runs_that_it_may_have_started(candidates, message):
    """The ids are for the person who checks in Paradime. They are in the state of the flow run, too."""
    url = "https://app.paradime.io/bolt/run_id/5"
    error = BoltTriggerUnknown("The answer was lost.", candidates=candidates, schedule_name="daily", url=url)
    assert str(error).count(message) == 1
    assert message in error.in_one_line()
    assert url in error.in_one_line()


# A secret that must not be found anywhere.
NEEDLE = "n33dle-in-the-haystack"


def _credentials(**changes: Any) -> ParadimeCredentials:
    fields = {
        "api_endpoint": "https://api.paradime.io/api/v1/a/graphql",
        "api_key": "k",
        "api_secret": NEEDLE,
    }
    return ParadimeCredentials(**{**fields, **changes})


@pytest.mark.parametrize(
    "credentials",
    [
        pytest.param({}, id="secret"),
        pytest.param({"api_key": NEEDLE, "api_secret": "s"}, id="key"),
        pytest.param({"api_key": None, "api_secret": f"prdm_wsp_{NEEDLE}"}, id="token"),
    ],
)
def test_blocks_clients_and_handles_do_not_show_the_secret(credentials):
    """It is in no repr, text or JSON, and not in the settings below them."""
    block = _credentials(**credentials)
    schedule = BoltSchedule(credentials=block, schedule_name="daily")
    client = block.get_client()
    shown = [
        form(thing)
        for thing in (
            block,
            schedule,
            client,
            client.settings,
            schedule.attach(1),
            vars(client),
            block.__dict__,
        )
        for form in (repr, str, lambda value: f"{value}", lambda value: f"{value!r}")
    ]
    shown += [
        block.model_dump_json(),
        schedule.model_dump_json(),
        repr(block.model_dump()),
        repr(schedule.model_dump(mode="json")),
    ]
    assert [text for text in shown if NEEDLE in text] == []


def test_a_proxys_password_is_not_shown():
    """Neither the block nor the connection's settings show it."""
    block = _credentials(proxy=f"http://user:{NEEDLE}@proxy:3128", api_secret="s")
    settings = block.get_client().settings
    assert isinstance(settings, ConnectionSettings)
    shown = (repr(block), str(block), repr(settings), block.model_dump_json())
    assert [text for text in shown if NEEDLE in text] == []


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"api_secret": f"{NEEDLE} "}, id="space in the secret"),
        pytest.param({"api_key": None}, id="no key"),
        pytest.param({"api_secret": f"prdm_cmp_{NEEDLE}"}, id="no workspace"),
        pytest.param(
            {"api_endpoint": f"https://user:{NEEDLE}@api.paradime.io/graphql"}, id="in the endpoint"
        ),
        pytest.param(
            {"api_endpoint": f"https://api.paradime.io:{NEEDLE}/graphql"}, id="as the endpoint's port"
        ),
        pytest.param({"proxy": f"http://user:{NEEDLE}@proxy:port"}, id="in an invalid proxy"),
        pytest.param({"request_timeout_seconds": -1}, id="elsewhere"),
        pytest.param({"api_key": NEEDLE, "api_secret": ""}, id="key pasted, secret empty"),
    ],
)
def test_bad_settings_are_refused_without_showing_the_secret(fields):
    """The block and the client say what is wrong with a value, without the value."""
    with pytest.raises(ValueError, match="ParadimeCredentials") as block_error:
        _credentials(**fields)
    with pytest.raises(BoltRequestError) as client_error:
        client_for("https://api.paradime.io/g", **{"api_secret": NEEDLE, **fields})
    assert NEEDLE not in str(block_error.value) + repr(block_error.value)
    assert NEEDLE not in str(client_error.value) + repr(client_error.value)
    assert NEEDLE not in "".join(str(frame) for frame in traceback.format_exception(client_error.value))
