"""An invalid record from Bolt does not hide others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx

from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.trigger.request import TriggerIntent, TriggerRequest, fingerprint_of
from paradime_blocks.trigger.search import Finding, find_triggered_run

if TYPE_CHECKING:
    from collections.abc import Callable

ONCE = RetryPolicy(attempts=1)


class Changing(httpx.AsyncHTTPTransport):
    """Changes the field of each reply before the client reads it."""

    def __init__(self, change: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self.change = change

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        reply = json.loads(await response.aread())
        for value in (reply.get("data") or {}).values():
            self.change(value)
        return httpx.Response(response.status_code, json=reply)


async def look(simulator, client_of, change: Callable[[dict[str, Any]], None]) -> tuple[Finding, list[int]]:
    """Search for the last of a schedule's three runs; the second was the latest before the trigger."""
    simulator.add_schedule("daily", ["dbt run"], setup_commands=False, already_running="allow")
    async with client_of(simulator) as client:
        runs = [await client.trigger_bolt_run("daily") for _ in range(3)]
    simulator.clock.advance(1)
    intent = TriggerIntent(runs[1], simulator.clock.now().timestamp(), (fingerprint_of("dbt run"),))

    def change_runs(value: dict[str, Any]) -> None:
        for run in value.get("runs", ()):
            change(run)

    async with client_of(simulator, transport=Changing(change_runs), retry_policy=ONCE) as client:
        found = await find_triggered_run(
            client,
            TriggerRequest("daily"),
            intent,
            window_seconds=0,
            max_outage_seconds=0,
        )
    return found, runs


async def test_runs_without_a_state_do_not_hide_a_lost_answers_run(simulator, client_of):
    """No run has a state, not even ours."""

    def no_state(run: dict[str, Any]) -> None:
        run["state"] = None

    found, runs = await look(simulator, client_of, no_state)
    assert (found.run_id, found.candidates) == (runs[-1], [runs[-1]])


async def test_an_unreadable_newest_run_does_not_prove_absence(simulator, client_of):
    """The schedule itself names its latest run, too."""

    def no_id(run: dict[str, Any]) -> None:
        newest = max(each.id for each in simulator.runs())
        run["id"] = None if run["id"] == newest else run["id"]

    found, runs = await look(simulator, client_of, no_id)
    assert (found.run_id, found.candidates) == (runs[-1], [runs[-1]])


async def test_unreadable_schedules_neither_end_nor_repeat_a_listing(simulator, client_of):
    """The number of records counts, not the number of readable ones."""
    names = [f"s{n}" for n in range(6)]
    for name in names:
        simulator.add_schedule(name, ["dbt run"])

    def odd(value: dict[str, Any]) -> None:
        for schedule in value.get("schedules", ()):
            if schedule["name"] in {"s1", "s5"}:
                schedule["name"] = ["odd"]
            schedule["owner"] = ["a", "b"]

    async with client_of(simulator, transport=Changing(odd), retry_policy=ONCE) as client:
        found = [schedule.name async for schedule in client.iter_bolt_schedules(page_size=2)]
    assert found == ["s0", "s2", "s3", "s4"]
    assert simulator.count("listBoltSchedules") == 3
