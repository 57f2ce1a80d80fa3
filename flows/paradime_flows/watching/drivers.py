"""Finds the flow runs that track Bolt runs. Such a flow run sends the events of its Bolt run, and archives the run."""

from __future__ import annotations

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from paradime_flows.events import Workspace
from paradime_flows.ledger import read_records
from paradime_flows.prefect_api import schedule_tag

# The number of flow runs to read: as many as Prefect returns in one answer.
_FLOW_RUNS_READ = 200


class Drivers:
    """Finds the flow runs that have tracked the Bolt runs of a workspace, with one request for each schedule.

    Args:
        client: An open client.
        workspace: The workspace of the Bolt runs.
    """

    def __init__(self, client: PrefectClient, workspace: Workspace) -> None:
        self._client = client
        self._workspace = workspace
        self._found: dict[str, dict[int, FlowRun]] = {}

    async def of(self, run_id: int, schedule_name: str | None) -> FlowRun | None:
        """Return the newest flow run that has tracked a Bolt run; None if no such flow run is known."""
        if schedule_name is None:
            return None
        if schedule_name not in self._found:
            self._found[schedule_name] = await self._read(schedule_name)
        return self._found[schedule_name].get(run_id)

    async def _read(self, schedule_name: str) -> dict[int, FlowRun]:
        flow_runs = await self._client.read_flow_runs(
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[schedule_tag(schedule_name)])),
            sort=FlowRunSort.START_TIME_DESC,
            limit=_FLOW_RUNS_READ,
        )
        found: dict[int, FlowRun] = {}
        for flow_run in flow_runs:
            for record in read_records(flow_run):
                if Workspace.of(record) != self._workspace:
                    continue
                for run_id in (record.run_id, *(attempt.run_id for attempt in record.attempts)):
                    if run_id is not None:
                        found.setdefault(run_id, flow_run)
        return found


def reports_itself(flow_run: FlowRun) -> bool:
    """Whether a flow run will send the event for the end of its Bolt run itself.

    A flow run that has ended sends nothing. A suspended flow run sends nothing either, because it has no process.
    """
    state = flow_run.state
    return state is not None and not state.is_final() and not state.is_paused()
