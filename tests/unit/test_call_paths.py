"""Which flow runs stood in a flow run's place before: tables over flow runs and task runs as Prefect makes them."""

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
from paradime_flows.ledger.entry import Ownership
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
    """A flow run that was made so many minutes past noon, and the call that it stands for."""
    changes = {"flow_id": named("the flow"), "labels": {}, "parameters": {}, **changes}
    above = None if call is None else call.id
    return FlowRun(id=named(name), name=name, created=at(minute), parent_task_run_id=above, **changes)


def call_by(parent: FlowRun, number: int = 0, *, key: str = "load-a", minute: float = 0) -> TaskRun:
    """The task run that stands for a subflow of a flow run's."""
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


# What a flow calls: Prefect numbers that.


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
def test_what_the_same_call_of_a_parent_that_is_begun_again_stood_for(minute, changes, is_found):
    """Prefect makes a new flow run of a subflow, and the call is the same one."""
    parent = flow_run("parent", state=running(0), run_count=2)
    call = call_by(parent)
    this, other = flow_run("this", 2, call=call), flow_run("other", minute, call=call, **changes)
    assert names(same_calls(this, call, parent, [call], [other, this])) == ["other"] * is_found


@pytest.mark.parametrize("parameters, is_found", [({"day": 1}, True), ({"day": 2}, False)])
def test_deployments_are_told_apart_by_their_parameters(parameters, is_found):
    """Of several that are called at once, the numbers are given as the requests happen to arrive."""
    parent = flow_run("parent")
    call = call_by(parent)
    deployed = {"call": call, "deployment_id": named("deployment")}
    this = flow_run("this", 2, parameters={"day": 1}, **deployed)
    other = flow_run("other", 1, parameters=parameters, **deployed)
    assert names(same_calls(this, call, parent, [call], [this, other])) == ["other"] * is_found


def test_what_a_parents_earlier_flow_runs_have_called_there_comes_first():
    """The parent is a subflow itself, and was made anew: what it calls is new down to the last."""
    parents = [flow_run(f"parent {n}", n) for n in range(3)]
    calls = [call_by(parent) for parent in parents]
    called = [flow_run(f"child {n}", 10 + n, call=call) for n, call in enumerate(calls)]
    # Made last by the clock of its server; but of an earlier parent, so it came before all the same.
    late = flow_run("late", 20, call=calls[0])
    found = same_calls(called[2], calls[2], parents[2], calls, [*called, late])
    assert names(found) == ["child 0", "child 1", "late"]


def test_calls_of_another_number_are_others():
    """The second call of an attempt goes on with the second of the one before."""
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
def test_a_flow_is_known_again_by_its_key_and_else_by_its_name(keys, is_found):
    """Prefect's key changes with the line and the folder that a flow stands in; of two flows each has its own."""
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
        pytest.param(running(5), 6, 1, True, id="edited before the parent was begun again"),
        pytest.param(running(5), 6, 7, False, id="both are used in the present attempt"),
        pytest.param(running(5), 4, 1, False, id="both are there since the attempt before"),
        pytest.param(Pending(timestamp=at(5)), 6, 1, False, id="the parent is not begun"),
    ],
)
def test_a_key_that_has_changed_since_the_present_attempt_began_is_the_same_flows(now, made, used, is_found):
    """Both stand in the parent; the one is used in place of the other from then on."""
    parent = flow_run("parent", state=now, run_count=2)
    call, old = call_by(parent, key="load-a", minute=made), call_by(parent, key="load-b", minute=1)
    this, other = flow_run("this", 8, call=call), flow_run("other", used, call=old)
    assert names(same_calls(this, call, parent, [call, old], [this, other])) == ["other"] * is_found


def test_two_flows_of_one_name_in_a_first_attempt_are_two():
    """Prefect gives them one id, and numbers each from nought."""
    parent = flow_run("parent", state=running(5), run_count=1)
    call, other_call = call_by(parent, key="load-b", minute=6), call_by(parent, key="load-a", minute=1)
    this, other = flow_run("this", 7, call=call), flow_run("other", 1, call=other_call)
    assert same_calls(this, call, parent, [call, other_call], [this, other]) == []


