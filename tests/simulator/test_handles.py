"""What a test can see and do from outside: the request log, waits, the reset, the fixture."""

from __future__ import annotations

import ast
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

import paradime_blocks.testing as package
from paradime_blocks.testing import BoltSimulator, faults
from paradime_blocks.testing.plugin import complain_about_bad_requests
from paradime_blocks.testing.resolvers import Resolvers

Ask = Callable[..., dict[str, Any]]

READ = '{ boltScheduleName(scheduleName: "daily") { ok } }'


def test_the_log_has_all_details_of_a_request(
    simulator: BoltSimulator, post: Callable[..., httpx.Response]
) -> None:
    """It has the document, the headers, and the response."""
    simulator.add_schedule("daily")
    query = "query($name: String) { boltScheduleName(scheduleName: $name) { ok } }"
    response = post(query, name="daily")
    (request,) = simulator.requests
    assert request.operations == ("boltScheduleName",)
    assert (request.method, request.query, request.variables) == ("POST", query, {"name": "daily"})
    assert request.headers["x-api-key"] == simulator.api_key
    assert (request.status, request.bytes, request.answered) == (200, len(response.content), True)
    assert request.request_bytes == len(response.request.content)
    assert request.authorized
    assert request.fault is None
    assert request.at == simulator.clock.now()


def test_a_cut_connection_has_no_status(
    simulator: BoltSimulator, post: Callable[..., httpx.Response]
) -> None:
    """The log says that the exchange is over, and why."""
    fault = faults.CutConnection()
    simulator.inject(fault)
    with pytest.raises(httpx.TransportError):
        post(READ)
    (request,) = simulator.requests
    assert (request.status, request.fault, request.answered) == (None, fault, True)


def test_a_client_that_disconnects_during_its_request_leaves_nothing_open(
    simulator: BoltSimulator,
) -> None:
    """A cancelled client does that: nothing was requested, and no one waits for a response."""
    host, port = simulator.url.removeprefix("http://").partition("/")[0].split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /api/v1/graphql HTTP/1.1\r\nHost: bolt\r\nContent-Length: 100\r\n\r\n{")
    simulator.wait_for(lambda s: s.requests and all(request.answered for request in s.requests))
    (request,) = simulator.requests
    assert (request.status, request.operations, request.request_bytes) == (None, (), 1)


def test_connections_are_kept_alive(simulator: BoltSimulator, post: Callable[..., httpx.Response]) -> None:
    """A client with a pool needs one connection for many requests."""
    simulator.add_schedule("daily")
    streams = [post(READ).extensions["network_stream"] for _ in range(5)]
    assert len({stream.get_extra_info("client_addr") for stream in streams}) == 1


def test_a_wait_ends_when_its_condition_is_true(simulator: BoltSimulator) -> None:
    """This also holds if only the clock makes it true."""
    simulator.add_schedule("daily")
    simulator.start_run("daily")
    simulator.clock.speed = 1000
    simulator.wait_for(lambda s: not s.active_runs())


def test_a_wait_that_times_out_raises(simulator: BoltSimulator) -> None:
    """The error comes after the given time and lists the runs."""
    with pytest.raises(TimeoutError, match="The condition was not true"):
        simulator.wait_for(lambda s: s.runs(), timeout=0.05)


def test_a_reset_leaves_nothing_behind(simulator: BoltSimulator, post: Callable[..., httpx.Response]) -> None:
    """Schedules, runs, numbers, requests, faults and speed are as in the beginning."""
    simulator.add_schedule("daily")
    simulator.start_run("daily")
    post("{ nope }")
    simulator.inject(faults.CutConnection(times=None))
    simulator.clock.speed = 60
    simulator.allow_bad_requests()
    simulator.reset()
    assert (simulator.runs(), simulator.requests, simulator.pending_faults) == ([], [], ())
    assert simulator.clock.speed == 0
    assert not simulator.bad_requests_allowed
    simulator.add_schedule("daily")
    assert simulator.start_run("daily") == 76001


def test_the_ids_of_runs_begin_where_a_test_wants() -> None:
    """`make up` continues after the ids of earlier simulators; a reset begins again at the same id."""
    simulator = BoltSimulator(first_run_id=500)
    for _ in range(2):
        simulator.add_schedule("daily")
        assert [simulator.start_run("daily") for _ in range(2)] == [500, 501]
        simulator.reset()


def test_starting_and_stopping_twice_does_no_harm() -> None:
    """Both can be called again; before the first start there is no address."""
    simulator = BoltSimulator()
    with pytest.raises(RuntimeError, match="no address"):
        _ = simulator.api_endpoint
    simulator.start()
    endpoint = simulator.api_endpoint
    assert simulator.start().api_endpoint == endpoint
    simulator.stop()
    simulator.stop()
    assert simulator.api_endpoint == endpoint


def test_a_reused_port_is_another_workspace() -> None:
    """Otherwise a flow run of one test would use a run of another test that had the same port."""
    first, second = (BoltSimulator().start() for _ in range(2))
    with first, second:
        assert urlsplit(first.api_endpoint).path != urlsplit(second.api_endpoint).path
        assert httpx.post(urljoin(first.api_endpoint, urlsplit(second.api_endpoint).path)).status_code == 404


def test_a_chosen_port_has_one_endpoint() -> None:
    """If the simulator is started again on that port, the environment stays valid."""
    assert BoltSimulator(port=8765).api_endpoint == BoltSimulator(port=8765).api_endpoint


def test_the_fixture_provides_a_fresh_simulator(bolt_simulator: BoltSimulator, http: httpx.Client) -> None:
    """It is started, and empty."""
    assert bolt_simulator.runs() == []
    assert http.post(bolt_simulator.api_endpoint).status_code == 401


def test_a_bad_request_fails_the_test(simulator: BoltSimulator, post: Callable[..., httpx.Response]) -> None:
    """The message names the request and what is wrong with it; a test may allow it."""
    post("query($a: Int) { nope(a: $a) }", a=1)
    with pytest.raises(pytest.fail.Exception, match=r"(?s)Cannot query field 'nope'.*nope\(a: \$a\).*'a': 1"):
        complain_about_bad_requests(simulator)
    simulator.allow_bad_requests()
    complain_about_bad_requests(simulator)


def test_a_bug_of_the_simulator_fails_the_test_too(
    post_to: Callable[..., httpx.Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is not Bolt's own response is not ignored."""
    root = Resolvers.root
    broken = {"boltScheduleName": lambda _info, **_: {}["nope"]}
    monkeypatch.setattr(Resolvers, "root", lambda self: {**root(self), **broken})
    with BoltSimulator(speed=0) as simulator:
        post_to(simulator, READ)
    with pytest.raises(pytest.fail.Exception, match="the simulator failed: KeyError"):
        complain_about_bad_requests(simulator)


def test_the_simulator_shares_no_code_with_the_package() -> None:
    """It imports only the standard library, graphql-core and itself, so that it can disagree with the client."""
    folder = Path(package.__file__).parent
    foreign = set()
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                foreign |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level <= 1, f"{file.name} reaches out of its package"
                foreign |= {(node.module or "").split(".")[0]} if node.level == 0 else set()
    assert not foreign & {"prefect", "paradime_blocks", "paradime_flows", "httpx", "pydantic", "tenacity"}
