"""Sweeps of one test's flow runs, for tests that share a Prefect server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.processes import wait_until

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun
    from support.bench import Launched

    from paradime_flows.supervision import SweptRun


def sweep_only(monkeypatch: pytest.MonkeyPatch, tag: str) -> None:
    """Let sweeps check only the flow runs with this tag, and not those of other tests."""
    from paradime_flows import sweep_orphans as module

    candidates = module.candidates

    async def with_the_tag(*arguments: Any) -> list[FlowRun]:
        return [one for one in await candidates(*arguments) if tag in one.tags]

    monkeypatch.setattr(module, "candidates", with_the_tag)


def sweep_at_once(run: Launched) -> list[SweptRun]:
    """Sweep a flow run and its subflows, although their last heartbeats are not a minute old.

    This sweep takes a silence of two seconds for death. Processes that are alive send a heartbeat every 30 s, so the
    sweep must not check the flow runs of other tests.
    """
    from paradime_flows.supervision.orphans import silent_seconds
    from paradime_flows.sweep_orphans import sweep_orphans
    from paradime_flows.time_limits import Timing, times, use_timing

    with pytest.MonkeyPatch.context() as monkeypatch, use_timing(Timing(beat_seconds=1.0)):
        sweep_only(monkeypatch, run.tag)
        wait_until(
            lambda: silent_seconds(run.flow_run) > times().stale_seconds, "two seconds without a heartbeat"
        )
        return sweep_orphans(run.bolt.credentials, older_than_seconds=0)
