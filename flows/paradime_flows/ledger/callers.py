"""Finds out which attempts of which tasks have called the code that is running."""

from __future__ import annotations

from contextvars import Token
from typing import Any
from uuid import UUID

from prefect.context import TaskRunContext
from pydantic import BaseModel, Field


class TaskAttempt(BaseModel):
    """An attempt of a task run.

    Attributes:
        task_run_id: The task run.
        number: The number of the attempt.
        task_key: Prefect's key of the task. The key is not stored.
    """

    task_run_id: UUID
    number: int
    task_key: str = Field(default="", exclude=True)


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

    def comes_after(self, other: Caller) -> bool:
        """Whether the flow, or a task that both calls share, was retried between the call `other` and this call."""
        if self.flow_run_id != other.flow_run_id:
            return False
        for ours, theirs in zip(self.tasks, other.tasks, strict=False):
            if ours.task_run_id != theirs.task_run_id:
                break
            if ours.number != theirs.number:
                return ours.number > theirs.number
        return self.flow_run_attempt > other.flow_run_attempt


def tasks_around(flow_run_id: UUID | None, *, but: UUID | None = None) -> Caller | None:
    """Return the tasks of a flow run that have called the current code, except `but`; None if there is none."""
    tasks: list[TaskAttempt] = []
    attempt = 0
    context = TaskRunContext.get()
    while context is not None:
        task_run = context.task_run
        # Prefect passes a task's context to the flows that the task calls, and to the tasks of these flows, at every
        # level. For a subflow, Prefect enters the context of the task once more.
        seen = {but, *(task.task_run_id for task in tasks)}
        if task_run.flow_run_id == flow_run_id and task_run.id not in seen:
            attempt = task_run.flow_run_run_count
            tasks.insert(
                0,
                TaskAttempt(task_run_id=task_run.id, number=task_run.run_count, task_key=task_run.task_key),
            )
        # Prefect has no public name for the context around this one. Prefect keeps the outer context in a token, to
        # restore it later.
        token: Token[Any] | None = context._token  # noqa: SLF001
        before = None if token is None else token.old_value
        context = before if isinstance(before, TaskRunContext) else None
    if flow_run_id is None or not tasks:
        return None
    return Caller(flow_run_id=flow_run_id, flow_run_attempt=attempt, tasks=tasks)
