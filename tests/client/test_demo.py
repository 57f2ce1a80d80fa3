"""The demo: whose credentials work, before anything starts; and what the console shows of a run."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import demo
import local
import pytest
from recorded import RECORDED, add_recorded_samples

from paradime_blocks.client import BoltClient, ConnectionSettings, auth_for
from paradime_blocks.testing import BoltSimulator
from paradime_blocks.testing.samples import add_samples


@pytest.fixture(autouse=True)
def _no_server(monkeypatch):
    """The tested code runs before a Prefect server is started, and must not start one."""

    def start(*_: object, **__: object) -> None:
        pytest.fail("a Prefect server was started")

    monkeypatch.setattr(demo, "LocalPrefectServer", start)


@pytest.fixture
def arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["demo.py"])


def _homes() -> set[Path]:
    return set((demo.ROOT / ".demo").glob("prefect-*"))


def test_the_environment_file_works_like_the_environment():
    """A token, its workspace and a proxy can come from `.env`, as everywhere else."""
    with BoltSimulator(bearer="prdm_cmp_token", workspace_uid="w1") as simulator:
        values = {**simulator.environment(), "PARADIME_SCHEDULE": "daily", "PARADIME_PROXY": "none"}
        Path(".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        bolt = demo.real_bolt()
    assert bolt.schedules == (("daily", None),)
    assert bolt.credentials.workspace_uid == "w1"
    assert bolt.credentials.proxy.get_secret_value() == "none"


def test_a_bad_key_is_reported_in_a_sentence_and_leaves_nothing_behind(monkeypatch, arguments, capsys):
    """There is no traceback, and no folder of a Prefect server with a secret in its database."""
    before = _homes()
    with BoltSimulator() as simulator:
        for name, value in simulator.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PARADIME_API_KEY", "wrong")
        monkeypatch.setenv("PARADIME_SCHEDULE", "daily")
        assert demo.main() == 1
    message = capsys.readouterr().err
    assert "The demo FAILED: Bolt does not accept the credentials of the environment" in message
    assert "Traceback" not in message
    assert _homes() == before


def test_a_missing_variable_is_named(monkeypatch, arguments, capsys):
    """It also says how to use the simulator instead."""
    monkeypatch.setenv("PARADIME_SCHEDULE", "daily")
    monkeypatch.setenv("PARADIME_API_ENDPOINT", "https://api.paradime.io/api/v1/acme/graphql")
    assert demo.main() == 1
    message = capsys.readouterr().err
    assert "does not set PARADIME_API_SECRET" in message
    assert "unset PARADIME_SCHEDULE to use the simulator" in message


@pytest.mark.parametrize("schedule", ["dayly", "broken"])
def test_an_error_of_any_kind_ends_the_demo_cleanly(monkeypatch, capsys, schedule):
    """Both for a missing schedule and for a failed run, the message is shown once, with what to do."""
    from paradime_blocks import BoltRequestError, BoltRunFailed
    from paradime_flows import run_schedule as module

    reason = "model revenue: no such column"
    error = (
        BoltRequestError("There is none.", guidance="Check its name.")
        if schedule == "dayly"
        else BoltRunFailed(
            "It failed.",
            command="dbt run",
            return_code=1,
            dbt_errors=[reason],
            log_tail=f"12:00:00  {reason}",
        )
    )
    shown = []

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, "run_schedule", fail)
    monkeypatch.setattr(demo, "show", lambda server, *, links: shown.append((server, links)) or True)
    bolt = demo.Bolt(credentials=None, schedules=())
    assert demo.run_one("the server", bolt, schedule, should_succeed=None, links=True) is False
    assert shown == [("the server", True)]
    message = capsys.readouterr().out
    assert f"Raised:     {type(error).__name__}" in message
    assert error.message in message
    assert error.guidance in message
    assert message.count(reason) == (schedule == "broken")


def console_of(text: str, *, simulated: bool = True, name: str = "prefect.flow_runs", **more: object) -> str:
    record = logging.makeLogRecord(
        {"name": name, "levelno": logging.INFO, "msg": text, "created": 0.0, **more}
    )
    return demo.DemoFormatter(simulated=simulated).format(record)[12:]


OUTPUT = {"send_to_api": False}


@pytest.mark.parametrize(
    "text, more, message",
    [
        pytest.param("Beginning flow run 'daily' for flow 'run-schedule'", {}, "", id="Prefect's beginning"),
        pytest.param("Running hook 'cancel_owned_runs' in response to …", {}, "", id="Prefect's hook"),
        pytest.param("It failed.", {"exc_info": (None, None, None)}, "", id="a traceback"),
        pytest.param("Created deployment", {"name": "prefect.engine"}, "", id="the engine"),
        pytest.param("Bolt run 7 was started.", {}, "Bolt run 7 was started.", id="a decision"),
        pytest.param(
            "Bolt run 7 is RUNNING. https://app.paradime.io/bolt/run_id/7",
            {},
            "Bolt run 7 is RUNNING.",
            id="link",
        ),
        pytest.param("── Command 2, dbt build ──", OUTPUT, "── Command 2, dbt build ──", id="a heading"),
        pytest.param(
            "01:30:35  1 of 9 OK created model a [OK]\n01:30:35  2 of 9 ERROR creating model b [ERROR]\n01:30:36  ",
            OUTPUT,
            "   2 of 9 ERROR creating model b [ERROR]",
            id="the failure",
        ),
        pytest.param("01:30:35  Done. PASS=1\n", OUTPUT, "   Done. PASS=1", id="the totals"),
        pytest.param("01:30:35  Running with dbt=1.11", OUTPUT, "", id="output without information"),
    ],
)
def test_the_console_shows_each_line_once_with_one_clock(text, more, message):
    """Without dbt's own times, which were recorded, without dead links, and without Prefect's own messages."""
    assert console_of(text, **more) == message


def test_the_console_shows_all_output_of_a_real_schedule():
    """Its links work, and its output is new to everyone."""
    printed = "01:30:35  Running with dbt=1.11\n01:30:35  1 of 9 OK created model a [OK]"
    assert console_of(printed, simulated=False, **OUTPUT).split() == printed.replace("01:30:35", "").split()
    link = "Bolt run 7 is RUNNING. https://app.paradime.io/bolt/run_id/7"
    assert console_of(link, simulated=False) == link


def test_artifacts_are_listed_by_kind():
    """Thirteen addresses would say less."""
    keys = [
        "paradime-daily",
        "paradime-daily-dbt-results",
        "paradime-progress-daily",
        "paradime-daily-links",
    ]
    logs = ["paradime-daily-log-1-dbt-run", "paradime-daily-log-2-dbt-test"]
    message = "summary, dbt results, 2 logs of commands, links to the files, progress"
    assert demo.kinds_of([*keys, *logs]) == message
    assert demo.kinds_of([]) == "none"


def test_without_a_schedule_the_simulator_is_used(monkeypatch, capsys):
    """If other variables are set, the console says why."""
    monkeypatch.setenv("PARADIME_API_ENDPOINT", "https://api.paradime.io/api/v1/acme/graphql")
    assert demo.real_bolt() is None
    assert "PARADIME_SCHEDULE is not set" in capsys.readouterr().out
    with ExitStack() as stack:
        bolt = demo.simulated_bolt(stack)
        assert bolt.credentials.check().ok


@pytest.mark.parametrize("simulated", [True, False])
def test_the_demo_ends_with_the_way_to_start_flows_oneself(simulated):
    """Whoever has seen the demo tries the forms next."""
    last = demo.closing(demo.Bolt(credentials=None, schedules=(), simulated=simulated)).splitlines()[-1]
    assert "start flows yourself" in last
    assert "`make up`" in last


def _ends_and_failed_tests(add) -> tuple[dict[str, str], int]:
    simulator = BoltSimulator(speed=0)
    add(simulator)
    names = [schedule.name for schedule in simulator._workspace.schedules()]
    ids = [simulator.start_run(name) for name in names]
    simulator.clock.advance(600)
    runs = [simulator.run(run_id) for run_id in ids]
    (results,) = [
        json.loads(resource.content)["results"]
        for run in runs
        for command in run.commands
        for resource in command.resources
        if command.return_code and resource.path.endswith("run_results.json")
    ]
    failed = [each for each in results if each["unique_id"].startswith("test.")]
    failed = [each for each in failed if each["status"] in {"fail", "error"}]
    return {run.schedule_name: run.state for run in runs}, len(failed)


def test_the_schedules_are_those_of_the_simulators_command():
    """The READMEs' examples run against both: the same names, the same ends, and two failed dbt tests."""
    recorded = _ends_and_failed_tests(lambda simulator: add_recorded_samples(simulator, seconds=4))
    assert recorded == _ends_and_failed_tests(add_samples)
    assert recorded[1] == 2
    assert recorded[0][demo.SUCCEEDS] == "SUCCESS"
    assert recorded[0][demo.FAILS] == "FAILED"


async def test_make_up_never_uses_the_id_of_an_earlier_run_again():
    """Prefect still shows the flow runs of the earlier simulators."""
    before = int(time.time())
    with ExitStack() as stack:
        bolt, simulated = local._bolt(stack)
        auth = auth_for(bolt["PARADIME_API_KEY"], bolt["PARADIME_API_SECRET"])
        async with BoltClient(ConnectionSettings(bolt["PARADIME_API_ENDPOINT"], auth)) as client:
            first, second = [await client.trigger_bolt_run(name) for name in ("daily", "failing")]
    assert simulated
    assert before <= first < second <= time.time() + 1


def test_the_demo_needs_nothing_from_the_tests():
    """Its recorded runs are beside it: a copy without tests/ shows the same."""
    assert (RECORDED / "success").is_dir()
    assert RECORDED.is_relative_to(Path(demo.__file__).parent)
