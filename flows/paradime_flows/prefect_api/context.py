"""Finds the flow run and the task run in which our code is running."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from uuid import UUID, uuid4

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from prefect.logging.loggers import PrefectLogAdapter, flow_run_logger

from paradime_flows.prefect_api.supervisor import the_supervisor
from paradime_flows.prefect_api.task_runs import logger_of_work

_PROCESS = str(uuid4())


def run_logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """Return the logger of the current flow run or task run. If there is no such run, return a plain logger.

    If a task run shows the current work (`as_task_run`), return the logger of this task run.
    """
    if (logger := logger_of_work()) is not None:
        return logger
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None and current_task_run_id() is None:
        # In a subflow that a task called, `get_run_logger` would return the task's logger.
        return flow_run_logger(context.flow_run, context.flow)
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("paradime")


def logger_for(
    flow_run_id: UUID, flow_run_name: str
) -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """Return a logger whose lines appear in the log of a flow run, also if other code works for that flow run.

    A hook may run in the worker's process. The sweeper cleans up for flow runs whose process is gone.
    """
    if current_flow_run_id() == flow_run_id:
        return run_logger()
    facts = {"flow_run_id": str(flow_run_id), "flow_run_name": flow_run_name, "flow_name": "<unknown>"}
    return PrefectLogAdapter(get_logger("prefect.flow_runs"), extra=facts)


def current_flow_run_id() -> UUID | None:
    """Return the id of the flow run that the caller belongs to. The caller may be in a task run of the flow run."""
    # The flow run's context comes first. In a subflow that a task called, Prefect keeps the context of this task, and
    # the task belongs to the parent flow run.
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        return context.flow_run.id
    task_context = TaskRunContext.get()
    return task_context.task_run.flow_run_id if task_context is not None else None


def flow_run_at_begin(flow_run_id: UUID) -> FlowRun | None:
    """Return a flow run as Prefect read it before it called the flow's function; None outside of this flow run."""
    context = FlowRunContext.get()
    found = context.flow_run if context is not None else None
    return found if found is not None and found.id == flow_run_id else None


def current_execution() -> str:
    """Return a token that identifies the present execution of a flow run.

    Each attempt of the flow run has its own token, and the token is the same in every process of an execution. The
    token is the id of the Running state with which the execution began. Prefect sends this state to tasks in other
    processes, but Prefect may not send the start time of the context. The token is stored, because the flow run's
    state changes when the execution ends, while a task may still run.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return _PROCESS
    state = context.flow_run.state
    token = str(state.id) if state is not None and state.is_running() else context.start_time.isoformat()
    return the_supervisor().of(context.flow_run.id).executions.setdefault(context.start_time, token)


def current_execution_began_at() -> datetime:
    """Return when this process began to execute the current flow run; outside of a flow run, the present time."""
    context = FlowRunContext.get()
    return context.start_time if context is not None else datetime.now(timezone.utc)


def current_task_run_id() -> UUID | None:
    """Return the id of the caller's task run; None outside of tasks, and in a subflow that a task called."""
    context = TaskRunContext.get()
    if context is None or context.task_run.flow_run_id != current_flow_run_id():
        return None
    return context.task_run.id
