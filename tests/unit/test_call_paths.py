"""Which flow runs belong to one call, in all attempts of its parents."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4, uuid5

import pytest
from prefect import task
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.context import TaskRunContext
from prefect.states import Running

from paradime_blocks.trigger.request import TriggerRequest
from paradime_flows.ledger.callers import Caller, TaskAttempt
from paradime_flows.ledger.phase import Phase
from paradime_flows.ledger.record import Record
from paradime_flows.ledger.retried_parents import Call, call_of
from paradime_flows.prefect_api.supervisor import Supervisor
from paradime_flows.runner.resume import claim

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
def within(*tasks: tuple[str, int], attempt: int = 1, flow_run_id: UUID = ROOT) -> Iterator[None]:
    """Run in these tasks of a flow run, each with the number of its attempt; the first is the outermost."""

    @task
    def load_all() -> None: ...

    with ExitStack() as stack:
        for name, number in tasks:
            task_run = TaskRun(
                id=named(name),
                flow_run_id=flow_run_id,
                task_key="load_all-a1b2",
                dynamic_key=uuid4().hex,
                run_count=number,
                flow_run_run_count=attempt,
            )
            context = TaskRunContext.model_construct(task=load_all, task_run=task_run, parameters={})
            stack.enter_context(context)
        yield


def by_task(*tasks: tuple[str, int], attempt: int = 1, **changes: Any) -> Call:
    """Call a flow in these tasks."""
    family = [flow_run("load", **changes), flow_run("parent", id=ROOT, run_count=attempt)]
    with within(*tasks, attempt=attempt):
        found = call_of(family, [call(OTHER_NUMBER)])
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def new_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls of each test are counted anew."""
    supervisor = Supervisor()
    monkeypatch.setattr("paradime_flows.ledger.retried_parents.the_supervisor", lambda: supervisor)


def test_equal_calls_of_tasks_are_counted_in_each_attempt() -> None:
    """The first call of an attempt has the place of the first call of the attempt before, and so on."""
    first = [by_task(("a", 1)), by_task(("a", 1)), by_task(("beside", 1))]
    task_retried = [by_task(("a", 2)), by_task(("a", 2)), by_task(("beside", 2))]
    flow_retried = [by_task((name, 1), attempt=2) for name in ("a anew", "a anew", "beside anew")]
    places = [[one.place for one in attempt] for attempt in (first, task_retried, flow_retried)]
    assert places == [places[0]] * 3
    assert len({*places[0]}) == 3
    assert not {one.attempt for one in first} & {one.attempt for one in task_retried + flow_retried}


def test_a_retried_task_has_its_own_places_again_while_another_runs() -> None:
    mine, others = by_task(("a", 1)), by_task(("beside", 1))
    assert by_task(("a", 2)).place == mine.place != others.place


def test_tasks_of_a_retried_task_have_the_same_places() -> None:
    """They are new task runs, in the order of their calls."""
    first = [by_task(("outer", 1), (name, 1)).place for name in ("a", "b")]
    again = [by_task(("outer", 2), (name, 1)).place for name in ("a anew", "b anew")]
    assert first == again
    assert by_task(("outer", 2), ("b anew", 2)).place == first[1]


def test_tasks_calls_with_other_parameters_have_other_places() -> None:
    """Tasks have no numbers that could identify the call."""
    assert by_task(("a", 1), parameters={"day": 1}).place != by_task(("a", 1), parameters={"day": 2}).place


def test_a_flow_run_keeps_its_place() -> None:
    """It asks for it with each of its intents."""
    same = uuid4()
    assert by_task(("a", 1), id=same) == by_task(("a", 1), id=same)


def test_a_flow_below_a_task_has_the_same_place_if_the_task_is_retried() -> None:
    def below(number: int) -> Call:
        family = [flow_run("load"), flow_run("between"), flow_run("parent", id=ROOT)]
        with within(("a", number)):
            found = call_of(family, [call(), call(OTHER_NUMBER)])
        assert found is not None
        return found

    first, again = below(1), below(2)
    assert first.place == again.place
    assert first.attempt != again.attempt
    assert (first.is_first, again.is_first) == (True, False)


def test_a_deployment_that_a_task_has_called_has_no_place() -> None:
    """Its own process cannot see the task. What it calls itself still has a place."""
    deployed, root = flow_run("between", deployment_id=uuid4()), flow_run("parent", id=ROOT)
    assert call_of([deployed, root], [call(OTHER_NUMBER)]) is None
    assert call_of([flow_run("load"), deployed, root], [call(), call(OTHER_NUMBER)]) is not None


# The records of tasks in one flow run.


def caller(attempt: int, *tasks: tuple[str, int], of: str = "parent") -> Caller:
    """An attempt of a flow run, and its tasks with the attempt of each."""
    return Caller(
        flow_run_id=named(of),
        flow_run_attempt=attempt,
        tasks=[TaskAttempt(task_run_id=named(name), number=number) for name, number in tasks],
    )


