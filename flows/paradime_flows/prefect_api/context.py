"""The Prefect run that our code runs in."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from uuid import UUID, uuid4

from prefect.context import AsyncClientContext, FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from prefect.logging.loggers import flow_run_logger

from paradime_flows.prefect_api.supervisor import the_supervisor

_PROCESS = str(uuid4())


def run_logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """Return the flow or task run's logger, or a plain one outside of runs."""
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None and current_task_run_id() is None:
        # In a subflow that a task has called, Prefect would take the task's.
        return flow_run_logger(context.flow_run, context.flow)
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("paradime")


@contextmanager
def clients_of_our_own() -> Iterator[None]:
    """Let `get_client` give new clients within, not the one that the flow run's engine has opened.

    What is interrupted may clean up when its flow has ended beside it, and then that client is closed for good.
    """
    variable: ContextVar[AsyncClientContext | None] = AsyncClientContext.__var__  # type: ignore[assignment]
    token = variable.set(None)
    try:
        yield
    finally:
        variable.reset(token)


def current_flow_run_id() -> UUID | None:
    """Return the flow run that the caller belongs to, also from within a task run."""
    # First: in a subflow that a task has called, Prefect leaves the context of that task, which is its parent's.
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        return context.flow_run.id
    task_context = TaskRunContext.get()
    return task_context.task_run.flow_run_id if task_context is not None else None


def current_execution() -> str:
    """Return what tells the present body of a flow run from its others: attempts, and other processes' bodies.

    It is the id of the state Running that the body began with. Prefect sends that along to tasks in other processes;
    the context's own start it may not, and has each process make one up. It is kept, since the state becomes another
    one when the body ends, and a task may outlive that.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return _PROCESS
    state = context.flow_run.state
    body = str(state.id) if state is not None and state.is_running() else context.start_time.isoformat()
    return the_supervisor().of(context.flow_run.id).executions.setdefault(context.start_time, body)


def current_execution_began_at() -> datetime:
    """Return when the present body began, by the clock of this machine."""
    context = FlowRunContext.get()
    return context.start_time if context is not None else datetime.now(timezone.utc)


def current_task_run_id() -> UUID | None:
    """Return the task run that the caller is in; None in a flow that a task has called."""
    context = TaskRunContext.get()
    if context is None or context.task_run.flow_run_id != current_flow_run_id():
        return None
    return context.task_run.id
