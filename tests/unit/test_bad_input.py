"""Bad input gets a message that says what to type, and nothing is sent."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest
from support.attempts import (
    a_call,
    a_call_of_the_flow,
    a_cancel,
    a_client,
    a_run,
    a_task,
    a_trigger,
    a_wait,
    credentials,
    flow,
    schedule,
)

if TYPE_CHECKING:
    from support.attempts import Attempt

TWO_LINES = "a\nb"
HALF_A_CHARACTER = "caf\ud83d"
WITH_NUL = "a\x00b"


def bad(attempt: Attempt, *message: str, id: str) -> Any:  # noqa: A002 - pytest's own name
    return pytest.param(attempt, message, id=id)


WHOLE = "whole number from 1 to 2147483647"
SECONDS = "as a number of seconds"
COPY_IT = "copy it from the Paradime workspace settings"

BAD = [
    # The client's settings
    bad(a_client(api_endpoint=""), "api_endpoint is empty", COPY_IT, id="client: no endpoint"),
    bad(a_client(api_endpoint=None), "api_endpoint is None", id="client: endpoint None"),
    bad(a_client(api_endpoint="http://api.paradime.io/g"), "begin with https://", id="client: http endpoint"),
    bad(a_client(api_secret=""), "api_secret is empty", "paste", id="client: no secret"),
    bad(a_client(api_secret=None), "api_secret is empty", id="client: secret None"),
    bad(a_client(api_secret=7), "api_secret is not text", id="client: secret a number"),
    bad(a_client(api_key=None), "api_key is empty", "prdm_wsp_", id="client: no key"),
    bad(a_client(api_secret="prdm_cmp_t"), "workspace_uid is empty", id="client: no workspace"),
    bad(a_client(request_timeout_seconds=0), "above 0, such as 30", id="client: no time"),
    bad(
        a_client(request_timeout_seconds=float("nan")), "above 0, such as 30", id="client: time not a number"
    ),
    bad(a_client(request_timeout_seconds=float("inf")), "above 0, such as 30", id="client: endless time"),
    bad(a_client(request_timeout_seconds="30"), "above 0, such as 30", id="client: time as text"),
    bad(a_client(proxy="proxy:3128"), "type http://host:port, or none", id="client: proxy without a scheme"),
    # The client's calls
    bad(a_call(lambda c: c.trigger_bolt_run(None)), "schedule_name is None", id="trigger: nothing"),
    bad(a_call(lambda c: c.trigger_bolt_run("")), "schedule_name is empty", "'daily'", id="trigger: no name"),
    bad(
        a_call(lambda c: c.trigger_bolt_run(7)), "schedule_name is 7", "as text", id="trigger: name a number"
    ),
    bad(
        a_call(lambda c: c.trigger_bolt_run(TWO_LINES)),
        "line break",
        " again, such as",
        id="trigger: two lines",
    ),
    bad(a_call(lambda c: c.trigger_bolt_run(HALF_A_CHARACTER)), " again, such as", id="trigger: broken text"),
    bad(
        a_call(lambda c: c.trigger_bolt_run("daily", commands="dbt run")),
        "not a list",
        "Give commands as a list, such as ['dbt run', {",
        id="trigger: commands as text",
    ),
    bad(
        a_call(lambda c: c.trigger_bolt_run("daily", commands=[])),
        "empty list",
        "leave commands out",
        id="trigger: no commands",
    ),
    bad(
        a_call(lambda c: c.trigger_bolt_run("daily", commands=["dbt run", " "])),
        "commands holds ' '",
        id="trigger: empty command",
    ),
    bad(
        a_call(lambda c: c.trigger_bolt_run("daily", commands=[HALF_A_CHARACTER])),
        "commands holds",
        id="trigger: broken command",
    ),
    bad(
        a_call(lambda c: c.trigger_bolt_run("daily", commands=[TWO_LINES])),
        "commands holds",
        id="trigger: command of two lines",
    ),
    bad(a_call(lambda c: c.trigger_bolt_run("da\x7fily")), "control character", id="trigger: DEL"),
    bad(
        a_call(lambda c: c.trigger_bolt_run("daily", commands=[{"cmd": "dbt run"}])),
        "{'command': 'dbt test', 'continue_on_error': True}]",
        id="trigger: unknown key",
    ),
    bad(
        a_call(lambda c: c.trigger_bolt_run("daily", commands=7)),
        "commands is 7",
        id="trigger: commands a number",
    ),
    bad(
        a_call(
            lambda c: c.trigger_bolt_run("daily", commands=[{"command": "x", "continue_on_error": "maybe"}])
        ),
        "'continue_on_error': True",
        id="trigger: yes or no as text",
    ),
    bad(
        a_call(lambda c: c.trigger_bolt_run("daily", continue_on_error="false")),
        "continue_on_error is 'false'",
        "True or False",
        id="trigger: false as text",
    ),
    bad(
        a_call(lambda c: c.trigger_bolt_run("daily", branch=" ")),
        "branch is empty",
        "'main'",
        id="trigger: branch",
    ),
    bad(
        a_call(lambda c: c.trigger_bolt_run("daily", pr_number=0)),
        "pr_number is 0",
        id="trigger: pull request 0",
    ),
    bad(
        a_call(lambda c: c.trigger_bolt_run("daily", reason=7)),
        "reason is 7",
        "as text",
        id="trigger: reason",
    ),
    bad(a_call(lambda c: c.get_bolt_run(0)), "run_id is 0", WHOLE, id="status: 0"),
    bad(a_call(lambda c: c.get_bolt_run("76035")), "run_id is '76035'", WHOLE, id="status: text"),
    bad(a_call(lambda c: c.get_bolt_run(True)), "run_id is True", WHOLE, id="status: True"),  # noqa: FBT003
    bad(a_call(lambda c: c.get_bolt_run(2**31)), "run_id is 2147483648", WHOLE, id="status: too large"),
    bad(a_call(lambda c: c.cancel_bolt_run(-1)), "run_id is -1", WHOLE, id="cancel: negative"),
    bad(a_call(lambda c: c.retry_bolt_run(1.0)), "run_id is 1.0", WHOLE, id="retry: fraction"),
    bad(a_call(lambda c: c.get_bolt_command(None)), "command_id is None", WHOLE, id="command: None"),
    bad(a_call(lambda c: c.get_bolt_command_resources([1, 0])), "command_id is 0", WHOLE, id="resources: 0"),
    bad(a_call(lambda c: c.get_runs_of_commands([True])), "command_id is True", WHOLE, id="runs: True"),
    bad(a_call(lambda c: c.get_bolt_resource_url(0)), "resource_id is 0", WHOLE, id="URL: 0"),
    bad(a_call(lambda c: c.download_bolt_resource("a")), "resource_id is 'a'", WHOLE, id="download: text"),
    bad(a_call(lambda c: c.list_bolt_schedules(offset=-1)), "offset is -1", "from 0", id="list: offset"),
    bad(a_call(lambda c: c.list_bolt_schedules(limit=0)), "limit is 0", "1 to 1000", id="list: nothing"),
    bad(
        a_call(lambda c: c.list_bolt_schedules(limit=1001)), "limit is 1001", "1 to 1000", id="list: too much"
    ),
    bad(
        a_call(lambda c: c.list_bolt_schedules(show_inactive="no")),
        "show_inactive is 'no'",
        "True or False",
        id="list: no as text",
    ),
    bad(a_call(lambda c: c.get_bolt_schedule(None)), "schedule_name is None", id="schedule: nothing"),
    bad(a_call(lambda c: c.list_bolt_runs("")), "schedule_name is empty", id="runs: no schedule"),
    # The credentials block
    bad(credentials(api_endpoint="  "), "api_endpoint is empty", COPY_IT, id="block: no endpoint"),
    bad(
        credentials(api_endpoint="api.paradime.io/graphql"),
        "not an https:// URL",
        COPY_IT,
        id="block: no scheme",
    ),
    bad(credentials(api_endpoint="ftp://api.paradime.io"), "not an https:// URL", id="block: ftp"),
    bad(credentials(api_endpoint="https://"), "not an https:// URL", id="block: no host"),
    bad(credentials(api_endpoint="http://paradime.io/g"), "must begin with https://", id="block: http"),
    bad(credentials(api_endpoint="https://api.paradime.io/a b"), "white space", COPY_IT, id="block: space"),
    bad(
        credentials(api_endpoint="https://api.paradime.io/api/v1/<workspace>/graphql"),
        "replace <workspace> by your workspace",
        id="block: placeholder",
    ),
    bad(
        credentials(api_endpoint="https://api.paradime.io:port/g"),
        "is not a URL",
        COPY_IT,
        id="block: bad port",
    ),
    bad(
        credentials(api_endpoint="https://k:s@api.paradime.io/g"), "api_key and api_secret", id="block: user"
    ),
    bad(credentials(api_endpoint="https://[api.paradime.io/g"), "is not a URL", COPY_IT, id="block: bracket"),
    bad(credentials(api_key=""), "type the API key that belongs to this secret", id="block: no key"),
    bad(credentials(api_secret=""), "paste the API secret", id="block: no secret"),
    bad(credentials(api_secret="   "), "paste the API secret", id="block: blank secret"),
    bad(
        credentials(api_secret="two words"),
        "api_secret holds a space",
        "paste the value again",
        id="block: words",
    ),
    bad(credentials(api_secret="secret\n"), "api_secret holds", "line break", id="block: line break"),
    bad(credentials(api_key="schlüssel"), "api_key holds", "paste the value again", id="block: letters"),
    bad(credentials(api_secret="prdm_cmp_t"), "uid of the workspace to act on", id="block: no workspace"),
    bad(credentials(proxy="proxy.internal:3128"), "type http://host:port", id="block: proxy"),
    bad(credentials(proxy="http://[proxy"), "type http://host:port", id="block: proxy with a bracket"),
    bad(credentials(proxy="http://proxy:port"), "type http://host:port", id="block: proxy's port"),
    bad(
        credentials(request_timeout_seconds=0),
        "request_timeout_seconds",
        "greater than 0",
        id="block: no time",
    ),
    bad(credentials(request_timeout_seconds=601), "less than or equal to 600", id="block: too long"),
    bad(credentials(request_timeout_seconds=float("nan")), "request_timeout_seconds", id="block: no number"),
    bad(credentials(request_timeout_seconds="soon"), "valid number", id="block: words for a number"),
    # The schedule block and the handle
    bad(schedule(schedule_name=None), "schedule_name", "valid string", id="schedule: no name"),
    bad(schedule(schedule_name=" "), "schedule_name is empty", id="schedule: blank name"),
    bad(schedule(schedule_name=TWO_LINES), "line break", " again, such as", id="schedule: two lines"),
    bad(schedule(commands=[""]), "commands holds ''", "['dbt run', {", id="schedule: empty command"),
    bad(schedule(commands="dbt run"), "commands", "valid list", id="schedule: commands as text"),
    bad(schedule(branch="main\tx"), "control character", id="schedule: tab in the branch"),
    bad(schedule(timeout_seconds=0), "timeout_seconds", "greater than 0", id="schedule: no time"),
    bad(schedule(timeout_seconds=14 * 86_400 + 1), "less than or equal to 1209600", id="schedule: too long"),
    bad(schedule(poll_interval_seconds=0), "greater than or equal to 0.5", id="schedule: no pause"),
    bad(schedule(max_outage_seconds=-1), "max_outage_seconds", "equal to 0", id="schedule: negative outage"),
    bad(schedule(max_outage_seconds=float("inf")), "equal to 1209600", id="schedule: endless outage"),
    bad(schedule(cancel_grace_seconds=0), "cancel_grace_seconds", "greater than 0", id="schedule: no grace"),
    bad(schedule(credentials=None), "credentials", "ParadimeCredentials", id="schedule: no credentials"),
    bad(a_trigger(branch=TWO_LINES), "line break", "Nothing was sent", id="trigger of a block: branch"),
    bad(a_trigger(commands=()), "commands is an empty list", id="trigger of a block: no commands"),
    bad(a_run(0), "run_id is 0", WHOLE, id="handle: 0"),
    bad(a_run("76035"), "run_id is '76035'", WHOLE, id="handle: text"),
    bad(
        a_run(1, timeout_seconds="soon"), "timeout_seconds is 'soon'", SECONDS, id="handle: words for a time"
    ),
    bad(a_run(1, timeout_seconds=-1), "timeout_seconds is -1", "0 or more", id="handle: time below nothing"),
    bad(a_run(1, timeout_seconds=float("nan")), "timeout_seconds is nan", SECONDS, id="handle: NaN"),
    bad(
        a_run(1, poll_interval_seconds=0), "poll_interval_seconds is 0", "0.1 or more", id="handle: no pause"
    ),
    bad(a_run(1, poll_interval_seconds=True), "poll_interval_seconds is True", id="handle: pause yes"),
    bad(a_run(1, max_outage_seconds=-1), "max_outage_seconds is -1", "0 or more", id="handle: outage"),
    bad(
        a_run(1, cancel_grace_seconds=float("inf")), "cancel_grace_seconds is inf", id="handle: endless grace"
    ),
    bad(a_wait("soon"), "timeout_seconds is 'soon'", SECONDS, "such as 60", id="wait: words for a time"),
    bad(a_wait(-1), "timeout_seconds is -1", "0 or more", id="wait: negative"),
    bad(a_wait(float("nan")), "timeout_seconds is nan", id="wait: NaN"),
    bad(a_wait(timeout_seconds=True), "timeout_seconds is True", id="wait: yes"),
    bad(a_cancel("x"), "grace_seconds is 'x'", SECONDS, id="cancel: words for a time"),
    bad(a_cancel(-0.5), "grace_seconds is -0.5", "0 or more", id="cancel: negative"),
    bad(
        schedule(max_outage_seconds=float("inf")),
        "max_outage_seconds",
        "1209600",
        id="schedule: endless outage",
    ),
    bad(schedule(max_outage_seconds=float("nan")), "max_outage_seconds", id="schedule: outage not a number"),
    # The tasks' arguments
    bad(
        a_task("wait_for_bolt_run", 1, timeout_seconds=0),
        "timeout_seconds is 0. No request was sent to Bolt",
        "greater than 0",
        id="task: no time",
    ),
    bad(a_task("wait_for_bolt_run", 1, timeout_seconds="soon"), "valid number", id="task: words for a time"),
    bad(
        a_task("wait_for_bolt_run", 1, timeout_seconds="60"),
        "timeout_seconds is '60'",
        "a value like 60.0",
        id="task: time as text",
    ),
    bad(a_task("wait_for_bolt_run", 1, poll_interval_seconds=0), "equal to 0.5", id="task: no pause"),
    bad(
        a_task("retry_bolt_run", 1, everything="no"),
        "everything is 'no'",
        "as True or False",
        id="task: yes or no as text",
    ),
    bad(a_task("get_bolt_run", run_id=True), "run_id is True", "a value like 1", id="task: run yes"),
    bad(a_task("get_bolt_run", "76035"), "run_id is '76035'", "a value like 76035", id="task: run as text"),
    bad(a_task("trigger_bolt_run", 7), "schedule_name is 7", "valid string", id="task: schedule a number"),
    bad(a_task("trigger_bolt_run", "daily", commands="dbt run"), "valid list", id="task: commands as text"),
    bad(a_task("trigger_bolt_run", "daily", on_crash="panic"), "'cancel' or 'leave'", id="task: policy"),
    bad(a_task("get_bolt_run", 1, credentials=7), "credentials is invalid", id="task: credentials a number"),
    bad(a_task("cancel_bolt_run", 1, cancel_grace_seconds=0), "greater than 0", id="task: no grace"),
    # The flow's parameters
    bad(flow(schedule_name=""), "schedule_name", "at least 1 character", id="flow: no schedule"),
    bad(flow(schedule_name="  "), "schedule_name", id="flow: blank schedule"),
    bad(flow(schedule_name=7), "schedule_name", "valid string", id="flow: schedule a number"),
    bad(flow(commands=[]), "commands", "at least 1 item", id="flow: no commands"),
    bad(flow(commands="dbt run"), "commands", "valid list", id="flow: commands as text"),
    bad(flow(commands=["dbt run", ""]), "commands.1.text", "at least 1 character", id="flow: empty command"),
    bad(flow(branch=""), "branch", "at least 1 character", id="flow: empty branch"),
    bad(flow(timeout_seconds=0), "timeout_seconds", "greater than 0", id="flow: no time"),
    bad(flow(timeout_seconds="soon"), "timeout_seconds", "valid number", id="flow: words for a time"),
    bad(flow(timeout_seconds=1e9), "timeout_seconds", "equal to 1209600", id="flow: too much time"),
    bad(flow(timeout_seconds=float("nan")), "timeout_seconds", id="flow: time not a number"),
    bad(flow(poll_interval_seconds=0), "poll_interval_seconds", "equal to 0.5", id="flow: no pause"),
    bad(flow(retries=-1), "retries", "equal to 0", id="flow: negative retries"),
    bad(flow(retries=1.5), "retries", "valid integer", id="flow: half a retry"),
    bad(
        flow(on_already_running="panic"),
        "'wait', 'attach', 'attach_if_same', 'fail', 'skip' or 'replace'",
        id="flow: policy",
    ),
    bad(flow(on_timeout="explode"), "'cancel' or 'leave'", id="flow: policy at the time limit"),
    bad(flow(max_outage_seconds=-1), "max_outage_seconds", "equal to 0", id="flow: negative outage"),
    bad(flow(cancel_grace_seconds=0), "cancel_grace_seconds", "greater than 0", id="flow: no grace"),
    bad(flow(credentials=7), "credentials", "ParadimeCredentials", id="flow: credentials a number"),
    bad(
        flow(credentials={"api_endpoint": "paradime", "api_secret": "x"}),
        "credentials",
        "not an https:// URL",
        id="flow: invalid credentials",
    ),
    bad(flow(nonsense=1), "nonsense", "schedule_name", id="flow: unknown parameter"),
    bad(flow(schedule_name=TWO_LINES), "schedule_name", "on one line", id="flow: two lines"),
    bad(flow(branch=WITH_NUL), "branch", "control character", id="flow: NUL in the branch"),
    bad(flow(reason="\t"), "reason", "blank", id="flow: blank reason"),
    bad(flow(commands=[WITH_NUL]), "commands.0", "control character", id="flow: NUL in a command"),
    bad(flow(commands=["dbt run\ndbt test"]), "commands.0", "on one line", id="flow: two commands in one"),
    bad(
        flow(commands=[{"command": TWO_LINES}]),
        "commands.0.command.command",
        "on one line",
        id="flow: two lines in a command's settings",
    ),
    bad(
        flow(non_retryable_errors=["("]),
        "non_retryable_errors.0",
        "not a valid regular expression",
        id="flow: no pattern",
    ),
    bad(
        flow(non_retryable_errors=["quota", ""]),
        "non_retryable_errors.1",
        "the pattern is empty",
        id="flow: empty pattern",
    ),
    # No credentials are set up here.
    bad(
        a_call_of_the_flow(schedule_name="daily"),
        "PARADIME_API_ENDPOINT and PARADIME_API_SECRET",
        id="flow: no credentials",
    ),
]


class Nowhere(NamedTuple):
    """A Bolt that must not be called."""

    api_endpoint: str = "http://127.0.0.1:1/graphql"
    api_key: str = "a-key"
    api_secret: str = "a-secret"


@pytest.fixture
def sent(monkeypatch) -> list[httpx.Request]:
    """The requests that would have been sent."""
    requests: list[httpx.Request] = []
    # Requests from an earlier test, such as a heartbeat to Prefect.
    others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}

    async def refuse(_: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        if threading.get_ident() not in others:
            requests.append(request)
        raise httpx.ConnectError("Nothing is to be sent.", request=request)

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", refuse)
    return requests


@pytest.mark.parametrize("attempt, message", BAD)
def test_bad_input_is_refused_with_a_message_that_says_what_to_type(sent, attempt, message):
    """Nothing is sent before; the user sees the message at the end of a traceback or in the UI."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Prefect, pydantic and we have classes of our own
        attempt(Nowhere())
    # An unexpected error is not a message for a person.
    assert type(caught.value).__name__ in {
        "BoltRequestError",
        "ValidationError",
        "ParameterTypeError",
        "SignatureMismatchError",
    }
    assert [text for text in message if text not in str(caught.value)] == []
    assert sent == []