# A task inside another; each with its attempt.
OUTER, INNER = ("outer", 1), ("inner", 1)


@pytest.mark.parametrize(
    "ours, theirs, is_later",
    [
        pytest.param(caller(1, OUTER), caller(1, OUTER), False, id="the same attempt"),
        pytest.param(caller(1, ("outer", 2)), caller(1, OUTER), True, id="the task was retried"),
        pytest.param(caller(1, OUTER), caller(1, ("outer", 2)), False, id="the task is retried later"),
        pytest.param(caller(2, ("anew", 1)), caller(1, OUTER), True, id="the flow was retried"),
        pytest.param(caller(1, OUTER), caller(2, ("anew", 1)), False, id="the flow is retried later"),
        pytest.param(caller(1, ("other", 2)), caller(1, OUTER), False, id="another task was retried"),
        pytest.param(
            caller(2, ("other", 1)), caller(1, ("outer", 3)), True, id="another task; the flow was retried"
        ),
        pytest.param(
            caller(1, OUTER, ("inner", 2)), caller(1, OUTER, INNER), True, id="the inner task was retried"
        ),
        pytest.param(
            caller(1, ("outer", 2), ("anew", 1)),
            caller(1, OUTER, ("inner", 3)),
            True,
            id="the outer task was retried",
        ),
        pytest.param(
            caller(1, OUTER, ("other", 2)),
            caller(1, OUTER, INNER),
            False,
            id="another inner task was retried",
        ),
        pytest.param(caller(2, OUTER, of="other"), caller(1, OUTER), False, id="in another flow run"),
    ],
)
def test_which_calls_come_from_an_earlier_attempt(ours, theirs, is_later):
    """A task that both calls share was retried between them, or the flow."""
    assert ours.comes_after(theirs) is is_later


@pytest.mark.parametrize(
    "one, is_first",
    [
        (caller(1, OUTER, INNER), True),
        (caller(2, OUTER, INNER), False),
        (caller(1, ("outer", 2), INNER), False),
        (caller(1, OUTER, ("inner", 2)), False),
    ],
)
def test_only_the_very_first_attempt_has_none_before_it(one, is_first):
    assert one.is_first is is_first


FIRST, RETRIED = caller(1, OUTER), caller(1, ("outer", 2))
FLOW_RETRIED = caller(2, ("anew", 1))


def task_has(key: str, one: Caller | None, execution: str = "this attempt") -> Record:
    """The record of a task of this flow run."""
    request = TriggerRequest(schedule_name="daily")
    return Record(
        key=key,
        holder=execution,
        flow_run_id=uuid4(),
        request=request,
        asked=request.fingerprint,
        phase=Phase.RUNNING,
        run_id=1,
        caller=one,
    )


@pytest.mark.parametrize(
    "theirs, ours, execution, is_taken",
    [
        pytest.param(FIRST, RETRIED, "this attempt", True, id="the task that calls it was retried"),
        pytest.param(FIRST, FIRST, "this attempt", False, id="another task of the same attempt"),
        pytest.param(RETRIED, FIRST, "this attempt", False, id="of a later attempt"),
        pytest.param(FIRST, caller(1, ("beside", 2)), "this attempt", False, id="another task was retried"),
        pytest.param(None, RETRIED, "this attempt", False, id="the flow has called it"),
        pytest.param(FIRST, None, "this attempt", False, id="the flow calls it"),
        pytest.param(FIRST, FLOW_RETRIED, "another attempt", True, id="the flow was retried"),
        pytest.param(None, None, "another attempt", True, id="the flow was retried, and has called it"),
    ],
)
def test_a_task_resumes_an_equal_request_of_an_earlier_attempt(theirs, ours, execution, is_taken):
    """It is another task run with an equal request."""
    had = task_has("before", theirs, execution)
    claimed = claim([had], "now", TriggerRequest(schedule_name="daily"), "this attempt", ours)
    assert (claimed is had) is is_taken


def test_equal_tasks_of_a_retried_task_resume_one_record_each():
    """The attempt after that does the same, although the tasks between have written nothing of their own."""
    request = TriggerRequest(schedule_name="daily")
    inner = [caller(1, OUTER, (name, 1)) for name in ("a", "b", "c")]
    found = [task_has(f"before {number}", one) for number, one in enumerate(inner)]
    for number in (2, 3):
        anew = [caller(1, ("outer", number), (name, 1)) for name in ("a", "b", "c")]
        claimed = [
            claim(found, f"{name} of attempt {number}", request, "this attempt", one)
            for name, one in zip("abc", anew, strict=True)
        ]
        assert claimed == found
        assert claim(found, f"one more of attempt {number}", request, "this attempt", anew[0]) is None
