"""How faults of the network and the server appear to callers, over a real socket."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import pytest
from support.credentials import credentials_for

from paradime_blocks import (
    BoltAlreadyRunning,
    BoltAuthError,
    BoltClient,
    BoltError,
    BoltRequestError,
    BoltUnavailable,
    BoltUnsupported,
)
from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.testing import BoltSimulator, SimulatedCommand, faults

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CREDENTIAL_HEADERS = {"x-api-key", "x-api-secret", "authorization", "x-paradime-workspace"}
# Long enough for a slow machine's response, short enough to wait for.
SHORT = 1.0

# Faults that leave a request without a usable reply, and the text of the error.
LOST = [
    pytest.param(faults.Status(500), "HTTP status: 500", id="500"),
    pytest.param(faults.Status(502), "HTTP status: 502", id="502"),
    pytest.param(faults.Status(503), "HTTP status: 503", id="503"),
    pytest.param(faults.Status(504), "HTTP status: 504", id="504"),
    pytest.param(faults.Status(408), "HTTP status: 408", id="408"),
    pytest.param(faults.CutConnection(), "was unreachable or closed the connection", id="cut"),
    pytest.param(faults.CutConnection(after_acting=True), "closed the connection", id="cut after acting"),
    pytest.param(faults.Hang(0.01, then="cut"), "closed the connection", id="held and cut"),
    pytest.param(faults.Garbage(), "not JSON: '<!doctype html>", id="garbage"),
    pytest.param(faults.Garbage(b"\xff\xfe\x00", "application/json"), "not JSON", id="binary"),
    pytest.param(faults.Garbage(b"[1, 2]", "application/json"), "not a GraphQL reply", id="a list"),
    pytest.param(faults.Garbage(b"", "application/json"), "not JSON", id="nothing"),
    pytest.param(faults.Truncated(), "not JSON", id="truncated"),
    pytest.param(faults.Truncated(after_acting=True), "not JSON", id="truncated after acting"),
    pytest.param(faults.Truncated(mid_transfer=True), "closed the connection", id="truncated in transfer"),
    pytest.param(faults.MissingData("data"), "without the field", id="data null"),
    pytest.param(faults.MissingData("empty"), "without the field", id="no data"),
    pytest.param(faults.MissingData("field"), "without the field", id="field null"),
]
# A reply that is missing for a read, but not for a trigger.
MALFORMED = [
    pytest.param(faults.MissingData("nulls"), "only nulls", id="fields null"),
    pytest.param(
        faults.Garbage(b'{"data": {"boltRunStatus": "RUNNING"}}'),
        "does not match the API schema",
        id="text for an object",
    ),
    pytest.param(
        faults.Garbage(b'{"data": {"boltRunStatus": []}}'),
        "does not match the API schema",
        id="list for an object",
    ),
]
TOO_MANY = pytest.param(faults.Status(429), "HTTP status: 429", id="429")


@asynccontextmanager
async def a_run(simulator: BoltSimulator, client: BoltClient, *hits: Any) -> AsyncIterator[int]:
    """An open client, a run to read, and faults for the next calls."""
    simulator.add_schedule("daily")
    run_id = simulator.start_run("daily")
    simulator.inject(*hits)
    async with client:
        yield run_id


@pytest.mark.parametrize("fault, message", [*LOST, *MALFORMED, TOO_MANY])
async def test_a_read_is_repeated_until_it_succeeds(simulator, client_of, naps, fault, message):
    """One bad reply is skipped; the caller does not notice it."""
    client = client_of(simulator)
    async with a_run(simulator, client, fault) as run_id:
        assert (await client.get_bolt_run(run_id)).ok is True
    assert simulator.count("boltRunStatus") == 2
    assert len(naps) == 1


@pytest.mark.parametrize("fault, message", [*LOST, *MALFORMED, TOO_MANY])
async def test_a_read_without_a_reply_fails_within_bounds(simulator, client_of, naps, fault, message):
    """After the last try, the error says what came back, for which operation, and what to do."""
    for_ever = type(fault)(**{**vars(fault), "times": None})
    client = client_of(simulator, retry_policy=RetryPolicy(attempts=3))
    async with a_run(simulator, client, for_ever) as run_id:
        with pytest.raises(BoltUnavailable) as caught:
            await client.get_bolt_run(run_id)
    assert message in str(caught.value)
    assert "operation: BoltRunStatus" in str(caught.value)
    assert "try again" in str(caught.value)
    assert (simulator.count("boltRunStatus"), len(naps)) == (3, 2)


async def test_a_read_that_hangs_is_stopped_and_sent_again(simulator, client_of):
    """The client's own time limit decides, not the server's."""
    client = client_of(simulator, request_timeout_seconds=0.5)
    async with a_run(simulator, client, faults.Hang(60)) as run_id:
        assert (await client.get_bolt_run(run_id)).ok is True
    assert simulator.count("boltRunStatus") == 2


async def test_a_time_out_names_its_length_and_that_bolt_may_still_act(simulator, client_of):
    """The server has the request: it may execute it after the client has gone."""
    client = client_of(simulator, request_timeout_seconds=0.25, retry_policy=RetryPolicy(attempts=1))
    async with a_run(simulator, client, faults.Hang(60)) as run_id:
        with pytest.raises(BoltUnavailable, match=r"did not answer within 0\.25 s") as caught:
            await client.get_bolt_run(run_id)
    assert caught.value.may_still_act


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda client: client.list_bolt_schedules(), id="list schedules"),
        pytest.param(lambda client: client.get_bolt_schedule("daily"), id="schedule"),
        pytest.param(lambda client: client.list_bolt_runs("daily"), id="list runs"),
        pytest.param(lambda client: client.get_bolt_resource_url(1), id="resource URL"),
        pytest.param(lambda client: client.get_bolt_command(1), id="command"),
        pytest.param(lambda client: client.get_bolt_command_resources([1, 2]), id="resources of many"),
        pytest.param(lambda client: client.get_runs_of_commands([1, 2]), id="runs of commands"),
    ],
)
async def test_nulls_are_not_a_reply_to_any_read(simulator, client_of, call):
    """Above all, they do not mean "no schedules" or "no latest run", which would decide about a trigger."""
    simulator.inject(faults.MissingData("nulls", times=None))
    async with client_of(simulator) as client:
        with pytest.raises(BoltUnavailable):
            await call(client)


@pytest.mark.parametrize(
    "retry_after, least, most",
    [
        pytest.param(7, 7, 7.1, id="seconds"),
        pytest.param(0, 0, 0.1, id="at once"),
        pytest.param(
            format_datetime(datetime.now(timezone.utc) + timedelta(seconds=45), usegmt=True),
            0,
            45.1,
            id="HTTP date",
        ),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_obeyed(simulator, client_of, naps, status, retry_after, least, most):
    """It comes as seconds or as an HTTP date, and replaces our own wait of half a second."""
    client = client_of(simulator)
    async with a_run(simulator, client, faults.Status(status, retry_after=retry_after)) as run_id:
        await client.get_bolt_run(run_id)
    (nap,) = naps
    assert least <= nap <= most


async def test_a_retry_after_date_ahead_is_waited_for(simulator, client_of, naps):
    """Without the date, the wait would be half a second."""
    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=50), usegmt=True)
    client = client_of(simulator)
    async with a_run(simulator, client, faults.Status(429, retry_after=soon)) as run_id:
        await client.get_bolt_run(run_id)
    assert naps[0] > 20


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.GraphQLError("no such thing"), id="GraphQL error"),
        pytest.param(faults.MissingData("not_ok"), id="ok is false"),
        pytest.param(faults.Status(400), id="400"),
        pytest.param(faults.Status(404, body="not here"), id="404"),
        pytest.param(faults.Redirect("https://elsewhere.example.com/"), id="redirect"),
    ],
)
async def test_a_refused_read_is_not_repeated(simulator, client_of, naps, fault):
    """Bolt has processed the request and would say the same again."""
    client = client_of(simulator)
    async with a_run(simulator, client, fault) as run_id:
        with pytest.raises(BoltRequestError):
            await client.get_bolt_run(run_id)
    assert (simulator.count("boltRunStatus"), naps) == (1, [])


async def test_a_404_says_which_setting_to_check(simulator, client_of):
    """The commonest cause is an endpoint that is not the API's."""
    async with client_of(simulator.api_endpoint.replace("graphql", "grapql")) as client:
        with pytest.raises(
            BoltRequestError, match="api_endpoint is the workspace's GraphQL endpoint"
        ) as caught:
            await client.get_bolt_run(1)
    assert caught.value.status_code == 404


