"""Two processes write different labels of one flow run at the same moment.

On PostgreSQL (`make test-postgres`), Prefect's server loses one of the two in nearly every round.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient
from prefect.states import Running

from paradime_flows.ledger.store import put

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from pathlib import Path
    from uuid import UUID

    from support.prefect_server import LocalPrefectServer

    Write = Callable[[PrefectClient, UUID, dict[str, Any]], Coroutine[Any, Any, Any]]

pytestmark = pytest.mark.e2e

ROUNDS = 40


@flow
def written_to() -> None: ...


@pytest.fixture
def servers(
    prefect_server: LocalPrefectServer, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[list[LocalPrefectServer]]:
    """On PostgreSQL, two server processes with one database: one process alone hardly loses a label read back."""
    from support.prefect_server import LocalPrefectServer

    if request.config.getoption("database") == "sqlite":
        yield [prefect_server]
        return
    with LocalPrefectServer(tmp_path / "second", settings=prefect_server.settings) as second:
        yield [prefect_server, second]


@pytest.fixture
async def clients(servers: list[LocalPrefectServer]) -> AsyncIterator[list[PrefectClient]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(PrefectClient(each.api_url))
            for each in (servers[0], servers[-1], servers[0])
        ]


async def lost(clients: list[PrefectClient], write: Write) -> list[str]:
    """Write two labels at once in each round, while the flow run's state changes; return the labels not stored."""
    *writers, other = clients
    flow_run_id = (await other.create_flow_run(written_to, state=Running())).id
    missing: list[str] = []
    for number in range(ROUNDS):
        labels = [f"written.{number}.{writer}" for writer in range(len(writers))]
        await asyncio.gather(
            *(
                write(client, flow_run_id, {label: "yes"})
                for client, label in zip(writers, labels, strict=True)
            ),
            other.set_flow_run_state(flow_run_id, Running(), force=True),
        )
        stored = (await other.read_flow_run(flow_run_id)).labels
        missing += [label for label in labels if label not in stored]
    return missing


async def test_both_of_two_labels_put_at_once_are_stored(clients: list[PrefectClient]) -> None:
    """`put` reads back when a write that began before its own has ended, and writes again."""
    assert await lost(clients, put) == []


async def test_postgresql_loses_one_of_two_labels_written_at_once(
    clients: list[PrefectClient], request: pytest.FixtureRequest
) -> None:
    """This is what `put` is for; SQLite, with one writer at a time in memory, loses none."""

    async def write(client: PrefectClient, flow_run_id: UUID, labels: dict[str, Any]) -> None:
        await client.update_flow_run_labels(flow_run_id, labels)

    loses = request.config.getoption("database") == "postgresql"
    assert bool(await lost(clients, write)) is loses
