"""`run_schedule` from end to end: its results, its errors, its cancels and what it archives."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anyio
import pytest
from support.credentials import credentials_for
from support.prefect_api import artifacts_of, latest_flow_run, logs_of
from support.processes import await_until

from paradime_blocks import (
    BoltAlreadyRunning,
    BoltAuthError,
    BoltCancelUnconfirmed,
    BoltRequestError,
    BoltRunCanceled,
    BoltRunFailed,
    BoltRunSkipped,
    BoltRunState,
    BoltRunTimedOut,
    BoltSchedule,
    BoltUnavailable,
    ParadimeCredentials,
)
from paradime_blocks.testing import BoltSimulator, SimulatedCommand, faults
from paradime_flows.run_schedule import arun_schedule, run_schedule

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

QUICK: dict[str, Any] = {"poll_interval_seconds": 0.5}
# Leaves nothing to archive except its log.
PLAIN: dict[str, Any] = {"commands": [SimulatedCommand("dbt run", resources={})], "setup_commands": False}
LONG: dict[str, Any] = {
    "commands": [SimulatedCommand("dbt run", duration_seconds=10_000, resources={})],
    "setup_commands": False,
}


async def test_a_schedule_that_succeeds_returns_its_result_as_json(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The result has run, schedule, state, times, commands, resources and attempts, and can be converted to JSON."""
    bolt_simulator.clock.speed = 60
    command = SimulatedCommand("dbt build", resources={"target/manifest.json": b"{}"})
    bolt_simulator.add_schedule("daily", commands=[command])
    result = await arun_schedule("daily", credentials, **QUICK)
    (run,) = bolt_simulator.runs("daily")
    data = json.loads(result.model_dump_json())
    assert data["run_id"] == run.id
    assert data["state"] == "SUCCESS"
    assert data["url"].endswith(f"/bolt/run_id/{run.id}")
    assert [entry["command"] for entry in data["commands"]][-1] == "dbt build"
    assert [entry["path"] for entry in data["resources"]][-1] == "target/manifest.json"
    assert [attempt["run_id"] for attempt in data["attempts"]] == [run.id]
    assert result.started_at is not None
    assert result.ended_at is not None
    assert result.started_at.tzinfo is not None
    assert result.started_at < result.ended_at