@pytest.mark.parametrize(
    "began, made, changes, gives_way",
    [
        pytest.param(5, 2, {}, True, id="it was there already"),
        pytest.param(5, 2, {"state": running(3)}, True, id="it runs"),
        pytest.param(5, 6, {}, False, id="it was made later: it comes to take the place"),
        pytest.param(5, 0, {}, False, id="it is the older one"),
        pytest.param(None, 2, {}, False, id="nobody has begun the older one"),
        pytest.param(5, 2, {"state": Crashed()}, False, id="it is over"),
        pytest.param(5, 2, {"parameters": {"day": 2}}, False, id="it does something else"),
        pytest.param(5, 2, {"flow_id": named("another flow")}, False, id="it is of another flow"),
    ],
)
def test_who_begins_late_gives_way_to_the_one_in_its_place(began, made, changes, gives_way):
    """Its worker was down, and the parent has had another started there meanwhile."""
    call = call_by(flow_run("parent"))
    state = {} if began is None else {"state": running(began)}
    late = flow_run("late", 1, call=call, **state)
    assert is_in_its_place(flow_run("other", made, call=call, **changes), late) is gives_way


# What tasks call: nobody numbers that, so their attempts are told apart by what is written down.


def caller(attempt: int, *tasks: tuple[str, int], of: str = "parent") -> Caller:
    """An attempt of a flow run, and in it the tasks, with the attempt of each."""
    return Caller(
        flow_run_id=named(of),
        flow_run_attempt=attempt,
        tasks=[TaskAttempt(task_run_id=named(name), number=number) for name, number in tasks],
    )


# One task in another; each with its attempt.
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
            caller(2, ("other", 1)), caller(1, ("outer", 3)), 0, id="another task, the flow was retried"
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
            caller(1, OUTER, ("other", 2)), caller(1, OUTER, INNER), None, id="another inner task was"
        ),
        pytest.param(caller(2, OUTER, of="other"), caller(1, OUTER), None, id="in another flow run"),
    ],
)
def test_which_call_was_made_in_an_earlier_attempt(ours, theirs, level):
    """And how many of the tasks around them the two have in common, the last of which was retried in between."""
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
def test_only_the_first_attempt_of_all_has_nothing_before_it(one, is_first):
    assert one.is_first is is_first


def called_by(one: Caller, name: str, minute: float, **changes: Any) -> FlowRun:
    """A flow run that a task has called, as it has written down."""
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
            [(FIRST, "a"), (RETRIED, "b")], RETRIED, [], id="one more than the attempt before had called"
        ),
        pytest.param(
            [(FIRST, "a"), (RETRIED, "b")], caller(1, ("outer", 3)), ["a", "b"], id="one of each attempt"
        ),
        pytest.param([(FIRST, "a"), (RETRIED, "b")], FLOW_RETRIED, ["a", "b"], id="the flow, after the task"),
        pytest.param(
            [(FIRST, "a"), (caller(1, ("beside", 1)), "b")],
            FLOW_RETRIED,
            ["a"],
            id="of two tasks that have called the same, the first goes on with the first",
        ),
        pytest.param(
            [(FIRST, "a"), (caller(1, ("beside", 1)), "b"), (FLOW_RETRIED, "c")],
            caller(2, ("beside anew", 1)),
            ["b"],
            id="and the second with the second",
        ),
        pytest.param(
            [(caller(1, ("beside", 1)), "a")], RETRIED, [], id="what another task has called stays its own"
        ),
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
            id="each attempt of a flow run that stood in the parent's place",
        ),
    ],
)
def test_what_was_called_in_a_flow_runs_place_by_tasks(before, ours, found):
    """One of each attempt: the first of equal calls for the first, the second for the second."""
    others = [called_by(theirs, name, minute) for minute, (theirs, name) in enumerate(before)]
    this = called_by(ours, "this", 60)
    assert names(same_calls_by_tasks(this, ours, reversed(others))) == found


def test_who_looks_again_finds_what_it_found_before():
    """Equal calls of its attempt that were made after it do not count."""
    others = [called_by(FIRST, "a", 1), called_by(FIRST, "b", 2), called_by(RETRIED, "later", 4)]
    assert names(same_calls_by_tasks(called_by(RETRIED, "this", 3), RETRIED, others)) == ["a"]


