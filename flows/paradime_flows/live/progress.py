"""The progress of a Bolt run in percent, and the artifact that shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final
from uuid import UUID

from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort

from paradime_blocks.models import BoltCommand, BoltRunState, BoltRunStatus
from paradime_flows.prefect_api import current_task_run_id, is_first_attempt, prefect_client, times

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

_LEAST_CHANGE: Final = 1.0
# Only a Bolt run that succeeded shows 100 %.
_MOST_UNFINISHED: Final = 99.0
_SETUP: Final = ("git clone", "dbt deps")


def percent_done(
    status: BoltRunStatus, planned: Sequence[str], nodes: Mapping[int, tuple[int, int]]
) -> float:
    """Return the progress of a Bolt run, in percent.

    All commands count the same. The setup commands that Bolt adds do not count. For a running command, the share of its
    nodes that are done counts. If it is unknown how many commands will follow, one more command is assumed.

    Args:
        status: The run's status.
        planned: The commands of the schedule or of the request; empty if they are unknown.
        nodes: How many nodes of a command are done, and how many nodes it has. The key is the command's id.
    """
    if status.state == BoltRunState.SUCCESS:
        return 100.0
    work = list(status.commands)
    while work and work[0].command.startswith(_SETUP) and work[0].command not in planned:
        del work[0]
    if not work:
        return 0.0
    done = sum(_share(command, nodes.get(command.id, (0, 0))) for command in work)
    return min(_MOST_UNFINISHED, 100.0 * done / (len(work) + _to_come(work, planned)))


def _share(command: BoltCommand, nodes: tuple[int, int]) -> float:
    if command.has_ended:
        return 1.0
    done, total = nodes
    return done / total if total else 0.0


def _to_come(work: Sequence[BoltCommand], planned: Sequence[str]) -> int:
    """Return how many commands come after those that have started."""
    place, last = len(work) - 1, work[-1].command
    # A retry starts with a later command of the plan. So the place of a command in the run is used only if the plan has
    # the same command at this place.
    if place < len(planned) and planned[place] == last:
        return len(planned) - 1 - place
    return len(planned) - 1 - planned.index(last) if last in planned else 1


class ProgressArtifact:
    """One progress artifact of a flow run. It is created once, and updated when the progress has changed enough.

    A Bolt run that ends soon has no progress artifact, because nobody would see the progress grow.

    Args:
        flow_run_id: The flow run.
        key: The artifact's key.
        run_id: The Bolt run whose progress it shows.
        stored: The flow run, if it was read since the Bolt run was obtained.
        clock: A function that returns the time in seconds, such as `time.monotonic`. Tests pass their own clock.
    """

    def __init__(
        self,
        flow_run_id: UUID,
        key: str,
        run_id: int,
        *,
        stored: FlowRun | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.flow_run_id = flow_run_id
        self.key = key
        self.percent = 0.0
        self._title = f"Bolt run {run_id}"
        self._clock = clock or time.monotonic
        self._began_at = self._clock()
        self._id: UUID | None = None
        self._task_run_id = current_task_run_id()
        # A first attempt has no artifact of an earlier attempt to continue.
        self._sought = stored is not None and is_first_attempt(stored)
        self._updated_at = float("-inf")

    async def show(self, percent: float, description: str, *, final: bool = False) -> None:
        """Show the progress. The percentage that is shown never decreases.

        Args:
            percent: The progress, from 0 to 100.
            description: What the Bolt run does.
            final: Whether this is the last update.

        Raises:
            Exception: Prefect was unreachable, or refused the update.
        """
        description = f"{self._title} {description}"
        async with prefect_client() as client:
            if not self._sought:
                await self._find(client)
            percent = max(self.percent, round(percent, 1))
            if self._id is None:
                if self._is_early():
                    return
                artifact = await client.create_artifact(
                    ArtifactCreate(
                        key=self.key,
                        type="progress",
                        description=description,
                        data=percent,
                        flow_run_id=self.flow_run_id,
                        task_run_id=self._task_run_id,
                    )
                )
                self._id = artifact.id
            elif self._is_worth_it(percent, final=final):
                await client.update_artifact(self._id, ArtifactUpdate(data=percent, description=description))
            else:
                return
        self.percent = percent
        self._updated_at = self._clock()

    def _is_early(self) -> bool:
        return self._clock() - self._began_at < times().progress_after_seconds

    def _is_worth_it(self, percent: float, *, final: bool) -> bool:
        is_due = self._clock() - self._updated_at >= times().progress_interval_seconds
        return final or (is_due and percent - self.percent >= _LEAST_CHANGE)

    async def _find(self, client: PrefectClient) -> None:
        """Find the artifact that an earlier attempt of the flow run has made for the Bolt run."""
        wanted = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[self.flow_run_id]),
            key=ArtifactFilterKey(any_=[self.key]),
        )
        found = await client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC)
        for artifact in found:
            if f"{artifact.description} ".startswith(f"{self._title} "):
                self._id, self.percent = artifact.id, float(artifact.data or 0.0)  # type: ignore[arg-type]
                break
        self._sought = True
