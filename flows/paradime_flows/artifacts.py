"""Writing artifacts for a flow run, from within it or from outside (a hook, the sweeper)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.settings import get_current_settings
from slugify import slugify

_KEY_CHARACTERS: Final = 120
_HASH_CHARACTERS: Final = 8


def artifact_key(*parts: str) -> str:
    """Return an artifact's key: Prefect takes lower-case letters, digits and dashes only.

    A key that would be too long, or of which nothing is left, ends with a hash, so that it stays its own.
    """
    whole = "-".join(part for part in parts if part)
    key = slugify(whole)
    if key and len(key) <= _KEY_CHARACTERS and slugify(parts[-1] or "x"):
        return key
    digest = hashlib.sha256(whole.encode(errors="replace")).hexdigest()[:_HASH_CHARACTERS]
    return f"{key[: _KEY_CHARACTERS - _HASH_CHARACTERS - 1].strip('-')}-{digest}".strip("-")


def artifact_url(artifact_id: UUID) -> str | None:
    """Return an artifact's page in Prefect's UI; None where the UI's address is not known."""
    return _page(f"artifacts/artifact/{artifact_id}")


def flow_run_url(flow_run_id: UUID) -> str | None:
    """Return a flow run's page in Prefect's UI; None where the UI's address is not known."""
    return _page(f"runs/flow-run/{flow_run_id}")


def _page(path: str) -> str | None:
    base = get_current_settings().ui_url
    return f"{base.rstrip('/')}/{path}" if base else None


@dataclass(frozen=True)
class ArtifactWriter:
    """Writes artifacts for one flow run.

    Prefect renders a description as markdown, too: remote text in it is escaped as it is in the data.

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
        """Write a link artifact, which in Prefect is markdown of a single link, and return its id.

        Args:
            key: The artifact's key.
            text: The link's text, escaped.
            url: The link, from `links.safe_url`.
            description: What is shown beside it.
        """
        return await self.markdown(key, f"[{text}]({url})", description)

    async def update(self, artifact_id: UUID, data: str) -> None:
        """Put other data into an artifact."""
        async with get_client() as client:
            await client.update_artifact(artifact_id, ArtifactUpdate(data=data))

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
