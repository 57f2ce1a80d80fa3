"""The vendor's Python client with the simulator: each of its calls about runs."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from paradime import Paradime
from paradime.apis.bolt.exception import (
    BoltScheduleArtifactNotFoundException,
    BoltScheduleLatestRunNotFoundException,
)
from paradime.apis.bolt.types import BoltCommandConfigInput, BoltLogStream, BoltRunState
from paradime.client.api_exception import ParadimeAPIException

MANIFEST = {"metadata": {"dbt_version": "1.9.4"}, "nodes": {"model.shop.orders": {}}}


@pytest.fixture
def daily(simulator: Any, testing: Any) -> Any:
    """A schedule that succeeds and writes a manifest."""
    simulator.add_schedule(
        "daily",
        commands=[
            testing.SimulatedCommand(
                "dbt run",
                duration_seconds=10,
                stdout="".join(f"line {number}\n" for number in range(10)),
                stderr="a warning\n",
                resources={"target/manifest.json": json.dumps(MANIFEST), "target/run_results.json": "{}"},
            ),
            "dbt test",
        ],
        owner="owner@example.com",
    )
    return simulator


@pytest.fixture
def broken(simulator: Any, testing: Any) -> Any:
    """A schedule whose second command fails once."""
    simulator.add_schedule(
        "broken", commands=["dbt seed", testing.SimulatedCommand("dbt run", return_code=(1, 0)), "dbt test"]
    )
    return simulator


# Schedules


def test_schedules_are_listed(daily: Any, bolt: Any) -> None:
    """Every field that the SDK selects exists and fits its models."""
    daily.start_run("daily")
    daily.clock.advance(60)
    found = bolt.list_schedules()
    assert found.total_count == 1
    schedule = found.schedules[0]
    assert (schedule.name, schedule.slug, schedule.schedule) == ("daily", "daily", "0 3 * * *")
    assert (schedule.commands, schedule.git_branch) == (["dbt run", "dbt test"], "main")
    assert (schedule.owner, schedule.suspended, schedule.last_run_state) == (
        "owner@example.com",
        False,
        "SUCCESS",
    )
    assert schedule.notifications.email_notifications[0].channel == "owner@example.com"


def test_schedules_are_listed_page_by_page_and_filtered(simulator: Any, bolt: Any) -> None:
    """offset, limit, show_inactive and suspended have the SDK's meaning."""
    for number in range(3):
        simulator.add_schedule(f"s{number}", suspended=number == 1)
    simulator.add_schedule("gone", active=False)

    def names(**arguments: Any) -> list[str]:
        return [schedule.name for schedule in bolt.list_schedules(**arguments).schedules]

    assert names() == ["s0", "s1", "s2"]
    assert names(offset=1, limit=1) == ["s1"]
    assert names(show_inactive=True) == ["gone"]
    assert names(suspended=True) == ["s1"]
    assert names(suspended=False) == ["s0", "s2"]


@pytest.mark.parametrize("argument", ["slug", "schedule_name"])
def test_a_schedule_is_shown(daily: Any, bolt: Any, argument: str) -> None:
    """With and without a latest run, by either of its names."""
    schedule = bolt.get_schedule(**{argument: "daily"})
    assert (schedule.commands, schedule.latest_run_id) == (["dbt run", "dbt test"], None)
    run_id = daily.start_run("daily")
    assert bolt.get_schedule(**{argument: "daily"}).latest_run_id == run_id


def test_a_schedule_is_suspended_and_resumed(daily: Any, bolt: Any) -> None:
    """The schedule shows the flag."""
    for suspend in (True, False):
        bolt.suspend_schedule(slug="daily", suspend=suspend)
        assert bolt.get_schedule(slug="daily").suspended is suspend


