"""Bolt's data as types: states, dates, commands, results."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from paradime_blocks import BoltRunResult, BoltRunState
from paradime_blocks.models import (
    BoltAttempt,
    BoltCommand,
    BoltCommandDetail,
    BoltCommandSummary,
    BoltLogPage,
    BoltResource,
    BoltResourceSummary,
    BoltRunPage,
    BoltRunStatus,
    BoltSchedulePage,
    BoltScheduleSummary,
    BoltUsualDuration,
    parse_bolt_date,
    run_url,
)
from paradime_blocks.text.rendering import one_line

UTC = timezone.utc
BEGAN = "2023-10-15 16:44:16.986049"
ENDED = "2023-10-15 16:45:46.986049"


def command(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "command": "dbt run", "startDttm": BEGAN, "endDttm": ENDED, "returnCode": 0, **changes}


@pytest.mark.parametrize(
    "name, terminal, failure",
    [
        ("STARTING", False, False),
        ("RUNNING", False, False),
        ("SUCCESS", True, False),
        ("ERROR", True, True),
        ("FAILED", True, True),
        ("CANCELED", True, False),
        ("SKIPPED", True, False),
        ("Deploying", False, False),
        ("No runs", False, False),
    ],
)
def test_a_state_is_terminal_only_if_it_is_known_as_such(name, terminal, failure):
    """An unknown state is unfinished."""
    state = BoltRunState(name)
    assert (state.is_terminal, state in BoltRunState.FAILURES) == (terminal, failure)


@pytest.mark.parametrize("text", ["success", " SUCCESS ", "Success"])
def test_a_known_state_is_recognised_in_any_spelling(text):
    """It is the same member, so that `is` works."""
    assert BoltRunState(text) is BoltRunState.SUCCESS


OTHER_SPELLINGS = {"FAILURE", "TIMED_OUT", "TIMEOUT", "SUCCEEDED"}


@given(st.text(min_size=1).filter(str.strip).filter(lambda text: text.strip().upper() not in OTHER_SPELLINGS))
def test_any_state_survives_by_name(text):
    """It equals itself, survives JSON and pickle, and is hashable and readable."""
    state = BoltRunState(text)
    name = one_line(text.upper(), 60) or "UNKNOWN"
    assert state == BoltRunState(text) == name
    assert hash(state) == hash(BoltRunState(text))
    assert (str(state), f"{state}", state.value) == (name,) * 3
    attempt = BoltAttempt(run_id=1, state=state)
    assert BoltAttempt.model_validate_json(attempt.model_dump_json()).state == state
    assert pickle.loads(pickle.dumps(state)) == copy.deepcopy(state) == state  # noqa: S301 - our own


def test_a_hostile_state_is_cut_and_cleaned():
    """It is shown in messages, labels and titles."""
    state = BoltRunState("\x1b[31mOdd\nState" + "x" * 30_000)
    assert str(state).startswith("ODD STATEXXX")
    assert len(str(state)) <= 60
    assert BoltRunState(str(state)) == state


@pytest.mark.parametrize(
    "codes, unfinished",
    [
        pytest.param([0, None], "c1", id="running or interrupted"),
        pytest.param([0, 1], None, id="all ended"),
        pytest.param([None, 0], None, id="one without a code before one that ended"),
        pytest.param([], None, id="none"),
    ],
)
def test_the_unfinished_command_is_the_last_without_a_return_code(codes, unfinished):
    """A cancelled or timed-out run was executing it."""
    commands = [{"id": n, "command": f"c{n}", "returnCode": code} for n, code in enumerate(codes)]
    found = BoltRunStatus.model_validate({"state": "CANCELED", "commands": commands}).unfinished_command
    assert (found and found.command) == unfinished


def test_a_reply_of_another_shape_is_not_quoted_in_a_traceback():
    """It may contain a signed link, and Prefect logs tracebacks."""
    with pytest.raises(ValueError, match="path") as caught:
        BoltResource.model_validate({"id": 1, "path": {"url": "https://x.test/?X-Signature=abcdef"}})
    assert "abcdef" not in str(caught.value)


RUN = {"id": 7, "state": "SUCCESS", "actor": "ann"}


def test_a_run_whose_state_is_null_is_listed_as_unknown():
    """It counts as a run, and not as an ended one."""
    page = BoltRunPage.model_validate({"runs": [RUN, {**dict.fromkeys(RUN), "id": 5}]})
    assert [(run.id, run.state) for run in page.runs] == [(7, "SUCCESS"), (5, "UNKNOWN")]
    assert not page.runs[1].state.is_terminal


@pytest.mark.parametrize("odd", [None, "text", {**RUN, "id": None}, {**RUN, "state": ["SUCCESS"]}, {}])
def test_an_unreadable_run_does_not_affect_others(odd, caplog):
    """The page knows how many runs it had, so that the next page starts after them."""
    page = BoltRunPage.model_validate({"runs": [odd, RUN]})
    assert ([run.id for run in page.runs], page.received) == ([7], 2)
    assert "Left out a BoltRunRecord" in caplog.text


def test_an_odd_value_does_not_affect_others():
    """An owner that is not a text does not hide the schedule."""
    odd = {
        "name": "daily",
        "owner": ["a", "b"],
        "id": "x",
        "turboCi": "yes",
        "suspended": "perhaps",
        "slug": "d",
    }
    (schedule,) = BoltSchedulePage.model_validate({"schedules": [odd]}).schedules
    assert (schedule.name, schedule.slug) == ("daily", "d")
    assert (schedule.owner, schedule.id, schedule.turbo_ci, schedule.suspended) == (None,) * 4


@pytest.mark.parametrize("model, name", [(BoltRunPage, "runs"), (BoltSchedulePage, "schedules")])
def test_an_unreadable_page_is_an_error_and_not_empty(model, name):
    """An API that has changed must not look like a schedule without runs."""
    with pytest.raises(ValidationError):
        model.model_validate({name: [{"name": 5, "id": None}]})
    assert model.model_validate({name: []}).received == 0


def test_an_unreadable_command_does_not_hide_its_run(caplog):
    """The wait uses the run's state; the log names the field without its value."""
    odd = command(id=None, command="--token n33dle")
    status = BoltRunStatus.model_validate({"state": "SUCCESS", "commands": [odd, command(id=2)]})
    assert (status.state, [each.id for each in status.commands]) == (BoltRunState.SUCCESS, [2])
    assert "Left out a BoltCommand that cannot be read: id: " in caplog.text
    assert "n33dle" not in caplog.text


