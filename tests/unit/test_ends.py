"""The end of a run whose state is not known is told by its commands, and only some time after the last of them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from paradime_blocks import BoltRunState
from paradime_blocks.models import BoltRunStatus
from paradime_blocks.models.ends import SETTLING_SECONDS, end_by_commands, settled

ENDED = "2023-10-15 16:45:46"
LAST_END = datetime(2023, 10, 15, 16, 45, 46, tzinfo=timezone.utc).timestamp()


def command(code: int | None, text: str = "dbt run", end: str | None = ENDED) -> dict[str, Any]:
    return {"id": 1, "command": text, "endDttm": end, "returnCode": code}


def status(state: str, *commands: dict[str, Any]) -> BoltRunStatus:
    return BoltRunStatus.model_validate({"state": state, "commands": commands})


CLONE = command(0, "git clone https://github.com/acme/dbt.git")
RUNNING = command(None, end=None)
BROKEN_OFF = command(None)


@pytest.mark.parametrize(
    "state, commands, end",
    [
        pytest.param("PETRIFIED", [CLONE, command(0)], "SUCCESS", id="all succeeded"),
        pytest.param("PETRIFIED", [CLONE, command(0), command(1)], "FAILED", id="one failed"),
        pytest.param("PETRIFIED", [command(1), command(0)], "FAILED", id="one failed and the run continued"),
        pytest.param("PETRIFIED", [command(0), BROKEN_OFF], "FAILED", id="one was broken off"),
        pytest.param("PETRIFIED", [command(128, "git clone x")], "FAILED", id="the clone failed"),
        pytest.param("ABORTED", [CLONE, command(0)], "FAILED", id="a name that speaks of no success"),
        pytest.param("PETRIFIED", [command(0), RUNNING], None, id="one is running"),
        pytest.param("PETRIFIED", [], None, id="none has started"),
        pytest.param("PETRIFIED", [CLONE, command(0, "dbt deps")], None, id="only Bolt's own"),
        pytest.param("RUNNING", [CLONE, command(0)], None, id="a state that is known"),
    ],
)
def test_the_commands_tell_the_end_of_a_run_whose_state_is_not_known(state, commands, end):
    """A state that is known is what it is, whatever the commands say."""
    found = status(state, *commands)
    assert end_by_commands(found) == end
    later = settled(found, LAST_END + SETTLING_SECONDS)
    assert later.state == (end or state)
    assert later.reported_state == (state if end else None)


@pytest.mark.parametrize("now", [None, LAST_END - 3600, LAST_END, LAST_END + SETTLING_SECONDS - 1])
def test_a_state_that_is_not_known_is_no_end_before_it_has_lasted(now):
    """The next command may be about to start; and without Bolt's clock nobody can tell."""
    found = status("PETRIFIED", command(0))
    assert settled(found, now) is found


@pytest.mark.parametrize(
    "spelling, state",
    [
        ("CANCELLED", BoltRunState.CANCELED),
        ("cancelled", BoltRunState.CANCELED),
        ("FAILURE", BoltRunState.FAILED),
        ("TIMED_OUT", BoltRunState.FAILED),
        ("TIMEOUT", BoltRunState.FAILED),
        ("SUCCEEDED", BoltRunState.SUCCESS),
    ],
)
def test_other_spellings_of_an_end_are_that_end(spelling, state):
    """They need not wait for anything."""
    assert BoltRunState(spelling) is state
    assert state.is_terminal
    assert state.is_known
    assert not BoltRunState("CANCELLING").is_known
