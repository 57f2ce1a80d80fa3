"""Reads flow runs with one request for all callers that ask at the same time.

While a request is under way, each new caller waits for the next request. The first of these callers sends the next
request, in its own task. So an answer is never older than the question: a caller that has written something reads what
it has written. If there is only one caller, it does not wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final
from uuid import UUID

import httpx
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from paradime_flows.prefect_api.supervisor import the_supervisor
from paradime_flows.time_limits import times

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

_PAGE: Final = 200


class _Read:
    """A request: the flow runs that it asks for, and its answer. The answer is cancelled if its sender is cancelled."""

    def __init__(self, wanted: set[UUID]) -> None:
        self.wanted = wanted
        self.answer: asyncio.Future[dict[UUID, FlowRun]] = asyncio.get_running_loop().create_future()


class SharedReads:
    """The reads of flow runs with one client."""

    def __init__(self) -> None:
        self._under_way: _Read | None = None
        self._next: _Read | None = None

    async def read(self, client: PrefectClient, flow_run_ids: set[UUID]) -> dict[UUID, FlowRun]:
        """Return the requested flow runs that exist, and perhaps other flow runs, from the next request."""
        while self._next is not None:
            joined = self._next
            joined.wanted |= flow_run_ids
            await asyncio.wait({joined.answer})
            # If the caller that sends the request was cancelled, another caller sends it.
            if not joined.answer.cancelled():
                return joined.answer.result()
        return await self._send(client, _Read(set(flow_run_ids)))

    async def _send(self, client: PrefectClient, read: _Read) -> dict[UUID, FlowRun]:
        self._next = read
        try:
            if self._under_way is not None:
                # A request that hangs must not stop all others.
                await asyncio.wait({self._under_way.answer}, timeout=times().shared_read_seconds)
            # A caller that asks from now on waits for another request.
            self._next, self._under_way = None, read
            found = await _read(client, list(read.wanted))
        except Exception as error:
            read.answer.set_exception(error)
            read.answer.exception()  # nobody may wait for it
            raise
        else:
            read.answer.set_result(found)
            return found
        finally:
            if self._next is read:
                self._next = None
            # This changes nothing if there is an answer or an error.
            read.answer.cancel()


async def _read(client: PrefectClient, flow_run_ids: list[UUID]) -> dict[UUID, FlowRun]:
    found: list[FlowRun] = []
    for at in range(0, len(flow_run_ids), _PAGE):
        these = FlowRunFilter(id=FlowRunFilterId(any_=flow_run_ids[at : at + _PAGE]))
        found += await client.read_flow_runs(flow_run_filter=these)
    return {one.id: one for one in found}


async def read_flow_runs(client: PrefectClient, flow_run_ids: Iterable[UUID]) -> dict[UUID, FlowRun]:
    """Return the flow runs of these ids that exist.

    Args:
        client: An open client.
        flow_run_ids: The flow runs.
    """
    wanted = set(flow_run_ids)
    if not wanted:
        return {}
    reads = the_supervisor().reads.setdefault(client, SharedReads())
    try:
        found = await reads.read(client, wanted)
    except httpx.HTTPStatusError:
        # Prefect's server cannot answer if it cannot read one of the flow runs. Another caller may have asked for that
        # flow run.
        found = await _read(client, list(wanted))
    return {one: found[one] for one in wanted & found.keys()}


async def read_flow_run(client: PrefectClient, flow_run_id: UUID) -> FlowRun:
    """Return a flow run.

    Args:
        client: An open client.
        flow_run_id: The flow run.

    Raises:
        ObjectNotFound: The flow run does not exist.
    """
    found = await read_flow_runs(client, [flow_run_id])
    # If the flow run was not found, this request raises the error.
    return found.get(flow_run_id) or await client.read_flow_run(flow_run_id)
