"""Turns a caller's arguments into credentials and schedules, and finds the schedule of a Bolt run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from pydantic import ValidationError

from paradime_blocks import BoltError, BoltRequestError, BoltSchedule, ParadimeCredentials
from paradime_blocks.options import WaitOptions, chosen
from paradime_blocks.text.reasons import each_reason, reasons
from paradime_flows.prefect_api.context import run_logger
from paradime_flows.time_limits import times

if TYPE_CHECKING:
    from paradime_blocks import BoltClient


async def resolve_credentials(
    credentials: ParadimeCredentials | str | None, schedule: str | BoltSchedule | None = None
) -> ParadimeCredentials:
    """Return the credentials of the caller, of the schedule block or of the environment.

    Args:
        credentials: A `ParadimeCredentials` block, the block's name, or None.
        schedule: A schedule's name or a `BoltSchedule` block. Only the block has credentials of its own.

    Returns:
        The caller's credentials. If there are none, the credentials of the `BoltSchedule` block. If there is no such
        block, the credentials from the environment variables.

    Raises:
        BoltRequestError: The credentials block does not exist or is invalid, or an environment variable is missing.
    """
    if isinstance(credentials, str):
        name = credentials.removeprefix("paradime-credentials/")
        try:
            return await ParadimeCredentials.aload(name)
        except RuntimeError as error:
            # The form in Prefect's UI saves a block without running the block's validators. Prefect's own error
            # message advises to load the block without validators, which does not help here.
            if not isinstance(error.__cause__, ValidationError):
                raise
            msg = f"The ParadimeCredentials block {name!r} is invalid: {reasons(error.__cause__)}."
            guidance = (
                "No request was sent to Bolt. Edit the block on its page in the Prefect UI, or save it again."
            )
            raise BoltRequestError(msg, guidance=guidance) from None
        except ValueError as error:
            msg = f"There is no ParadimeCredentials block named {name!r}. No request was sent to Bolt."
            guidance = f"Save a block with this name: ParadimeCredentials(...).save({name!r})."
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
    """Return a `BoltSchedule` with the caller's options: a copy of the caller's block, or a new block.

    Args:
        schedule: A `BoltSchedule` block, or a schedule's name or slug.
        credentials: A `ParadimeCredentials` block, the block's name, or None.
        given: Values for the block's wait options (`WaitOptions`). If a value is None, the value of the caller's block
            or the default is used. Options that are not wait options are ignored.

    Raises:
        BoltRequestError: A value is invalid; the message says which values are valid.
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
            "; ".join(reason for _, reason in each_reason(error)), guidance="No request was sent to Bolt."
        ) from None


async def schedule_of_run(run_id: int, credentials: ParadimeCredentials, given: str | None) -> str:
    """Return the name of a Bolt run's schedule. Bolt does not return the schedule with the Bolt run.

    Args:
        run_id: The id of the Bolt run.
        credentials: The credentials of the Bolt run's workspace.
        given: The name of the schedule; None if the caller does not know the name.

    Raises:
        BoltRequestError: The Bolt run is not among the newest runs of the active schedules.
    """
    if given is not None:
        return given
    async with credentials.get_client() as client:
        found = await client.find_schedule_of_run(run_id)
    if found is None:
        msg = "The Bolt run is not among the newest runs of the workspace's active schedules."
        raise BoltRequestError(
            msg, guidance="No Bolt run was started. Give the schedule_name of the Bolt run.", run_id=run_id
        )
    return found


async def find_schedule(client: BoltClient, run_id: int, given: str | None) -> str | None:
    """Return the name of a Bolt run's schedule, for the artifact keys; None if the schedule is not found.

    Args:
        client: An open client for the Bolt run's workspace.
        run_id: The id of the Bolt run.
        given: The name of the schedule; None if the caller does not know the name.
    """
    if given is not None:
        return given
    # Only the artifact keys need the schedule's name. So the search does not wait for the end of an outage.
    reason = "the Bolt run is not among the newest runs of the active schedules"
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
