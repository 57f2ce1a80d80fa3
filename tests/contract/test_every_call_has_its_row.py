"""The vendor's SDK and our client beside each other: every run-related call, and what each answers."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from paradime.apis.bolt.client import BoltClient
from paradime.client.api_exception import ParadimeAPIException

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "flows" / "README.md").read_text(encoding="utf-8")
MANIFEST = {"metadata": {"dbt_version": "1.9.4"}, "nodes": {}}
# They manage schedules as configuration, which lies outside the package.
NOT_ABOUT_RUNS = {
    "create_schedule",
    "delete_schedule",
    "create_schedule_slugs",
    "list_environments",
    "list_all_schedule_names",
}


def our_python() -> str:
    """The Python that has our package."""
    for path in (os.environ.get("PARADIME_SIMULATOR_PYTHON"), str(ROOT / ".venv" / "bin" / "python")):
        if path and Path(path).exists():
            return path
    pytest.skip("no Python with our package: run `make test-contract`")


@pytest.fixture
def ours(simulator: Any) -> Callable[..., Any]:
    """Asks our client; several calls go to one process."""

    def ask(*calls: tuple[Any, ...]) -> Any:
        asked = [{"method": name, "args": list(args[:-1]), "kwargs": args[-1]} for name, *args in calls]
        done = subprocess.run(
            [our_python(), str(Path(__file__).with_name("ours.py"))],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **simulator.environment(), "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        answers = json.loads(done.stdout)
        return answers if len(answers) > 1 else answers[0]

    return ask


@pytest.fixture
def shop(simulator: Any, testing: Any) -> Any:
    """A schedule that succeeds, with logs and files, and one that fails once."""
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
        already_running="allow",
    )
    simulator.add_schedule(
        "broken", commands=["dbt seed", testing.SimulatedCommand("dbt run", return_code=(1, 0)), "dbt test"]
    )
    return simulator


def test_every_call_about_runs_has_its_row() -> None:
    """The table in flows/README.md has all public calls of the SDK's but those about configuration."""
    calls = {
        name for name, _ in inspect.getmembers(BoltClient, inspect.isfunction) if not name.startswith("_")
    }
    rows = [line.split("|")[4] for line in README.splitlines() if line.count("|") == 5]
    told = {name for cell in rows for name in re.findall(r"`(\w+)`", cell)}
    assert sorted(calls - NOT_ABOUT_RUNS - told) == []
    assert sorted(NOT_ABOUT_RUNS - calls) == []
    assert all(f"`{name}`" in README for name in NOT_ABOUT_RUNS)


def test_reads_agree(shop: Any, bolt: Any, ours: Callable[..., Any]) -> None:
    """Schedules, runs, states, commands, logs, files: the same facts from both."""
    run_id = shop.start_run("daily", branch="dev")
    shop.clock.advance(60)
    command = bolt.list_run_commands(run_id)[2]
    artifact = bolt.list_command_artifacts(command.id)[0]
    schedules, schedule, runs, status, logs, streamed, resources, url, none = ours(
        ("list_bolt_schedules", {}),
        ("get_bolt_schedule", {"slug": "daily"}),
        ("list_bolt_runs", "daily", {}),
        ("get_bolt_run", run_id, {}),
        ("get_bolt_command_logs", command.id, {}),
        ("stream_bolt_command_logs", command.id, {}),
        ("get_bolt_command", command.id, {}),
        ("get_bolt_resource_url", artifact.id, {}),
        ("get_bolt_run", 1, {}),
    )
    theirs = bolt.list_schedules()
    assert schedules["value"]["total_count"] == theirs.total_count
    for ours_, theirs_ in zip(schedules["value"]["schedules"], theirs.schedules, strict=True):
        for name in (
            "name",
            "slug",
            "schedule",
            "owner",
            "last_run_state",
            "commands",
            "git_branch",
            "suspended",
        ):
            assert ours_[name] == getattr(theirs_, name), name
    detail = bolt.get_schedule(slug="daily")
    for name in ("latest_run_id", "commands", "owner", "schedule", "uuid", "source", "suspended"):
        assert schedule["value"][name] == getattr(detail, name), name
    (run,) = bolt.list_runs(slug="daily").runs
    assert [found["id"] for found in runs["value"]["runs"]] == [run.id]
    assert runs["value"]["runs"][0]["git_info"]["branch"] == run.git_info.branch == "dev"
    assert status["value"]["state"] == bolt.get_run_status(run_id).value
    told = [(each["id"], each["command"], each["return_code"]) for each in status["value"]["commands"]]
    assert told == [(each.id, each.command, each.return_code) for each in bolt.list_run_commands(run_id)]
    page = bolt.get_command_logs(command.id)
    assert [line["line"] for line in logs["value"]["lines"]] == [line.line for line in page.lines]
    assert (logs["value"]["cursor"], logs["value"]["finished"]) == (page.cursor, page.finished)
    assert [line["line"] for line in streamed["value"]] == [
        line.line for line in bolt.stream_command_logs(command.id, poll_interval=0)
    ]
    assert [(each["id"], each["path"]) for each in resources["value"]["resources"]] == [
        (each.id, each.path) for each in bolt.list_command_artifacts(command.id)
    ]
    assert url["value"].split("?")[0] == bolt.get_artifact_url(artifact.id).split("?")[0]
    assert none["error"] == "BoltRequestError"
    with pytest.raises(ParadimeAPIException):
        bolt.get_run_status(1)


