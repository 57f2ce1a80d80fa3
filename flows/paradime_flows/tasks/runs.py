"""Tasks that read Bolt runs, their commands and the commands' logs. These tasks change nothing in Bolt."""

from __future__ import annotations

from paradime_blocks.models import BoltCommandDetail, BoltLogPage, BoltRunRecord, BoltRunStatus
from paradime_blocks.options import NonEmpty
from paradime_flows.parameters import CredentialsParameter, Offset, PageSize, RunId
from paradime_flows.prefect_api import async_form, bolt_client, bolt_task


@bolt_task(name="get-bolt-run", task_run_name="get {run_id}")
async def get_bolt_run(run_id: RunId, credentials: CredentialsParameter = None) -> BoltRunStatus:
    """Return the state of a Bolt run, and its commands with their output (`boltRunStatus`).

    Args:
        run_id: The id of the Bolt run.
        credentials: A `ParadimeCredentials` block, the block's name, or None to use the `PARADIME_*` environment
            variables.

    Raises:
        BoltError: Bolt refused the request, or Bolt's answer was not valid.

    Example:
        ```python
        from paradime_flows.tasks import get_bolt_run

        print(get_bolt_run(76035, "production").state)
        ```
    """
    async with bolt_client(credentials) as client:
        return await client.get_bolt_run(run_id)


@bolt_task(name="get-bolt-command", task_run_name="get command {command_id}")
async def get_bolt_command(command_id: RunId, credentials: CredentialsParameter = None) -> BoltCommandDetail:
    """Return a command with its output, the id of its Bolt run and its resources (`boltCommand`).

    Args:
        command_id: The id of the command.
        credentials: A `ParadimeCredentials` block, the block's name, or None to use the `PARADIME_*` environment
            variables.

    Raises:
        BoltError: Bolt refused the request, or Bolt's answer was not valid.

    Example:
        ```python
        from paradime_flows.tasks import get_bolt_command, get_bolt_run

        command = get_bolt_run(76035, "production").commands[-1]
        print(get_bolt_command(command.id, "production").resources)
        ```
    """
    async with bolt_client(credentials) as client:
        return await client.get_bolt_command(command_id)


@bolt_task(name="get-bolt-command-logs", task_run_name="get log of {command_id}")
async def get_bolt_command_logs(
    command_id: RunId, credentials: CredentialsParameter = None, *, cursor: NonEmpty | None = None
) -> BoltLogPage:
    """Return the part of a command's log that comes after a cursor (`boltCommandLogs`).

    If the backend lacks this operation, the task reads the whole output (`boltCommand`) and returns the new part.

    Args:
        command_id: The id of the command.
        credentials: A `ParadimeCredentials` block, the block's name, or None to use the `PARADIME_*` environment
            variables.
        cursor: The cursor of the previous page of the log; None to read from the beginning of the log.

    Raises:
        BoltError: Bolt refused the request, or Bolt's answer was not valid.

    Example:
        ```python
        from paradime_flows.tasks import get_bolt_command_logs, get_bolt_run

        command = get_bolt_run(76035, "production").commands[0]
        page = get_bolt_command_logs(command.id, "production")
        print("".join(line.line for line in page.lines))
        ```
    """
    async with bolt_client(credentials) as client:
        return await client.get_bolt_command_logs(command_id, cursor)


@bolt_task(name="list-bolt-runs", task_run_name="list runs of {schedule_name}")
async def list_bolt_runs(
    schedule_name: NonEmpty,
    credentials: CredentialsParameter = None,
    *,
    limit: PageSize = 20,
    offset: Offset = 0,
) -> list[BoltRunRecord]:
    """Return the Bolt runs of a schedule, newest first (`listBoltRuns`).

    Args:
        schedule_name: The schedule's name or slug.
        credentials: A `ParadimeCredentials` block, the block's name, or None to use the `PARADIME_*` environment
            variables.
        limit: The largest number of Bolt runs to return.
        offset: How many of the newest Bolt runs the task leaves out.

    Raises:
        BoltUnsupported: The backend cannot list Bolt runs. Use `get_bolt_schedule`, which returns the id of the latest
            Bolt run.
        BoltError: Bolt refused the request, or Bolt's answer was not valid.

    Example:
        ```python
        from paradime_flows.tasks import list_bolt_runs

        for run in list_bolt_runs("daily", "production", limit=5):
            print(run.id, run.state)
        ```
    """
    async with bolt_client(credentials) as client:
        return (await client.list_bolt_runs(schedule_name, limit=limit, offset=offset)).runs


aget_bolt_run = async_form(get_bolt_run)
aget_bolt_command = async_form(get_bolt_command)
aget_bolt_command_logs = async_form(get_bolt_command_logs)
alist_bolt_runs = async_form(list_bolt_runs)
