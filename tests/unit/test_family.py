"""Parents and subflows of a flow run."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun

from paradime_flows.prefect_api.flow_runs import every_flow_run


class Pages:
    """Prefect returns a limited number of flow runs at a time; now and then, a new one appears at the front."""

    def __init__(self, flow_runs: list[FlowRun], *, grows: bool) -> None:
        self.flow_runs = flow_runs
        self.grows = grows
        self.asked: list[tuple[int, int]] = []

    async def read_flow_runs(self, *, limit: int, offset: int, **_: Any) -> list[FlowRun]:
        self.asked.append((limit, offset))
        page = self.flow_runs[offset : offset + limit]
        if self.grows:
            self.flow_runs.insert(0, FlowRun(id=uuid4(), flow_id=uuid4()))
        return page


@pytest.mark.parametrize("grows", [False, True])
@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 450])
async def test_all_flow_runs_are_found_whatever_the_page_size(count, grows):
    """Each is found once, even if pages shift."""
    flow_runs = [FlowRun(id=uuid4(), flow_id=uuid4()) for _ in range(count)]
    pages = Pages(list(flow_runs), grows=grows)
    found = [one.id async for one in every_flow_run(pages, FlowRunFilter())]
    assert found == [one.id for one in flow_runs]
    assert {limit for limit, _ in pages.asked} == {200}
