"""Writes artifacts for a flow run. The caller may be the flow run itself, a hook or the sweeper."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.settings import get_current_settings
from slugify import slugify

from paradime_flows.prefect_api.client import prefect_client

_KEY_CHARACTERS: Final = 120
_HASH_CHARACTERS: Final = 8
_UNNAMED: Final = re.compile(r"run \d+")
# A schedule with one of these names would get a key that looks like the key of another kind of artifact.
_TAKEN: Final = re.compile(
    r"^(?:run-\d+$|orphans$|(?:inspect|pipeline|progress)-)|-(?:dbt-results|links)$|-log-\d+(?:-|$)"
)


def artifact_key(kind: str, name: str, *parts: str) -> str:
    """Return an artifact's key. Prefect accepts only lower-case letters, digits and dashes in a key.

    Two names never get the same key, and no name gets the key of another name's results, logs or links. So the
    function adds a hash after a name that is not a valid key, or that looks like the key of another kind of artifact.
    The function also adds a hash at the end of a key that would be too long or empty.

    Args:
        kind: The first word of the key, such as `paradime`. This word never comes from Bolt or from a user.
        name: The name of a schedule, a pipeline or a Bolt run.
        parts: The last words of the key. The function may remove capital letters and punctuation. So a caller that
            passes text from Bolt must check that its keys differ, as `ArchiveContext.key` does.

    Example:
        >>> artifact_key("paradime", "daily", "dbt results")
        'paradime-daily-dbt-results'
        >>> artifact_key("paradime", "Daily run")
        'paradime-daily-run-b1ee1f0d'
    """
    own = slugify(name)
    # "run 123" is our own name for a Bolt run whose schedule is unknown. This name needs no hash.
    if not _UNNAMED.fullmatch(name) and (own != name or _TAKEN.search(name)):
        own = f"{own}-{short_hash(name)}".strip("-")
    whole = "-".join(part for part in (kind, name, *parts) if part)
    key = slugify("-".join([kind, own, *parts]))
    if len(key) <= _KEY_CHARACTERS and all(slugify(part) for part in parts[-1:]):
        return key
    return f"{key[: _KEY_CHARACTERS - _HASH_CHARACTERS - 1].strip('-')}-{short_hash(whole)}".strip("-")


def short_hash(text: str) -> str:
    """Return a short hash of a text."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:_HASH_CHARACTERS]


def artifact_url(artifact_id: UUID) -> str | None:
    """Return the URL of an artifact's page in Prefect's UI; None if Prefect's settings have no URL of the UI."""
    return _page(f"artifacts/artifact/{artifact_id}")


def flow_run_url(flow_run_id: UUID) -> str | None:
    """Return the URL of a flow run's page in Prefect's UI; None if Prefect's settings have no URL of the UI."""
    return _page(f"runs/flow-run/{flow_run_id}")


def _page(path: str) -> str | None:
    base = get_current_settings().ui_url
    return f"{base.rstrip('/')}/{path}" if base else None


@dataclass(frozen=True)
class ArtifactWriter:
    """Writes artifacts for one flow run.

    Prefect renders the descriptions of artifacts as markdown. So the caller must escape text from Bolt in
    descriptions, as in the artifacts' data.

    Attributes:
        flow_run_id: The id of the flow run; None outside of flow runs.
        task_run_id: The id of the task run that writes the artifacts; None if no task run writes them.
    """

    flow_run_id: UUID | None = None
    task_run_id: UUID | None = None

    async def markdown(self, key: str, markdown: str, description: str) -> UUID:
        """Write a markdown artifact and return its id."""
        return await self._create(key, "markdown", markdown, description)

    async def table(self, key: str, rows: list[dict[str, Any]], description: str) -> UUID:
        """Write a table artifact and return its id."""
        return await self._create(key, "table", json.dumps(rows, default=str), description)

    async def update(self, artifact_id: UUID, data: str) -> None:
        """Replace the data of an artifact."""
        async with prefect_client() as client:
            await client.update_artifact(artifact_id, ArtifactUpdate(data=data))

    async def _create(self, key: str, kind: str, data: str, description: str) -> UUID:
        async with prefect_client() as client:
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
