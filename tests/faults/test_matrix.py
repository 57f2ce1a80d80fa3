"""The whole fault matrix. Each case runs the flow in memory and in virtual time, with its own Bolt."""

from __future__ import annotations

import pytest
from faults.bench import Stepping, bolt, run_flow
from faults.matrix import CASES, PARAMETERS, judge

_usual: dict[str, dict[str, int]] = {}


async def usual_calls(ending: str) -> dict[str, int]:
    """Return the number of calls of each operation without faults."""
    if ending not in _usual:
        _usual[ending] = await _count_calls(ending)
    return _usual[ending]


async def _count_calls(ending: str) -> dict[str, int]:
    simulator = bolt(ending)
    stepping = Stepping(simulator, ended=True, operation="boltRunStatus")
    simulator.inject(stepping)
    with simulator:
        outcome = await run_flow(simulator, **PARAMETERS[ending])
    return {**outcome.requests, "after the end": stepping.calls}


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
async def test_one_fault_starts_one_run_and_leaves_none_behind(case, record_figures) -> None:
    """Whatever fails: there is one Bolt run, or none and a clear error; its end is reported; none is left over."""
    outcome = await case.run(await usual_calls(case.ending))
    record_figures("One fault", runs=outcome.runs, left_over=outcome.active)
    judge(case, outcome)