def test_the_latest_artifacts_agree_and_take_fewer_requests(
    shop: Any, testing: Any, bolt: Any, ours: Callable[..., Any]
) -> None:
    """The same file; ours in four requests and a download, however many commands there are to look at."""
    path = "target/manifest.json"
    first = testing.SimulatedCommand("dbt build", resources={path: json.dumps(MANIFEST)})
    others = [testing.SimulatedCommand(f"dbt test --select s{n}", resources={}) for n in range(4)]
    shop.add_schedule("long", commands=[first, *others])
    shop.start_run("long")
    shop.clock.advance(60)

    def requests_for(call: Callable[[], Any]) -> tuple[Any, int]:
        before = len(shop.requests)
        return call(), len(shop.requests) - before

    theirs, their_requests = requests_for(lambda: bolt.get_latest_manifest_json(slug="long"))
    mine, our_requests = requests_for(lambda: ours(("latest_manifest", "long", {})))
    assert mine["value"] == theirs == MANIFEST
    assert (our_requests, their_requests) == (5, 9)
    url = bolt.get_latest_artifact_url(slug="long", artifact_path=path)
    found = ours(("latest_artifact_url", "long", path, {}))["value"]
    assert found.split("?")[0] == url.split("?")[0]


def test_triggers_do_the_same(shop: Any, bolt: Any, ours: Callable[..., Any]) -> None:
    """All options of a trigger arrive alike."""
    configs = [{"command": "dbt run", "continueOnError": True}, {"command": "dbt test"}]
    theirs = bolt.trigger_run(
        slug="daily",
        command_configs=configs,
        branch="dev",
        pr_number=7,
        reason="why",
        continue_on_error=False,
    )
    options = {"slug": "daily", "command_configs": configs, "branch": "dev"}
    mine = ours(
        ("trigger_bolt_run", {**options, "pr_number": 7, "reason": "why", "continue_on_error": False})
    )["value"]
    for name in ("planned_commands", "branch", "pr_number", "reason"):
        assert getattr(shop.run(mine), name) == getattr(shop.run(theirs), name), name


def test_cancel_suspend_and_retries_do_the_same(shop: Any, bolt: Any, ours: Callable[..., Any]) -> None:
    """Each twice, once by either."""
    first, second = shop.start_run("daily"), shop.start_run("daily")
    bolt.cancel_run(first)
    assert ours(("cancel_bolt_run", second, {}))["value"] is True
    assert shop.run(first).state == shop.run(second).state == "CANCELED"

    bolt.suspend_schedule(slug="daily", suspend=True)
    assert ours(("get_bolt_schedule", "daily", {}))["value"]["suspended"] is True
    ours(("suspend_bolt_schedule", "daily", {"suspend": False}))
    assert bolt.get_schedule(slug="daily").suspended is False

    pairs = [
        (bolt.retry_run, lambda run: ("retry_bolt_run", run, {})),
        (bolt.retry_run_all, lambda run: ("retry_bolt_run", run, {"everything": True})),
        (
            lambda _run: bolt.retry_schedule_from_failure(slug="broken"),
            lambda _run: ("retry_bolt_schedule", "broken", {}),
        ),
    ]
    for theirs, mine in pairs:
        commands = []
        for retry in (theirs, lambda run, mine=mine: ours(mine(run))["value"]):
            failed = shop.start_run("broken")
            shop.finish(failed, "FAILED")
            new = shop.run(retry(failed))
            assert new.parent_run_id == failed
            commands.append(new.planned_commands)
            shop.finish(new.id)
        assert commands[0] == commands[1]
