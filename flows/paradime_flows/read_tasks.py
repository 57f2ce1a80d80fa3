"""Tasks that ask Bolt for something, and start or end nothing; import them from `paradime_flows.tasks`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from paradime_blocks.client import BoltClient
from paradime_blocks.models import (
    BoltCommandDetail,
    BoltLogPage,
    BoltRunRecord,
    BoltRunStatus,
    BoltScheduleDetail,
    BoltScheduleSummary,
)
from paradime_blocks.options import NonEmpty
from paradime_flows.parameters import CredentialsParameter, Offset, PageSize, RunId
from paradime_flows.prefect_api.dispatch import async_form, bolt_task
from paradime_flows.prefect_api.inputs import resolve_credentials


@asynccontextmanager
async def _client(credentials: CredentialsParameter) -> AsyncIterator[BoltClient]:
    async with (await resolve_credentials(credentials)).get_client() as client:
        yield client


@bolt_task(name="get-bolt-run", task_run_name="get {run_id}")
async def get_bolt_run(run_id: RunId, credentials: CredentialsParameter = None) -> BoltRunStatus:
    """Return a run's state and its commands with their output (`boltRunStatus`).

    Args:
        run_id: The run.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.

    Raises:
        BoltError: Bolt refused it, or no usable answer came.

    Example:
        ```python
        from paradime_flows.tasks import get_bolt_run

        print(get_bolt_run(76035, "production").state)
        ```
    """
    async with _client(credentials) as client:
        return await client.get_bolt_run(run_id)


@bolt_task(name="get-bolt-command", task_run_name="get command {command_id}")
async def get_bolt_command(command_id: RunId, credentials: CredentialsParameter = None) -> BoltCommandDetail:
    """Return a command with its output, its run and its resources (`boltCommand`).

    Args:
        command_id: The command.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.

    Raises:
        BoltError: Bolt refused it, or no usable answer came.

    Example:
        ```python
        from paradime_flows.tasks import get_bolt_command, get_bolt_run

        command = get_bolt_run(76035, "production").commands[-1]
        print(get_bolt_command(command.id, "production").resources)
        ```
    """
    async with _client(credentials) as client:
        return await client.get_bolt_command(command_id)


@bolt_task(name="get-bolt-resource-url", task_run_name="get resource {resource_id}")
async def get_bolt_resource_url(resource_id: RunId, credentials: CredentialsParameter = None) -> str:
    """Return the signed, expiring URL of a resource (`boltResourceUrl`). Whoever has it can read the file.

    Args:
        resource_id: The resource, from a command's `resources`.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.

    Raises:
        BoltError: Bolt refused it, or no usable answer came.

    Example:
        ```python
        from paradime_flows.tasks import get_bolt_command, get_bolt_resource_url, get_bolt_run

        command = get_bolt_run(76035, "production").commands[-1]
        resource = get_bolt_command(command.id, "production").resources[0]
        print(get_bolt_resource_url(resource.id, "production"))
        ```
    """
    async with _client(credentials) as client:
        return await client.get_bolt_resource_url(resource_id)


@bolt_task(name="list-bolt-schedules")
async def list_bolt_schedules(
    credentials: CredentialsParameter = None, *, show_inactive: bool = False, suspended: bool | None = None
) -> list[BoltScheduleSummary]:
    """Return all schedules of the workspace (`listBoltSchedules`, every page).

    Args:
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.
        show_inactive: Whether to list the inactive schedules instead of the active ones.
        suspended: Only schedules whose timer is, or is not, suspended; None for either.

    Raises:
        BoltError: Bolt refused it, or no usable answer came.

    Example:
        ```python
        from paradime_flows.tasks import list_bolt_schedules

        for schedule in list_bolt_schedules("production"):
            print(schedule.name, schedule.schedule)
        ```
    """
    async with _client(credentials) as client:
        found = client.iter_bolt_schedules(show_inactive=show_inactive)
        # Here and not in Bolt: an older backend cannot filter.
        return [schedule async for schedule in found if suspended in {None, bool(schedule.suspended)}]


@bolt_task(name="get-bolt-schedule")
async def get_bolt_schedule(
    schedule_name: NonEmpty, credentials: CredentialsParameter = None
) -> BoltScheduleDetail:
    """Return a schedule with the id of its latest run (`boltScheduleName`).

    Args:
        schedule_name: The schedule's name or slug.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.

    Raises:
        BoltError: Bolt refused it, or no usable answer came.

    Example:
        ```python
        from paradime_flows.tasks import get_bolt_schedule

        print(get_bolt_schedule("daily", "production").latest_run_id)
        ```
    """
    async with _client(credentials) as client:
        return await client.get_bolt_schedule(schedule_name)


@bolt_task(name="list-bolt-runs", task_run_name="list runs of {schedule_name}")
async def list_bolt_runs(
    schedule_name: NonEmpty,
    credentials: CredentialsParameter = None,
    *,
    limit: PageSize = 20,
    offset: Offset = 0,
) -> list[BoltRunRecord]:
    """Return runs of a schedule, newest first (`listBoltRuns`).

    Args:
        schedule_name: The schedule's name or slug.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.
        limit: How many to return at most.
        offset: How many to pass over.

    Raises:
        BoltUnsupported: The backend lacks the operation; `get_bolt_schedule` tells the latest run's id.
        BoltError: Bolt refused it, or no usable answer came.

    Example:
        ```python
        from paradime_flows.tasks import list_bolt_runs

        for run in list_bolt_runs("daily", "production", limit=5):
            print(run.id, run.state)
        ```
    """
    async with _client(credentials) as client:
        return (await client.list_bolt_runs(schedule_name, limit=limit, offset=offset)).runs


@bolt_task(name="suspend-bolt-schedule", task_run_name="suspend {schedule_name}: {suspend}")
async def suspend_bolt_schedule(
    schedule_name: NonEmpty, credentials: CredentialsParameter = None, *, suspend: bool = True
) -> bool:
    """Suspend a schedule's timer, or resume it (`suspendBoltSchedule`); only schedules of Bolt's UI or API.

    Args:
        schedule_name: The schedule's name or slug.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.
        suspend: Whether to suspend; False to resume.

    Returns:
        Whether Bolt took the request.

    Raises:
        BoltUnsupported: The backend lacks the operation.
        BoltError: Bolt refused it, or no usable answer came.

    Example:
        ```python
        from paradime_flows.tasks import suspend_bolt_schedule

        assert suspend_bolt_schedule("daily", "production")
        assert suspend_bolt_schedule("daily", "production", suspend=False)
        ```
    """
    async with _client(credentials) as client:
        return await client.suspend_bolt_schedule(schedule_name, suspend=suspend)


@bolt_task(name="get-bolt-command-logs", task_run_name="get log of {command_id}")
async def get_bolt_command_logs(
    command_id: RunId, credentials: CredentialsParameter = None, *, cursor: NonEmpty | None = None
) -> BoltLogPage:
    """Return a command's log since a cursor (`boltCommandLogs`; else what `boltCommand` has that is new).

    Args:
        command_id: The command.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.
        cursor: The cursor of the page before; None for the beginning.

    Raises:
        BoltError: Bolt refused it, or no usable answer came.

    Example:
        ```python
        from paradime_flows.tasks import get_bolt_command_logs, get_bolt_run

        command = get_bolt_run(76035, "production").commands[0]
        page = get_bolt_command_logs(command.id, "production")
        print("".join(line.line for line in page.lines))
        ```
    """
    async with _client(credentials) as client:
        return await client.get_bolt_command_logs(command_id, cursor)


@bolt_task(name="download-bolt-resource", task_run_name="download {resource_id}")
async def download_bolt_resource(resource_id: RunId, credentials: CredentialsParameter = None) -> bytes:
    """Return the content of a resource, from its signed URL.

    Args:
        resource_id: The resource, from a command's `resources`.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.

    Raises:
        BoltError: Bolt refused it, or the content could not be fetched.

    Example:
        ```python
        from paradime_flows.tasks import download_bolt_resource, get_bolt_command, get_bolt_run

        command = get_bolt_run(76035, "production").commands[-1]
        resource = get_bolt_command(command.id, "production").resources[0]
        content = download_bolt_resource(resource.id, "production")
        ```
    """
    async with _client(credentials) as client:
        return await client.download_bolt_resource(resource_id)


@bolt_task(name="latest-artifact", task_run_name="latest {path} of {schedule_name}")
async def latest_artifact(
    schedule_name: NonEmpty,
    path: NonEmpty,
    credentials: CredentialsParameter = None,
    *,
    command_index: int | None = None,
    max_runs: PageSize = 50,
) -> bytes:
    """Return the newest file of a path that a schedule's successful commands left behind.

    Args:
        schedule_name: The schedule's name or slug.
        path: The file's path, such as `target/run_results.json`.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.
        command_index: Look at this command of each run only, counted from 0; negative from the last.
        max_runs: How many runs to look at.

    Raises:
        BoltRequestError: No run has left such a file behind.
        BoltError: Bolt refused it, or the file could not be fetched.

    Example:
        ```python
        from paradime_flows.tasks import latest_artifact

        content = latest_artifact("daily", "target/run_results.json", "production")
        ```
    """
    async with _client(credentials) as client:
        return await client.latest_artifact(
            schedule_name, path, command_index=command_index, max_runs=max_runs
        )


@bolt_task(name="latest-artifact-url", task_run_name="URL of the latest {path} of {schedule_name}")
async def latest_artifact_url(
    schedule_name: NonEmpty,
    path: NonEmpty,
    credentials: CredentialsParameter = None,
    *,
    command_index: int | None = None,
    max_runs: PageSize = 50,
) -> str:
    """Return the signed, expiring URL of a schedule's newest file of a path: who has it can read the file.

    Args:
        schedule_name: As `latest_artifact`, like the rest.
        path: The file's path.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.
        command_index: Look at this command of each run only.
        max_runs: How many runs to look at.

    Raises:
        BoltError: As `latest_artifact`.

    Example:
        ```python
        from paradime_flows.tasks import latest_artifact_url

        print(latest_artifact_url("daily", "target/manifest.json", "production"))
        ```
    """
    async with _client(credentials) as client:
        return await client.latest_artifact_url(
            schedule_name, path, command_index=command_index, max_runs=max_runs
        )


@bolt_task(name="latest-manifest", task_run_name="latest manifest of {schedule_name}")
async def latest_manifest(
    schedule_name: NonEmpty,
    credentials: CredentialsParameter = None,
    *,
    command_index: int | None = None,
    max_runs: PageSize = 50,
) -> dict[str, Any]:
    """Return a schedule's newest dbt manifest.

    Args:
        schedule_name: The schedule's name or slug.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.
        command_index: Look at this command of each run only.
        max_runs: How many runs to look at.

    Raises:
        BoltError: As `latest_artifact`.

    Example:
        ```python
        from paradime_flows.tasks import latest_manifest

        print(len(latest_manifest("daily", "production")["nodes"]))
        ```
    """
    async with _client(credentials) as client:
        return await client.latest_manifest(schedule_name, command_index=command_index, max_runs=max_runs)


aget_bolt_run = async_form(get_bolt_run)
aget_bolt_command = async_form(get_bolt_command)
aget_bolt_command_logs = async_form(get_bolt_command_logs)
aget_bolt_resource_url = async_form(get_bolt_resource_url)
adownload_bolt_resource = async_form(download_bolt_resource)
alist_bolt_schedules = async_form(list_bolt_schedules)
aget_bolt_schedule = async_form(get_bolt_schedule)
asuspend_bolt_schedule = async_form(suspend_bolt_schedule)
alist_bolt_runs = async_form(list_bolt_runs)
alatest_artifact = async_form(latest_artifact)
alatest_artifact_url = async_form(latest_artifact_url)
alatest_manifest = async_form(latest_manifest)
