"""The vendor's SDK and our client side by side: every call about runs, and the results of each."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from paradime import Paradime
from paradime.apis.bolt.client import BoltClient
from paradime.apis.bolt.exception import (
    BoltScheduleArtifactNotFoundException,
    BoltScheduleLatestRunNotFoundException,
)
from paradime.client.api_exception import ParadimeAPIException

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "flows" / "README.md").read_text(encoding="utf-8")
MANIFEST = {"metadata": {"dbt_version": "1.9.4"}, "nodes": {}}
# They manage schedules as configuration, which this package does not do.
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
    """Calls our client; several calls use one process. Keyword arguments are environment variables."""

    def ask(*calls: tuple[Any, ...], **environment: str) -> Any:
        asked = [{"method": name, "args": list(args[:-1]), "kwargs": args[-1]} for name, *args in calls]
        done = subprocess.run(
            [our_python(), str(Path(__file__).with_name("ours.py"))],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **simulator.environment(), **environment, "PYTHONPATH": str(ROOT)},
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
    """The table in flows/README.md has all public calls of the SDK except those about configuration."""
    calls = {
        name for name, _ in inspect.getmembers(BoltClient, inspect.isfunction) if not name.startswith("_")
    }
    rows = [line.split("|")[4] for line in README.splitlines() if line.count("|") == 5]
    documented = {name for cell in rows for name in re.findall(r"`(\w+)`", cell)}
    assert sorted(calls - NOT_ABOUT_RUNS - documented) == []
    assert sorted(NOT_ABOUT_RUNS - calls) == []
    assert all(f"`{name}`" in README for name in NOT_ABOUT_RUNS)


def test_reads_agree(shop: Any, bolt: Any, ours: Callable[..., Any]) -> None:
    """Schedules, runs, states, commands, logs, files: both return the same facts."""
    run_id = shop.start_run("daily", branch="dev")
    shop.clock.advance(60)
    command = bolt.list_run_commands(run_id)[2]
    artifact = bolt.list_command_artifacts(command.id)[0]
    schedules, schedule, runs, status, logs, streamed, resources, url, none = ours(
        ("list_bolt_schedules", {}),
        ("get_bolt_schedule", "daily", {}),
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
    listed = [(each["id"], each["command"], each["return_code"]) for each in status["value"]["commands"]]
    assert listed == [(each.id, each.command, each.return_code) for each in bolt.list_run_commands(run_id)]
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
    """The file is the same; ours takes four requests and a download, however many commands are searched."""
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
    """All options of a trigger arrive equally."""
    configs = [{"command": "dbt run", "continueOnError": True}, {"command": "dbt test"}]
    theirs = bolt.trigger_run(
        slug="daily",
        command_configs=configs,
        branch="dev",
        pr_number=7,
        reason="why",
        continue_on_error=False,
    )
    commands = [{"command": "dbt run", "continue_on_error": True}, "dbt test"]
    options = {"schedule_name": "daily", "commands": commands, "branch": "dev"}
    mine = ours(
        ("trigger_bolt_run", {**options, "pr_number": 7, "reason": "why", "continue_on_error": False})
    )["value"]
    for name in ("planned_commands", "branch", "pr_number", "reason"):
        assert getattr(shop.run(mine), name) == getattr(shop.run(theirs), name), name


def test_cancel_suspend_and_retries_do_the_same(shop: Any, bolt: Any, ours: Callable[..., Any]) -> None:
    """Each call comes twice, once from either client."""
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


def test_the_latest_artifacts_agree_on_commands_and_runs(
    shop: Any, testing: Any, bolt: Any, ours: Callable[..., Any]
) -> None:
    """`command_index` counts all commands of a run, from either end; `max_runs` counts runs from the newest."""
    path = "target/manifest.json"

    def ran(run: int, *, test: bool = True, return_code: int = 0) -> None:
        left = [{path: json.dumps({"run": run, "of": name})} for name in ("run", "test")]
        commands = [
            testing.SimulatedCommand("dbt run", resources=left[0], return_code=return_code),
            testing.SimulatedCommand("dbt test", resources=left[1] if test else {}),
        ]
        shop.add_schedule("several", commands=commands)
        shop.start_run("several")
        shop.clock.advance(60)

    ran(1)
    ran(2, test=False)
    ran(3, return_code=1)
    indices = [{"command_index": index} for index in (0, 1, 2, 3, -1, -2)]
    options = [{}, *indices, *({"max_runs": runs} for runs in (1, 2, 3))]
    mine = ours(*(("latest_artifact", "several", path, each) for each in options))
    found = [json.loads(answer["value"]) if "value" in answer else None for answer in mine]

    def theirs(**given: int) -> Any:
        try:
            url = bolt.get_latest_artifact_url(slug="several", artifact_path=path, **given)
        except (BoltScheduleArtifactNotFoundException, IndexError) as error:
            return None if isinstance(error, BoltScheduleArtifactNotFoundException) else "gave up"
        return requests.get(url, timeout=10).json()

    expected = [theirs(**each) for each in options]
    # The newest run was interrupted before the fourth command: the SDK fails there, ours searches the run before.
    assert expected[4] == "gave up"
    assert found[4] == {"run": 1, "of": "test"}
    del expected[4], found[4]
    assert found == expected
    assert [each and (each["run"], each["of"]) for each in found] == [
        (2, "run"),
        None,
        None,
        (2, "run"),
        (1, "test"),
        (2, "run"),
        None,
        (2, "run"),
        (2, "run"),
    ]
    first, second, manifest = ours(
        ("latest_manifest", "several", {"command_index": -1}),
        ("latest_artifact_url", "several", path, {"command_index": -1, "max_runs": 3}),
        ("latest_manifest", "several", {"max_runs": 1}),
    )
    assert first["value"] == bolt.get_latest_manifest_json(slug="several", command_index=-1)
    url = bolt.get_latest_artifact_url(slug="several", artifact_path=path, command_index=-1, max_runs=3)
    assert second["value"].split("?")[0] == url.split("?")[0]
    assert manifest["error"] == "BoltRequestError"


def test_pages_of_runs_agree(shop: Any, bolt: Any, ours: Callable[..., Any]) -> None:
    """The newest runs come first; neither client requests a page that needs no request."""
    for _ in range(5):
        shop.start_run("daily")
    pages = [{"offset": 0, "limit": 2}, {"offset": 2, "limit": 2}, {"offset": 4, "limit": 2}, {"offset": 5}]
    mine = ours(*(("list_bolt_runs", "daily", page) for page in pages))
    for page, answer in zip(pages, mine, strict=True):
        found = [run["id"] for run in answer["value"]["runs"]]
        assert found == [run.id for run in bolt.list_runs(slug="daily", **page).runs], page
        assert len(found) == max(0, min(2, 5 - page["offset"]))
    sent = len(shop.requests)
    bad = [{"offset": -1}, {"limit": 0}, {"limit": 1001}]
    for page, answer in zip(bad, ours(*(("list_bolt_runs", "daily", page) for page in bad)), strict=True):
        assert answer["error"] == "BoltRequestError", page
        with pytest.raises(ValueError, match="must be"):
            bolt.list_runs(slug="daily", **page)
    assert len(shop.requests) == sent


def test_pages_and_filters_of_schedules_agree(simulator: Any, bolt: Any, ours: Callable[..., Any]) -> None:
    """They filter by suspended timers, with and without inactive schedules, page by page."""
    for number in range(5):
        simulator.add_schedule(f"s{number}", suspended=number % 2 == 1)
    simulator.add_schedule("gone", active=False)
    simulator.add_schedule("gone and suspended", active=False, suspended=True)
    asked: list[dict[str, Any]] = [
        {"suspended": suspended, "show_inactive": inactive}
        for suspended in (None, True, False)
        for inactive in (False, True)
    ]
    asked += [{"suspended": False, "offset": 1, "limit": 1}, {"offset": 3, "limit": 5}]
    for options, answer in zip(
        asked, ours(*(("list_bolt_schedules", options) for options in asked)), strict=True
    ):
        theirs = bolt.list_schedules(**options)
        mine = answer["value"]
        assert [each["name"] for each in mine["schedules"]] == [each.name for each in theirs.schedules]
        assert [each["suspended"] for each in mine["schedules"]] == [
            each.suspended for each in theirs.schedules
        ]
        assert mine["total_count"] == theirs.total_count
    assert [each.name for each in bolt.list_schedules(suspended=True).schedules] == ["s1", "s3"]


REFUSED = "BoltRequestError"


def test_errors_agree(shop: Any, bolt: Any, ours: Callable[..., Any]) -> None:
    """An error of the SDK is one of ours, with Bolt's message."""
    shop.start_run("broken")
    ended = shop.start_run("daily")
    shop.finish(ended)
    shop.add_schedule("new")
    cases: list[tuple[Callable[[], Any], tuple[Any, ...], str]] = [
        (lambda: bolt.get_schedule(slug="nope"), ("get_bolt_schedule", "nope", {}), REFUSED),
        (lambda: bolt.list_runs(slug="nope"), ("list_bolt_runs", "nope", {}), REFUSED),
        (lambda: bolt.trigger_run(slug="nope"), ("trigger_bolt_run", "nope", {}), REFUSED),
        (lambda: bolt.trigger_run(slug="broken"), ("trigger_bolt_run", "broken", {}), "BoltAlreadyRunning"),
        (
            lambda: bolt.suspend_schedule(slug="nope", suspend=True),
            ("suspend_bolt_schedule", "nope", {}),
            REFUSED,
        ),
        (lambda: bolt.get_run_status(1), ("get_bolt_run", 1, {}), REFUSED),
        (lambda: bolt.list_run_commands(1), ("get_bolt_run", 1, {}), REFUSED),
        (lambda: bolt.cancel_run(1), ("cancel_bolt_run", 1, {}), REFUSED),
        (lambda: bolt.retry_run(1), ("retry_bolt_run", 1, {}), REFUSED),
        (lambda: bolt.retry_run(ended), ("retry_bolt_run", ended, {}), REFUSED),
        (lambda: bolt.retry_run_all(1), ("retry_bolt_run", 1, {"everything": True}), REFUSED),
        (
            lambda: bolt.retry_schedule_from_failure(slug="new"),
            ("retry_bolt_schedule", "new", {}),
            REFUSED,
        ),
        (lambda: bolt.list_command_artifacts(1), ("get_bolt_command", 1, {}), REFUSED),
        (lambda: bolt.get_command_logs(1), ("get_bolt_command_logs", 1, {}), REFUSED),
        (
            lambda: list(bolt.stream_command_logs(1, poll_interval=0)),
            ("stream_bolt_command_logs", 1, {}),
            REFUSED,
        ),
        (lambda: bolt.get_artifact_url(1), ("get_bolt_resource_url", 1, {}), REFUSED),
    ]
    answers = ours(*(mine for _, mine, _ in cases))
    for (theirs, mine, expected), answer in zip(cases, answers, strict=True):
        with pytest.raises(ParadimeAPIException) as caught:
            theirs()
        assert answer["error"] == expected, mine
        assert str(caught.value) in answer["message"], mine
    nothing = ours(("latest_manifest", "new", {}), ("latest_artifact_url", "daily", "target/nope.json", {}))
    assert [answer["error"] for answer in nothing] == [REFUSED, REFUSED]
    with pytest.raises(BoltScheduleLatestRunNotFoundException):
        bolt.get_latest_manifest_json(slug="new")
    with pytest.raises(BoltScheduleArtifactNotFoundException):
        bolt.get_latest_artifact_url(slug="daily", artifact_path="target/nope.json")