def test_an_unknown_state_does_not_join_the_known_ones():
    """The list has only the documented states, whatever a backend returns."""
    BoltRunState("POLISHING")
    assert [state.value for state in BoltRunState] == [
        "STARTING",
        "RUNNING",
        "SUCCESS",
        "ERROR",
        "FAILED",
        "CANCELED",
        "SKIPPED",
    ]


@pytest.mark.parametrize("state", [None, "", "  ", 7, []])
def test_a_reply_without_a_state_is_not_a_status(state):
    """A reply without a state says nothing about a run."""
    with pytest.raises(ValidationError, match="state"):
        BoltRunStatus.model_validate({"state": state})


@pytest.mark.parametrize(
    "text, moment",
    [
        pytest.param(BEGAN, datetime(2023, 10, 15, 16, 44, 16, 986049, UTC), id="as Bolt writes it"),
        pytest.param("2023-10-15 16:44:16", datetime(2023, 10, 15, 16, 44, 16, 0, UTC), id="no fraction"),
        pytest.param("2023-10-15T16:44:16Z", datetime(2023, 10, 15, 16, 44, 16, 0, UTC), id="Z"),
        pytest.param(
            "2023-10-15T16:44:16.9Z", datetime(2023, 10, 15, 16, 44, 16, 900000, UTC), id="one digit"
        ),
        pytest.param(
            "2023-10-15T16:44:16.123456789+00:00",
            datetime(2023, 10, 15, 16, 44, 16, 123456, UTC),
            id="nanoseconds",
        ),
        pytest.param(
            "2023-10-15T18:44:16+02:00", datetime(2023, 10, 15, 16, 44, 16, 0, UTC), id="another zone"
        ),
        pytest.param(" 2023-10-15 16:44:16 ", datetime(2023, 10, 15, 16, 44, 16, 0, UTC), id="space around"),
        pytest.param("", None, id="empty"),
        pytest.param(None, None, id="null"),
        pytest.param("yesterday", None, id="unreadable"),
        pytest.param("2023-13-45 99:99:99", None, id="impossible"),
        pytest.param(1697388256, datetime(2023, 10, 15, 16, 44, 16, 0, UTC), id="seconds since 1970"),
        pytest.param(
            1697388256986, datetime(2023, 10, 15, 16, 44, 16, 986000, UTC), id="milliseconds since 1970"
        ),
        pytest.param("1697388256", datetime(2023, 10, 15, 16, 44, 16, 0, UTC), id="seconds as text"),
        pytest.param(
            "1697388256986", datetime(2023, 10, 15, 16, 44, 16, 986000, UTC), id="milliseconds as text"
        ),
        pytest.param(
            "Sun, 15 Oct 2023 16:44:16 GMT", datetime(2023, 10, 15, 16, 44, 16, 0, UTC), id="RFC 1123"
        ),
        pytest.param(
            "2023-10-15 18:44:16+0200", datetime(2023, 10, 15, 16, 44, 16, 0, UTC), id="zone, no colon"
        ),
        pytest.param(0, None, id="zero"),
        pytest.param(True, None, id="yes"),
        pytest.param("in 5, no, 10 minutes", None, id="unreadable with a comma"),
        pytest.param("0001-01-01T00:00:00+23:59", None, id="before the calendar"),
    ],
)
def test_dates_are_read_as_utc(text, moment):
    """The API names no zone. An unreadable date becomes None, because no decision depends on it."""
    found = BoltCommand.model_validate(command(startDttm=text)).start_dttm
    assert found == moment
    assert found is None or found.tzinfo is UTC


