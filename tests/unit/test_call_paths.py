"""Which flow runs belong to one call, in all attempts of its parents."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4, uuid5

import pytest
from prefect import task
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.states import Running

from paradime_blocks.trigger.request import TriggerRequest
from paradime_flows.ledger.phase import Phase
from paradime_flows.ledger.record import Record
from paradime_flows.ledger.retried_parents import Call, are_of_two_attempts, call_of
from paradime_flows.runner.begin import claim

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = UUID(int=1)


def named(name: str) -> UUID:
    return uuid5(UUID(int=0), name)


def flow_run(flow: str, **changes: Any) -> FlowRun:
    """A new flow run of a flow."""
    attempt = {"run_count": 1, "state": Running(), "parameters": {}}
    return FlowRun(**{"id": uuid4(), "flow_id": named(flow), "name": flow, **attempt, **changes})


def call(number: str = "0", key: str = "load-a1b2") -> TaskRun:
    """The task run that represents a subflow in the flow run that has called it."""
    return TaskRun(flow_run_id=uuid4(), task_key=key, dynamic_key=number)


def place(*calls: TaskRun, family: list[FlowRun] | None = None) -> str:
    """Return the place of a call: by default, of a flow that `parent` calls, or a flow in between."""
    found = path(*calls, family=family)
    assert found is not None
    return found.place


def path(*calls: TaskRun, family: list[FlowRun] | None = None) -> Call | None:
    between = [flow_run("between") for _ in calls[1:]]
    return call_of(family or [flow_run("load"), *between, flow_run("parent", id=ROOT)], calls)


# Calls by a flow: Prefect numbers them.


def test_a_call_has_the_same_place_in_each_attempt() -> None:
    """Its flow run is new, and so are those above it, but for the outermost one."""
    assert place(call()) == place(call())
    assert place(call(), call()) == place(call(), call())


@pytest.mark.parametrize(
    "other",
    [
        pytest.param([call("1")], id="with another number"),
        pytest.param([call(key="load_as_well-a1b2")], id="of another function with the same flow name"),
        pytest.param([call(), call()], id="one level deeper"),
    ],
)
def test_another_call_has_another_place(other: list[TaskRun]) -> None:
    assert place(call()) != place(*other)


def test_calls_of_other_flows_and_flow_runs_have_other_places() -> None:
    root, other_root = flow_run("parent", id=ROOT), flow_run("parent")
    assert place(call()) != place(call(), family=[flow_run("another"), root])
    assert place(call()) != place(call(), family=[flow_run("load"), other_root])
    assert place(call(), call("1")) != place(call(), call("2"))


def test_a_flow_that_was_edited_has_the_same_place() -> None:
    """Prefect's key of it changes, as it does when a worker has fetched the code into another folder."""
    assert place(call(key="load-a1b2")) == place(call(key="load-c3d4"))


def test_deployments_are_distinguished_by_their_parameters() -> None:
    """Prefect numbers simultaneous calls in the order in which their requests arrive."""

    def of(**changes: Any) -> str:
        return place(call(), family=[flow_run("load", **changes), flow_run("parent", id=ROOT)])

    deployed = {"deployment_id": uuid4()}
    assert of(parameters={"day": 1}) == of(parameters={"day": 2})
    assert of(parameters={"day": 1}, **deployed) == of(parameters={"day": 1}, **deployed)
    assert of(parameters={"day": 1}, **deployed) != of(parameters={"day": 2}, **deployed)


@pytest.mark.parametrize(
    "parent, child, is_first",
    [
        pytest.param({}, {}, True, id="the first attempt"),
        pytest.param({"run_count": 2}, {}, False, id="the parent was retried"),
        pytest.param({}, {"deployment_id": uuid4()}, False, id="a deployment, which may begin late"),
    ],
)
def test_prefect_is_not_asked_for_the_calls_before_the_first(parent: Any, child: Any, is_first: bool) -> None:
    found = path(call(), family=[flow_run("load", **child), flow_run("parent", **parent)])
    assert found is not None
    assert found.is_first is is_first


def test_a_flow_run_without_a_parent_has_no_place() -> None:
    assert call_of([flow_run("load")], []) is None


# Calls by tasks: Prefect does not number them.

OTHER_NUMBER = "5f1c9e"


@contextmanager
def within(*tasks: tuple[str, int], execution: int = 1, flow_run_id: UUID = ROOT) -> Iterator[None]:
    """Run in an execution of a flow run, in these tasks with the number of their attempts, the outermost task first."""

    @task
    def load_all() -> None: ...

    state = Running(id=UUID(int=execution))
    parent = FlowRunContext.model_construct(flow_run=flow_run("parent", id=flow_run_id, state=state))
    with ExitStack() as stack:
        stack.enter_context(parent)
        for name, number in tasks:
            task_run = TaskRun(
                id=named(name),
                flow_run_id=flow_run_id,
                task_key="load_all-a1b2",
                dynamic_key=uuid4().hex,
                run_count=number,
            )
            context = TaskRunContext.model_construct(task=load_all, task_run=task_run, parameters={})
            stack.enter_context(context)
        yield


def by_task(*tasks: tuple[str, int], execution: int = 1, **changes: Any) -> Call:
    """Call a flow in these tasks."""
    family = [flow_run("load", **changes), flow_run("parent", id=ROOT, run_count=execution)]
    with within(*tasks, execution=execution):
        found = call_of(family, [call(OTHER_NUMBER)])
    assert found is not None
    return found


# A task inside another; each with its attempt.
OUTER, INNER = ("outer", 1), ("inner", 1)