async def test_refused_connections_are_tried_again_and_reported(simulator, client_of, naps):
    """The endpoint has no server: after all tries, the error says so."""
    endpoint = simulator.api_endpoint
    simulator.stop()
    async with client_of(endpoint) as client:
        with pytest.raises(BoltUnavailable, match="ConnectError") as caught:
            await client.get_bolt_run(1)
    assert caught.value.may_have_acted is False
    assert len(naps) == 5


async def test_a_connection_that_was_never_made_means_nothing_was_sent(client_of):
    """A firewall drops packets: Bolt cannot have seen the request, so a trigger may be sent again."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen(0)
        # No one accepts; when the queue is full, connections are not even refused.
        queue = [socket.socket() for _ in range(4)]
        for caller in queue:
            caller.settimeout(0)
            caller.connect_ex(door.getsockname())
        client = client_of(
            f"http://127.0.0.1:{door.getsockname()[1]}/graphql",
            request_timeout_seconds=SHORT,
            retry_policy=RetryPolicy(attempts=1),
        )
        async with client:
            with pytest.raises(BoltUnavailable, match="ConnectTimeout") as caught:
                await client.get_bolt_run(1)
        for caller in queue:
            caller.close()
    assert caught.value.may_have_acted is False


@pytest.mark.parametrize(
    "status, message",
    [
        pytest.param(401, "does not accept the credentials of", id="401"),
        pytest.param(403, "do not allow this", id="403"),
    ],
)
@pytest.mark.parametrize(
    "source, named",
    [
        pytest.param(
            "block 'paradime-credentials/production'", "paradime-credentials/production", id="block"
        ),
        pytest.param("the environment (PARADIME_API_KEY)", "PARADIME_API_KEY", id="environment"),
    ],
)
async def test_refused_credentials_are_not_sent_again_and_their_source_is_named(
    simulator, client_of, naps, status, message, source, named
):
    """More tries could lock the account; the message says where the credentials are stored."""
    client = client_of(simulator, source=source)
    async with a_run(simulator, client, faults.Status(status, times=None)) as run_id:
        with pytest.raises(BoltAuthError) as caught:
            await client.get_bolt_run(run_id)
    assert message in str(caught.value)
    assert named in str(caught.value)
    assert (caught.value.status_code, caught.value.source) == (status, source)
    assert (simulator.count("boltRunStatus"), naps) == (1, [])


async def test_the_error_for_a_read_only_key_names_the_missing_capability(client_of):
    """The name of the capability is that of Paradime's settings."""
    with BoltSimulator(speed=0, read_only=True) as simulator:
        simulator.add_schedule("daily")
        async with client_of(simulator) as client:
            with pytest.raises(BoltAuthError, match="Bolt Schedules Admin"):
                await client.trigger_bolt_run("daily")


