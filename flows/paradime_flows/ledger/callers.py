"""Finds out which attempts of which tasks have called a task or a flow.

Prefect numbers the calls that a flow makes, but not the calls that a task makes. So a label stores the calling tasks,
for later attempts.
"""

from __future__ import annotations

from contextvars import Token
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.context import TaskRunContext
from pydantic import BaseModel, ValidationError

from paradime_flows.ledger.store import write_labels
from paradime_flows.prefect_api import CALLER_LABEL, lineage


class TaskAttempt(BaseModel):
    """An attempt of a task run.

    Attributes:
        task_run_id: The task run.
        number: The number of the attempt.
    """

    task_run_id: UUID
    number: int


class Caller(BaseModel):
    """The tasks that were running when a call was made: the task that called, and the tasks that called this task.

    Attributes:
        flow_run_id: The flow run of the tasks.
        flow_run_attempt: The number of the flow run's attempt.
        tasks: The tasks, from the outermost task to the task that made the call.
    """

    flow_run_id: UUID
    flow_run_attempt: int
    tasks: list[TaskAttempt]

    @property
    def is_first(self) -> bool:
        """Whether the flow run and all tasks are in their first attempt."""
        return self.flow_run_attempt <= 1 and all(task.number <= 1 for task in self.tasks)

    def numbers(self, level: int = 0) -> str:
        """Return a text that is equal for all calls of the same attempt.

        Args:
            level: How many of the outermost tasks are compared by task run and number of the attempt. For the other
                tasks, only the number of the attempt is compared.
        """
        tasks = " ".join(f"{task.task_run_id}.{task.number}" for task in self.tasks[:level])
        others = " ".join(str(task.number) for task in self.tasks[level:])
        return f"{self.flow_run_id}.{self.flow_run_attempt} {tasks} {others}"

    def level_retried_since(self, other: Caller) -> int | None:
        """Return the level of the task that was retried after another call and before this call.

        Returns:
            The level of the retried task, counted from the outermost task, which is 1. The two calls have the tasks up
            to this level in common. 0 if the flow was retried; None if nothing was retried between the calls.
        """
        if self.flow_run_id != other.flow_run_id:
            return None
        for level, (ours, theirs) in enumerate(zip(self.tasks, other.tasks, strict=False), start=1):
            if ours.task_run_id != theirs.task_run_id:
                break
            if ours.number != theirs.number:
                return level if ours.number > theirs.number else None
        return 0 if self.flow_run_attempt > other.flow_run_attempt else None

    def comes_after(self, other: Caller) -> bool:
        """Whether the flow, or a task that both calls share, was retried between the call `other` and this call."""
        return self.level_retried_since(other) is not None


def tasks_around(flow_run_id: UUID | None, *, but: UUID | None = None) -> Caller | None:
    """Return the tasks of a flow run that this code is called by; None if no task of the flow run has called it.

    Args:
        flow_run_id: The flow run.
        but: A task run to leave out: the current task run.
    """
    tasks: list[TaskAttempt] = []
    attempt = 0
    context = TaskRunContext.get()
    while context is not None:
        # Prefect passes a task's context to the flows that it calls, and to their tasks, at every level.
        if context.task_run.flow_run_id == flow_run_id and context.task_run.id != but:
            attempt = context.task_run.flow_run_run_count
            tasks.insert(0, TaskAttempt(task_run_id=context.task_run.id, number=context.task_run.run_count))
        context = _around(context)
    if flow_run_id is None or not tasks:
        return None
    return Caller(flow_run_id=flow_run_id, flow_run_attempt=attempt, tasks=tasks)


def _around(context: TaskRunContext) -> TaskRunContext | None:
    """Return the context of the task that has called the given task.

    Prefect has no public name for this context, but keeps it, to restore it later.
    """
    token: Token[Any] | None = context._token  # noqa: SLF001
    before = None if token is None else token.old_value
    return before if isinstance(before, TaskRunContext) else None


async def caller_of(client: PrefectClient, flow_run: FlowRun) -> Caller | None:
    """Return the tasks that have called a flow run in this process; None if no task has called the flow run.

    A flow run that was called by a flow directly, or by a deployment, was not called by a task.
    """
    if TaskRunContext.get() is None or flow_run.parent_task_run_id is None:
        return None
    call = await client.read_task_run(flow_run.parent_task_run_id)
    return tasks_around(call.flow_run_id)


async def write_callers(client: PrefectClient, flow_run: FlowRun) -> FlowRun:
    """Write to labels which tasks of this process have called a flow run and its parents.

    Args:
        client: An open client.
        flow_run: The flow run.

    Returns:
        The flow run, with the new label.
    """
    if TaskRunContext.get() is None:
        return flow_run
    written = False
    async for one in lineage(client, flow_run):
        caller = await caller_of(client, one)
        if caller is not None and written_caller(one) != caller:
            await write_labels(client, one.id, {CALLER_LABEL: caller.model_dump_json()})
            written = written or one.id == flow_run.id
    return await client.read_flow_run(flow_run.id) if written else flow_run


def written_caller(flow_run: FlowRun) -> Caller | None:
    """Return the tasks that have called a flow run, from its label; None without such a label."""
    try:
        return Caller.model_validate_json(str((flow_run.labels or {}).get(CALLER_LABEL, "")))
    except ValidationError:
        return None
