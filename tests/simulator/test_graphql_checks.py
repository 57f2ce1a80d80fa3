"""The simulator refuses what a real GraphQL server refuses."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from paradime_blocks.testing import BoltSimulator

Ask = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    "query, variables, message",
    [
        pytest.param("{ boltRunStatus(runId: 1) {", {}, "Syntax Error", id="syntax"),
        pytest.param("{ nope }", {}, "Cannot query field 'nope'", id="unknown operation"),
        pytest.param(
            "{ boltRunStatus(runId: 1) { nope } }", {}, "Cannot query field 'nope'", id="unknown field"
        ),
        pytest.param("{ boltRunStatus(id: 1) { ok } }", {}, "Unknown argument 'id'", id="unknown argument"),
        pytest.param(
            "{ boltRunStatus { ok } }",
            {},
            "of type 'Int!' is required, but it was not provided",
            id="missing argument",
        ),
        pytest.param('{ boltRunStatus(runId: "1") { ok } }', {}, "Int cannot represent", id="wrong literal"),
        pytest.param("{ boltRunStatus(runId: 1) }", {}, "must have a selection", id="no selection"),
        pytest.param(
            "query($id: Int!) { boltRunStatus(runId: $id) { ok } }",
            {},
            "type 'Int!'",
            id="missing variable",
        ),
        pytest.param(
            "query($id: Int!) { boltRunStatus(runId: $id) { ok } }",
            {"id": "76001"},
            "Int cannot represent",
            id="wrong variable",
        ),
        pytest.param(
            "query($id: String!) { boltRunStatus(runId: $id) { ok } }",
            {"id": "1"},
            "used in position",
            id="wrong declaration",
        ),
        pytest.param(
            "query($id: Int!) { boltRunStatus(runId: $id) { ok } }",
            {"id": 2**31},
            "32-bit",
            id="number too large",
        ),
        pytest.param(
            "query A { a: __typename } query B { b: __typename }", {}, "operation name", id="which operation"
        ),
        pytest.param("", {}, "Syntax Error", id="empty"),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_a_document_that_does_not_fit_is_refused_and_remembered(
    post_to: Callable[..., httpx.Response], status: int, query: str, variables: dict[str, Any], message: str
) -> None:
    """The client gets a GraphQL error without data, and the test's author a bad request."""
    with BoltSimulator(speed=0, validation_status=status) as simulator:
        response = post_to(simulator, query, **variables)
        answer = response.json()
        assert response.status_code == status
        assert message in answer["errors"][0]["message"]
        assert "data" not in answer
        (bad,) = simulator.bad_requests
        assert message in str(bad.not_understood)


@pytest.mark.parametrize(
    "content, kind",
    [
        pytest.param(b"{", "application/json", id="no JSON"),
        pytest.param(b"[]", "application/json", id="no object"),
        pytest.param(b'{"variables": {}}', "application/json", id="no query"),
        pytest.param(
            b'{"query": "{ __typename }", "variables": []}',
            "application/json",
            id="variables that are a list",
        ),
        pytest.param(b'{"query": "{ __typename }"}', "text/plain", id="no JSON type"),
    ],
)
def test_a_body_that_is_no_graphql_request_is_refused(
    simulator: BoltSimulator, http: httpx.Client, content: bytes, kind: str
) -> None:
    """The response has status 400, and the request counts as bad."""
    headers = {"X-API-KEY": simulator.api_key, "X-API-SECRET": simulator.api_secret, "Content-Type": kind}
    assert http.post(simulator.api_endpoint, content=content, headers=headers).status_code == 400
    assert len(simulator.bad_requests) == 1


def test_explicit_nulls_mean_the_same_as_absent_arguments(simulator: BoltSimulator, ask: Ask) -> None:
    """Clients may declare all arguments and leave most of them null."""
    simulator.add_schedule("daily")
    query = """
    mutation($slug: String, $texts: [String!], $branch: String, $configs: [BoltCommandInput!], $on: Boolean) {
        triggerBoltRun(
            slug: $slug, commands: $texts, branch: $branch, commandConfigs: $configs, continueOnError: $on
        ) { runId }
    }"""
    ask(query, slug="daily", texts=None, branch=None, configs=None, on=None)
    assert simulator.runs("daily")[0].branch == "main"


def test_fragments_and_operation_names_work(simulator: BoltSimulator, http: httpx.Client) -> None:
    """These are usual in GraphQL; the log also names root fields inside fragments."""
    simulator.add_schedule("daily")
    payload = {
        "query": """
        query A { ...F }
        query B { __typename }
        fragment F on Query { boltScheduleName(slug: "daily") { ok } }""",
        "operationName": "A",
    }
    headers = {"X-API-KEY": simulator.api_key, "X-API-SECRET": simulator.api_secret}
    answer = http.post(simulator.api_endpoint, json=payload, headers=headers).json()
    assert answer == {"data": {"boltScheduleName": {"ok": True}}}
    assert simulator.requests[0].operations == ("boltScheduleName",)


