"""Which flow runs preceded a flow run at its place: tables of flow runs and task runs as Prefect creates them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4, uuid5

import pytest
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.states import Completed, Crashed, Pending, Running

from paradime_blocks.trigger.request import TriggerRequest
from paradime_flows.ledger.callers import Caller, TaskAttempt
from paradime_flows.ledger.earlier_calls import (
    is_in_its_place,
    of_its_number,
    same_calls,
    same_calls_by_tasks,
)
from paradime_flows.ledger.record import Ownership
from paradime_flows.prefect_api.labels import CALLER_LABEL
from paradime_flows.runner.resume import claim, left_by_tasks

if TYPE_CHECKING:
    from prefect.states import State

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def named(name: str) -> UUID:
    return uuid5(UUID(int=0), name)


def at(minute: float) -> datetime:
    return NOON + timedelta(minutes=minute)


def flow_run(name: str, minute: float = 0, *, call: TaskRun | None = None, **changes: Any) -> FlowRun:
    """A flow run created this many minutes past noon, and the task run of its call."""
    changes = {"flow_id": named("the flow"), "labels": {}, "parameters": {}, **changes}
    above = None if call is None else call.id
    return FlowRun(id=named(name), name=name, created=at(minute), parent_task_run_id=above, **changes)


def call_by(parent: FlowRun, number: int = 0, *, key: str = "load-a", minute: float = 0) -> TaskRun:
    """The task run of a flow run's call of a subflow."""
    return TaskRun(
        id=named(f"{parent.name} {number} {key}"),
        name="load",
        flow_run_id=parent.id,
        task_key=key,
        dynamic_key=str(number),
        created=at(minute),
    )


def running(minute: float) -> State[Any]:
    return Running(timestamp=at(minute))


def names(found: list[FlowRun]) -> list[str]:
    return [one.name for one in found]


# Calls by a flow; Prefect counts them.


@pytest.mark.parametrize(
    "minute, changes, is_found",
    [
        pytest.param(1, {}, True, id="an earlier one"),
        pytest.param(3, {}, False, id="a later one"),
        pytest.param(1, {"flow_id": named("another flow")}, False, id="of another flow"),
        pytest.param(1, {"parameters": {"day": 2}}, True, id="with other parameters"),
        pytest.param(1, {"state": Crashed()}, True, id="that has crashed"),
        pytest.param(1, {"state": Completed()}, True, id="that has completed"),
    ],
)
def test_a_retried_parents_same_call_finds_its_earlier_flow_run(minute, changes, is_found):
    """Prefect creates a new flow run for a subflow, but the call is the same."""
    parent = flow_run("parent", state=running(0), run_count=2)
    call = call_by(parent)
    this, other = flow_run("this", 2, call=call), flow_run("other", minute, call=call, **changes)
    assert names(same_calls(this, call, parent, [call], [other, this])) == ["other"] * is_found


@pytest.mark.parametrize("parameters, is_found", [({"day": 1}, True), ({"day": 2}, False)])
def test_deployments_are_distinguished_by_their_parameters(parameters, is_found):
    """Prefect numbers simultaneous calls in the order in which their requests arrive."""
    parent = flow_run("parent")
    call = call_by(parent)
    deployed = {"call": call, "deployment_id": named("deployment")}
    this = flow_run("this", 2, parameters={"day": 1}, **deployed)
    other = flow_run("other", 1, parameters=parameters, **deployed)
    assert names(same_calls(this, call, parent, [call], [this, other])) == ["other"] * is_found


def test_calls_of_the_parents_earlier_flow_runs_come_first():
    """The parent is a subflow itself and was created again, so every flow run below it is new."""
    parents = [flow_run(f"parent {n}", n) for n in range(3)]
    calls = [call_by(parent) for parent in parents]
    called = [flow_run(f"child {n}", 10 + n, call=call) for n, call in enumerate(calls)]
    # The latest by its server's clock; but its parent is an earlier one, so it came first.
    late = flow_run("late", 20, call=calls[0])
    found = same_calls(called[2], calls[2], parents[2], calls, [*called, late])
    assert names(found) == ["child 0", "child 1", "late"]


