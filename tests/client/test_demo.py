"""The demo against the real service: who is let in, and what is said to the others, before anything starts."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import demo
import pytest
from recorded import RECORDED

from paradime_blocks.testing import BoltSimulator


@pytest.fixture(autouse=True)
def _no_server(monkeypatch):
    """What is tested here comes before a Prefect server is started, and must not start one."""

    def start(*_: object, **__: object) -> None:
        pytest.fail("a Prefect server was started")

    monkeypatch.setattr(demo, "LocalPrefectServer", start)


@pytest.fixture
def arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["demo.py"])


def _homes() -> set[Path]:
    return set((demo.ROOT / ".demo").glob("prefect-*"))


def test_the_environment_file_serves_as_well_as_the_environment():
    """A token, its workspace and a proxy from `.env`, as everywhere else."""
    with BoltSimulator(bearer="prdm_cmp_token", workspace_uid="w1") as simulator:
        values = {**simulator.environment(), "PARADIME_SCHEDULE": "daily", "PARADIME_PROXY": "none"}
        Path(".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        bolt = demo.real_bolt()
    assert bolt.schedules == (("daily", None),)
    assert bolt.credentials.workspace_uid == "w1"
    assert bolt.credentials.proxy.get_secret_value() == "none"


def test_a_bad_key_is_told_in_a_sentence_and_leaves_nothing_behind(monkeypatch, arguments, capsys):
    """No traceback, and no folder of a Prefect server with a secret in its database."""
    before = _homes()
    with BoltSimulator() as simulator:
        for name, value in simulator.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PARADIME_API_KEY", "wrong")
        monkeypatch.setenv("PARADIME_SCHEDULE", "daily")
        assert demo.main() == 1
    told = capsys.readouterr().err
    assert "The demo FAILED: Bolt does not accept the credentials of the environment" in told
    assert "Traceback" not in told
    assert _homes() == before


def test_a_missing_variable_is_named(monkeypatch, arguments, capsys):
    """And how to have the simulator instead."""
    monkeypatch.setenv("PARADIME_SCHEDULE", "daily")
    monkeypatch.setenv("PARADIME_API_ENDPOINT", "https://api.paradime.io/api/v1/acme/graphql")
    assert demo.main() == 1
    told = capsys.readouterr().err
    assert "does not set PARADIME_API_SECRET" in told
    assert "unset PARADIME_SCHEDULE to use the simulator" in told


@pytest.mark.parametrize("schedule", ["dayly", "broken"])
def test_an_error_of_any_kind_ends_the_story_in_order(monkeypatch, schedule):
    """A schedule that there is not, as well as a run that fails: what Prefect shows of it is printed."""
    from paradime_blocks import BoltRequestError, BoltRunFailed
    from paradime_flows import run_schedule as module

    error = BoltRequestError("There is none.") if schedule == "dayly" else BoltRunFailed("It failed.")
    shown = []

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, "run_schedule", fail)
    monkeypatch.setattr(demo, "tidy_the_console", lambda: None)
    monkeypatch.setattr(demo, "show", lambda server: shown.append(server) or True)
    assert demo.run_one("the server", None, schedule, should_succeed=None) is False
    assert shown == ["the server"]


def test_without_a_schedule_the_simulator_is_used(monkeypatch, capsys):
    """And whoever has set the rest is told why."""
    monkeypatch.setenv("PARADIME_API_ENDPOINT", "https://api.paradime.io/api/v1/acme/graphql")
    assert demo.real_bolt() is None
    assert "PARADIME_SCHEDULE is not set" in capsys.readouterr().out
    with ExitStack() as stack:
        bolt = demo.simulated_bolt(stack)
        assert bolt.credentials.check().ok


def test_the_demo_needs_nothing_of_the_tests():
    """Its recorded runs lie beside it: a copy without tests/ shows the same."""
    assert (RECORDED / "success").is_dir()
    assert RECORDED.is_relative_to(Path(demo.__file__).parent)
