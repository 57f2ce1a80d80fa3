"""Tasks that fetch the files that a Bolt run's commands wrote."""

from __future__ import annotations

from typing import Any

from paradime_blocks.options import NonEmpty
from paradime_flows.parameters import CommandIndex, CredentialsParameter, PageSize, RunId
from paradime_flows.prefect_api import async_form, bolt_client, bolt_task


@bolt_task(name="get-bolt-resource-url", task_run_name="get resource {resource_id}")
async def get_bolt_resource_url(resource_id: RunId, credentials: CredentialsParameter = None) -> str:
    """Return the signed, expiring URL of a resource (`boltResourceUrl`). Anyone who has the URL can read the file.

    Args:
        resource_id: The id of the resource. The field `resources` of a command contains the ids.
        credentials: A `ParadimeCredentials` block, the block's name, or None to use the `PARADIME_*` environment
            variables.

    Raises:
        BoltError: Bolt refused the request, or Bolt's answer was not valid.

    Example:
        ```python
        from paradime_flows.tasks import get_bolt_command, get_bolt_resource_url, get_bolt_run

        command = get_bolt_run(76035, "production").commands[-1]
        resource = get_bolt_command(command.id, "production").resources[0]
        print(get_bolt_resource_url(resource.id, "production"))
        ```
    """
    async with bolt_client(credentials) as client:
        return await client.get_bolt_resource_url(resource_id)


@bolt_task(name="download-bolt-resource", task_run_name="download {resource_id}")
async def download_bolt_resource(resource_id: RunId, credentials: CredentialsParameter = None) -> bytes:
    """Return the content of a resource. The task downloads the content from the resource's signed URL.

    Args:
        resource_id: The id of the resource. The field `resources` of a command contains the ids.
        credentials: A `ParadimeCredentials` block, the block's name, or None to use the `PARADIME_*` environment
            variables.

    Raises:
        BoltError: Bolt refused the request, or the download failed.

    Example:
        ```python
        from paradime_flows.tasks import download_bolt_resource, get_bolt_command, get_bolt_run

        command = get_bolt_run(76035, "production").commands[-1]
        resource = get_bolt_command(command.id, "production").resources[0]
        content = download_bolt_resource(resource.id, "production")
        ```
    """
    async with bolt_client(credentials) as client:
        return await client.download_bolt_resource(resource_id)


@bolt_task(name="latest-artifact", task_run_name="latest {path} of {schedule_name}")
async def latest_artifact(
    schedule_name: NonEmpty,
    path: NonEmpty,
    credentials: CredentialsParameter = None,
    *,
    command_index: CommandIndex | None = None,
    max_runs: PageSize = 50,
) -> bytes:
    """Return the content of the newest file with a certain path that a successful command of the schedule wrote.

    Args:
        schedule_name: The schedule's name or slug.
        path: The file's path, such as `target/run_results.json`.
        credentials: A `ParadimeCredentials` block, the block's name, or None to use the `PARADIME_*` environment
            variables.
        command_index: The task searches only the command with this number in each Bolt run. The first command has the
            number 0, and the last command has the number -1. If it is None, the task searches all commands.
        max_runs: How many of the schedule's newest Bolt runs the task searches.

    Raises:
        BoltRequestError: The task found no file with this path.
        BoltError: Bolt refused the request, or the download failed.

    Example:
        ```python
        from paradime_flows.tasks import latest_artifact

        content = latest_artifact("daily", "target/run_results.json", "production")
        ```
    """
    async with bolt_client(credentials) as client:
        return await client.latest_artifact(
            schedule_name, path, command_index=command_index, max_runs=max_runs
        )


@bolt_task(name="latest-artifact-url", task_run_name="URL of the latest {path} of {schedule_name}")
async def latest_artifact_url(
    schedule_name: NonEmpty,
    path: NonEmpty,
    credentials: CredentialsParameter = None,
    *,
    command_index: CommandIndex | None = None,
    max_runs: PageSize = 50,
) -> str:
    """Return the signed URL of the file that `latest_artifact` returns. The URL expires.

    Anyone who has the URL can read the file.

    Args:
        schedule_name: The schedule's name or slug.
        path: The file's path.
        credentials: A `ParadimeCredentials` block, the block's name, or None to use the `PARADIME_*` environment
            variables.
        command_index: The number of the command in each Bolt run, as for `latest_artifact`.
        max_runs: How many of the schedule's newest Bolt runs the task searches.

    Raises:
        BoltError: The same errors as for `latest_artifact`.

    Example:
        ```python
        from paradime_flows.tasks import latest_artifact_url

        print(latest_artifact_url("daily", "target/manifest.json", "production"))
        ```
    """
    async with bolt_client(credentials) as client:
        return await client.latest_artifact_url(
            schedule_name, path, command_index=command_index, max_runs=max_runs
        )


@bolt_task(name="latest-manifest", task_run_name="latest manifest of {schedule_name}")
async def latest_manifest(
    schedule_name: NonEmpty,
    credentials: CredentialsParameter = None,
    *,
    command_index: CommandIndex | None = None,
    max_runs: PageSize = 50,
) -> dict[str, Any]:
    """Return a schedule's newest dbt manifest.

    Args:
        schedule_name: The schedule's name or slug.
        credentials: A `ParadimeCredentials` block, the block's name, or None to use the `PARADIME_*` environment
            variables.
        command_index: The number of the command in each Bolt run, as for `latest_artifact`.
        max_runs: How many of the schedule's newest Bolt runs the task searches.

    Raises:
        BoltError: The same errors as for `latest_artifact`.

    Example:
        ```python
        from paradime_flows.tasks import latest_manifest

        print(len(latest_manifest("daily", "production")["nodes"]))
        ```
    """
    async with bolt_client(credentials) as client:
        return await client.latest_manifest(schedule_name, command_index=command_index, max_runs=max_runs)


aget_bolt_resource_url = async_form(get_bolt_resource_url)
adownload_bolt_resource = async_form(download_bolt_resource)
alatest_artifact = async_form(latest_artifact)
alatest_artifact_url = async_form(latest_artifact_url)
alatest_manifest = async_form(latest_manifest)
