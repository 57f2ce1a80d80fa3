"""Writing artifacts for a flow run, from within it or from outside (a hook, the sweeper)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from slugify import slugify

_KEY_CHARACTERS = 120


def artifact_key(*parts: str) -> str:
    """Return an artifact's key: Prefect takes lower-case letters, digits and dashes only."""
    return slugify("-".join(part for part in parts if part))[:_KEY_CHARACTERS].strip("-")


@dataclass(frozen=True)
class ArtifactWriter:
    """Writes artifacts for one flow run.

    Attributes:
        flow_run_id: The flow run; None outside of any.
        task_run_id: The task run within it, if any.
    """

    flow_run_id: UUID | None = None
    task_run_id: UUID | None = None

    async def markdown(self, key: str, markdown: str, description: str) -> UUID:
        """Write a markdown artifact and return its id."""
        return await self._create(key, "markdown", markdown, description)

    async def table(self, key: str, rows: list[dict[str, Any]], description: str) -> UUID:
        """Write a table artifact and return its id."""
        return await self._create(key, "table", json.dumps(rows, default=str), description)

    async def link(self, key: str, text: str, url: str, description: str) -> UUID:
        """Write a link artifact, which in Prefect is markdown of a single link, and return its id."""
        return await self.markdown(key, f"[{text}]({url})", description)

    async def _create(self, key: str, kind: str, data: str, description: str) -> UUID:
        async with get_client() as client:
            artifact = await client.create_artifact(
                ArtifactCreate(
                    key=key,
                    type=kind,
                    description=description,
                    data=data,
                    flow_run_id=self.flow_run_id,
                    task_run_id=self.task_run_id,
                )
            )
        return artifact.id
