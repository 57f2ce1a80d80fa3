"""What Prefect's API knows of a flow run, for tests to assert on."""

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
    """Tag the flow runs that are called within, so that `latest_flow_run` finds no other test's."""
    with tags(f"{_OURS}{uuid4().hex[:12]}"):
        yield


async def latest_flow_run(flow_name: str) -> FlowRun:
    """Return the run of a flow that was made last of those that the test itself has called.

    Others can be on the server: those that it calls have a parent, and those of its deployments a deployment.
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
    """Return the artifacts of a flow run by key; the newest of each."""
    async with get_client() as client:
        found = await client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
        )
    found.sort(key=lambda artifact: str(artifact.created))
    return {artifact.key or "": artifact for artifact in found}


async def logs_of(flow_run_id: UUID) -> list[str]:
    """Return the log messages of a flow run, as far as they have been sent."""
    async with get_client() as client:
        found = await client.read_logs(
            log_filter=LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))
        )
    return [log.message for log in found]


async def steps_to_go_on_with(flow_run_id: UUID) -> set[str]:
    """The steps of a pipeline's flow run that have left a Bolt run to go on with."""
    from paradime_flows.pipelines.attempts import open_predecessors
    from paradime_flows.prefect_api.flow_runs import subflows_of

    async with get_client() as client:
        return set(open_predecessors(await subflows_of(client, [flow_run_id])))
