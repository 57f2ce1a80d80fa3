"""The Prefect run that our code runs in, and the credentials that it is to use."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any
from uuid import UUID, uuid4

from prefect.context import AsyncClientContext, FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from prefect.logging.loggers import flow_run_logger
from pydantic import ValidationError

from paradime_blocks.credentials import ParadimeCredentials
from paradime_blocks.errors import BoltRequestError
from paradime_blocks.options import WaitOptions, chosen
from paradime_blocks.schedule import BoltSchedule

_PROCESS = str(uuid4())
_bodies: dict[tuple[UUID, datetime], str] = {}


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


def current_body() -> str:
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
    return _bodies.setdefault((context.flow_run.id, context.start_time), body)


def current_body_began_at() -> datetime:
    """Return when the present body began, by the clock of this machine."""
    context = FlowRunContext.get()
    return context.start_time if context is not None else datetime.now(timezone.utc)


def current_task_run_id() -> UUID | None:
    """Return the task run that the caller is in; None in a flow that a task has called."""
    context = TaskRunContext.get()
    if context is None or context.task_run.flow_run_id != current_flow_run_id():
        return None
    return context.task_run.id


async def resolve_credentials(
    credentials: ParadimeCredentials | str | None, schedule: str | BoltSchedule | None = None
) -> ParadimeCredentials:
    """Return the credentials to use.

    Args:
        credentials: A block, the name of one, or None.
        schedule: A `BoltSchedule` brings its own.

    Returns:
        The credentials given; else those of the schedule; else those of the environment.

    Raises:
        BoltRequestError: There is no such block, or its values are no good, or the environment lacks a variable.
    """
    if isinstance(credentials, str):
        name = credentials.removeprefix("paradime-credentials/")
        try:
            return await ParadimeCredentials.aload(name)
        except RuntimeError as error:
            # The UI's form makes blocks without running their validators; Prefect's own words advise to load it
            # without them.
            if not isinstance(error.__cause__, ValidationError):
                raise
            told = "; ".join(reasons(error.__cause__, fields=True))
            msg = f"The ParadimeCredentials block {name!r} is no good: {told}."
            guidance = "Nothing was sent. Edit the block on its page in the Prefect UI, or save it again."
            raise BoltRequestError(msg, guidance=guidance) from None
        except ValueError as error:
            msg = f"There is no ParadimeCredentials block named {name!r}. Nothing was sent."
            guidance = f"Save one: ParadimeCredentials(...).save({name!r})."
            raise BoltRequestError(msg, guidance=guidance) from error
    if credentials is not None:
        return credentials
    if isinstance(schedule, BoltSchedule):
        return schedule.credentials
    return ParadimeCredentials.from_env()


async def resolve_schedule(
    schedule: str | BoltSchedule, credentials: ParadimeCredentials | str | None, **given: object
) -> BoltSchedule:
    """Return the schedule to run: the block given or a new one, with what is given besides.

    Args:
        schedule: A block, or a schedule's name or slug.
        credentials: As for `resolve_credentials`.
        given: Values for the block's own limits (`WaitOptions`); None leaves the block's value or the default. What
            is no limit is for the trigger, and passed over.

    Raises:
        BoltRequestError: Something of it is invalid; the message says what to type.
    """
    changes: dict[str, Any] = dict(chosen(WaitOptions, given))
    if isinstance(schedule, BoltSchedule):
        if credentials is not None:
            changes["credentials"] = await resolve_credentials(credentials)
        copy = schedule.model_copy(update=changes)
        # A copy is not checked, and one that is made anew would not know its own block document.
        _checked(dict(copy))
        return copy
    fields = {"schedule_name": schedule, "credentials": await resolve_credentials(credentials)}
    return _checked({**fields, **changes})


def _checked(fields: dict[str, Any]) -> BoltSchedule:
    try:
        return BoltSchedule(**fields)
    except ValidationError as error:
        raise BoltRequestError("; ".join(reasons(error)), guidance="Nothing was sent.") from None


def reasons(error: ValidationError, *, fields: bool = False) -> list[str]:
    """Return what a validation error says of each value, without the values.

    Args:
        error: The error.
        fields: Whether to begin with the field's name where the reason does not.
    """
    found = []
    for detail in error.errors(include_input=False, include_url=False):
        reason = str(detail["msg"]).removeprefix("Value error, ")
        field = ".".join(str(part) for part in detail["loc"])
        found.append(f"{field}: {reason}" if fields and field and not reason.startswith(field) else reason)
    return found
