"""The public names are promises: they exist, in both forms, and no others are listed."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import paradime_blocks
from paradime_blocks import BoltRunState, BoltSchedule, ParadimeCredentials, errors
from paradime_blocks.run import BoltRun

ROOT = Path(paradime_blocks.__file__).resolve().parent

# DESIGN.md's table of public names, for paradime_blocks.
PROMISED = {
    "BoltAlreadyRunning",
    "BoltAuthError",
    "BoltClient",
    "BoltError",
    "BoltRequestError",
    "BoltRun",
    "BoltRunCanceled",
    "BoltRunError",
    "BoltRunFailed",
    "BoltRunResult",
    "BoltRunSkipped",
    "BoltRunState",
    "BoltRunTimedOut",
    "BoltSchedule",
    "BoltTriggerUnknown",
    "BoltUnavailable",
    "ParadimeCredentials",
}
PROMISED_MEMBERS = {
    "ParadimeCredentials": {
        *("api_endpoint", "api_key", "api_secret", "workspace_uid", "proxy", "request_timeout_seconds"),
        *("from_env", "get_client", "check", "for_workspace"),
    },
    "BoltSchedule": {
        *("credentials", "schedule_name", "commands", "branch", "timeout_seconds", "poll_interval_seconds"),
        *("trigger", "attach"),
    },
    "BoltRun": {"run_id", "url", "state", "wait_for_completion", "fetch_result", "cancel", "commands"},
    "BoltRunResult": {
        *("run_id", "schedule_name", "state", "url", "started_at", "ended_at", "commands", "resources"),
        *("attempts", "dbt", "usual_duration"),
    },
    "BoltRunState": {"TERMINAL", "is_terminal"},
}
# Each public call that waits for something, in its two forms.
FORMS = [
    pytest.param(ParadimeCredentials, "check", id="check"),
    pytest.param(BoltSchedule, "trigger", id="trigger"),
    pytest.param(BoltRun, "state", id="state"),
    pytest.param(BoltRun, "commands", id="commands"),
    pytest.param(BoltRun, "wait_for_completion", id="wait_for_completion"),
    pytest.param(BoltRun, "fetch_result", id="fetch_result"),
    pytest.param(BoltRun, "cancel", id="cancel"),
]


def test_the_promised_names_exist():
    """A user's flow that uses one of these names must not break."""
    assert PROMISED - set(paradime_blocks.__all__) == set()


def test_the_list_of_public_names_is_complete():
    """Nothing is listed that does not exist, and nothing else is public."""
    names = paradime_blocks.__all__
    assert names == sorted(set(names))
    modules = {path.stem for path in ROOT.glob("*.py")} | {
        path.parent.name for path in ROOT.glob("*/__init__.py")
    }
    present = {name for name in vars(paradime_blocks) if not name.startswith("_")} - modules
    # The client is imported when it is needed.
    assert (present - {"annotations", "TYPE_CHECKING"}) | {"BoltClient"} == set(names)


def test_every_error_is_public():
    """A caller who catches an error must be able to import it."""
    kinds = {
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and kind.__module__ == errors.__name__
    }
    assert kinds - set(paradime_blocks.__all__) == set()


@pytest.mark.parametrize("name", sorted(PROMISED_MEMBERS))
def test_each_public_class_has_the_members_that_are_promised(name):
    """These are fields and methods."""
    kind = getattr(paradime_blocks, name)
    fields = set(getattr(kind, "model_fields", {})) | set(getattr(kind, "__dataclass_fields__", {}))
    missing = {member for member in PROMISED_MEMBERS[name] - fields if not hasattr(kind, member)}
    assert missing == set()


def test_the_named_sets_contain_states():
    """`TERMINAL` is a set of the enum's members, not one of them."""
    assert BoltRunState.SUCCESS in BoltRunState.TERMINAL
    assert not isinstance(BoltRunState.TERMINAL, BoltRunState)


@pytest.mark.parametrize("kind, name", FORMS)
def test_each_call_has_a_sync_and_an_async_form(kind, name):
    """`x` and `ax` have the same parameters and the same documentation."""
    plain, async_form = getattr(kind, name), getattr(kind, f"a{name}")
    assert inspect.iscoroutinefunction(async_form)
    assert not inspect.iscoroutinefunction(plain)
    assert (plain.__name__, plain.__doc__) == (name, async_form.__doc__)
    assert inspect.signature(plain) == inspect.signature(async_form)


@pytest.mark.parametrize("kind", [ParadimeCredentials, BoltSchedule, BoltRun])
def test_every_call_has_both_forms(kind):
    """A new call is added in both forms, and to the table above."""
    ours = {name for name in vars(kind) if not name.startswith("_")}
    async_forms = {name for name in ours if inspect.iscoroutinefunction(vars(kind)[name])}
    assert {f"a{case.values[1]}" for case in FORMS if case.values[0] is kind} == async_forms
