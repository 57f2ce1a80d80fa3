"""Writes artifacts for a flow run. The caller may be the flow run itself, a hook or the sweeper."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.settings import get_current_settings
from slugify import slugify

_KEY_CHARACTERS: Final = 120
_HASH_CHARACTERS: Final = 8
_UNNAMED: Final = re.compile(r"run \d+")
# A schedule with such a name would get a key that looks like the key of another kind of artifact.
_TAKEN: Final = re.compile(
    r"^(?:run-\d+$|orphans$|(?:inspect|pipeline|progress)-)|-(?:dbt-results|links)$|-log-\d+(?:-|$)"
)


def artifact_key(kind: str, name: str, *parts: str) -> str:
    """Return an artifact's key. Prefect accepts only lower-case letters, digits and dashes.

    Two names never have the same key, and no name has the key of another name's results, logs or links. So the
    function adds a hash after a name that is not a valid key, or that looks like the key of another kind of artifact.
    It also adds a hash at the end of a key that would be too long or empty.

    Args:
        kind: The word at the beginning of the key, such as `paradime`. It is not remote text.
        name: The name of a schedule, a pipeline or a run.
        parts: The end of the key. The key may lose capitals and punctuation of the parts. So a caller that passes
            remote text must check that its keys differ, as `ArchiveContext.key` does.

    Example:
        >>> artifact_key("paradime", "daily", "dbt results")
        'paradime-daily-dbt-results'
        >>> artifact_key("paradime", "Daily run")
        'paradime-daily-run-b1ee1f0d'
    """
    own = slugify(name)
    # "run 123" is our own name for a run whose schedule is unknown. It needs no hash.
    if not _UNNAMED.fullmatch(name) and (own != name or _TAKEN.search(name)):
        own = f"{own}-{short_hash(name)}".strip("-")
    whole = "-".join(part for part in (kind, name, *parts) if part)
    key = slugify("-".join([kind, own, *parts]))
    if len(key) <= _KEY_CHARACTERS and all(slugify(part) for part in parts[-1:]):
        return key
    return f"{key[: _KEY_CHARACTERS - _HASH_CHARACTERS - 1].strip('-')}-{short_hash(whole)}".strip("-")


def short_hash(text: str) -> str:
    """Return a few characters that identify a text."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:_HASH_CHARACTERS]


def artifact_url(artifact_id: UUID) -> str | None:
    """Return an artifact's page in Prefect's UI; None if the UI's address is not known."""
    return _page(f"artifacts/artifact/{artifact_id}")


def flow_run_url(flow_run_id: UUID) -> str | None:
    """Return a flow run's page in Prefect's UI; None if the UI's address is not known."""
    return _page(f"runs/flow-run/{flow_run_id}")


def _page(path: str) -> str | None:
    base = get_current_settings().ui_url
    return f"{base.rstrip('/')}/{path}" if base else None


@dataclass(frozen=True)
class ArtifactWriter:
    """Writes artifacts for one flow run.

    Prefect renders descriptions as markdown. So remote text must be escaped in descriptions, as it is in the data.

    Attributes:
        flow_run_id: The flow run; None outside of flow runs.
        task_run_id: The flow run's task run that writes the artifacts, if there is one.
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
