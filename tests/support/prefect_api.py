"""What Prefect's API knows about a flow run, for tests to check."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from prefect import tags
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterParentTaskRunId,
    FlowRunFilterTags,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.context import TagsContext

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect.client.schemas.objects import Artifact, FlowRun

_OURS = "test-"


@contextmanager
def tagged_as_ours() -> Iterator[None]:
    """Tag the flow runs called inside, so that `latest_flow_run` finds no other test's."""
    with tags(f"{_OURS}{uuid4().hex[:12]}"):
        yield


async def latest_flow_run(flow_name: str) -> FlowRun:
    """Return the latest run of a flow among those that the test itself called.

    The server may have others: those called by flow runs have a parent, and those of a deployment have its id.
    """
    (ours,) = (tag for tag in TagsContext.get().current_tags if tag.startswith(_OURS))
    async with get_client() as client:
        found = await client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow_name])),
            flow_run_filter=FlowRunFilter(
                tags=FlowRunFilterTags(all_=[ours]),
                parent_task_run_id=FlowRunFilterParentTaskRunId(is_null_=True),
                deployment_id=FlowRunFilterDeploymentId(is_null_=True),
            ),
        )
    return max(found, key=lambda flow_run: str(flow_run.created))


async def artifacts_of(flow_run_id: UUID) -> dict[str, Artifact]:
    """Return the artifacts of a flow run by key, the newest of each."""
    return {artifact.key or "": artifact for artifact in await every_artifact_of(flow_run_id)}


async def every_artifact_of(flow_run_id: UUID) -> list[Artifact]:
    """Return the artifacts of a flow run, oldest first."""
    async with get_client() as client:
        found = await client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
        )
    return sorted(found, key=lambda artifact: str(artifact.created))


async def logs_of(flow_run_id: UUID) -> list[str]:
    """Return the log messages of a flow run that have been sent so far."""
    async with get_client() as client:
        found = await client.read_logs(
            log_filter=LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))
        )
    return [log.message for log in found]


async def steps_with_a_run_to_resume(flow_run_id: UUID) -> set[str]:
    """Return the steps of a pipeline's flow run that have a Bolt run to resume."""
    from paradime_flows.ledger import read_records
    from paradime_flows.prefect_api.flow_runs import subflows_of

    async with get_client() as client:
        children = await subflows_of(client, [flow_run_id])
    return {child.name for child in children for record in read_records(child) if record.is_unreported}


async def flow_runs_of(deployment: str) -> list[FlowRun]:
    """Return the flow runs of a deployment, which is named as `flow/deployment`."""
    async with get_client() as client:
        found = await client.read_deployment_by_name(deployment)
        wanted = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[found.id]))
        return await client.read_flow_runs(flow_run_filter=wanted)