async def test_graphql_errors_keep_message_path_and_operation(simulator, client_of):
    """All details from Bolt can be read and handled."""
    async with client_of(simulator) as client:
        with pytest.raises(BoltRequestError) as caught:
            await client.get_bolt_run(424_242)
    error = caught.value
    assert (error.operation, error.path) == ("BoltRunStatus", ["boltRunStatus"])
    assert "424242" in error.graphql_errors[0]["message"]
    assert error.graphql_errors[0]["message"] in str(error)
    assert "operation: BoltRunStatus, path: boltRunStatus" in str(error)


SECRET = "n33dle-in-the-haystack"
HOSTILE = f"bad key {SECRET} \x1b[31m\nat https://bot:hunter2-token@x.test/ " + "z" * 30_000


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.GraphQLError(HOSTILE), id="GraphQL error"),
        pytest.param(faults.GraphQLError(f"AlreadyRunning {HOSTILE}"), id="already running"),
        pytest.param(faults.GraphQLError(f"Unknown type {SECRET} {HOSTILE}"), id="unsupported"),
        pytest.param(faults.GraphQLError(f"Unknown type 'x{HOSTILE}'"), id="a long name"),
        pytest.param(faults.Status(400, body=f'{{"errors": [{{"message": "{SECRET}"}}]}}'), id="400"),
        pytest.param(faults.Status(404, body=HOSTILE), id="404"),
        # The cut is in the middle of the secret.
        pytest.param(faults.Status(404, body="x" * 190 + SECRET), id="404, cut"),
        pytest.param(faults.Garbage(HOSTILE.encode()), id="no JSON"),
        pytest.param(faults.Garbage(b"x" * 190 + SECRET.encode()), id="no JSON, cut"),
        pytest.param(faults.Redirect(f"https://{SECRET}.example.com/{'x' * 5000}"), id="redirect"),
    ],
)
async def test_an_errors_quotes_are_bounded_and_without_credentials(client_of, fault):
    """An error's text becomes a state message, a label, an artifact and a log line."""
    with BoltSimulator(speed=0, api_secret=SECRET) as simulator:
        simulator.inject(fault)
        async with client_of(simulator, retry_policy=RetryPolicy(attempts=1)) as client:
            with pytest.raises(BoltError) as caught:
                await client.get_bolt_run(1)
    error = caught.value
    message = f"{error} {error.message} {vars(error)} {error.__cause__}"
    assert [part for part in (SECRET[:12], "\x1b", "\\x1b", "hunter2") if part in message] == []
    assert len(str(error)) < 1200
    assert len(message) < 8000


