"""The end of a run with an unknown state follows from its commands, some time after the last of them."""

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
INTERRUPTED = command(None)


@pytest.mark.parametrize(
    "state, commands, end",
    [
        pytest.param("PETRIFIED", [CLONE, command(0)], "SUCCESS", id="all succeeded"),
        pytest.param("PETRIFIED", [CLONE, command(0), command(1)], "FAILED", id="one failed"),
        pytest.param("PETRIFIED", [command(1), command(0)], "FAILED", id="one failed and the run continued"),
        pytest.param("PETRIFIED", [command(0), INTERRUPTED], "FAILED", id="one was interrupted"),
        pytest.param("PETRIFIED", [command(128, "git clone x")], "FAILED", id="the clone failed"),
        pytest.param("ABORTED", [CLONE, command(0)], "FAILED", id="a name that does not suggest success"),
        pytest.param("PETRIFIED", [command(0), RUNNING], None, id="one is running"),
        pytest.param("PETRIFIED", [], None, id="none has started"),
        pytest.param("PETRIFIED", [CLONE, command(0, "dbt deps")], None, id="only Bolt's own"),
        pytest.param("RUNNING", [CLONE, command(0)], None, id="a state that is known"),
    ],
)
def test_the_commands_decide_the_end_of_an_unknown_state(state, commands, end):
    """A known state counts, whatever the commands show."""
    found = status(state, *commands)
    assert end_by_commands(found) == end
    later = settled(found, LAST_END + SETTLING_SECONDS)
    assert later.state == (end or state)
    assert later.reported_state == (state if end else None)


@pytest.mark.parametrize("now", [None, LAST_END - 3600, LAST_END, LAST_END + SETTLING_SECONDS - 1])
def test_an_unknown_state_is_not_an_end_until_some_time_has_passed(now):
    """The next command may be about to start; without Bolt's clock, this is unknown."""
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
def test_other_spellings_of_a_final_state_are_recognised(spelling, state):
    """They need no waiting time."""
    assert BoltRunState(spelling) is state
    assert state.is_terminal
    assert state.is_known
    assert not BoltRunState("CANCELLING").is_known
