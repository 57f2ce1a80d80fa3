"""A run from its trigger to its end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from paradime_blocks.testing import BoltSimulator, SimulatedCommand

Ask = Callable[..., dict[str, Any]]

STATUS = """query($id: Int!) {
  boltRunStatus(runId: $id) {
    ok state commands { id command startDttm endDttm stdout stderr returnCode }
  }
}"""


def status(ask: Ask, run_id: int) -> dict[str, Any]:
    found: dict[str, Any] = ask(STATUS, id=run_id)["boltRunStatus"]
    return found


def test_a_run_starts_runs_and_succeeds(
    simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int]
) -> None:
    """STARTING for its time, RUNNING while the commands last, then SUCCESS."""
    simulator.add_schedule("daily", ["dbt run"], starting_seconds=5, setup_commands=False)
    run_id = trigger()
    assert status(ask, run_id) == {"ok": True, "state": "STARTING", "commands": []}
    simulator.clock.advance(5)
    assert status(ask, run_id)["state"] == "RUNNING"
    simulator.clock.advance(1)
    assert status(ask, run_id)["state"] == "SUCCESS"
    assert simulator.active_runs() == []


def test_setup_commands_come_first(simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int]) -> None:
    """Bolt clones the repository and installs dbt's packages before anything else."""
    simulator.add_schedule("daily", ["dbt run"])
    run_id = trigger()
    simulator.clock.advance(10)
    texts = [command["command"] for command in status(ask, run_id)["commands"]]
    assert texts[0].startswith("git clone ")
    assert texts[1:] == ["dbt deps", "dbt run"]


def test_a_command_that_has_not_started_is_not_listed(
    simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int]
) -> None:
    """Only started commands appear."""
    simulator.add_schedule("daily", ["dbt run", "dbt test"], setup_commands=False)
    run_id = trigger()
    simulator.clock.advance(0.5)
    assert [command["command"] for command in status(ask, run_id)["commands"]] == ["dbt run"]
    simulator.clock.advance(1)
    assert [command["command"] for command in status(ask, run_id)["commands"]] == ["dbt run", "dbt test"]


@pytest.mark.parametrize("empty", [pytest.param("", id="empty text"), pytest.param(None, id="null")])
def test_a_running_command_has_no_end_and_no_code(post_to: Callable[..., Any], empty: str | None) -> None:
    """While it runs, `endDttm` is empty or null and `returnCode` null."""
    with BoltSimulator(speed=0, unfinished_end=empty) as simulator:
        simulator.add_schedule("daily", ["dbt run"], setup_commands=False)
        simulator.start_run("daily")
        answer = post_to(
            simulator, "{ boltRunStatus(runId: 76001) { commands { endDttm returnCode } } }"
        ).json()
        (command,) = answer["data"]["boltRunStatus"]["commands"]
        assert command == {"endDttm": empty, "returnCode": None}


def test_output_grows_line_by_line(simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int]) -> None:
    """Half-way through, a command has printed half of its lines, and only whole ones."""
    lines = "".join(f"line {number}\n" for number in range(10))
    simulator.add_schedule(
        "daily",
        [SimulatedCommand("dbt run", duration_seconds=10, stdout=lines, stderr="one\ntwo\n")],
        setup_commands=False,
    )
    run_id = trigger()
    seen = []
    for _ in range(11):
        seen.append(status(ask, run_id)["commands"][0]["stdout"].count("\n"))
        simulator.clock.advance(1)
    assert seen == list(range(11))
    command = status(ask, run_id)["commands"][0]
    assert (command["stdout"], command["stderr"]) == (lines, "one\ntwo\n")


def test_a_failed_command_ends_the_run(
    simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int]
) -> None:
    """The run is FAILED, and the commands after it never start."""
    simulator.add_schedule(
        "daily", ["dbt run", SimulatedCommand("dbt test", return_code=2), "dbt docs generate"]
    )
    run_id = trigger()
    simulator.clock.advance(60)
    found = status(ask, run_id)
    assert found["state"] == "FAILED"
    assert [(each["command"], each["returnCode"]) for each in found["commands"][2:]] == [
        ("dbt run", 0),
        ("dbt test", 2),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param("continueOnError: true", id="for the whole run"),
        pytest.param(
            'commandConfigs: [{command: "dbt test", continueOnError: true}, {command: "dbt docs generate"}]',
            id="for one command",
        ),
    ],
)
def test_a_run_can_continue_after_a_failed_command(
    simulator: BoltSimulator, ask: Ask, arguments: str
) -> None:
    """With continueOnError all commands are run, but the run still fails."""
    simulator.add_schedule(
        "daily", [SimulatedCommand("dbt test", return_code=1), "dbt docs generate"], setup_commands=False
    )
    run_id = ask(f'mutation {{ triggerBoltRun(slug: "daily", {arguments}) {{ runId }} }}')["triggerBoltRun"][
        "runId"
    ]
    simulator.clock.advance(60)
    found = status(ask, run_id)
    assert (found["state"], [each["returnCode"] for each in found["commands"]]) == ("FAILED", [1, 0])