async def test_a_running_schedule_has_its_own_error(simulator, client_of):
    """The caller waits, attaches or stops: nothing is wrong with the request."""
    simulator.add_schedule("daily")
    simulator.start_run("daily")
    async with client_of(simulator) as client:
        with pytest.raises(BoltAlreadyRunning, match="on_already_running"):
            await client.trigger_bolt_run("daily")
    assert simulator.count("triggerBoltRun") == 1


async def test_a_run_id_counts_although_another_part_failed(simulator, client_of):
    """Half a reply proves that the run exists: an error would lose the run."""
    simulator.add_schedule("daily")
    simulator.inject(faults.GraphQLError("log service is down", data={"triggerBoltRun": {"runId": 99}}))
    async with client_of(simulator) as client:
        assert await client.trigger_bolt_run("daily") == 99


@pytest.mark.parametrize("fault, message", LOST)
@pytest.mark.parametrize("after_acting", [False, True])
async def test_a_trigger_is_not_sent_again_once_bolt_may_have_acted(
    simulator, client_of, naps, fault, message, after_acting
):
    """There is one request, whatever comes back; the error says that a run may have started."""
    simulator.add_schedule("daily")
    simulator.inject(type(fault)(**{**vars(fault), "after_acting": after_acting, "times": None}))
    async with client_of(simulator) as client:
        with pytest.raises(BoltUnavailable) as caught:
            await client.trigger_bolt_run("daily")
    assert caught.value.may_have_acted
    assert (simulator.count("triggerBoltRun"), naps) == (1, [])
    assert len(simulator.runs()) == after_acting