def test_a_missing_schedule_is_an_api_error(simulator: Any, bolt: Any) -> None:
    """The SDK raises its exception for GraphQL errors."""
    for call in (
        lambda: bolt.get_schedule(slug="nope"),
        lambda: bolt.trigger_run(slug="nope"),
        lambda: bolt.list_runs(slug="nope"),
        lambda: bolt.get_run_status(1),
        lambda: bolt.cancel_run(1),
        lambda: bolt.get_artifact_url(1),
    ):
        with pytest.raises(ParadimeAPIException, match="was not found"):
            call()


# Runs


@pytest.mark.parametrize("argument", ["slug", "schedule_name"])
def test_a_run_is_triggered_and_followed_to_its_end(daily: Any, bolt: Any, argument: str) -> None:
    """Status and commands during the run and at its end."""
    run_id = bolt.trigger_run(**{argument: "daily"})
    assert bolt.get_run_status(run_id) is BoltRunState.RUNNING
    daily.clock.advance(5.2)
    commands = bolt.list_run_commands(run_id)
    assert [command.command for command in commands[1:]] == ["dbt deps", "dbt run"]
    running = commands[-1]
    assert (running.return_code, running.end_dttm, running.stdout.count("\n")) == (None, "", 5)
    daily.clock.advance(60)
    assert bolt.get_run_status(run_id) is BoltRunState.SUCCESS
    assert [command.return_code for command in bolt.list_run_commands(run_id)] == [0, 0, 0, 0]


def test_all_states_of_the_sdk_are_reported(simulator: Any, bolt: Any) -> None:
    """STARTING first, and each final state."""
    simulator.add_schedule("starting", starting_seconds=5)
    assert bolt.get_run_status(bolt.trigger_run(slug="starting")) is BoltRunState.STARTING
    for state in (BoltRunState.ERROR, BoltRunState.FAILED, BoltRunState.SKIPPED):
        simulator.add_schedule(state.value, final_state=state.value)
        run_id = bolt.trigger_run(slug=state.value)
        simulator.clock.advance(60)
        assert bolt.get_run_status(run_id) is state


def test_all_options_of_a_trigger_arrive(daily: Any, bolt: Any) -> None:
    """Branch, pull request, reason, and commands in both forms."""
    first = bolt.trigger_run(
        slug="daily", commands=["dbt build"], branch="dev", pr_number=7, reason="contract"
    )
    run = daily.run(first)
    assert (run.planned_commands[-1], run.branch, run.pr_number, run.reason) == (
        "dbt build",
        "dev",
        7,
        "contract",
    )
    daily.finish(first)
    configs = [BoltCommandConfigInput(command="dbt run", continue_on_error=True), {"command": "dbt test"}]
    second = bolt.trigger_run(slug="daily", command_configs=configs, continue_on_error=False)
    assert daily.run(second).planned_commands[-2:] == ("dbt run", "dbt test")


def test_continue_on_error_runs_all_commands(broken: Any, bolt: Any) -> None:
    """The failed command and those after it."""
    run_id = bolt.trigger_run(slug="broken", continue_on_error=True)
    broken.clock.advance(60)
    assert [command.return_code for command in bolt.list_run_commands(run_id)] == [0, 0, 0, 1, 0]


def test_a_second_trigger_is_refused(daily: Any, bolt: Any) -> None:
    """The message contains AlreadyRunningException."""
    bolt.trigger_run(slug="daily")
    with pytest.raises(ParadimeAPIException, match="AlreadyRunningException"):
        bolt.trigger_run(slug="daily")


def test_a_run_is_cancelled(daily: Any, bolt: Any) -> None:
    """It is CANCELED, and its interrupted command fits the SDK's models."""
    run_id = bolt.trigger_run(slug="daily")
    daily.clock.advance(5)
    bolt.cancel_run(run_id)
    assert bolt.get_run_status(run_id) is BoltRunState.CANCELED
    assert bolt.list_run_commands(run_id)[-1].end_dttm


