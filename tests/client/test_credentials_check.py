"""The results of a check of credentials against Bolt."""

from __future__ import annotations

import pytest
from support.credentials import credentials_for

from paradime_blocks.testing import BoltSimulator, faults

ENDPOINT = "https://api.paradime.io/api/v1/acme/graphql"


@pytest.mark.parametrize(
    "workspace, changes, status, message",
    [
        pytest.param({}, {}, "ok", "Bolt accepts the credentials", id="good"),
        pytest.param({}, {"api_secret": "wrong"}, "bad_key", "does not accept", id="bad secret"),
        pytest.param({}, {"api_key": "wrong"}, "bad_key", "does not accept", id="bad key"),
        pytest.param(
            {"bearer": "prdm_wsp_right"},
            {"api_secret": "prdm_wsp_wrong"},
            "bad_key",
            "does not accept",
            id="bad token",
        ),
        pytest.param(
            {"bearer": "prdm_cmp_right"},
            {"workspace_uid": "another"},
            "bad_workspace",
            "Check the workspace",
            id="bad workspace uid",
        ),
        pytest.param({"read_only": True}, {}, "read_only", "Bolt Schedules Admin", id="read-only"),
        # Such a server checks a field's permission when it executes the field, and a check executes none.
        pytest.param(
            {"read_only": "graphql"},
            {},
            "ok",
            "Only the first trigger shows",
            id="read-only, which only a trigger can show",
        ),
    ],
)
async def test_a_check_reports_what_is_wrong(workspace, changes, status, message):
    """Its status is for code, its message for a person."""
    with BoltSimulator(speed=0, **workspace) as simulator:
        simulator.add_schedule("daily")
        found = await credentials_for(simulator, **changes).acheck()
    assert (found.status, found.ok) == (status, status == "ok")
    assert message in found.message


@pytest.mark.parametrize(
    "read_only, may_trigger",
    [
        pytest.param(False, None, id="may trigger"),
        pytest.param("status", False, id="read-only by kind of request"),
        pytest.param("graphql", None, id="read-only by field"),
    ],
)
async def test_a_check_never_promises_that_a_key_may_trigger(read_only, may_trigger):
    """No read can show that: the check says that the key may not, or that it is not known."""
    with BoltSimulator(read_only=read_only) as simulator:
        assert (await credentials_for(simulator).acheck()).may_trigger is may_trigger


@pytest.mark.parametrize(
    "fault, may_trigger",
    [
        pytest.param(faults.Status(400, body="permission denied", nth=2), False, id="in plain text"),
        pytest.param(faults.GraphQLError("Forbidden", nth=2), False, id="in GraphQL"),
        pytest.param(faults.GraphQLError("You are not allowed to do this", nth=2), False, id="not allowed"),
        pytest.param(
            faults.GraphQLError("Mutations are not allowed for this API key", nth=2), False, id="for this key"
        ),
        pytest.param(faults.GraphQLError("Extra variable not allowed", nth=2), None, id="about the request"),
        pytest.param(
            faults.Status(400, body="type=extra_forbidden", nth=2), None, id="about the request, as a code"
        ),
    ],
)
async def test_a_check_tells_a_read_only_key_from_a_refused_question(simulator, fault, may_trigger):
    """A gateway may refuse the mutation in plain text, and a server may refuse the question itself."""
    simulator.inject(fault)
    assert (await credentials_for(simulator).acheck()).may_trigger is may_trigger


@pytest.mark.parametrize(
    "message, status",
    [
        pytest.param("Invalid API key", "bad_key", id="key"),
        pytest.param("The API secret is not valid.", "bad_key", id="secret"),
        pytest.param("Token has expired", "bad_key", id="token"),
        pytest.param("User is not authenticated", "bad_key", id="authenticated"),
        pytest.param("UNAUTHENTICATED", "bad_key", id="code"),
        pytest.param("There is no workspace 'acme'", "bad_workspace", id="workspace"),
        pytest.param("The workspace's plan has no API: not allowed", "bad_workspace", id="workspace's plan"),
        pytest.param("The API is disabled", "refused", id="something else"),
        pytest.param("Internal server error", "unreachable", id="trouble inside Bolt"),
    ],
)
async def test_a_check_reads_what_a_graphql_error_says(simulator, message, status):
    """Some servers use HTTP 200 for what others report with 401; and not every problem is the workspace."""
    simulator.inject(faults.GraphQLError(message, operation="listBoltSchedules", times=None))
    found = await credentials_for(simulator).acheck()
    assert (found.status, found.ok) == (status, False)
    assert message in found.message


async def test_a_check_of_a_wrong_endpoint_reports_the_workspace(simulator):
    """The workspace is part of the address."""
    found = await credentials_for(simulator, api_endpoint=f"{simulator.api_endpoint}x").acheck()
    assert found.status == "bad_workspace"
    assert "api_endpoint is the workspace's GraphQL endpoint" in found.message


async def test_a_check_of_an_unreachable_endpoint_says_so(simulator):
    """Neither key nor workspace is the cause."""
    simulator.stop()
    found = await credentials_for(simulator).acheck()
    assert found.status == "unreachable"
    assert "was unreachable" in found.message


async def test_a_check_without_a_way_to_the_network_says_so(simulator, monkeypatch):
    """Missing certificates are not a fault of key or workspace."""
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file.pem")
    monkeypatch.setenv("HTTPS_PROXY", "http://[")
    found = await credentials_for(simulator, api_endpoint=ENDPOINT).acheck()
    assert found.status == "unreachable"
    assert "No connection can be set up" in found.message


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.CutConnection(nth=2, times=None), id="cut"),
        pytest.param(faults.Status(503, nth=2, times=None), id="503"),
        pytest.param(faults.Garbage(nth=2, times=None), id="a page for people"),
    ],
)
async def test_a_check_that_stops_halfway_is_not_a_success(simulator, fault):
    """Reading worked; whether the key may trigger is unknown, and not assumed."""
    simulator.inject(fault)
    assert (await credentials_for(simulator).acheck()).status == "unreachable"


async def test_a_check_survives_one_lost_answer(simulator):
    """A single fault is not a result."""
    simulator.inject(faults.CutConnection(nth=1), faults.CutConnection(nth=3))
    assert (await credentials_for(simulator).acheck()).ok


async def test_a_check_is_harmless(simulator):
    """Nothing starts or is cancelled: it sends a read, and a mutation whose fields are all skipped."""
    simulator.add_schedule("daily")
    run_id = simulator.start_run("daily")
    await credentials_for(simulator).acheck()
    # Fields that a document skips are not counted: none was executed.
    assert simulator.count("cancelBoltRun") == 0
    assert simulator.run(run_id).cancel_requests == 0
    assert [run.id for run in simulator.runs()] == [run_id]
    read, nothing = simulator.requests
    assert (read.operations, nothing.operations) == (("listBoltSchedules",), ("__typename",))
    assert "cancelBoltRun(scheduleRunId: 0) @skip(if: true)" in nothing.query


def test_a_check_works_without_await(simulator):
    """The sync form is for the interactive shell."""
    assert credentials_for(simulator).check().ok