@pytest.mark.parametrize("value", ["in 5 minutes", True, ["soon"], "2023-13-45"])
def test_an_unreadable_date_is_kept_unchanged(value):
    """No data from Bolt is lost, and the reply can still be read."""
    found = BoltScheduleSummary.model_validate({"name": "daily", "nextRunAt": value, "lastRunAt": BEGAN})
    assert found.next_run_at is None
    assert found.model_extra == {"next_run_at_text": value}


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_date_that_bolt_can_write_is_read_back(moment):
    """As text without a zone, to the microsecond."""
    assert parse_bolt_date(moment.replace(tzinfo=None).isoformat(sep=" ")) == moment


@given(st.text() | st.none() | st.integers() | st.floats() | st.datetimes() | st.lists(st.text()))
@example("9999-12-31T23:59:59-23:59")
@example("2023-10-15 16:44:16.")
def test_no_date_makes_a_reply_unreadable(value):
    """The result is a date in UTC with a zone, or None."""
    moment = parse_bolt_date(value)
    assert moment is None or (isinstance(moment, datetime) and moment.utcoffset() == timedelta(0))


@pytest.mark.parametrize(
    "changes, failed, seconds",
    [
        pytest.param({}, False, 90.0, id="succeeded"),
        pytest.param({"returnCode": 1}, True, 90.0, id="failed"),
        pytest.param({"endDttm": "", "returnCode": None}, False, None, id="runs"),
        pytest.param({"startDttm": None, "endDttm": None, "returnCode": None}, False, None, id="no dates"),
    ],
)
def test_a_command_knows_its_failure_and_duration(changes, failed, seconds):
    """A running command has not failed and has no duration."""
    found = BoltCommand.model_validate(command(**changes))
    assert (found.failed, found.duration_seconds) == (failed, seconds)


def test_nulls_become_usable_values():
    """No log becomes an empty text, no resources an empty list."""
    detail = BoltCommandDetail.model_validate(command(stdout=None, stderr=None, resources=None))
    assert (detail.stdout, detail.stderr, detail.resources) == ("", "", [])
    assert BoltSchedulePage.model_validate({"schedules": None, "totalCount": 0}).schedules == []


def test_a_log_is_not_in_the_repr_of_its_command():
    """A repr may be logged, so it must not have megabytes."""
    detail = BoltCommandDetail.model_validate(command(stdout="x" * 1000, stderr="y" * 1000))
    assert len(repr(detail)) < 500


