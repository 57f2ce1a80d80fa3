"""Sends the events of Bolt runs to Prefect, and archives Bolt runs if the user wants this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from pydantic import BaseModel, Field

from paradime_blocks import BoltRequestError, BoltRunState, ParadimeCredentials
from paradime_blocks.models import run_url
from paradime_flows.events import RunSubject, Workspace
from paradime_flows.prefect_api import run_logger
from paradime_flows.watching.archives import Archives
from paradime_flows.watching.cursor import Seen
from paradime_flows.watching.drivers import Drivers, reports_itself
from paradime_flows.watching.report import report


class WatchedRun(BaseModel):
    """What the watch has seen of one Bolt run, and what it has done.

    Attributes:
        run_id: The id of the Bolt run.
        schedule_name: The name of the Bolt run's schedule; None if it is unknown.
        state: The state of the Bolt run.
        url: The page of the Bolt run in Paradime.
        events: The events that the watch has sent. Events that Prefect had already are left out.
        is_ours: Whether a flow run of this package tracks, or has tracked, the Bolt run.
        archived_by: The flow run that archives the Bolt run; None if the watch does not archive the Bolt run.
    """

    run_id: int
    schedule_name: str | None = None
    state: BoltRunState
    url: str
    events: list[str] = Field(default_factory=list)
    is_ours: bool = False
    archived_by: UUID | None = None


@dataclass(frozen=True)
class Told:
    """The result of `tell`.

    Attributes:
        watched: The Bolt runs, without those of `waiting`.
        unsent: The ids of the runs whose events Prefect has not stored in time.
        waiting: The ids of the runs whose flow run will send the events itself.
    """

    watched: list[WatchedRun]
    unsent: set[int]
    waiting: set[int]


@dataclass(frozen=True)
class ArchivePlan:
    """Which Bolt runs are archived, and how.

    Attributes:
        wanted: Whether to archive the Bolt runs that have ended and that no flow run has waited for.
        deployment: The deployment of the flow `archive_run`.
        parameters: The parameters that all flow runs of this deployment get.
    """

    wanted: bool
    deployment: str
    parameters: dict[str, Any]

    @classmethod
    def of(
        cls,
        credentials: ParadimeCredentials | str | None,
        found: ParadimeCredentials,
        *,
        archive: bool,
        assets: bool,
        deployment: str,
    ) -> ArchivePlan:
        """Return the plan for the choices of a user.

        The flow runs that archive get the name of the credentials block, and no secret.

        Args:
            credentials: What the user gave: a credentials block, the name of a block, or None.
            found: The credentials that `resolve_credentials` has returned for `credentials`.
            archive: Whether Bolt runs are archived.
            assets: Whether Bolt runs are archived, and their models are reported as assets.
            deployment: The deployment of the flow `archive_run`.

        Raises:
            BoltRequestError: The credentials are not saved, so that no other flow run can find them.
        """
        wanted = archive or assets
        parameters: dict[str, Any] = {"assets": assets}
        if credentials is not None:
            name = credentials if isinstance(credentials, str) else found._block_document_name  # noqa: SLF001
            if name is None and wanted:
                msg = "The credentials are not saved, so the flow runs that archive the Bolt runs cannot find them."
                raise BoltRequestError(
                    msg, guidance="Save the block, and give its name. No request was sent to Bolt."
                )
            if name is not None:
                parameters["credentials"] = name
        return cls(wanted, deployment, parameters)

    def includes(self, run: WatchedRun) -> bool:
        """Whether a Bolt run is archived."""
        return self.wanted and run.state.is_terminal and not run.is_ours

    async def carry_out(
        self, prefect: PrefectClient, workspace: Workspace, watched: Sequence[WatchedRun]
    ) -> None:
        """Start the archive of each Bolt run that has ended and that no flow run has waited for.

        Raises:
            BoltRequestError: The deployment does not exist.
        """
        archives = Archives(prefect, self.deployment, workspace, self.parameters)
        for one in watched:
            if self.includes(one):
                one.archived_by = await archives.start(one.run_id, one.schedule_name)


async def tell(
    seen: Sequence[Seen],
    schedule_of: Callable[[int], str | None],
    credentials: ParadimeCredentials,
    drivers: Drivers,
) -> Told:
    """Send the events of Bolt runs. Events that Prefect has, and events that a flow run will send itself, are left out.

    Args:
        seen: The events.
        schedule_of: Takes the id of a run, and returns the name of the run's schedule; None if the name is unknown.
        credentials: The credentials of the workspace.
        drivers: Finds the flow runs that wait for Bolt runs.
    """
    watched: dict[int, WatchedRun] = {}
    subjects: dict[int, RunSubject] = {}
    waiting: set[int] = set()
    for run in {one.run.id: one.run for one in seen}.values():
        name = schedule_of(run.id)
        driver = await drivers.of(run.id, name)
        if driver is not None and reports_itself(driver):
            # The flow run knows the cause of a failure. If the flow run is lost, the next poll shows the events again.
            waiting.add(run.id)
            continue
        subjects[run.id] = RunSubject.of(run.id, credentials, name, None if driver is None else driver.id)
        watched[run.id] = WatchedRun(
            run_id=run.id,
            schedule_name=name,
            state=run.state,
            url=run_url(run.id),
            is_ours=driver is not None,
        )
    sent, unsent = await report(seen, subjects)
    for run_id, events in sent.items():
        watched[run_id].events = [event.value for event in events]
    if unsent:
        run_logger().warning("Prefect has not stored the events of these Bolt runs yet: %s.", sorted(unsent))
    return Told([*watched.values()], unsent, waiting)