@pytest.mark.parametrize("state", ["ERROR", "SKIPPED", "REMOVING"])
def test_the_end_state_can_be_forced(
    simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int], state: str
) -> None:
    """A schedule can end in any state, whatever its commands do."""
    simulator.add_schedule("daily", ["dbt run"], final_state=state)
    run_id = trigger()
    simulator.clock.advance(60)
    assert status(ask, run_id)["state"] == state
    assert simulator.run(run_id).ended_at is not None


def test_a_skipped_run_executes_nothing(
    simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int]
) -> None:
    """SKIPPED runs have no commands."""
    simulator.add_schedule("daily", ["dbt run"], final_state="SKIPPED", starting_seconds=1)
    run_id = trigger()
    simulator.clock.advance(1)
    assert status(ask, run_id) == {"ok": True, "state": "SKIPPED", "commands": []}


def test_unknown_states_can_come_first(
    simulator: BoltSimulator, ask: Ask, trigger: Callable[..., int]
) -> None:
    """Intermediate states appear in order and share the starting time."""
    simulator.add_schedule("daily", intermediate_states=("QUEUED", "DEPLOYING"), starting_seconds=4)
    run_id = trigger()
    seen = []
    for _ in range(3):
        seen.append(status(ask, run_id)["state"])
        simulator.clock.advance(2)
    assert seen == ["QUEUED", "DEPLOYING", "RUNNING"]


def test_a_command_can_fail_once_and_then_succeed(
    simulator: BoltSimulator, trigger: Callable[..., int]
) -> None:
    """A tuple of return codes has one per run."""
    simulator.add_schedule("daily", [SimulatedCommand("dbt run", return_code=(1, 1, 0))])
    ends = []
    for _ in range(4):
        run_id = trigger()
        simulator.clock.advance(60)
        ends.append(simulator.run(run_id).state)
    assert ends == ["FAILED", "FAILED", "SUCCESS", "SUCCESS"]


def test_a_command_can_be_endless(simulator: BoltSimulator, trigger: Callable[..., int]) -> None:
    """An endless run continues until it is cancelled or forced to end."""
    simulator.add_schedule("daily", [SimulatedCommand("dbt run", duration_seconds=math.inf)])
    run_id = trigger()
    simulator.clock.advance(1_000_000)
    assert simulator.run(run_id).state == "RUNNING"
    simulator.finish(run_id)
    assert simulator.run(run_id).state == "SUCCESS"


def test_a_forced_end_is_final(simulator: BoltSimulator, trigger: Callable[..., int]) -> None:
    """A finished run does not change, and its running command ends with it."""
    simulator.add_schedule("daily", ["dbt run", "dbt test"], setup_commands=False)
    run_id = trigger()
    simulator.clock.advance(0.5)
    simulator.finish(run_id, "FAILED")
    simulator.clock.advance(60)
    simulator.finish(run_id, "SUCCESS")
    run = simulator.run(run_id)
    assert (run.state, [command.return_code for command in run.commands]) == ("FAILED", [1])


def test_another_client_can_start_a_run(simulator: BoltSimulator, ask: Ask) -> None:
    """`start_run` needs no request, takes the options of a trigger, and ignores other runs."""
    simulator.add_schedule("daily")
    first = simulator.start_run("daily")
    second = simulator.start_run(
        "daily", commands=["dbt build"], branch="feature", pr_number=7, reason="by hand"
    )
    run = simulator.run(second)
    assert (run.branch, run.pr_number, run.reason, run.actor) == ("feature", 7, "by hand", "Scheduler")
    assert run.planned_commands[-1] == "dbt build"
    assert [run.id for run in simulator.active_runs()] == [first, second] == [76001, 76002]
    assert simulator.requests == []


def test_a_mistyped_name_is_noticed(simulator: BoltSimulator) -> None:
    """The methods for tests raise KeyError for unknown names."""
    for slip in (
        lambda: simulator.runs("nope"),
        lambda: simulator.run(1),
        lambda: simulator.start_run("nope"),
    ):
        with pytest.raises(KeyError, match="was not found"):
            slip()


@pytest.mark.parametrize(
    "slip",
    [
        pytest.param({"command": " "}, id="no text"),
        pytest.param({"command": "dbt run", "duration_seconds": -1}, id="negative duration"),
        pytest.param({"command": "dbt run", "return_code": ()}, id="no return code"),
    ],
)
def test_an_impossible_command_is_refused(slip: dict[str, Any]) -> None:
    """A mistake in a test fails where it was made."""
    with pytest.raises(ValueError, match=r"command|needs|cannot"):
        SimulatedCommand(**slip)