async def test_a_trigger_that_timed_out_is_not_sent_again(simulator, client_of, naps):
    """This is the hardest case of a lost answer: the server acts after the client has gone."""
    simulator.add_schedule("daily")
    simulator.inject(faults.Hang(60, operation="triggerBoltRun"))
    async with client_of(simulator, request_timeout_seconds=0.25) as client:
        with pytest.raises(BoltUnavailable) as caught:
            await client.trigger_bolt_run("daily")
    assert (caught.value.may_have_acted, caught.value.may_still_act) == (True, True)
    assert (simulator.count("triggerBoltRun"), naps) == (1, [])


@pytest.mark.parametrize(
    "body", [b'{"data": {"triggerBoltRun": {}}}', b'{"data": {"triggerBoltRun": {"runId": "?"}}}']
)
async def test_a_reply_without_a_run_id_does_not_repeat_the_trigger(simulator, client_of, body):
    """Bolt has answered the mutation: it may have acted."""
    simulator.add_schedule("daily")
    simulator.inject(faults.Garbage(body, "application/json", times=None))
    async with client_of(simulator) as client:
        with pytest.raises(BoltUnavailable, match="has no run id") as caught:
            await client.trigger_bolt_run("daily")
    assert caught.value.may_have_acted
    assert simulator.count("triggerBoltRun") == 1


@pytest.mark.parametrize("operation", ["triggerBoltRun", "retryBoltRun", "retryAllBoltRun"])
async def test_calls_that_start_a_run_are_not_repeated_after_a_lost_answer(simulator, client_of, operation):
    """A retry of a run starts a run as well."""
    simulator.add_schedule("daily", commands=[SimulatedCommand("dbt run", return_code=1)])
    failed = simulator.start_run("daily")
    simulator.clock.advance(600)
    simulator.inject(faults.CutConnection(operation=operation, after_acting=True))
    async with client_of(simulator) as client:
        call = {
            "triggerBoltRun": lambda: client.trigger_bolt_run("daily"),
            "retryBoltRun": lambda: client.retry_bolt_run(failed),
            "retryAllBoltRun": lambda: client.retry_bolt_run(failed, everything=True),
        }[operation]
        with pytest.raises(BoltUnavailable):
            await call()
    assert simulator.count(operation) == 1
    assert len(simulator.runs()) == 2


async def test_a_trigger_is_sent_again_after_a_429(simulator, client_of, naps):
    """Bolt rejected it before acting, and said when to try again."""
    simulator.add_schedule("daily")
    simulator.inject(faults.Status(429, times=2, retry_after=3))
    async with client_of(simulator) as client:
        run_id = await client.trigger_bolt_run("daily")
    assert [run.id for run in simulator.runs()] == [run_id]
    assert simulator.count("triggerBoltRun") == 3
    assert naps == [pytest.approx(3.1)] * 2


async def test_a_trigger_is_sent_again_after_refused_connections(simulator, client_of):
    """Nothing of it can have reached Bolt."""
    simulator.add_schedule("daily")
    waited = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            simulator.start()

    simulator.stop()
    async with client_of(simulator, sleep=sleep) as client:
        run_id = await client.trigger_bolt_run("daily")
    assert [run.id for run in simulator.runs()] == [run_id]
    assert len(waited) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_never_carries_the_credentials_to_another_host(
    simulator, client_of, recorder, status
):
    """It is not followed; the error names the target without the query, which may contain a token."""
    client = client_of(simulator)
    redirect = faults.Redirect(f"{recorder.url}/login?token=hidden", status=status)
    async with a_run(simulator, client, redirect) as run_id:
        with pytest.raises(BoltRequestError, match=f"redirects to '{recorder.url}/login'") as caught:
            await client.get_bolt_run(run_id)
    assert recorder.requests == []
    assert "hidden" not in str(caught.value)
    assert "api_endpoint" in str(caught.value)


