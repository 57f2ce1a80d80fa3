"""What a run that has succeeded is told to be, whatever Bolt says of its files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from paradime_blocks import BoltClient, BoltRunState, ParadimeCredentials
from paradime_blocks import run as run_module
from paradime_blocks.run import BoltRun
from paradime_blocks.testing import SimulatedCommand

if TYPE_CHECKING:
    from paradime_blocks.testing import BoltSimulator


async def test_a_command_whose_files_bolt_cannot_name_fails_no_run(
    simulator: BoltSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has succeeded; the files of its other commands are there."""
    commands = [SimulatedCommand(f"dbt {n}", resources={f"{n}.json": "{}"}) for n in range(2)]
    simulator.add_schedule("daily", commands=commands, setup_commands=False)
    run_id = simulator.start_run("daily")
    simulator.clock.advance(600)
    asked_for = BoltClient.get_bolt_command_resources

    async def with_a_stranger(client: BoltClient, ids: list[int], **options: Any) -> Any:
        return await asked_for(client, [999_999, *ids[1:]], **options)

    monkeypatch.setattr(BoltClient, "get_bolt_command_resources", with_a_stranger)
    monkeypatch.setattr(run_module, "_RESULT_POLICY", replace(run_module._RESULT_POLICY, attempts=1))
    credentials = ParadimeCredentials(
        api_endpoint=simulator.api_endpoint, api_key=simulator.api_key, api_secret=simulator.api_secret
    )
    run = BoltRun(run_id=run_id, credentials=credentials, schedule_name="daily")
    result = await run.afetch_result()
    assert result.state == BoltRunState.SUCCESS
    assert [resource.path for resource in result.resources] == ["1.json"]