@pytest.mark.parametrize(
    "ours, theirs, retried",
    [
        pytest.param(by_task(OUTER), by_task(OUTER), False, id="twice in one task"),
        pytest.param(by_task(OUTER), by_task(("beside", 2)), False, id="in a task beside it"),
        pytest.param(by_task(("outer", 2)), by_task(OUTER), True, id="the task was retried"),
        pytest.param(by_task(("anew", 1), execution=2), by_task(OUTER), True, id="the flow was retried"),
        pytest.param(
            by_task(OUTER, ("inner", 2)), by_task(OUTER, INNER), True, id="the inner task was retried"
        ),
        pytest.param(
            by_task(("outer", 2), ("anew", 1)),
            by_task(OUTER, ("inner", 3)),
            True,
            id="the outer task was retried",
        ),
        pytest.param(
            by_task(OUTER, ("other", 2)), by_task(OUTER, INNER), False, id="another inner task was retried"
        ),
    ],
)
def test_equal_calls_of_tasks_have_one_place_and_know_their_attempt(ours, theirs, retried):
    """Only a call of another attempt can be an earlier call. A call beside it is none."""
    assert ours.place == theirs.place
    assert are_of_two_attempts(ours.attempts, theirs.attempts) is retried
    assert are_of_two_attempts(theirs.attempts, ours.attempts) is retried


def test_a_pause_begins_no_other_attempt() -> None:
    """The parent's process waits, and Prefect gives the parent a new state."""
    paused = flow_run("parent", id=ROOT, state=Running())
    with within(("a task", 1)):
        again = call_of([flow_run("load"), paused], [call(OTHER_NUMBER)])
    assert again is not None
    assert again.attempts == by_task(("a task", 1)).attempts


def test_other_calls_of_tasks_have_other_places() -> None:
    """Tasks have no numbers that could identify the call."""
    assert by_task(OUTER, parameters={"day": 1}).place != by_task(OUTER, parameters={"day": 2}).place
    assert by_task(OUTER).place != by_task(OUTER, INNER).place


@pytest.mark.parametrize(
    "one, is_first",
    [
        (by_task(OUTER, INNER), True),
        (by_task(OUTER, INNER, execution=2), False),
        (by_task(("outer", 2), INNER), False),
        (by_task(OUTER, ("inner", 2)), False),
    ],
)
def test_only_the_very_first_attempt_has_none_before_it(one, is_first):
    assert one.is_first is is_first


def test_a_flow_below_a_task_has_the_same_place_if_the_task_is_retried() -> None:
    def below(number: int) -> Call:
        family = [flow_run("load"), flow_run("between"), flow_run("parent", id=ROOT)]
        with within(("a", number)):
            found = call_of(family, [call(), call(OTHER_NUMBER)])
        assert found is not None
        return found

    first, again = below(1), below(2)
    assert first.place == again.place
    assert are_of_two_attempts(first.attempts, again.attempts)
    assert (first.is_first, again.is_first) == (True, False)


def test_a_deployment_that_a_task_has_called_has_no_place() -> None:
    """Its own process cannot see the task. What it calls itself still has a place."""
    deployed, root = flow_run("between", deployment_id=uuid4()), flow_run("parent", id=ROOT)
    assert call_of([deployed, root], [call(OTHER_NUMBER)]) is None
    assert call_of([flow_run("load"), deployed, root], [call(), call(OTHER_NUMBER)]) is not None


def test_equal_flows_that_a_task_calls_are_beside_each_other() -> None:
    """So are the flows that they call."""

    def below(between: FlowRun) -> Call:
        with within(OUTER):
            found = call_of([flow_run("load"), between, parent], [call(), call(OTHER_NUMBER)])
        assert found is not None
        return found

    parent = flow_run("parent", id=ROOT)
    one, other = below(flow_run("between")), below(flow_run("between"))
    assert one.place == other.place
    assert not are_of_two_attempts(one.attempts, other.attempts)


# The records of tasks in one flow run.


def task_has(key: str, called_in: str, flow_run_id: UUID = ROOT) -> Record:
    """The record of a task of a flow run."""
    request = TriggerRequest(schedule_name="daily")
    return Record(
        key=key,
        flow_run_id=flow_run_id,
        request=request,
        asked=request.fingerprint,
        phase=Phase.RUNNING,
        run_id=1,
        called_in=called_in,
    )


@pytest.mark.parametrize(
    "theirs, ours, is_taken",
    [
        pytest.param("1.outer.1", "1.outer.2", True, id="the task that calls it was retried"),
        pytest.param("1.outer.1", "1.outer.1", False, id="another task of the same attempt"),
        pytest.param("1.outer.1", "1.beside.2", False, id="another task was retried"),
        pytest.param("1", "1.outer.2", False, id="the flow has called it"),
        pytest.param("1.outer.1", "1", False, id="the flow calls it"),
        pytest.param("1.outer.1", "2.anew.1", True, id="the flow was retried"),
        pytest.param("1", "2", True, id="the flow was retried, and has called it"),
    ],
)
def test_a_task_resumes_an_equal_request_of_an_earlier_attempt(theirs, ours, is_taken):
    """It is another task run with an equal request."""
    had = task_has("before", theirs, uuid4())
    assert (claim([had], task_has("now", ours)) is had) is is_taken


def test_equal_tasks_of_a_retried_task_resume_one_record_each():
    """The attempt after that does the same, although the tasks between have written nothing of their own."""
    flow_run_id = uuid4()
    found = [task_has(f"before {name}", f"1.outer.1.{name}.1", flow_run_id) for name in "abc"]
    for number in (2, 3):
        claimed = [
            claim(found, task_has(f"{name} of attempt {number}", f"1.outer.{number}.{name} {number}.1"))
            for name in "abc"
        ]
        assert claimed == found
        one_more = task_has(f"one more of attempt {number}", f"1.outer.{number}.d {number}.1")
        assert claim(found, one_more) is None
