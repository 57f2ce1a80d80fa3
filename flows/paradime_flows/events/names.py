"""The names and ids of this package's events. If a name is changed, the automations of users no longer match it.

Prefect's server stores only one event with a given id. If the event arrives again within half an hour, the repetition
triggers no automation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol
from urllib.parse import urlsplit
from uuid import UUID, uuid5

from paradime_blocks.models import BoltRunState

# The namespace of our event ids. It must never change.
_NAMESPACE: Final = UUID("6f1c7c0e-52a4-5b0e-9c39-0f6d4a1a7f4d")
_RUN: Final = "paradime.bolt-run"
TEST_FAILED: Final = "paradime.dbt-test.failed"
SOURCE_STALE: Final = "paradime.dbt-source.stale"
# The role of a Bolt run among the related resources of an event about a test or a source.
RUN_ROLE: Final = "bolt-run"


class RunEvent(str, Enum):
    """What happened to a Bolt run. The value is the event's name."""

    TRIGGERED = f"{_RUN}.triggered"
    STARTED = f"{_RUN}.started"
    COMPLETED = f"{_RUN}.completed"
    FAILED = f"{_RUN}.failed"
    CANCELED = f"{_RUN}.canceled"
    SKIPPED = f"{_RUN}.skipped"
    OVERDUE = f"{_RUN}.overdue"

    def __str__(self) -> str:
        return str(self.value)


_ENDS: Final = {
    BoltRunState.SUCCESS: RunEvent.COMPLETED,
    BoltRunState.FAILED: RunEvent.FAILED,
    BoltRunState.ERROR: RunEvent.FAILED,
    BoltRunState.CANCELED: RunEvent.CANCELED,
    BoltRunState.SKIPPED: RunEvent.SKIPPED,
}


class HasWorkspace(Protocol):
    """An object that says which workspace it belongs to: a credentials block, or the record of a flow run."""

    @property
    def api_endpoint(self) -> str:
        """The workspace's GraphQL endpoint."""

    @property
    def workspace_uid(self) -> str | None:
        """The uid of the workspace, if the credentials are for several workspaces."""


@dataclass(frozen=True)
class Workspace:
    """A workspace of Bolt. Two workspaces can have Bolt runs with the same ids.

    Attributes:
        host: The host of the API, with its port if the address has one.
        name: The workspace's uid, or its name in the address of the API.
    """

    host: str
    name: str

    @classmethod
    def of(cls, known: HasWorkspace) -> Workspace:
        """Return the workspace of credentials, or of a record."""
        address = urlsplit(known.api_endpoint)
        in_path = address.path.removesuffix("/graphql").rpartition("/")[2]
        return cls(address.netloc, known.workspace_uid or in_path or "default")


def ended_event(state: BoltRunState) -> RunEvent | None:
    """Return the event for the state in which a Bolt run has ended; None if the Bolt run has not ended."""
    return _ENDS.get(state)


def run_resource_id(run_id: int) -> str:
    """Return the id of the resource that stands for a Bolt run."""
    return f"{_RUN}.{run_id}"


def event_id(workspace: Workspace, run_id: int, *what: str) -> UUID:
    """Return the id of an event, which depends only on what happened.

    Args:
        workspace: The workspace of the Bolt run.
        run_id: The id of the Bolt run.
        what: The name of the event. For an event about a dbt node, the id of the node follows.
    """
    return uuid5(_NAMESPACE, "\n".join([workspace.host, workspace.name, str(run_id), *what]))


def run_event_id(workspace: Workspace, run_id: int, event: RunEvent) -> UUID:
    """Return the id of an event of a Bolt run. Each kind of event happens only once to a Bolt run."""
    return event_id(workspace, run_id, event.value)
