"""The cause in the summary and the run's error agree: both name the command that ended the run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paradime_blocks.models import BoltRunStatus
from paradime_blocks.text.redaction import Redactor
from paradime_flows.reporting.dbt_results import DbtStory
from paradime_flows.reporting.failure_cause import cause_of

SECRET = "n33dle-in-the-haystack"


def status_of(*commands: tuple[str, int | None], state: str = "FAILED") -> BoltRunStatus:
    """A run of these commands with their return codes."""
    listed = [{"id": n, "command": text, "returnCode": code} for n, (text, code) in enumerate(commands, 1)]
    return BoltRunStatus.model_validate({"state": state, "commands": listed})


def results(which: str, *failed: str, message: str = "boom", **metadata: Any) -> bytes:
    """A run_results.json."""
    nodes = [{"unique_id": f"model.shop.{name}", "status": "error", "message": message} for name in failed]
    return json.dumps({"metadata": metadata, "args": {"which": which}, "results": nodes}).encode()


def stale(source: str) -> bytes:
    """A sources.json."""
    return json.dumps({"results": [{"unique_id": f"source.shop.{source}", "status": "error"}]}).encode()


def test_the_command_that_ended_the_run_is_the_cause() -> None:
    """With continueOnError, `dbt build` failed before; the error names the command that ended the run."""
    story = DbtStory()
    story.read("results", results("build", "a", "b"), "dbt build")
    message = cause_of(
        status_of(("dbt build", 1), ("python upload.py", 3)), story, "ERROR: bucket is gone", "bye"
    )
    assert message == "python upload.py: ERROR: bucket is gone; failed nodes in other commands: 2"


def test_a_script_is_not_explained_by_an_earlier_commands_results() -> None:
    """Bolt lists the present contents of dbt's folder with every command."""
    story = DbtStory()
    story.read("results", results("build", "a"), "python upload.py")
    message = cause_of(status_of(("python upload.py", 3)), story, None, "it is all over")
    assert message is not None
    assert message.startswith("Command python upload.py ended with return code 3: it is all over")


def test_a_dbt_command_is_not_explained_by_results_of_another_kind() -> None:
    """`dbt source freshness` writes none."""
    story = DbtStory()
    story.read("results", results("build", "a"), "dbt deps")
    message = cause_of(status_of(("dbt deps", 1)), story, "Dependency Error", None)
    assert message is not None
    assert message.startswith("dbt deps: Dependency Error")


def test_a_dbt_commands_own_results_come_before_its_log() -> None:
    """They also come before the results of earlier commands."""
    story = DbtStory()
    story.read("results", results("run", "early"), "dbt run")
    story.read("results", results("test", "late"), "dbt test")
    message = cause_of(status_of(("dbt run", 1), ("dbt test", 1)), story, "Failure in test", None)
    assert message == "dbt test: model late failed: boom; failed nodes in other commands: 1"


def test_a_retry_is_explained_by_what_it_retried() -> None:
    """The file of `dbt retry` has the kind of the command that was retried."""
    story = DbtStory()
    story.read("results", results("run", "a"), "dbt retry")
    assert cause_of(status_of(("dbt retry", 1)), story, None, None) == "dbt retry: model a failed: boom"


def test_stale_sources_explain_only_the_command_that_checks_them() -> None:
    """For any other command, they count among the further failures."""
    story = DbtStory()
    story.read("freshness", stale("raw"), "dbt source freshness")
    own = cause_of(status_of(("dbt source freshness", 1)), story, None, None)
    assert own == "dbt source freshness: source raw is stale"
    other = cause_of(status_of(("dbt source freshness", 1), ("dbt run", 1)), story, "Compilation Error", None)
    assert other == "dbt run: Compilation Error; failed nodes in other commands: 1"


@pytest.mark.parametrize(
    "last, message",
    [
        pytest.param("boom", "Command x ended with return code 2: boom", id="last line"),
        pytest.param(None, "Command x ended with return code 2", id="no log"),
    ],
)
def test_every_failure_has_a_cause(last: str | None, message: str) -> None:
    """This holds for a command with unknown output, or whose log could not be fetched."""
    assert cause_of(status_of(("x", 2)), DbtStory(), None, last) == message


def test_other_failed_commands_are_counted_when_there_are_no_results() -> None:
    """They may not be dbt's."""
    status = status_of(("a", 1), ("b", 1), ("c", 1))
    assert (
        cause_of(status, DbtStory(), None, "x")
        == "Command c ended with return code 1: x; 2 more commands failed"
    )


def test_the_running_command_explains_a_cancelled_run() -> None:
    """Earlier failures do not matter."""
    status = status_of(("a", 1), ("dbt run", None), state="CANCELED")
    assert cause_of(status, DbtStory(), None, "model 3") == "dbt run was running when the run was cancelled"


def test_an_interrupted_command_explains_an_error() -> None:
    """It has no failed command."""
    status = status_of(("a", 0), ("dbt run", None), state="ERROR")
    assert cause_of(status, DbtStory(), None, None) == "Command dbt run ended without a return code"


@pytest.mark.parametrize("state", ["SUCCESS", "RUNNING", "SKIPPED"])
def test_a_run_without_failures_has_no_cause(state: str) -> None:
    """A command may fail in a run that succeeds."""
    assert cause_of(status_of(("a", 1), state=state), DbtStory(), "error", "x") is None


def test_a_cause_is_bounded() -> None:
    """Whatever the command and its log are."""
    message = cause_of(status_of(("x" * 30_000, 1)), DbtStory(), "e" * 30_000, None)
    assert message is not None
    assert len(message) < 500
    story = DbtStory()
    command = "dbt run --vars " + "x" * 30_000
    story.read("results", results("run", "orders", message="e" * 30_000), command)
    message = cause_of(status_of((command, 1)), story, None, None)
    assert message is not None
    assert "model orders failed" in message
    assert len(message) < 500


def test_secrets_are_removed_from_dbts_messages_before_the_cut() -> None:
    """This covers messages of nodes and of sources; a message without secrets does not change."""
    story = DbtStory()
    story.read("results", results("run", "a", message="x" * 110 + SECRET), "dbt run")
    story.read(
        "freshness",
        json.dumps({"results": [{"unique_id": "source.s.r", "status": "error", "error": SECRET}]}).encode(),
        "dbt source freshness",
    )
    story.redact(Redactor([SECRET]))
    assert SECRET[:6] not in story.render("a run", None)
    assert story.results.nodes[0].name == "a"