def test_runs_are_listed_newest_first(broken: Any, bolt: Any) -> None:
    """They have their parents, branches and pull requests."""
    first = bolt.trigger_run(slug="broken", branch="dev", pr_number=3)
    broken.clock.advance(60)
    second = bolt.retry_run(first)
    found = bolt.list_runs(slug="broken")
    assert found.ok
    assert [run.id for run in found.runs] == [second, first]
    assert [run.state for run in found.runs] == ["RUNNING", "FAILED"]
    assert [run.parent_schedule_run_id for run in found.runs] == [first, None]
    assert (found.runs[1].git_info.branch, found.runs[1].git_info.pull_request_id) == ("dev", "3")
    assert found.runs[1].end_dttm
    assert [run.id for run in bolt.list_runs(schedule_name="broken", offset=1, limit=1).runs] == [first]


def test_the_failed_commands_are_retried(broken: Any, bolt: Any) -> None:
    """By run id: from the failed command on, as `dbt retry`."""
    failed = bolt.trigger_run(slug="broken")
    broken.clock.advance(60)
    assert bolt.get_run_status(failed) is BoltRunState.FAILED
    new = bolt.retry_run(failed)
    broken.clock.advance(60)
    assert bolt.get_run_status(new) is BoltRunState.SUCCESS
    assert [command.command for command in bolt.list_run_commands(new)] == ["dbt retry", "dbt test"]


def test_everything_is_retried(broken: Any, bolt: Any) -> None:
    """By run id: all commands except git clone and dbt deps."""
    failed = bolt.trigger_run(slug="broken")
    broken.clock.advance(60)
    new = bolt.retry_run_all(failed)
    broken.clock.advance(60)
    assert [command.command for command in bolt.list_run_commands(new)] == ["dbt seed", "dbt run", "dbt test"]


@pytest.mark.parametrize("argument", ["slug", "schedule_name"])
def test_the_latest_failure_is_retried(broken: Any, bolt: Any, argument: str) -> None:
    """By schedule."""
    failed = bolt.trigger_run(slug="broken")
    broken.clock.advance(60)
    new = bolt.retry_schedule_from_failure(**{argument: "broken"})
    assert broken.run(new).parent_run_id == failed


def test_a_run_that_did_not_fail_is_not_retried(daily: Any, bolt: Any) -> None:
    """An API error says so."""
    run_id = bolt.trigger_run(slug="daily")
    with pytest.raises(ParadimeAPIException, match="cannot be retried"):
        bolt.retry_run(run_id)


# Logs and artifacts


def test_logs_are_fetched_batch_by_batch(daily: Any, bolt: Any) -> None:
    """Half of them while the command runs, the rest from the cursor on, and `finished` at the end."""
    run_id = bolt.trigger_run(slug="daily")
    daily.clock.advance(5.2)
    command = bolt.list_run_commands(run_id)[-1]
    begin = bolt.get_command_logs(command.id)
    assert ([line.line for line in begin.lines], begin.finished) == ([f"line {n}\n" for n in range(5)], False)
    daily.clock.advance(60)
    rest = bolt.get_command_logs(command.id, cursor=begin.cursor)
    assert rest.finished
    assert [line.line for line in rest.lines] == [*(f"line {n}\n" for n in range(5, 10)), "a warning\n"]
    assert rest.lines[-1].stream is BoltLogStream.STDERR


def test_logs_are_streamed_until_the_command_ends(daily: Any, bolt: Any) -> None:
    """The SDK's own loop ends after every line has come once."""
    run_id = bolt.trigger_run(slug="daily")
    daily.clock.advance(1)
    command = bolt.list_run_commands(run_id)[-1]
    daily.clock.speed = 50
    lines = [line.line for line in bolt.stream_command_logs(command.id, poll_interval=0.01)]
    assert sorted(lines) == sorted([*(f"line {n}\n" for n in range(10)), "a warning\n"])