@pytest.mark.parametrize(
    "lacks, query, message",
    [
        pytest.param(
            {"operations": ["listBoltRuns"]},
            '{ listBoltRuns(slug: "daily", offset: 0, limit: 1) { ok } }',
            "Cannot query field 'listBoltRuns' on type 'Query'",
            id="query",
        ),
        pytest.param(
            {"operations": ["retryBoltRun"]},
            "mutation { retryBoltRun(scheduleRunId: 1) { runId } }",
            "Cannot query field 'retryBoltRun' on type 'Mutation'",
            id="mutation",
        ),
        pytest.param(
            {"arguments": ["triggerBoltRun.reason"]},
            'mutation { triggerBoltRun(slug: "daily", reason: "x") { runId } }',
            "Unknown argument 'reason' on field 'Mutation.triggerBoltRun'",
            id="argument",
        ),
        pytest.param(
            {"fields": ["BoltScheduleNameType.suspended"]},
            '{ boltScheduleName(slug: "daily") { suspended } }',
            "Cannot query field 'suspended'",
            id="field by type",
        ),
        pytest.param(
            {"fields": ["listBoltSchedules.schedules.slug"]},
            "{ listBoltSchedules(offset: 0, limit: 1, showInactive: false) { schedules { slug } } }",
            "Cannot query field 'slug'",
            id="field by its path",
        ),
        pytest.param({"aliases": True}, "{ a: __typename b: __typename }", "Aliases limit", id="aliases"),
    ],
)
def test_an_older_backend_reports_what_it_lacks(
    simulator: BoltSimulator,
    post: Callable[..., httpx.Response],
    lacks: dict[str, Any],
    query: str,
    message: str,
) -> None:
    """The messages are GraphQL's own; nothing is executed, the client is not at fault, and other calls still work."""
    simulator.add_schedule("daily")
    simulator.lacks(**lacks)
    assert message in post(query).json()["errors"][0]["message"]
    assert simulator.runs() == []
    assert simulator.bad_requests == []
    assert "data" in post('{ boltScheduleName(scheduleName: "daily") { ok } }').json()


def test_lacks_add_up_until_the_reset(
    simulator: BoltSimulator, ask: Ask, refused: Callable[..., str]
) -> None:
    """Each call removes more; reset restores everything."""
    simulator.lacks(operations=["listBoltRuns"])
    simulator.lacks(arguments=["triggerBoltRun.slug"], aliases=True)
    runs, slug = (
        '{ listBoltRuns(slug: "daily", offset: 0, limit: 1) { ok } }',
        'mutation { triggerBoltRun(slug: "daily") { runId } }',
    )
    assert "Cannot query" in refused(runs)
    assert "Unknown argument" in refused(slug)
    simulator.reset()
    simulator.add_schedule("daily")
    ask(runs)
    ask(slug)
    ask("{ a: __typename }")


def test_a_mistake_is_a_bad_request_on_an_older_backend_too(
    simulator: BoltSimulator, refused: Callable[..., str]
) -> None:
    """Only a request that fits the whole schema is excused."""
    simulator.lacks(operations=["listBoltRuns"])
    refused("{ nope }")
    assert len(simulator.bad_requests) == 1


@pytest.mark.parametrize(
    "slip",
    [
        {"operations": ["listBoltRun"]},
        {"arguments": ["triggerBoltRun.reasons"]},
        {"arguments": ["trigger.reason"]},
        {"fields": ["BoltScheduleType.suspend"]},
        {"fields": ["BoltScheduleType"]},
        {"fields": ["Nope.suspended"]},
    ],
)
def test_a_lack_of_an_unknown_name_is_refused(simulator: BoltSimulator, slip: dict[str, Any]) -> None:
    """A mistyped name would test nothing."""
    with pytest.raises(ValueError, match="The Bolt schema has no"):
        simulator.lacks(**slip)


def test_an_interrupted_request_is_not_a_bad_request() -> None:
    """A client that is cancelled while it sends has requested nothing, so it made no mistake."""
    with BoltSimulator() as simulator:
        endpoint = httpx.URL(simulator.api_endpoint)
        with socket.create_connection((endpoint.host, endpoint.port)) as connection:
            connection.sendall(
                b"POST %s HTTP/1.1\r\nHost: bolt\r\nContent-Length: 500\r\n\r\n{" % endpoint.raw_path
            )
        simulator.wait_for(lambda it: bool(it.requests))
        assert simulator.bad_requests == []


def test_a_directive_can_use_a_variable(simulator: BoltSimulator, ask: Ask) -> None:
    """A field that a variable leaves out is neither answered nor recorded."""
    simulator.add_schedule("daily")
    query = """
    query($leave: Boolean!) {
        boltScheduleName(slug: "daily") { ok }
        listBoltRuns(slug: "daily", offset: 0, limit: 1) @skip(if: $leave) { ok }
    }"""
    assert ask(query, leave=True) == {"boltScheduleName": {"ok": True}}
    assert simulator.requests[-1].operations == ("boltScheduleName",)
    assert ask(query, leave=False) == {"boltScheduleName": {"ok": True}, "listBoltRuns": {"ok": True}}
    assert simulator.requests[-1].operations == ("boltScheduleName", "listBoltRuns")
