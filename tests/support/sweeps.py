"""Sweeps of one test's flow runs, for tests that share a Prefect server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun
    from support.bench import Launched


def sweep_only(monkeypatch: pytest.MonkeyPatch, tag: str) -> None:
    """Sweeps check the flow runs with this tag, and not those of other tests."""
    from paradime_flows import sweep_orphans as module

    candidates = module.candidates

    async def with_the_tag(*arguments: Any) -> list[FlowRun]:
        return [one for one in await candidates(*arguments) if tag in one.tags]

    monkeypatch.setattr(module, "candidates", with_the_tag)


def sweep_at_once(run: Launched) -> None:
    """Sweep a flow run although its last heartbeat is not a minute old.

    Such a sweep takes the flow runs of other tests for dead, so it leaves them alone.
    """
    from paradime_flows.sweep_orphans import sweep_orphans
    from paradime_flows.time_limits import Timing, use_timing

    with pytest.MonkeyPatch.context() as monkeypatch, use_timing(Timing(beat_seconds=1.0)):
        sweep_only(monkeypatch, run.tag)
        sweep_orphans(run.bolt.credentials, older_than_seconds=0)