def test_replies_cannot_be_changed():
    """Bolt's data cannot be modified by accident."""
    status = BoltRunStatus.model_validate({"state": "RUNNING"})
    with pytest.raises(ValidationError, match="frozen"):
        status.state = BoltRunState.SUCCESS


@pytest.mark.parametrize(
    "codes, failing",
    [
        pytest.param([0, 0], None, id="none failed or was interrupted"),
        pytest.param([0, 1], 2, id="the last"),
        pytest.param([1, 0, 2], 3, id="the last of several, as with continueOnError"),
        pytest.param([1, None], 1, id="an interrupted one has not failed"),
        pytest.param([0, None], 2, id="interrupted, and none failed"),
        pytest.param([None, 0], 1, id="interrupted before the last"),
        pytest.param([], None, id="no commands"),
    ],
)
def test_the_failing_command_is_the_last_that_failed(codes, failing):
    """With continueOnError, an earlier command may fail and the run continues."""
    commands = [command(id=n, returnCode=code) for n, code in enumerate(codes, 1)]
    found = BoltRunStatus.model_validate({"state": "FAILED", "commands": commands}).failing_command
    assert (found.id if found else None) == failing


@pytest.mark.parametrize("state", ["RUNNING", "SUCCESS", "SKIPPED", "POLISHING"])
@pytest.mark.parametrize("codes, failed", [([0, None], None), ([1, None], 1)])
def test_a_command_without_a_return_code_fails_only_an_ended_run(state, codes, failed):
    """A running command has no return code either."""
    commands = [command(id=n, returnCode=code) for n, code in enumerate(codes, 1)]
    status = BoltRunStatus.model_validate({"state": state, "commands": commands})
    for found in (status.failing_command, status.first_failed_command):
        assert (found.id if found else None) == failed


@pytest.mark.parametrize("state", ["ERROR", "FAILED", "CANCELED"])
@pytest.mark.parametrize(
    "codes, first",
    [
        pytest.param([0, 1, 0, 2], 2, id="the first of several"),
        pytest.param([0, None, 1], 2, id="an interrupted one"),
        pytest.param([0, 0], 2, id="none: the last"),
        pytest.param([], None, id="no commands"),
    ],
)
def test_a_retry_starts_at_the_first_command_that_failed(state, codes, first):
    """With continueOnError, the run continued after it."""
    commands = [command(id=n, returnCode=code) for n, code in enumerate(codes, 1)]
    found = BoltRunStatus.model_validate({"state": state, "commands": commands}).first_failed_command
    assert (found.id if found else None) == first


def test_null_texts_make_no_reply_unreadable():
    """A run must not become invisible because of a missing name."""
    run = {"state": "RUNNING", "commands": [command(command=None)]}
    assert BoltRunStatus.model_validate(run).commands[0].command == ""
    assert BoltCommandDetail.model_validate(
        command(command=None, resources=[{"id": 1, "path": None}])
    ).resources == [BoltResource(id=1, path="")]
    page = BoltSchedulePage.model_validate({"schedules": [{"name": None, "commands": [None, "dbt run"]}]})
    assert (page.schedules[0].name, page.schedules[0].commands) == ("", ["", "dbt run"])
    lines = BoltLogPage.model_validate({"lines": [{"stream": None, "line": None}], "finished": True}).lines
    assert (lines[0].stream, lines[0].line) == ("STDOUT", "")


@pytest.mark.parametrize("state, ends", [("RUNNING", False), ("SUCCESS", True), ("POLISHING", False)])
def test_a_run_lasts_from_its_first_to_its_last_command(state, ends):
    """The order of the list does not matter; an active run has no end."""
    later = {"startDttm": "2023-10-15 17:00:00", "endDttm": "2023-10-15 17:00:01"}
    status = BoltRunStatus.model_validate({"state": state, "commands": [command(**later), command()]})
    assert status.started_at == datetime(2023, 10, 15, 16, 44, 16, 986049, UTC)
    assert status.ended_at == (datetime(2023, 10, 15, 17, 0, 1, 0, UTC) if ends else None)