def test_calls_with_another_number_are_different():
    """The second call of an attempt continues the second call of the one before."""
    parent, earlier = flow_run("parent", 1), flow_run("earlier")
    call = call_by(parent, 1)
    found = of_its_number(call, [call_by(earlier, number) for number in range(3)] + [call])
    assert [(one.flow_run_id, one.dynamic_key) for one in found] == [(parent.id, "1"), (earlier.id, "1")]


@pytest.mark.parametrize(
    "keys, is_found",
    [
        pytest.param(["load-a"], True, id="the same flow"),
        pytest.param(["load-b"], True, id="edited since"),
        pytest.param(["load-a", "load-b"], True, id="one of two flows of that name"),
        pytest.param(["load-b", "load-c"], True, id="two flows of that name, both edited since"),
    ],
)
def test_a_flow_is_identified_by_its_key_or_else_by_its_name(keys, is_found):
    """Prefect's key changes with the line and folder of a flow; two different flows have different keys."""
    parent, earlier = flow_run("parent", 1), flow_run("earlier")
    call = call_by(parent, key="load-a")
    calls = [call_by(earlier, key=key) for key in keys]
    called = [flow_run(one.task_key, 0, call=one) for one in calls]
    found = names(same_calls(flow_run("this", 2, call=call), call, parent, [call, *calls], called))
    assert found == (["load-a"] if "load-a" in keys else keys)
    assert bool(found) is is_found


@pytest.mark.parametrize(
    "now, made, used, is_found",
    [
        pytest.param(running(5), 6, 1, True, id="edited before the parent was retried"),
        pytest.param(running(5), 6, 7, False, id="both are used in the present attempt"),
        pytest.param(running(5), 4, 1, False, id="both existed in the attempt before"),
        pytest.param(Pending(timestamp=at(5)), 6, 1, False, id="the parent has not started"),
    ],
)
def test_a_flow_whose_key_changed_since_the_attempt_began_is_the_same(now, made, used, is_found):
    """Both are in the parent; from then on, the new key is used instead of the old one."""
    parent = flow_run("parent", state=now, run_count=2)
    call, old = call_by(parent, key="load-a", minute=made), call_by(parent, key="load-b", minute=1)
    this, other = flow_run("this", 8, call=call), flow_run("other", used, call=old)
    assert names(same_calls(this, call, parent, [call, old], [this, other])) == ["other"] * is_found


def test_two_flows_with_one_name_in_a_first_attempt_are_different():
    """Prefect gives both the same id, and counts the runs of each from zero."""
    parent = flow_run("parent", state=running(5), run_count=1)
    call, other_call = call_by(parent, key="load-b", minute=6), call_by(parent, key="load-a", minute=1)
    this, other = flow_run("this", 7, call=call), flow_run("other", 1, call=other_call)
    assert same_calls(this, call, parent, [call, other_call], [this, other]) == []


@pytest.mark.parametrize(
    "began, made, changes, gives_way",
    [
        pytest.param(5, 2, {}, True, id="it existed already"),
        pytest.param(5, 2, {"state": running(3)}, True, id="it runs"),
        pytest.param(5, 6, {}, False, id="it was created later, to replace the other"),
        pytest.param(5, 0, {}, False, id="it is the older one"),
        pytest.param(None, 2, {}, False, id="the older one has not started"),
        pytest.param(5, 2, {"state": Crashed()}, False, id="it is over"),
        pytest.param(5, 2, {"parameters": {"day": 2}}, False, id="it does something else"),
        pytest.param(5, 2, {"flow_id": named("another flow")}, False, id="it is of another flow"),
    ],
)
def test_a_flow_run_that_starts_late_stops_if_it_was_replaced(began, made, changes, gives_way):
    """Its worker was down, and the parent started another flow run there in the meantime."""
    call = call_by(flow_run("parent"))
    state = {} if began is None else {"state": running(began)}
    late = flow_run("late", 1, call=call, **state)
    assert is_in_its_place(flow_run("other", made, call=call, **changes), late) is gives_way


