"""Starts the flow runs that archive Bolt runs: one flow run for each Bolt run."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound

from paradime_blocks import BoltRequestError
from paradime_flows.events import Workspace


class Archives:
    """Starts flow runs of a deployment of `archive_run`.

    Args:
        client: An open client.
        deployment: The deployment, as `flow/deployment`.
        workspace: The workspace of the Bolt runs.
        parameters: The parameters that all flow runs get.
    """

    def __init__(
        self, client: PrefectClient, deployment: str, workspace: Workspace, parameters: dict[str, Any]
    ) -> None:
        self._client = client
        self._deployment = deployment
        self._workspace = workspace
        self._parameters = parameters
        self._deployment_id: UUID | None = None

    async def start(self, run_id: int, schedule_name: str | None) -> UUID:
        """Start the flow run that archives a Bolt run, and return its id. A repeated call returns the same id.

        Args:
            run_id: The id of the Bolt run.
            schedule_name: The name of the Bolt run's schedule; None if it is unknown.

        Raises:
            BoltRequestError: The deployment does not exist.
        """
        named = {} if schedule_name is None else {"schedule_name": schedule_name}
        flow_run = await self._client.create_flow_run_from_deployment(
            await self._id(),
            parameters={**self._parameters, "run_id": run_id, **named},
            idempotency_key=f"paradime-archive {self._workspace.host} {self._workspace.name} {run_id}",
        )
        return flow_run.id

    async def _id(self) -> UUID:
        if self._deployment_id is None:
            try:
                found = await self._client.read_deployment_by_name(self._deployment)
            except ObjectNotFound:
                msg = f"There is no deployment {self._deployment!r}, which is to archive the Bolt runs."
                guidance = (
                    "Deploy deployments/prefect.yaml, or name another deployment in archive_deployment."
                )
                raise BoltRequestError(msg, guidance=guidance) from None
            self._deployment_id = found.id
        return self._deployment_id
