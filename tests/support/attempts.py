"""What a user does with a value that was typed. Each function returns an action to run later with a given Bolt."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from support.clients import client_for

from paradime_blocks import BoltRun, BoltSchedule, ParadimeCredentials
from paradime_flows import tasks
from paradime_flows.run_schedule import run_schedule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from paradime_blocks import BoltClient

    Attempt = Callable[["Bolt"], Any]


class Bolt(Protocol):
    """The address of a Bolt and its credentials: those of a simulator, say."""

    api_endpoint: str
    api_key: str
    api_secret: str


def a_client(**settings: Any) -> Attempt:
    """Make a client with these settings."""

    return lambda bolt: client_for(bolt, **settings)


def a_call(call: Callable[[BoltClient], Awaitable[Any]]) -> Attempt:
    """Call a method of an open client."""

    def attempt(bolt: Bolt) -> Any:
        async def run() -> Any:
            async with a_client()(bolt) as client:
                return await call(client)

        return asyncio.run(run())

    return attempt


def credentials(**fields: Any) -> Attempt:
    """Make a credentials block."""

    def attempt(bolt: Bolt) -> ParadimeCredentials:
        good = {
            "api_endpoint": bolt.api_endpoint,
            "api_key": bolt.api_key,
            "api_secret": bolt.api_secret,
        }
        return ParadimeCredentials(**{**good, **fields})

    return attempt


def schedule(**fields: Any) -> Attempt:
    """Make a schedule block."""
    return lambda bolt: BoltSchedule(
        **{"credentials": credentials()(bolt), "schedule_name": "daily", **fields}
    )


def a_trigger(**changes: Any) -> Attempt:
    """Trigger a run of a schedule block with changes."""
    return lambda bolt: schedule()(bolt).trigger(**changes)


def a_run(run_id: Any, **fields: Any) -> Attempt:
    """Create the handle of a run."""
    return lambda bolt: BoltRun(run_id, credentials()(bolt), **fields)


def a_wait(timeout_seconds: Any) -> Attempt:
    """Wait until a run has ended."""
    return lambda bolt: a_run(1)(bolt).wait_for_completion(timeout_seconds)


def a_cancel(grace_seconds: Any) -> Attempt:
    """Cancel a run."""
    return lambda bolt: a_run(1)(bolt).cancel(grace_seconds)


def a_task(name: str, *args: Any, **arguments: Any) -> Attempt:
    """Call a task's function as in its run; futures have been resolved by then."""

    def attempt(bolt: Bolt) -> Any:
        return asyncio.run(
            getattr(tasks, name).fn(*args, **{"credentials": credentials()(bolt), **arguments})
        )

    return attempt


def flow(**parameters: Any) -> Attempt:
    """Let Prefect check the parameters of `run_schedule`, as it does before a flow run begins."""

    def attempt(bolt: Bolt) -> Any:
        return run_schedule.validate_parameters({"schedule_name": "daily", **parameters})

    return attempt


def a_call_of_the_flow(**parameters: Any) -> Attempt:
    """Run the function of `run_schedule`, as Prefect does once each parameter is valid on its own."""

    def attempt(bolt: Bolt) -> Any:
        return asyncio.run(run_schedule.fn(**parameters))

    return attempt
