"""The client's calls about a schedule's newest files: the manifest, the run results, or a file with any path."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from paradime_blocks.client import operations as ops
from paradime_blocks.client.commands import CommandCalls
from paradime_blocks.client.inputs import LARGEST_PAGE, check_count, check_text
from paradime_blocks.client.resources import ResourceCalls
from paradime_blocks.client.runs import RunCalls
from paradime_blocks.errors import BoltError, BoltRequestError, BoltUnavailable
from paradime_blocks.models import BoltLatestArtifact, BoltRunStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paradime_blocks.models import BoltRunRecord

MANIFEST = "target/manifest.json"
# The newest run most often has the file, so the first request asks for few runs.
_FIRST_RUNS = 3
_MORE_RUNS = 25


class ArtifactCalls(RunCalls, CommandCalls, ResourceCalls):
    """Calls about a schedule's newest files."""

    async def find_latest_artifact(
        self, schedule_name: str, path: str, *, command_index: int | None = None, max_runs: int = 50
    ) -> BoltLatestArtifact:
        """Find the newest file with a given path that a successful command of a schedule wrote.

        The search begins with the newest run, and in each run with the last command. A run that Bolt does not return is
        skipped. One request reads the commands of several runs, and one request lists the files of several commands. So
        three requests are usually enough, if one of the newest runs has the file.

        Args:
            schedule_name: The schedule's name or slug.
            path: The file's path, such as `target/manifest.json`.
            command_index: Search only this command of each run. The first command is 0, the last command is -1.
            max_runs: How many runs to search, 1 to 1000. If the backend cannot list runs, only the latest run is
                searched.

        Raises:
            BoltRequestError: No run has a file with this path.
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        path = check_text("path", path, MANIFEST)
        limit = check_count("max_runs", max_runs, least=1, most=LARGEST_PAGE)
        runs = await self.latest_bolt_runs(schedule_name, limit=limit)
        if not runs:
            msg = f"Schedule {schedule_name!r} has no run."
            raise BoltRequestError(msg, guidance="Run the schedule first.", schedule_name=schedule_name)
        missed: dict[int, BoltError] = {}
        start, size = 0, _FIRST_RUNS
        while start < len(runs):
            found = await self._artifact_among(runs[start : start + size], path, command_index, missed)
            if found is not None:
                return found
            start, size = start + size, _MORE_RUNS
        msg = f"No successful command in {len(runs)} runs of {schedule_name!r} has the file {path}."
        for first in [*missed.values()][:1]:
            msg += f" {len(missed)} of the runs could not be read. The first error: {first.message}"
        raise BoltRequestError(
            msg, guidance="Check the path, or raise max_runs.", schedule_name=schedule_name
        )

    async def _artifact_among(
        self,
        runs: Sequence[BoltRunRecord],
        path: str,
        command_index: int | None,
        missed: dict[int, BoltError],
    ) -> BoltLatestArtifact | None:
        # A run or a command that Bolt does not return is skipped: an older run may have the file.
        each = [{"runId": run.id} for run in runs]
        replies = await self._read_each(ops.BOLT_RUN_STATE, each, BoltRunStatus)
        wanted: list[tuple[int, int]] = []
        for run, status in zip(runs, replies, strict=True):
            if isinstance(status, BoltError):
                missed[run.id] = status
                continue
            commands = status.commands
            if command_index is not None:
                in_range = -len(commands) <= command_index < len(commands)
                commands = [commands[command_index]] if in_range else []
            wanted += [(run.id, command.id) for command in reversed(commands) if command.return_code == 0]
        errors: dict[int, BoltError] = {}
        resources = await self.get_bolt_command_resources(
            [command_id for _, command_id in wanted], errors=errors
        )
        for run_id, command_id in wanted:
            if command_id in errors:
                missed.setdefault(run_id, errors[command_id])
            for resource in resources.get(command_id, ()):
                if resource.path == path:
                    return BoltLatestArtifact(
                        run_id=run_id, command_id=command_id, resource_id=resource.id, path=path
                    )
        return None

    async def latest_artifact_url(
        self, schedule_name: str, path: str, *, command_index: int | None = None, max_runs: int = 50
    ) -> str:
        """Return the signed URL of a schedule's newest file with a given path. The URL expires.

        Args:
            schedule_name: The schedule's name or slug. `find_latest_artifact` describes all arguments.
            path: The file's path.
            command_index: Search only this command of each run.
            max_runs: How many runs to search.

        Raises:
            BoltError: The errors of `find_latest_artifact`.
        """
        found = await self.find_latest_artifact(
            schedule_name, path, command_index=command_index, max_runs=max_runs
        )
        return await self.get_bolt_resource_url(found.resource_id)

    async def latest_artifact(
        self, schedule_name: str, path: str, *, command_index: int | None = None, max_runs: int = 50
    ) -> bytes:
        """Return the content of a schedule's newest file with a given path.

        Args:
            schedule_name: The schedule's name or slug. `find_latest_artifact` describes all arguments.
            path: The file's path.
            command_index: Search only this command of each run.
            max_runs: How many runs to search.

        Raises:
            BoltError: The errors of `find_latest_artifact`, or the file could not be fetched.
        """
        found = await self.find_latest_artifact(
            schedule_name, path, command_index=command_index, max_runs=max_runs
        )
        return await self.download_bolt_resource(found.resource_id)

    async def latest_manifest(
        self, schedule_name: str, *, command_index: int | None = None, max_runs: int = 50
    ) -> dict[str, Any]:
        """Return a schedule's newest dbt manifest.

        Args:
            schedule_name: The schedule's name or slug. `find_latest_artifact` describes all arguments.
            command_index: Search only this command of each run.
            max_runs: How many runs to search.

        Raises:
            BoltError: The errors of `latest_artifact`, or the file is not a JSON object.
        """
        content = await self.latest_artifact(
            schedule_name, MANIFEST, command_index=command_index, max_runs=max_runs
        )
        try:
            manifest = json.loads(content)
        except ValueError as error:
            msg = f"The newest manifest of {schedule_name!r} is not JSON."
            raise BoltUnavailable(msg, operation="resource", schedule_name=schedule_name) from error
        if not isinstance(manifest, dict):
            msg = f"The newest manifest of {schedule_name!r} is not a JSON object."
            raise BoltUnavailable(msg, operation="resource", schedule_name=schedule_name)
        return manifest