async def test_an_invalid_redirect_is_one_of_our_errors(simulator, client_of):
    """An invalid Location is a broken response, and breaks nothing else."""
    client = client_of(simulator)
    async with a_run(simulator, client, faults.Redirect("https://elsewhere:port/", times=None)) as run_id:
        with pytest.raises(BoltUnavailable, match="Invalid URL in location header"):
            await client.get_bolt_run(run_id)


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(None, id="key pair"),
        pytest.param("prdm_wsp_token", id="workspace token"),
        pytest.param("prdm_cmp_token", id="company token"),
    ],
)
async def test_the_store_of_resources_gets_no_credential(client_of, recorder, secret):
    """Neither the signed URL nor its redirect gets one: the simulator would refuse such a request."""
    with BoltSimulator(speed=0, bearer=secret) as simulator:
        simulator.add_schedule("daily", setup_commands=False)
        run_id = simulator.start_run("daily")
        simulator.clock.advance(600)
        resource_id = simulator.run(run_id).commands[0].resources[0].id
        recorder.body = b"content"
        async with client_of(simulator, workspace_uid=simulator.workspace_uid) as client:
            await client.download_bolt_resource(resource_id)
            simulator.inject(faults.Redirect(recorder.url, operation="resource"))
            assert await client.download_bolt_resource(resource_id) == b"content"
        assert simulator.bad_requests == []
        sent = [request.headers for request in simulator.requests if request.operations == ("resource",)]
    assert len(sent) == 2
    assert all(not CREDENTIAL_HEADERS & set(headers) for headers in [*sent, recorder.requests[0][1]])


@pytest.mark.parametrize("bearer", [None, "prdm_wsp_token", "prdm_cmp_token"])
async def test_each_kind_of_credential_opens_the_api(client_of, bearer):
    """Key pair, workspace token, company token."""
    with BoltSimulator(speed=0, bearer=bearer) as simulator:
        simulator.add_schedule("daily")
        async with client_of(simulator, workspace_uid=simulator.workspace_uid if bearer else None) as client:
            assert (await client.get_bolt_schedule("daily")).ok


async def test_a_connection_closed_while_idle_loses_no_request(client_of, recorder):
    """Servers close idle connections: a trigger on such a connection is neither lost nor sent twice."""
    recorder.body = b'{"data": {"triggerBoltRun": {"runId": 5}}}'
    recorder.idle_seconds = 0.05
    async with client_of(recorder.url, retry_policy=RetryPolicy(attempts=1)) as client:
        for _ in range(3):
            assert await client.trigger_bolt_run("daily") == 5
            await anyio.to_thread.run_sync(recorder.closed.acquire)
    assert (recorder.connections, len(recorder.requests)) == (3, 3)


async def test_requests_go_through_the_blocks_proxy(simulator, client_of, recorder):
    """The proxy receives the request, and its response is used."""
    async with client_of(simulator, proxy=recorder.url) as client:
        await client.get_bolt_run(1)
    ((line, _),) = recorder.requests
    assert line == f"POST {simulator.api_endpoint} HTTP/1.1"
    assert simulator.requests == []


@pytest.mark.parametrize(
    "proxy, asked",
    [
        pytest.param(None, ["CONNECT api.paradime.invalid:443 HTTP/1.1"], id="taken from the environment"),
        pytest.param("none", [], id="unset by none"),
    ],
)
async def test_the_environments_proxy_is_used_unless_unset(client_of, recorder, monkeypatch, proxy, asked):
    """A proxy that lets nothing through has let no trigger through; it gets no credentials."""
    monkeypatch.setenv("HTTPS_PROXY", recorder.url)
    recorder.status, recorder.body = 502, b""
    client = client_of(
        "https://api.paradime.invalid/graphql", proxy=proxy, retry_policy=RetryPolicy(attempts=1)
    )
    async with client:
        with pytest.raises(BoltUnavailable) as caught:
            await client.trigger_bolt_run("daily")
    assert caught.value.may_have_acted is False
    assert [line for line, _ in recorder.requests] == asked
    assert not any(CREDENTIAL_HEADERS & set(headers) for _, headers in recorder.requests)


