"""The flow run and task run in which our code runs."""

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
        # In a subflow that a task called, Prefect would return the task's logger.
        return flow_run_logger(context.flow_run, context.flow)
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("paradime")


@contextmanager
def new_prefect_clients() -> Iterator[None]:
    """Make `get_client` return new clients within, not the client that the flow run's engine opened.

    A task that was interrupted may clean up after its flow has ended, and then the engine's client is closed.
    """
    variable: ContextVar[AsyncClientContext | None] = AsyncClientContext.__var__  # type: ignore[assignment]
    token = variable.set(None)
    try:
        yield
    finally:
        variable.reset(token)


def current_flow_run_id() -> UUID | None:
    """Return the flow run that the caller belongs to, also from within a task run."""
    # The flow run's context comes first: in a subflow that a task called, Prefect keeps the context of that task, which
    # belongs to the parent.
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        return context.flow_run.id
    task_context = TaskRunContext.get()
    return task_context.task_run.flow_run_id if task_context is not None else None


def current_execution() -> str:
    """Return a token that identifies the present execution of a flow run among its attempts and in other processes.

    It is the id of the Running state with which the execution began. Prefect sends this state to tasks in other
    processes, but it may not send the context's start time. The token is stored, because the state changes when the
    execution ends, and a task may run longer.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return _PROCESS
    state = context.flow_run.state
    token = str(state.id) if state is not None and state.is_running() else context.start_time.isoformat()
    return the_supervisor().of(context.flow_run.id).executions.setdefault(context.start_time, token)


def current_execution_began_at() -> datetime:
    """Return when the present execution began, by this machine's clock."""
    context = FlowRunContext.get()
    return context.start_time if context is not None else datetime.now(timezone.utc)


def current_task_run_id() -> UUID | None:
    """Return the task run that the caller is in; None in a flow that a task called."""
    context = TaskRunContext.get()
    if context is None or context.task_run.flow_run_id != current_flow_run_id():
        return None
    return context.task_run.id
