"""Ending a run early, and repeating what it did not complete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from paradime_blocks.testing import BoltSimulator, SimulatedCommand

Ask = Callable[..., dict[str, Any]]

CANCEL = "mutation($id: Int!) { cancelBoltRun(scheduleRunId: $id) { ok } }"
RETRY = "mutation($id: Int!) { retryBoltRun(scheduleRunId: $id) { runId } }"
RETRY_ALL = "mutation($id: Int!) { retryAllBoltRun(scheduleRunId: $id) { runId } }"


def test_a_cancel_ends_the_run_at_once(
    simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int]
) -> None:
    """The running command is interrupted, and the commands after it never start."""
    simulator.add_schedule("daily", ["dbt run", "dbt test"], setup_commands=False)
    run_id = trigger()
    simulator.clock.advance(0.5)
    assert ask(CANCEL, id=run_id) == {"cancelBoltRun": {"ok": True}}
    simulator.clock.advance(60)
    run = simulator.run(run_id)
    assert (run.state, run.canceled, run.cancel_requests) == ("CANCELED", True, 1)
    (command,) = run.commands
    assert (command.state, command.return_code, command.resources) == ("CANCELED", None, ())
    assert command.ended_at == run.ended_at


def test_a_cancel_can_take_time(simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int]) -> None:
    """The run stays RUNNING until cancel_seconds have passed."""
    simulator.add_schedule("daily", [SimulatedCommand("dbt run", duration_seconds=100)], cancel_seconds=5)
    run_id = trigger()
    ask(CANCEL, id=run_id)
    simulator.clock.advance(4)
    ask(CANCEL, id=run_id)  # a second cancel does not delay it
    assert simulator.run(run_id).state == "RUNNING"
    simulator.clock.advance(1)
    assert simulator.run(run_id).state == "CANCELED"


def test_a_run_that_ends_before_its_cancel_keeps_its_state(
    simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int]
) -> None:
    """It succeeded before the cancel took effect, and stays SUCCESS."""
    simulator.add_schedule("daily", ["dbt run"], setup_commands=False, cancel_seconds=5)
    run_id = trigger()
    ask(CANCEL, id=run_id)
    simulator.clock.advance(60)
    assert simulator.run(run_id).state == "SUCCESS"
    assert not simulator.run(run_id).canceled


def test_a_cancel_while_starting_runs_no_command(
    simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int]
) -> None:
    """A run that was cancelled before its first command has no commands."""
    simulator.add_schedule("daily", starting_seconds=5)
    run_id = trigger()
    ask(CANCEL, id=run_id)
    run = simulator.run(run_id)
    assert (run.state, run.commands) == ("CANCELED", ())


def test_cancelling_an_ended_run_changes_nothing(
    simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int]
) -> None:
    """It is not an error either."""
    simulator.add_schedule("daily")
    run_id = trigger()
    simulator.clock.advance(60)
    assert ask(CANCEL, id=run_id) == {"cancelBoltRun": {"ok": True}}
    assert simulator.run(run_id).state == "SUCCESS"


@pytest.mark.parametrize("policy, ok", [("ignore", True), ("not_ok", False)])
def test_a_cancel_can_have_no_effect(
    simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int], policy: Any, ok: bool
) -> None:
    """Bolt responds with true (or false), and the run continues."""
    simulator.add_schedule("daily", cancel=policy)
    run_id = trigger()
    assert ask(CANCEL, id=run_id) == {"cancelBoltRun": {"ok": ok}}
    assert simulator.run(run_id).is_active
    simulator.clock.advance(60)
    assert simulator.run(run_id).state == "SUCCESS"


def test_a_cancel_can_be_refused(
    simulator: BoltSimulator, refused: Callable[..., str], trigger: Callable[..., int]
) -> None:
    """There is a GraphQL error, and the run continues; the policy can be changed during the run."""
    simulator.add_schedule("daily", cancel="refuse")
    run_id = trigger()
    assert "cannot be canceled" in refused(CANCEL, id=run_id)
    simulator.update_schedule("daily", cancel="honour")
    assert simulator.run(run_id).is_active


def test_a_retry_continues_where_the_run_failed(
    simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int]
) -> None:
    """A new run with a parent: `dbt retry` for the failed command, then the rest; succeeded commands are left out."""
    commands = ["dbt seed", SimulatedCommand("dbt run --select tag:daily", return_code=(1, 0)), "dbt test"]
    simulator.add_schedule("daily", commands)
    failed = trigger()
    simulator.clock.advance(60)
    new = ask(RETRY, id=failed)["retryBoltRun"]["runId"]
    simulator.clock.advance(60)
    run = simulator.run(new)
    assert (run.parent_run_id, run.state) == (failed, "SUCCESS")
    assert [command.command for command in run.commands] == ["dbt retry", "dbt test"]


def test_a_failed_command_that_dbt_cannot_retry_is_run_again(
    simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int]
) -> None:
    """`dbt retry` is used only if dbt supports it."""
    simulator.add_schedule("daily", [SimulatedCommand("python notify.py", return_code=1)])
    failed = trigger()
    simulator.clock.advance(60)
    new = ask(RETRY, id=failed)["retryBoltRun"]["runId"]
    assert simulator.run(new).planned_commands == ("python notify.py",)


def test_a_retry_uses_the_schedules_present_behaviour(
    simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int]
) -> None:
    """The model was fixed between the run and its retry."""
    simulator.add_schedule("daily", [SimulatedCommand("dbt run", return_code=1)])
    failed = trigger()
    simulator.clock.advance(60)
    simulator.update_schedule("daily", commands=["dbt run"])
    new = ask(RETRY, id=failed)["retryBoltRun"]["runId"]
    simulator.clock.advance(60)
    assert simulator.run(new).state == "SUCCESS"


def test_a_canceled_run_is_retried_from_its_interrupted_command(
    simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int]
) -> None:
    """Its own commands count; there was no failure."""
    simulator.add_schedule("daily", ["dbt run", "dbt test"], setup_commands=False)
    run_id = trigger()
    simulator.clock.advance(1.5)
    ask(CANCEL, id=run_id)
    new = ask(RETRY, id=run_id)["retryBoltRun"]["runId"]
    assert simulator.run(new).planned_commands == ("dbt test",)


def test_retry_all_runs_everything_but_the_setup(
    simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int]
) -> None:
    """It runs all commands again, word for word; a successful run can be repeated too."""
    simulator.add_schedule("daily", ["dbt run", "dbt test"])
    run_id = trigger()
    simulator.clock.advance(60)
    new = ask(RETRY_ALL, id=run_id)["retryAllBoltRun"]["runId"]
    assert simulator.run(new).planned_commands == ("dbt run", "dbt test")
    assert simulator.run(new).parent_run_id == run_id


def test_a_retry_needs_a_run_that_failed(
    simulator: BoltSimulator, refused: Callable[..., str], trigger: Callable[..., int]
) -> None:
    """Neither a running nor a successful run can be retried."""
    simulator.add_schedule("daily")
    run_id = trigger()
    assert "RUNNING and cannot be retried" in refused(RETRY, id=run_id)
    assert "RUNNING and cannot be retried" in refused(RETRY_ALL, id=run_id)
    simulator.clock.advance(60)
    assert "SUCCESS and cannot be retried" in refused(RETRY, id=run_id)
    assert len(simulator.runs()) == 1


def test_a_retry_is_refused_while_the_schedule_runs(
    simulator: BoltSimulator, refused: Callable[..., str], trigger: Callable[..., int]
) -> None:
    """The rule of one run at a time also applies to retries."""
    simulator.add_schedule("daily", final_state="FAILED")
    failed = trigger()
    simulator.clock.advance(60)
    trigger()
    assert "AlreadyRunningException" in refused(RETRY, id=failed)


def test_the_latest_failure_of_a_schedule_is_retried(
    simulator: BoltSimulator, ask: Ask, refused: Callable[..., str]
) -> None:
    """retryBoltRunFromFailure needs no run id."""
    query = 'mutation { retryBoltRunFromFailure(slug: "daily") { runId } }'
    simulator.add_schedule("daily", [SimulatedCommand("dbt run", return_code=(1, 1, 0))])
    assert "no failed run" in refused(query)
    simulator.start_run("daily")
    second = simulator.start_run("daily")
    simulator.start_run("daily")
    simulator.clock.advance(60)
    new = ask(query)["retryBoltRunFromFailure"]["runId"]
    assert simulator.run(new).parent_run_id == second