async def test_every_fault_raises_one_of_our_errors(simulator, client_of):
    """A caller never sees an exception of httpx, pydantic or json."""
    client = client_of(simulator, retry_policy=RetryPolicy(attempts=1))
    async with a_run(simulator, client) as run_id:
        for case in [*LOST, *MALFORMED, TOO_MANY]:
            simulator.inject(case.values[0])
            with pytest.raises(BoltError):
                await client.get_bolt_run(run_id)


async def test_the_credentials_client_passes_its_settings_on(simulator):
    """The connection uses the settings of the block."""
    settings = credentials_for(simulator, proxy="none", request_timeout_seconds=7).get_client().settings
    assert (settings.proxy, settings.request_timeout_seconds) == ("none", 7)
    assert settings.source == "the ParadimeCredentials given in code"


# Messages that a backend may return after it has acted.
IN_PASSING = [
    pytest.param("The run could not be confirmed for an unknown reason", id="unknown reason"),
    pytest.param("Unexpected error: commandConfigs were not saved", id="unexpected"),
    pytest.param("reason is not defined", id="a Python error"),
    pytest.param("KeyError: unknown field 'reason' in the audit log", id="a field of something else"),
    pytest.param("Run 5 began. Unknown argument 'reason' on field 'AuditLog.write'.", id="in the middle"),
    pytest.param("Audit: Unknown argument 'reason' on field 'AuditLog.write'.", id="a label of its own"),
    pytest.param("[AuditLog] Unknown argument 'reason' on field 'AuditLog.write'.", id="a label in brackets"),
    pytest.param("Validation: run 5 began. Unknown type 'Reason'.", id="only a word"),
    pytest.param("field triggerBoltRun doesn't have argument slug", id="no quotes"),
    pytest.param("The argument `reason` does not exist in the catalogue of reasons", id="more text after it"),
]


@pytest.mark.parametrize("text", IN_PASSING)
async def test_a_trigger_is_not_sent_again_for_a_name_in_another_error(simulator, client_of, text):
    """The error may come after the run has started: one request, one run, and no mention of an older backend."""
    simulator.add_schedule("daily", already_running="allow")
    simulator.inject(faults.GraphQLError(text, operation="triggerBoltRun", after_acting=True))
    async with client_of(simulator) as client:
        with pytest.raises(BoltRequestError) as caught:
            await client.trigger_bolt_run("daily", reason="the test")
    assert not isinstance(caught.value, BoltUnsupported)
    assert (simulator.count("triggerBoltRun"), len(simulator.runs())) == (1, 1)


async def test_errors_beside_null_data_of_a_trigger_are_raised(simulator, client_of):
    """An object of nulls does not prove a run."""
    simulator.add_schedule("daily")
    simulator.inject(faults.GraphQLError("AlreadyRunningException", data={"triggerBoltRun": {"runId": None}}))
    async with client_of(simulator) as client:
        with pytest.raises(BoltAlreadyRunning):
            await client.trigger_bolt_run("daily")


async def test_a_cancel_that_is_answered_with_errors_is_refused(simulator, client_of):
    """The cancel can be sent again, so an error loses nothing."""
    simulator.inject(faults.GraphQLError("not today", data={"cancelBoltRun": {"ok": None}}))
    async with client_of(simulator) as client:
        with pytest.raises(BoltRequestError, match="not today"):
            await client.cancel_bolt_run(1)
