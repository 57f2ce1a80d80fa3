"""Tasks that fetch the files that a Bolt run's commands wrote."""

from __future__ import annotations

from typing import Any

from paradime_blocks.options import NonEmpty
from paradime_flows.parameters import CredentialsParameter, Offset, PageSize, RunId
from paradime_flows.prefect_api import async_form, bolt_client, bolt_task


@bolt_task(name="get-bolt-resource-url", task_run_name="get resource {resource_id}")
async def get_bolt_resource_url(resource_id: RunId, credentials: CredentialsParameter = None) -> str:
    """Return the signed, expiring URL of a resource (`boltResourceUrl`). Anyone who has the URL can read the file.

    Args:
        resource_id: The id of the resource, from a command's `resources`.
        credentials: A `ParadimeCredentials` block, its name, or None for the `PARADIME_*` environment variables.

    Raises:
        BoltError: Bolt refused the request, or its answer was not usable.

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
    """Return the content of a resource. The task fetches it from the resource's signed URL.

    Args:
        resource_id: The id of the resource, from a command's `resources`.
        credentials: A `ParadimeCredentials` block, its name, or None for the `PARADIME_*` environment variables.

    Raises:
        BoltError: Bolt refused the request, or the content could not be fetched.

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
    command_index: Offset | None = None,
    max_runs: PageSize = 50,
) -> bytes:
    """Return the newest file that has a certain path and that a successful command of the schedule wrote.

    Args:
        schedule_name: The schedule's name or slug.
        path: The file's path, such as `target/run_results.json`.
        credentials: A `ParadimeCredentials` block, its name, or None for the `PARADIME_*` environment variables.
        command_index: Search only this command of each run, counted from 0; a negative number counts from the end.
        max_runs: How many runs to search.

    Raises:
        BoltRequestError: No run has such a file.
        BoltError: Bolt refused the request, or the file could not be fetched.

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
    command_index: Offset | None = None,
    max_runs: PageSize = 50,
) -> str:
    """Return the signed, expiring URL of the file that `latest_artifact` returns. Anyone who has it can read the file.

    Args:
        schedule_name: The schedule's name or slug.
        path: The file's path.
        credentials: A `ParadimeCredentials` block, its name, or None for the `PARADIME_*` environment variables.
        command_index: Search only this command of each run, as for `latest_artifact`.
        max_runs: How many runs to search.

    Raises:
        BoltError: As `latest_artifact`.

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
    command_index: Offset | None = None,
    max_runs: PageSize = 50,
) -> dict[str, Any]:
    """Return a schedule's newest dbt manifest.

    Args:
        schedule_name: The schedule's name or slug.
        credentials: A `ParadimeCredentials` block, its name, or None for the `PARADIME_*` environment variables.
        command_index: Search only this command of each run, as for `latest_artifact`.
        max_runs: How many runs to search.

    Raises:
        BoltError: As `latest_artifact`.

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