# Calls by tasks: Prefect does not count them, so their attempts are identified by stored labels.


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
    "ours, theirs, level",
    [
        pytest.param(caller(1, OUTER), caller(1, OUTER), None, id="the same attempt"),
        pytest.param(caller(1, ("outer", 2)), caller(1, OUTER), 1, id="the task was retried"),
        pytest.param(caller(1, OUTER), caller(1, ("outer", 2)), None, id="the task is retried later"),
        pytest.param(caller(2, ("anew", 1)), caller(1, OUTER), 0, id="the flow was retried"),
        pytest.param(caller(1, OUTER), caller(2, ("anew", 1)), None, id="the flow is retried later"),
        pytest.param(caller(1, ("other", 2)), caller(1, OUTER), None, id="another task was retried"),
        pytest.param(
            caller(2, ("other", 1)), caller(1, ("outer", 3)), 0, id="another task; the flow was retried"
        ),
        pytest.param(
            caller(1, OUTER, ("inner", 2)), caller(1, OUTER, INNER), 2, id="the inner task was retried"
        ),
        pytest.param(
            caller(1, ("outer", 2), ("anew", 1)),
            caller(1, OUTER, ("inner", 3)),
            1,
            id="the outer task was retried",
        ),
        pytest.param(
            caller(1, OUTER, ("other", 2)), caller(1, OUTER, INNER), None, id="another inner task was retried"
        ),
        pytest.param(caller(2, OUTER, of="other"), caller(1, OUTER), None, id="in another flow run"),
    ],
)
def test_which_calls_come_from_an_earlier_attempt(ours, theirs, level):
    """The level counts the tasks around both calls; the last of these was retried between the calls."""
    assert ours.level_retried_since(theirs) == level
    assert ours.comes_after(theirs) is (level is not None)


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


def called_by(one: Caller, name: str, minute: float, **changes: Any) -> FlowRun:
    """A flow run called by a task, with its stored label."""
    return flow_run(name, minute, **{"labels": {CALLER_LABEL: one.model_dump_json()}, **changes})


FIRST, RETRIED = caller(1, OUTER), caller(1, ("outer", 2))
FLOW_RETRIED = caller(2, ("anew", 1))


@pytest.mark.parametrize(
    "before, ours, found",
    [
        pytest.param([(FIRST, "a")], RETRIED, ["a"], id="the task was retried"),
        pytest.param([(FIRST, "a")], FLOW_RETRIED, ["a"], id="the flow was retried"),
        pytest.param([(FIRST, "a")], FIRST, [], id="a second call of the same attempt"),
        pytest.param([(FIRST, "a"), (FIRST, "b")], RETRIED, ["a"], id="the first of two equal ones"),
        pytest.param(
            [(FIRST, "a"), (FIRST, "b"), (RETRIED, "c")], RETRIED, ["b"], id="the second of two equal ones"
        ),
        pytest.param(
            [(FIRST, "a"), (RETRIED, "b")], RETRIED, [], id="one more call than in the attempt before"
        ),
        pytest.param(
            [(FIRST, "a"), (RETRIED, "b")], caller(1, ("outer", 3)), ["a", "b"], id="one per attempt"
        ),
        pytest.param(
            [(FIRST, "a"), (RETRIED, "b")], FLOW_RETRIED, ["a", "b"], id="the flow was retried after the task"
        ),
        pytest.param(
            [(FIRST, "a"), (caller(1, ("beside", 1)), "b")],
            FLOW_RETRIED,
            ["a"],
            id="two tasks with the same call: the first resumes the first",
        ),
        pytest.param(
            [(FIRST, "a"), (caller(1, ("beside", 1)), "b"), (FLOW_RETRIED, "c")],
            caller(2, ("beside anew", 1)),
            ["b"],
            id="two tasks with the same call: the second resumes the second",
        ),
        pytest.param([(caller(1, ("beside", 1)), "a")], RETRIED, [], id="another task's call stays its own"),
        pytest.param(
            [(caller(1, OUTER, INNER), "a"), (caller(1, OUTER, ("beside", 1)), "b")],
            caller(1, ("outer", 2), ("anew", 1)),
            ["a"],
            id="tasks of a task that was retried",
        ),
        pytest.param(
            [(caller(1, OUTER, of="earlier parent"), "a"), (caller(2, OUTER, of="earlier parent"), "b")],
            FIRST,
            ["a", "b"],
            id="each attempt of a flow run that preceded the parent",
        ),
    ],
)
def test_the_predecessors_of_a_flow_run_called_by_a_task(before, ours, found):
    """One of each attempt: the first of equal calls precedes the first, the second the second."""
    others = [called_by(theirs, name, minute) for minute, (theirs, name) in enumerate(before)]
    this = called_by(ours, "this", 60)
    assert names(same_calls_by_tasks(this, ours, reversed(others))) == found


