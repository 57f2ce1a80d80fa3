"""Each kind of fault, which call it hits, and whether the server has acted by then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from paradime_blocks.testing import BoltSimulator, faults

Post = Callable[..., httpx.Response]

TRIGGER = 'mutation { triggerBoltRun(scheduleName: "daily") { runId } }'
READ = '{ boltScheduleName(scheduleName: "daily") { ok latestRunId } }'
LOST = (httpx.TransportError,)


@pytest.fixture(autouse=True)
def daily(simulator: BoltSimulator) -> None:
    simulator.add_schedule("daily", already_running="allow")


def outcome(post: Post, query: str = TRIGGER) -> str:
    """How a client sees an exchange: a normal response, or what is wrong with it."""
    try:
        response = post(query)
        if response.status_code != 200:
            return str(response.status_code)
        answer = response.json()
    except httpx.TransportError:
        return "cut"
    except ValueError:
        return "garbage"
    if "errors" in answer:
        return "error"
    return (
        "ok"
        if any(value and any(value.values()) for value in (answer.get("data") or {}).values())
        else "missing"
    )


LOSING = [
    pytest.param(faults.Status(503), "503", id="503"),
    pytest.param(faults.Status(429, retry_after=1), "429", id="429"),
    pytest.param(faults.CutConnection(), "cut", id="cut"),
    pytest.param(faults.Hang(0.01, then="cut"), "cut", id="hang and cut"),
    pytest.param(faults.Garbage(), "garbage", id="garbage"),
    pytest.param(faults.Truncated(), "garbage", id="truncated"),
    pytest.param(faults.Truncated(mid_transfer=True), "cut", id="truncated in transfer"),
    pytest.param(faults.GraphQLError("no"), "error", id="GraphQL error"),
    pytest.param(faults.MissingData(), "missing", id="data null"),
    pytest.param(faults.MissingData("empty"), "missing", id="no data"),
    pytest.param(faults.MissingData("field"), "missing", id="field null"),
    pytest.param(faults.MissingData("nulls"), "missing", id="fields null"),
    pytest.param(faults.MissingData("not_ok"), "missing", id="not ok"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before acting", "after acting"])
@pytest.mark.parametrize("fault, seen", LOSING)
def test_an_answer_is_lost_before_or_after_the_server_has_acted(
    simulator: BoltSimulator, post: Post, fault: Any, seen: str, after: bool
) -> None:
    """Only the test can know whether the run was started; the client cannot. The next call works."""
    lost = type(fault)(**{**vars(fault), "operation": "triggerBoltRun", "after_acting": after})
    simulator.inject(lost)
    assert outcome(post) == seen
    assert len(simulator.runs("daily")) == int(after)
    assert simulator.count("triggerBoltRun") == 1
    assert simulator.requests[-1].fault == lost
    assert simulator.pending_faults == ()
    assert outcome(post) == "ok"
    assert simulator.bad_requests == []


def test_retry_after_is_sent_as_given(simulator: BoltSimulator, post: Post) -> None:
    """It is a number of seconds, a date, or absent."""
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    simulator.inject(
        faults.Status(503, retry_after=7), faults.Status(503, retry_after=date), faults.Status(503, body="x")
    )
    answers = [post(READ) for _ in range(3)]
    assert [answer.headers.get("Retry-After") for answer in answers] == ["7", date, None]
    assert answers[2].text == "x"


def test_a_fault_hits_the_calls_it_counts(simulator: BoltSimulator, post: Post) -> None:
    """They are the nth call and later ones, up to `times`, and only calls of its operation."""
    simulator.inject(faults.Status(503, operation="boltScheduleName", nth=2, times=2))
    seen = [outcome(post, query) for query in (READ, TRIGGER, READ, TRIGGER, READ, READ)]
    assert seen == ["ok", "ok", "503", "ok", "503", "ok"]


def test_a_fault_can_last_until_it_is_removed(simulator: BoltSimulator, post: Post) -> None:
    """With times=None it continues until clear_faults."""
    simulator.inject(faults.Status(503, times=None))
    assert [outcome(post) for _ in range(5)] == ["503"] * 5
    simulator.clear_faults()
    assert outcome(post) == "ok"


def test_faults_are_used_up_in_turn(simulator: BoltSimulator, post: Post) -> None:
    """The first one that is due hits; one that waits for a later call lets others go first."""
    simulator.inject(
        faults.Status(500, nth=3),
        faults.Status(501, operation="boltScheduleName", times=2),
        faults.Status(502, times=2),
    )
    assert [outcome(post, READ) for _ in range(6)] == ["501", "501", "500", "502", "502", "ok"]


def test_calls_before_the_injection_do_not_count(simulator: BoltSimulator, post: Post) -> None:
    """nth counts from the injection."""
    outcome(post, READ)
    simulator.inject(faults.Status(503, nth=2))
    assert [outcome(post, READ) for _ in range(3)] == ["ok", "503", "ok"]


def test_a_fault_for_an_unknown_operation_is_refused(simulator: BoltSimulator) -> None:
    """It would never hit a call."""
    with pytest.raises(ValueError, match="has no operation 'trigger'"):
        simulator.inject(faults.CutConnection(operation="trigger"))
    with pytest.raises(ValueError, match="has no operation 'trigger'"):
        simulator.count("trigger")


@pytest.mark.parametrize("counts", [{"nth": 0}, {"times": 0}])
def test_counts_start_at_one(counts: dict[str, int]) -> None:
    """Other counts would never hit a call."""
    with pytest.raises(ValueError, match="count from 1"):
        faults.CutConnection(**counts)


def test_a_slow_answer_is_a_normal_one(simulator: BoltSimulator, post: Post) -> None:
    """The server acts at once, and the response comes later."""
    simulator.inject(faults.Slow(0.2))
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(outcome, post)
        simulator.wait_for(lambda s: s.runs("daily"))
        assert answer.result() == "ok"
    assert time.monotonic() - began >= 0.2


def test_a_held_answer_outlasts_an_impatient_client(simulator: BoltSimulator, http: httpx.Client) -> None:
    """With after_acting, the run starts at once, although the client gives up."""
    simulator.inject(faults.Hang(60, after_acting=True))
    headers = {"X-API-KEY": simulator.api_key, "X-API-SECRET": simulator.api_secret}
    with pytest.raises(httpx.ReadTimeout):
        http.post(simulator.api_endpoint, json={"query": TRIGGER}, headers=headers, timeout=0.2)
    assert len(simulator.runs("daily")) == 1


def test_a_held_call_acts_after_its_client_has_gone(simulator: BoltSimulator, http: httpx.Client) -> None:
    """Without after_acting, the run starts at the end of the wait, when the client has gone."""
    simulator.inject(faults.Hang(0.5))
    headers = {"X-API-KEY": simulator.api_key, "X-API-SECRET": simulator.api_secret}
    with pytest.raises(httpx.ReadTimeout):
        http.post(simulator.api_endpoint, json={"query": TRIGGER}, headers=headers, timeout=0.1)
    assert simulator.runs("daily") == []
    simulator.wait_for(lambda s: s.runs("daily"))


def test_stopping_ends_a_held_call_at_once(simulator: BoltSimulator, post: Post) -> None:
    """The stop does not wait for a hang, and a request not executed by then is never executed."""
    simulator.inject(faults.Hang(600))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(outcome, post)
        simulator.wait_for(lambda s: s.requests and s.requests[0].fault)
        simulator.stop()
        # The test's own limit is half of the time that the call is held.
        assert answer.result() == "cut"
    assert simulator.runs("daily") == []


def test_a_redirect_sends_the_client_elsewhere(simulator: BoltSimulator, post: Post) -> None:
    """It has the given status and target."""
    simulator.inject(faults.Redirect("https://elsewhere.example.com/", status=308))
    answer = post(TRIGGER)
    assert (answer.status_code, answer.headers["Location"]) == (308, "https://elsewhere.example.com/")
    assert simulator.runs("daily") == []


@pytest.mark.parametrize("hears", ["first", "last"])
def test_a_duplicated_request_acts_twice(simulator: BoltSimulator, post: Post, hears: Any) -> None:
    """Like a gateway that resends a request: two runs, one response."""
    simulator.inject(faults.Duplicated(hears))
    run_id = post(TRIGGER).json()["data"]["triggerBoltRun"]["runId"]
    ids = [run.id for run in simulator.runs("daily")]
    assert len(ids) == 2
    assert run_id == (ids[0] if hears == "first" else ids[-1])


def test_a_fault_in_one_of_several_root_fields_hits_the_request(simulator: BoltSimulator, post: Post) -> None:
    """Aliased fields are sent together, and lost together."""
    simulator.inject(faults.Status(503, operation="boltScheduleName"))
    query = '{ boltRunStatus(runId: 1) { ok } boltScheduleName(slug: "daily") { ok } }'
    assert outcome(post, query) == "503"


def test_a_stopped_simulator_refuses_connections_and_comes_back(simulator: BoltSimulator, post: Post) -> None:
    """An outage: address and runs are the same afterwards."""
    assert outcome(post) == "ok"
    simulator.stop()
    with pytest.raises(httpx.ConnectError):
        post(READ)
    simulator.start()
    assert outcome(post, READ) == "ok"
    assert len(simulator.runs("daily")) == 1


def test_many_clients_at_once_get_one_run_each(simulator: BoltSimulator, post: Post) -> None:
    """Each mutation is executed exactly once."""
    barrier = threading.Barrier(8)

    def one(_: int) -> int:
        barrier.wait()
        return int(post(TRIGGER).json()["data"]["triggerBoltRun"]["runId"])

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(one, range(8)))
    assert sorted(ids) == [run.id for run in simulator.runs("daily")]


def test_of_many_triggers_at_once_one_is_accepted(simulator: BoltSimulator, post: Post) -> None:
    """The check for a running schedule and the start of a run are one step."""
    simulator.update_schedule("daily", already_running="refuse")
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda _: outcome(post), range(8)))
    assert sorted(seen) == ["error"] * 7 + ["ok"]