def test_a_run_that_never_started_has_no_times():
    """A skipped run, for example."""
    status = BoltRunStatus.model_validate({"state": "SKIPPED"})
    assert (status.started_at, status.ended_at) == (None, None)


@pytest.mark.parametrize("finished", [None, "perhaps"])
def test_a_log_page_must_say_whether_it_is_the_last(finished):
    """False would repeat the request for ever; true would lose the rest of the log."""
    with pytest.raises(ValidationError, match="finished"):
        BoltLogPage.model_validate({"lines": [], "finished": finished})


def test_a_result_has_what_is_known_about_a_run():
    """If the run was read, its status counts; otherwise, a state known from elsewhere, if any."""
    status = BoltRunStatus.model_validate({"state": "RUNNING", "commands": [command()]})
    seen = BoltRunResult.of(7, status, state=BoltRunState.CANCELED)
    assert (seen.state, seen.started_at, seen.attempts[0].state) == ("RUNNING", status.started_at, "RUNNING")
    assert [each.id for each in seen.commands] == [status.commands[0].id]
    known = BoltRunResult.of(7, None, schedule_name="daily", state=BoltRunState.CANCELED)
    assert (known.state, known.url, known.commands) == ("CANCELED", run_url(7), [])
    assert BoltRunResult.of(7, None).state == "UNKNOWN"


def listed(
    run_id: int, seconds: float | None, state: str = "SUCCESS", parent: int | None = None
) -> dict[str, Any]:
    """A run as `listBoltRuns` lists it."""
    began = datetime(2026, 11, 1, tzinfo=UTC)
    ended = None if seconds is None else (began + timedelta(seconds=seconds)).isoformat()
    return {
        "id": run_id,
        "state": state,
        "startDttm": began.isoformat(),
        "endDttm": ended,
        "parentScheduleRunId": parent,
    }


@pytest.mark.parametrize(
    "own, difference",
    [
        pytest.param(listed(9, 130), 30.0, id="longer"),
        pytest.param(listed(9, 60), -40.0, id="shorter"),
        pytest.param(listed(9, 40, "FAILED"), -60.0, id="failed"),
        pytest.param(listed(9, None, "RUNNING"), None, id="running"),
        pytest.param(listed(9, 5, parent=8), None, id="a retry"),
        pytest.param(listed(10, 100), None, id="not in the list"),
    ],
)
def test_the_usual_duration_is_the_median_of_whole_runs(own, difference):
    """Failures, retries, the run itself and runs without an end do not count."""
    others = [listed(8, 1, parent=7), listed(7, 1, "FAILED"), listed(6, None, "RUNNING"), listed(5, None)]
    others += [listed(4, 90), listed(3, 100), listed(2, 5000), listed(1, 100)]
    runs = BoltRunPage.model_validate({"runs": [own, *others]}).runs
    found = BoltUsualDuration.of(runs, 9)
    assert found is not None
    assert (found.seconds, found.difference_seconds) == (100.0, difference)
    assert found.runs == (5 if own["id"] == 10 else 4)


def test_two_runs_do_not_make_a_usual_duration():
    """The median of them would say nothing."""
    page = BoltRunPage.model_validate({"runs": [listed(3, 10), listed(2, 10), listed(1, 10)]})
    assert BoltUsualDuration.of(page.runs, 3) is None


def test_a_result_survives_json():
    """Prefect stores it as JSON, and users read it again."""
    status = BoltRunStatus.model_validate({"state": "SUCCESS", "commands": [command()]})
    result = BoltRunResult(
        run_id=76035,
        schedule_name="daily",
        state=BoltRunState("POLISHING"),
        url=run_url(76035),
        started_at=status.started_at,
        commands=[BoltCommandSummary.of(status.commands[0])],
        resources=[BoltResourceSummary(id=1, path="target/manifest.json", command_id=1)],
        attempts=[BoltAttempt(run_id=76035, state=BoltRunState.FAILED)],
    )
    text = result.model_dump_json()
    assert BoltRunResult.model_validate_json(text) == result
    message = json.loads(text)
    assert message["state"] == "POLISHING"
    assert message["started_at"] == "2023-10-15T16:44:16.986049Z"
    assert message["attempts"][0]["url"] == "https://app.paradime.io/bolt/run_id/76035"