def test_wrong_credentials_and_read_only_keys_agree(testing: Any, ours: Callable[..., Any]) -> None:
    """In the SDK they are general API errors; ours say what is wrong with the key."""
    with testing.BoltSimulator(read_only=True) as locked:
        locked.add_schedule("daily")
        known = {"api_key": locked.api_key, "api_secret": locked.api_secret}
        client = Paradime(api_endpoint=locked.api_endpoint, **known).bolt
        stranger = Paradime(api_endpoint=locked.api_endpoint, api_key="k", api_secret="s").bolt
        environment = locked.environment()
        read, written = ours(
            ("get_bolt_schedule", "daily", {}), ("trigger_bolt_run", "daily", {}), **environment
        )
        assert read["value"]["commands"] == client.get_schedule(slug="daily").commands
        assert written["error"] == "BoltAuthError"
        with pytest.raises(ParadimeAPIException, match="403"):
            client.trigger_run(slug="daily")
        wrong = {"PARADIME_API_KEY": "k", "PARADIME_API_SECRET": "s"}
        assert ours(("list_bolt_schedules", {}), **{**environment, **wrong})["error"] == "BoltAuthError"
        with pytest.raises(ParadimeAPIException, match="401"):
            stranger.list_schedules()
        assert locked.runs() == []