def test_artifacts_are_listed_and_downloaded(daily: Any, bolt: Any) -> None:
    """The link works without credentials."""
    run_id = bolt.trigger_run(slug="daily")
    daily.clock.advance(60)
    command = bolt.list_run_commands(run_id)[2]
    artifacts = {artifact.path: artifact.id for artifact in bolt.list_command_artifacts(command.id)}
    assert set(artifacts) == {"target/manifest.json", "target/run_results.json"}
    url = bolt.get_artifact_url(artifacts["target/manifest.json"])
    assert requests.get(url, timeout=10).json() == MANIFEST


def test_artifacts_of_a_failed_command_are_there_too(broken: Any, bolt: Any) -> None:
    """They appear when the command has ended, even if it failed."""
    run_id = bolt.trigger_run(slug="broken")
    broken.clock.advance(60)
    failed = bolt.list_run_commands(run_id)[-1]
    assert failed.return_code == 1
    assert bolt.list_command_artifacts(failed.id)


def test_the_latest_manifest_is_found(daily: Any, bolt: Any) -> None:
    """It is found by searching runs and commands, and by the index of its command."""
    bolt.trigger_run(slug="daily")
    daily.clock.advance(60)
    assert bolt.get_latest_manifest_json(slug="daily", command_index=2) == MANIFEST
    # Without an index the SDK takes the last command that wrote one: `dbt test`.
    assert bolt.get_latest_manifest_json(slug="daily")["metadata"]["dbt_version"] == "1.9.4"
    url = bolt.get_latest_artifact_url(slug="daily", artifact_path="target/run_results.json")
    assert requests.get(url, timeout=10).status_code == 200


def test_all_latest_artifacts_are_found(daily: Any, bolt: Any) -> None:
    """The SDK's metadata client collects them and merges the results of several commands."""
    bolt.trigger_run(slug="daily", commands=["dbt source freshness", "dbt build"])
    daily.clock.advance(60)
    artifacts = bolt._get_all_latest_artifacts("daily")
    assert set(artifacts) == {"manifest", "run_results", "sources"}


def test_missing_runs_and_artifacts_have_different_errors(daily: Any, bolt: Any) -> None:
    """The SDK has its own error for each."""
    with pytest.raises(BoltScheduleLatestRunNotFoundException):
        bolt.get_latest_manifest_json(slug="daily")
    bolt.trigger_run(slug="daily")
    daily.clock.advance(60)
    with pytest.raises(BoltScheduleArtifactNotFoundException):
        bolt.get_latest_artifact_url(slug="daily", artifact_path="target/nope.json")


# Credentials


@pytest.mark.parametrize("token, workspace", [("prdm_wsp_1", None), ("prdm_cmp_1", "w1")])
def test_tokens_are_accepted(testing: Any, token: str, workspace: str | None) -> None:
    """A workspace token alone, a company token with its workspace."""
    with testing.BoltSimulator(bearer=token, workspace_uid="w1") as simulator:
        client = Paradime(
            api_endpoint=simulator.api_endpoint, api_secret=simulator.api_secret, workspace_uid=workspace
        )
        assert client.bolt.list_schedules().total_count == 0


def test_wrong_credentials_are_an_api_error(simulator: Any) -> None:
    """The text has the status."""
    client = Paradime(api_endpoint=simulator.api_endpoint, api_key="k", api_secret="s")
    with pytest.raises(ParadimeAPIException, match="401"):
        client.bolt.list_schedules()


def test_a_read_only_key_is_an_api_error_for_mutations(testing: Any) -> None:
    """Reads work."""
    with testing.BoltSimulator(read_only=True) as simulator:
        simulator.add_schedule("daily")
        client = Paradime(
            api_endpoint=simulator.api_endpoint, api_key=simulator.api_key, api_secret=simulator.api_secret
        )
        assert client.bolt.get_schedule(slug="daily").name == "daily"
        with pytest.raises(ParadimeAPIException, match="403"):
            client.bolt.trigger_run(slug="daily")