def test_sync_code_calls_the_flow_and_gets_the_result(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The name without `a` runs the flow to its end for a caller that cannot await."""
    bolt_simulator.clock.speed = 60
    bolt_simulator.add_schedule("daily", **PLAIN)
    assert run_schedule("daily", credentials, **QUICK).state == BoltRunState.SUCCESS


async def test_without_credentials_the_environment_is_used(
    bolt_simulator: BoltSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials, the flow uses the PARADIME_* environment."""
    for name, value in bolt_simulator.environment().items():
        monkeypatch.setenv(name, value)
    bolt_simulator.clock.speed = 60
    bolt_simulator.add_schedule("daily", **PLAIN)
    assert (await arun_schedule("daily", **QUICK)).state == BoltRunState.SUCCESS


async def test_a_schedule_block_provides_credentials_commands_and_branch(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """A BoltSchedule can replace a name and credentials."""
    bolt_simulator.clock.speed = 60
    bolt_simulator.add_schedule("daily", **PLAIN)
    block = BoltSchedule(
        credentials=credentials, schedule_name="daily", commands=["dbt compile"], branch="feature"
    )
    await arun_schedule(block, **QUICK)
    (run,) = bolt_simulator.runs("daily")
    assert run.planned_commands[-1] == "dbt compile"
    assert run.branch == "feature"


async def test_starting_and_unknown_states_are_waited_through(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Neither STARTING nor an unknown state is an end."""
    bolt_simulator.clock.speed = 5
    bolt_simulator.add_schedule(
        "daily", **PLAIN, starting_seconds=20, intermediate_states=("POLISHING", "STARTING")
    )
    assert (await arun_schedule("daily", credentials, **QUICK)).state == BoltRunState.SUCCESS
    messages = "\n".join(await logs_of((await latest_flow_run("run-schedule")).id))
    assert "is POLISHING" in messages or "is STARTING" in messages


@pytest.mark.parametrize(
    "options, error",
    [
        pytest.param({"commands": [SimulatedCommand("dbt run", return_code=2)]}, BoltRunFailed, id="FAILED"),
        pytest.param({"final_state": "ERROR"}, BoltRunFailed, id="ERROR"),
        pytest.param({"final_state": "SKIPPED"}, BoltRunSkipped, id="SKIPPED"),
        pytest.param({"final_state": "CANCELED"}, BoltRunCanceled, id="CANCELED"),
    ],
)
async def test_each_kind_of_failure_raises_its_own_error(
    bolt_simulator: BoltSimulator,
    credentials: ParadimeCredentials,
    options: dict[str, Any],
    error: type[Exception],
) -> None:
    """Each kind of failure has its own error, which names the run and its page."""
    bolt_simulator.clock.speed = 60
    bolt_simulator.add_schedule("daily", **{**PLAIN, **options})
    with pytest.raises(error) as caught:
        await arun_schedule("daily", credentials, **QUICK)
    (run,) = bolt_simulator.runs("daily")
    assert str(run.id) in str(caught.value)
    assert f"/bolt/run_id/{run.id}" in str(caught.value)


async def test_the_state_message_of_a_failed_flow_run_explains_the_failure(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The message begins with the cause, in one line that Prefect logs without escapes. The error has all details."""
    bolt_simulator.clock.speed = 60
    log = "\n".join([*(f"line {n}" for n in range(2000)), "Compilation Error in model orders"])
    bolt_simulator.add_schedule("daily", commands=[SimulatedCommand("dbt build", return_code=2, stdout=log)])
    with pytest.raises(BoltRunFailed) as caught:
        await arun_schedule("daily", credentials, **QUICK)
    assert caught.value.command == "dbt build"
    assert caught.value.return_code == 2
    flow_run = await latest_flow_run("run-schedule")
    assert flow_run.state is not None
    assert flow_run.state.is_failed()
    message = flow_run.state.message or ""
    assert message.startswith("Schedule 'daily' failed: dbt build: model customers: Compilation Error in ")
    assert f"url: https://app.paradime.io/bolt/run_id/{caught.value.run_id}" in message
    assert "\\" not in repr(message)
    assert len(message) <= 500
    told = str(caught.value)
    assert told.startswith(message[:80])
    assert 'Command "dbt build" ended with return code 2.' in told
    assert "line 1999\nCompilation Error in model orders" in told


@pytest.mark.parametrize("fails", [False, True], ids=["success", "failure"])
async def test_summary_logs_and_links_are_archived(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, *, fails: bool
) -> None:
    """Both after success and after failure, there are a summary, a log per command and a link per resource."""
    bolt_simulator.clock.speed = 60
    bolt_simulator.add_schedule(
        "daily",
        commands=[
            SimulatedCommand(
                "dbt run",
                stdout="hello from dbt\n",
                return_code=int(fails),
                resources={"target/manifest.json": b"{}", "target/run_results.json": b"{}"},
            )
        ],
    )
    try:
        await arun_schedule("daily", credentials, **QUICK)
    except BoltRunFailed:
        assert fails
    flow_run = await latest_flow_run("run-schedule")
    artifacts = await artifacts_of(flow_run.id)
    (run,) = bolt_simulator.runs("daily")
    summary = str(artifacts["paradime-daily"].data)
    assert ("FAILED" if fails else "SUCCESS") in summary
    assert f"/bolt/run_id/{run.id}" in summary
    assert "dbt run" in summary
    logs = [str(artifact.data) for key, artifact in artifacts.items() if "-log-" in key]
    assert len(logs) == 3
    assert any("hello from dbt" in log for log in logs)
    links = str(artifacts["paradime-daily-links"].data)
    assert "[target/manifest.json](http" in links
    assert "[target/run_results.json](http" in links


@pytest.mark.guarantee(
    "Time limit, and cancels that Bolt does not carry out",
    "`timeout_seconds` is reached",
    prefect="Failed",
    bolt="CANCELED",
    result="`BoltRunTimedOut`",
)
async def test_a_time_limit_cancels_the_run_and_archives_its_log(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The run is CANCELED when the flow ends, and its log so far is in Prefect."""
    command = SimulatedCommand("dbt run", duration_seconds=10_000, stdout="first line\n" * 5000)
    bolt_simulator.add_schedule("daily", commands=[command])
    bolt_simulator.clock.speed = 100
    with pytest.raises(BoltRunTimedOut, match=r'2 s(.|\n)*"dbt run" was running'):
        await arun_schedule("daily", credentials, timeout_seconds=2, **QUICK)
    (run,) = bolt_simulator.runs("daily")
    assert run.state == "CANCELED"
    artifacts = await artifacts_of((await latest_flow_run("run-schedule")).id)
    assert "CANCELED" in str(artifacts["paradime-daily"].data)
    assert "dbt run was running when the run was cancelled" in str(artifacts["paradime-daily"].data)
    assert any("first line" in str(artifact.data) for artifact in artifacts.values())


async def test_a_time_limit_may_leave_the_run_running(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """With on_timeout="leave" the run continues, and the error says so."""
    bolt_simulator.add_schedule("daily", **LONG)
    with pytest.raises(BoltRunTimedOut, match="is still running"):
        await arun_schedule("daily", credentials, timeout_seconds=1, on_timeout="leave", **QUICK)
    assert len(bolt_simulator.active_runs()) == 1


async def test_an_unconfirmed_cancel_names_the_run(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Bolt accepts the cancel, but the run continues: the error says that it may still be running."""
    bolt_simulator.add_schedule("daily", **LONG, cancel="ignore")
    with pytest.raises(BoltCancelUnconfirmed, match="may still be running") as caught:
        await arun_schedule("daily", credentials, timeout_seconds=1, cancel_grace_seconds=2, **QUICK)
    assert caught.value.run_id == bolt_simulator.runs()[0].id


@pytest.mark.parametrize("operation", ["boltRunStatus", "triggerBoltRun"])
async def test_a_secret_in_bolts_error_does_not_reach_prefect(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, operation: str
) -> None:
    """Even in a long error, it is in no log line, state message, label or artifact."""
    secret = bolt_simulator.api_secret
    quoted = faults.GraphQLError(f"bad key {secret} \x1b[31m" + "z" * 30_000, operation=operation, times=4)
    bolt_simulator.inject(quoted)
    bolt_simulator.add_schedule("daily", commands=[SimulatedCommand("dbt run", duration_seconds=200)])
    bolt_simulator.clock.speed = 100
    state = await arun_schedule("daily", credentials, return_state=True, **QUICK)
    run = await latest_flow_run("run-schedule")

    async def reported() -> list[str]:
        messages = [*await logs_of(run.id), state.message or ""]
        return messages if any("bad key [removed]" in message for message in messages) else []

    messages = await await_until(reported, "the error in the log or the state")
    # Prefect logs the traceback as well.
    assert max(map(len, messages)) < 20_000
    artifacts = [str(artifact.data) for artifact in (await artifacts_of(run.id)).values()]
    shown = "\n".join([*messages, *artifacts, str(run.labels)])
    assert [part for part in (secret, "\x1b", "z" * 1000) if part in shown] == []


@pytest.mark.guarantee(
    "Bolt is unreachable, busy, or refuses us",
    "Bolt is unreachable while a run is waited for",
    prefect="Running",
    bolt="The run keeps running",
    result=(
        "The wait continues through the outage, for `max_outage_seconds` at most. After that: `BoltUnavailable`; a "
        "retry of the flow run resumes the run, or else the sweeper deals with it"
    ),
)
async def test_an_outage_while_waiting_is_survived(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """An outage of limited length neither ends the wait nor cancels the run."""
    bolt_simulator.add_schedule(
        "daily", commands=[SimulatedCommand("dbt run", duration_seconds=60)], setup_commands=False
    )
    bolt_simulator.clock.speed = 60
    bolt_simulator.inject(faults.Status(503, operation="boltRunStatus", nth=2, times=4))
    assert (await arun_schedule("daily", credentials, **QUICK)).state == BoltRunState.SUCCESS
    assert bolt_simulator.runs()[0].cancel_requests == 0


async def test_a_long_outage_ends_the_wait_and_leaves_the_run(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """After max_outage_seconds the flow fails, says that the run may be running, and does not cancel it."""
    bolt_simulator.add_schedule("daily", **LONG)
    bolt_simulator.inject(faults.Status(503, operation="boltRunStatus", nth=2, times=None))
    with pytest.raises(BoltUnavailable, match="may still be running"):
        await arun_schedule("daily", credentials, max_outage_seconds=1, **QUICK)
    assert bolt_simulator.count("cancelBoltRun") == 0
    assert len(bolt_simulator.active_runs()) == 1


async def test_a_schedule_that_does_not_exist_is_refused_before_anything_is_sent(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The error names the schedule; no trigger was sent."""
    with pytest.raises(BoltRequestError, match="nightly"):
        await arun_schedule("nightly", credentials, **QUICK)
    assert bolt_simulator.count("triggerBoltRun") == 0


async def test_the_error_for_a_wrong_key_names_its_block(bolt_simulator: BoltSimulator) -> None:
    """HTTP 401 is not retried, and the message says which block holds the credentials."""
    bolt_simulator.add_schedule("daily", **PLAIN)
    wrong = credentials_for(bolt_simulator, api_secret="wrong-secret")
    await wrong.save("wrong-key", overwrite=True)
    with pytest.raises(BoltAuthError, match="paradime-credentials/wrong-key") as caught:
        await arun_schedule("daily", await ParadimeCredentials.aload("wrong-key"), **QUICK)
    assert "wrong-secret" not in str(caught.value)
    assert len(bolt_simulator.requests) == 1


async def end_when_waited_for(simulator: BoltSimulator, run_id: int) -> None:
    """Let a run end after two status requests."""
    await asyncio.to_thread(simulator.wait_for, lambda bolt: bolt.count("boltRunStatus") > 1, timeout=120)
    simulator.finish(run_id)


async def test_a_running_schedule_is_waited_for_by_default(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """`wait` lets the other run end, and then triggers our own."""
    bolt_simulator.clock.speed = 60
    bolt_simulator.add_schedule("daily", **LONG)
    other = bolt_simulator.start_run("daily")
    bolt_simulator.update_schedule("daily", commands=PLAIN["commands"])
    async with anyio.create_task_group() as group:
        group.start_soon(end_when_waited_for, bolt_simulator, other)
        result = await arun_schedule("daily", credentials, **QUICK)
    assert [run.id for run in bolt_simulator.runs()] == [other, result.run_id]
    assert bolt_simulator.run(other).state == "SUCCESS"


@pytest.mark.guarantee(
    "The schedule is running already",
    "The schedule is running already",
    prefect="Running while it waits; with `skip` Skipped, with `fail` Failed",
    bolt="Never two runs at once",
    result=(
        "`wait` (default): a run once the other one has ended; `attach`: the result of the other one; `skip`: a "
        "result with the state SKIPPED; `fail`: `BoltAlreadyRunning`; `replace`: a run, and the other one is CANCELED"
    ),
)
@pytest.mark.parametrize("policy", ["attach", "fail", "skip", "replace"])
async def test_each_policy_for_a_running_schedule(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, policy: Any
) -> None:
    """attach returns the other run, fail raises, skip returns SKIPPED, replace cancels the other run."""
    bolt_simulator.add_schedule("daily", **LONG)
    other = bolt_simulator.start_run("daily")
    bolt_simulator.update_schedule("daily", commands=PLAIN["commands"])
    if policy == "fail":
        with pytest.raises(BoltAlreadyRunning, match=str(other)):
            await arun_schedule("daily", credentials, on_already_running=policy, **QUICK)
        return
    async with anyio.create_task_group() as group:
        if policy == "attach":
            group.start_soon(end_when_waited_for, bolt_simulator, other)
        result = await arun_schedule("daily", credentials, on_already_running=policy, **QUICK)
    runs = {run.id: run.state for run in bolt_simulator.runs()}
    if policy == "replace":
        assert runs[other] == "CANCELED"
        assert result.run_id != other
    else:
        assert list(runs) == [other]
        assert result.run_id == other
        assert bolt_simulator.run(other).cancel_requests == 0
        assert result.state == ("SKIPPED" if policy == "skip" else "SUCCESS")


async def test_a_failed_run_is_retried_and_both_attempts_are_reported(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The second attempt may succeed; the result and the summary link both."""
    bolt_simulator.clock.speed = 60
    bolt_simulator.add_schedule(
        "daily",
        commands=[SimulatedCommand("dbt run", return_code=(1, 0), resources={})],
        setup_commands=False,
    )
    result = await arun_schedule("daily", credentials, retries=1, retry_delay_seconds=0.1, **QUICK)
    first, second = sorted(run.id for run in bolt_simulator.runs())
    assert [attempt.run_id for attempt in result.attempts] == [first, second]
    assert bolt_simulator.run(second).parent_run_id == first
    summary = str((await artifacts_of((await latest_flow_run("run-schedule")).id))["paradime-daily"].data)
    assert str(first) in summary
    assert str(second) in summary