def test_a_second_search_finds_the_same():
    """Equal calls of its attempt that came later do not count."""
    others = [called_by(FIRST, "a", 1), called_by(FIRST, "b", 2), called_by(RETRIED, "later", 4)]
    assert names(same_calls_by_tasks(called_by(RETRIED, "this", 3), RETRIED, others)) == ["a"]


def test_a_tasks_call_with_other_parameters_or_no_label_is_different():
    """Tasks have no numbers that could identify the call."""
    others = [
        called_by(FIRST, "with others", 1, parameters={"day": 2}),
        flow_run("without a label", 1),
        called_by(FIRST, "with an unreadable label", 1, labels={CALLER_LABEL: "{"}),
    ]
    assert same_calls_by_tasks(called_by(RETRIED, "this", 2), RETRIED, others) == []


def has_had(one: FlowRun, *callers: Caller | None) -> FlowRun:
    """A flow run whose tasks have a Bolt run each."""
    labels: dict[str, Any] = {}
    for number, each in enumerate(callers):
        request = TriggerRequest(schedule_name="daily")
        key = f"{one.name} {number}"
        labels |= Ownership(
            key=key, flow_run_id=one.id, request=request, run_id=number, caller=each
        ).to_labels()
    return one.model_copy(update={"labels": labels})


@pytest.mark.parametrize(
    "before, ours, found, taken",
    [
        pytest.param({"a": FIRST}, RETRIED, ["a"], [], id="the task was retried"),
        pytest.param({"a": FIRST}, FIRST, [], ["a 0"], id="in the same attempt it belongs to the other task"),
        pytest.param(
            {"a": FIRST, "b": FIRST, "c": RETRIED},
            caller(1, ("outer", 3)),
            ["c", "a", "b"],
            [],
            id="newest first",
        ),
        pytest.param({"a": FIRST, "b": RETRIED}, RETRIED, ["a"], ["b 0"], id="this attempt's own are taken"),
        pytest.param(
            {"a": caller(1, OUTER, of="earlier parent")}, FIRST, ["a"], [], id="of an earlier parent"
        ),
        pytest.param({"a": None}, FIRST, [], [], id="not called by a task"),
    ],
)
def test_the_records_left_by_tasks_of_earlier_attempts(before, ours, found, taken):
    """The newest attempt comes first; within an attempt, the order is that of the calls."""
    others = [has_had(flow_run(name, minute), each) for minute, (name, each) in enumerate(before.items())]
    left, others_own = left_by_tasks(ours, reversed(others))
    assert (names(left), [one.key for one in others_own]) == (found, taken)


def task_has(key: str, one: Caller | None, execution: str = "this attempt") -> Ownership:
    """The record of a task of this flow run."""
    request = TriggerRequest(schedule_name="daily")
    return Ownership(
        key=key,
        execution=execution,
        flow_run_id=uuid4(),
        request=request,
        asked=request.fingerprint,
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