def test_what_a_task_has_called_with_other_parameters_or_without_a_word_is_not_taken_for_the_same():
    """A task has no numbers that would say so."""
    others = [
        called_by(FIRST, "with others", 1, parameters={"day": 2}),
        flow_run("without a word", 1),
        called_by(FIRST, "not to be read", 1, labels={CALLER_LABEL: "{"}),
    ]
    assert same_calls_by_tasks(called_by(RETRIED, "this", 2), RETRIED, others) == []


def has_had(one: FlowRun, *callers: Caller | None) -> FlowRun:
    """A flow run whose tasks answer for a Bolt run each."""
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
        pytest.param({"a": FIRST}, FIRST, [], ["a 0"], id="in the same attempt it is the other one's"),
        pytest.param(
            {"a": FIRST, "b": FIRST, "c": RETRIED},
            caller(1, ("outer", 3)),
            ["c", "a", "b"],
            [],
            id="newest first",
        ),
        pytest.param(
            {"a": FIRST, "b": RETRIED}, RETRIED, ["a"], ["b 0"], id="what this attempt has is taken"
        ),
        pytest.param(
            {"a": caller(1, OUTER, of="earlier parent")}, FIRST, ["a"], [], id="of an earlier parent"
        ),
        pytest.param({"a": None}, FIRST, [], [], id="not called by a task"),
    ],
)
def test_what_tasks_of_earlier_attempts_have_left(before, ours, found, taken):
    """Of the newest attempt first, and in it as they were called."""
    others = [has_had(flow_run(name, minute), each) for minute, (name, each) in enumerate(before.items())]
    left, others_own = left_by_tasks(ours, reversed(others))
    assert (names(left), [one.key for one in others_own]) == (found, taken)


def task_has(key: str, one: Caller | None, body: str = "this body") -> Ownership:
    """What a task of this flow run answers for."""
    request = TriggerRequest(schedule_name="daily")
    return Ownership(
        key=key,
        body=body,
        flow_run_id=uuid4(),
        request=request,
        asked=request.fingerprint,
        run_id=1,
        caller=one,
    )


@pytest.mark.parametrize(
    "theirs, ours, body, is_taken",
    [
        pytest.param(FIRST, RETRIED, "this body", True, id="the task that calls it was retried"),
        pytest.param(FIRST, FIRST, "this body", False, id="another of the same attempt"),
        pytest.param(RETRIED, FIRST, "this body", False, id="of a later attempt"),
        pytest.param(FIRST, caller(1, ("beside", 2)), "this body", False, id="another task was retried"),
        pytest.param(None, RETRIED, "this body", False, id="the flow has called it"),
        pytest.param(FIRST, None, "this body", False, id="the flow calls it"),
        pytest.param(FIRST, FLOW_RETRIED, "another body", True, id="the flow was retried"),
        pytest.param(None, None, "another body", True, id="the flow was retried, and has called it"),
    ],
)
def test_a_task_goes_on_with_what_one_of_an_earlier_attempt_had_asked_for(theirs, ours, body, is_taken):
    """It is another task run, which asks for the same in the same words."""
    had = task_has("before", theirs, body)
    claimed = claim([had], "now", TriggerRequest(schedule_name="daily"), "this body", ours)
    assert (claimed is had) is is_taken


def test_equal_tasks_of_a_task_that_is_retried_go_on_with_one_each():
    """And again those of the attempt after that, though these have written nothing of their own."""
    request = TriggerRequest(schedule_name="daily")
    inner = [caller(1, OUTER, (name, 1)) for name in ("a", "b", "c")]
    found = [task_has(f"before {number}", one) for number, one in enumerate(inner)]
    for number in (2, 3):
        anew = [caller(1, ("outer", number), (name, 1)) for name in ("a", "b", "c")]
        claimed = [
            claim(found, f"{name} of attempt {number}", request, "this body", one)
            for name, one in zip("abc", anew, strict=True)
        ]
        assert claimed == found
        assert claim(found, f"one more of attempt {number}", request, "this body", anew[0]) is None
