"""Turns a caller's arguments into credentials and schedules, and finds the schedule of a Bolt run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from pydantic import ValidationError

from paradime_blocks import BoltClient, BoltError, BoltRequestError, BoltSchedule, ParadimeCredentials
from paradime_blocks.options import WaitOptions, chosen
from paradime_blocks.text.reasons import each_reason, reasons
from paradime_flows.prefect_api.context import run_logger
from paradime_flows.time_limits import times


async def resolve_credentials(
    credentials: ParadimeCredentials | str | None, schedule: str | BoltSchedule | None = None
) -> ParadimeCredentials:
    """Return the credentials to use.

    Args:
        credentials: A block, its name, or None.
        schedule: The schedule. If it is a `BoltSchedule`, it has credentials of its own.

    Returns:
        The credentials that were passed, or else those of the schedule, or else those of the environment.

    Raises:
        BoltRequestError: The block does not exist or is invalid, or the environment lacks a variable.
    """
    if isinstance(credentials, str):
        name = credentials.removeprefix("paradime-credentials/")
        try:
            return await ParadimeCredentials.aload(name)
        except RuntimeError as error:
            # The UI's form saves a block without running the block's validators. Prefect's own message advises to load
            # the block without validators, which does not help here.
            if not isinstance(error.__cause__, ValidationError):
                raise
            msg = f"The ParadimeCredentials block {name!r} is invalid: {reasons(error.__cause__)}."
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


@asynccontextmanager
async def bolt_client(credentials: ParadimeCredentials | str | None) -> AsyncIterator[BoltClient]:
    """Open a client for the credentials that `resolve_credentials` returns."""
    async with (await resolve_credentials(credentials)).get_client() as client:
        yield client


async def resolve_schedule(
    schedule: str | BoltSchedule, credentials: ParadimeCredentials | str | None, **given: object
) -> BoltSchedule:
    """Return the schedule to run: a copy of the caller's block or a new block, with the caller's options.

    Args:
        schedule: A block, or a schedule's name or slug.
        credentials: As for `resolve_credentials`.
        given: Values for the block's wait options (`WaitOptions`). For None, the block's value or the default applies.
            Options that are not wait options are ignored.

    Raises:
        BoltRequestError: A value is invalid; the message says what to type.
    """
    changes: dict[str, Any] = dict(chosen(WaitOptions, given))
    if isinstance(schedule, BoltSchedule):
        if credentials is not None:
            changes["credentials"] = await resolve_credentials(credentials)
        copy = schedule.model_copy(update=changes)
        # `model_copy` does not validate. A new block would be validated, but would not know under which name the block
        # is saved. So the values of the copy are validated separately.
        _checked(dict(copy))
        return copy
    fields = {"schedule_name": schedule, "credentials": await resolve_credentials(credentials)}
    return _checked({**fields, **changes})


def _checked(fields: dict[str, Any]) -> BoltSchedule:
    try:
        return BoltSchedule(**fields)
    except ValidationError as error:
        raise BoltRequestError(
            "; ".join(reason for _, reason in each_reason(error)), guidance="Nothing was sent."
        ) from None


async def schedule_of_run(run_id: int, credentials: ParadimeCredentials, given: str | None) -> str:
    """Return the schedule that a Bolt run belongs to. Bolt does not return the schedule with the run.

    Args:
        run_id: The Bolt run.
        credentials: The credentials of the run's workspace.
        given: The schedule, if the caller knows it.

    Raises:
        BoltRequestError: The run is not among the newest runs of the active schedules.
    """
    if given is not None:
        return given
    async with credentials.get_client() as client:
        found = await client.find_schedule_of_run(run_id)
    if found is None:
        msg = "The run is not among the newest runs of the workspace's active schedules."
        raise BoltRequestError(msg, guidance="Nothing was sent. Give its schedule_name.", run_id=run_id)
    return found


async def find_schedule(client: BoltClient, run_id: int, given: str | None) -> str | None:
    """Return the schedule of a Bolt run, or None if it cannot be found. The artifact keys contain its name.

    Args:
        client: The workspace's client.
        run_id: The run.
        given: The schedule, if the caller knows it.
    """
    if given is not None:
        return given
    # Only the artifact keys need the name of the schedule. So the search does not wait until an outage ends.
    reason = "it is not among the newest runs of the active schedules"
    with anyio.move_on_after(times().schedule_search_seconds) as scope:
        try:
            found = await client.find_schedule_of_run(run_id)
        except BoltError as error:
            reason = error.message
        else:
            if found is not None:
                return found
    if scope.cancelled_caught:
        reason = f"the search took longer than {times().schedule_search_seconds:g} s"
    run_logger().info("The schedule of Bolt run %s is unknown: %s.", run_id, reason.rstrip("."))
    return None
