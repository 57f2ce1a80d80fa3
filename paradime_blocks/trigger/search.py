"""Searches for the run that a trigger may have started.

Bolt has no idempotency key. The run of our trigger is newer than the run that was the schedule's latest run before the
trigger. The search compares the start, the branch, the commands and the parent of each newer run with the intent. If
exactly one run fits, this run is ours. If no new run appears during the search window, the trigger has started nothing.
In any other case the outcome is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from paradime_blocks.errors import (
    BoltAuthError,
    BoltError,
    BoltRequestError,
    BoltTriggerUnknown,
    BoltUnavailable,
    BoltUnsupported,
)
from paradime_blocks.models import BoltGitInfo, BoltRunRecord, BoltRunState, run_url
from paradime_blocks.models.ends import count_setup
from paradime_blocks.polling import Clock, Deadline, system_clock
from paradime_blocks.trigger.request import fingerprint_of

if TYPE_CHECKING:
    from paradime_blocks.client import BoltClient
    from paradime_blocks.trigger.request import TriggerIntent, TriggerRequest

_SEARCH_DELAYS = (0.5, 1.0, 2.0, 3.0)
# A trigger starts its run within this time, or never.
_LONGEST_START_SECONDS = 600.0
_LONGEST_REQUEST_SECONDS = 60.0
_PAGE = 50
_MOST_RUNS = 200
_COMMIT = re.compile(r"[0-9a-f]{7,64}", re.IGNORECASE)
_BY_THE_CLOCK = re.compile(r"\bcron|schedul", re.IGNORECASE)


class Verdict(Enum):
    """The verdict of a search: the run was found, the run does not exist, or the search cannot tell."""

    FOUND = "found"
    ABSENT = "absent"
    UNSURE = "unsure"


class Fit(Enum):
    """How well a run fits an intent: it fits (YES), may fit (OPEN), probably does not (DOUBTFUL), does not fit (NO)."""

    YES = "yes"
    OPEN = "open"
    DOUBTFUL = "doubtful"
    NO = "no"


@dataclass(frozen=True)
class Finding:
    """The result of a search.

    Attributes:
        verdict: Whether the run was found.
        candidates: The ids of the runs that the trigger may have started.
        is_early: Whether the search ended before its time window was over: a run may still appear.
        fits: How well each newer run fits the intent. The key is the run's id.
    """

    verdict: Verdict
    candidates: Sequence[int] = ()
    is_early: bool = False
    fits: Mapping[int, Fit] = field(default_factory=dict, compare=False, repr=False)

    @property
    def run_id(self) -> int:
        """The id of the run that was found."""
        return self.candidates[0]


def fit(intent: TriggerIntent, record: BoltRunRecord, commands: Sequence[str]) -> Fit:
    """Return how well a run fits an intent.

    Args:
        intent: The intent.
        record: The run as `listBoltRuns` returns it. The run is newer than the intent's `latest_run_id`.
        commands: The run's commands so far.
    """
    if record.parent_schedule_run_id != intent.retry_of and (
        record.parent_schedule_run_id or intent.retry_of
    ):
        return Fit.NO
    if intent.retry_of is not None:
        return Fit.YES
    source = checked_out(intent.branch, record.git_info)
    how = Fit.NO if source is Fit.NO else _commands_fit(intent.commands, commands)
    if how is not Fit.NO and _BY_THE_CLOCK.search(record.actor or ""):
        # The actor's name suggests that Bolt's timer started the run, not our trigger. This is not certain.
        return Fit.DOUBTFUL
    return Fit.OPEN if how is Fit.YES and source is Fit.OPEN else how


def checked_out(asked: str | None, git: BoltGitInfo | None) -> Fit:
    """Return whether a run has checked out the requested branch or commit.

    The result is YES, too, if no branch or commit was requested, or if Bolt does not show the run's branch and commit.
    """
    if asked is None or git is None or not (git.branch or git.commit_hash):
        return Fit.YES
    branch, commit = (git.branch or "").removeprefix("refs/heads/"), git.commit_hash or ""
    if asked.removeprefix("refs/heads/") in {branch, commit} or commit.startswith(asked):
        return Fit.YES
    # Bolt may report the commit instead of the branch's name.
    return Fit.OPEN if not branch or _COMMIT.fullmatch(branch) else Fit.NO


def _commands_fit(asked: Sequence[str], shown: Sequence[str]) -> Fit:
    """Return whether a run's commands so far are the first requested commands, by comparing fingerprints."""
    setup = count_setup(shown)
    if not asked or setup == len(shown):
        return Fit.OPEN
    return Fit.NO if _first(asked, [*map(fingerprint_of, shown)], setup) is None else Fit.YES


def first_of(asked: Sequence[str], shown: Sequence[str]) -> int | None:
    """Return the index of the first requested command in a run's commands; None if the commands do not match.

    Args:
        asked: The requested commands. The first of them may be equal to Bolt's own commands, such as `dbt deps`.
        shown: The commands that the run has so far, with Bolt's own commands.
    """
    expected, seen = ([*map(fingerprint_of, commands)] for commands in (asked, shown))
    return _first(expected, seen, count_setup(shown))


def _first(expected: Sequence[str], seen: Sequence[str], setup: int) -> int | None:
    places = range(setup, -1, -1)
    return next((start for start in places if [*seen[start:]] == [*expected[: len(seen) - start]]), None)


def judge(fits: dict[int, Fit], *, window_is_over: bool) -> Finding | None:
    """Return the finding of a search after one look at the runs; None if the search must look again.

    Args:
        fits: How well each newer run fits the intent. The key is the run's id.
        window_is_over: Whether the search window is over: a run would have appeared by now.
    """
    certain = [run_id for run_id, how in fits.items() if how is Fit.YES]
    possible = [run_id for run_id, how in fits.items() if how is not Fit.NO]
    if len(certain) == 1 and len(possible) == 1:
        return Finding(Verdict.FOUND, certain, fits=fits)
    if not window_is_over:
        return None
    if len(possible) == 1 and fits[possible[0]] is not Fit.DOUBTFUL:
        # This run is the only run that may fit.
        return Finding(Verdict.FOUND, possible, fits=fits)
    if not fits:
        return Finding(Verdict.ABSENT)
    # If there are only runs that do not fit, one of them may still be ours: Bolt may spell a command differently.
    return Finding(Verdict.UNSURE, sorted(possible or fits), fits=fits)


def begun_too_late(
    intent: TriggerIntent, began: float | None, now: float, bolt_now: float | None
) -> Fit | None:
    """If a run began too late for an intent, return how well the run fits the intent; otherwise None.

    Args:
        intent: The intent.
        began: The time at which the run began, by Bolt's clock; None if it has not begun yet.
        now: The time by our own clock, which can be wrong.
        bolt_now: The time by Bolt's clock; None if Bolt's time is unknown.
    """
    certain = intent.bolt_time is not None and bolt_now is not None
    intended, present = (intent.bolt_time, bolt_now) if certain else (intent.intended_at, now)
    if intended is None or present is None or present <= intended + _LONGEST_START_SECONDS:
        # The longest start time is not over, so no run can have begun too late.
        return None
    if (present if began is None else began) <= intended + _LONGEST_START_SECONDS:
        return None
    return Fit.NO if certain else Fit.DOUBTFUL


def longest_request_seconds(request_timeout_seconds: float) -> float:
    """Return how long a trigger without an answer may still start its run, in seconds after the trigger was sent.

    Args:
        request_timeout_seconds: The client's timeout for a request. A server may work on the request for longer.
    """
    return max(_LONGEST_REQUEST_SECONDS, 2 * request_timeout_seconds)


def _seconds_since(intent: TriggerIntent, now: float, bolt_now: float | None) -> float:
    """Return the age of an intent in seconds. Bolt's clock is used if its time is known: our own clock can be wrong."""
    if intent.bolt_time is not None and bolt_now is not None:
        return max(0.0, bolt_now - intent.bolt_time)
    return max(0.0, now - intent.intended_at)


async def find_triggered_run(
    client: BoltClient,
    request: TriggerRequest,
    intent: TriggerIntent,
    *,
    window_seconds: float,
    max_outage_seconds: float,
    least_age_seconds: float = 0.0,
    at_most_seconds: float | None = None,
    clock: Clock | None = None,
    of_others: Callable[[], Awaitable[Collection[int]]] | None = None,
) -> Finding:
    """Search for the run that a trigger may have started.

    Args:
        client: An open client.
        request: The request of the trigger.
        intent: What was known before the trigger was sent.
        window_seconds: How long to search until the run counts as absent, counted from Bolt's first answer.
        max_outage_seconds: How long to continue while Bolt does not answer.
        least_age_seconds: The run counts as absent only if the intent is at least this old.
        at_most_seconds: The longest time to search, counted from Bolt's first answer. None for no limit.
        clock: The clock; tests replace it.
        of_others: Returns the runs that other triggers are known to have started.

    Returns:
        The finding. If Bolt did not answer, the verdict is `UNSURE` and there are no candidates.

    Raises:
        BoltAuthError: Bolt refused the credentials.
    """
    clock = clock or system_clock()
    outage = Deadline(max_outage_seconds, clock)
    window: Deadline | None = None
    is_early = False
    searches = 0
    while True:
        try:
            fits = await _newer_runs(client, request, intent, clock)
            others = await of_others() if of_others is not None and fits else ()
            fits = {run_id: fit for run_id, fit in fits.items() if run_id not in others}
        except BoltAuthError:
            raise
        except BoltError:
            if outage.passed:
                return Finding(Verdict.UNSURE)
        else:
            outage = Deadline(max_outage_seconds, clock)
            if window is None:
                age = _seconds_since(intent, clock.wall(), client.bolt_time())
                needed = max(window_seconds, least_age_seconds - age)
                is_early = at_most_seconds is not None and at_most_seconds < needed
                window = Deadline(at_most_seconds if is_early else needed, clock)
            finding = judge(fits, window_is_over=window.passed)
            if finding is not None and finding.verdict is Verdict.FOUND:
                return finding
            if finding is not None:
                return replace(finding, verdict=Verdict.UNSURE, is_early=True) if is_early else finding
        await clock.sleep(_SEARCH_DELAYS[min(searches, len(_SEARCH_DELAYS) - 1)])
        searches += 1


def unknown_trigger(what: str, schedule: str, finding: Finding) -> BoltTriggerUnknown:
    """Return the error for a trigger whose run is unknown.

    Args:
        what: A sentence that says what happened.
        schedule: The schedule's name or slug.
        finding: The finding of the search.
    """
    newest = finding.candidates[-1] if finding.candidates else None
    return BoltTriggerUnknown(
        what,
        schedule_name=schedule,
        candidates=tuple(finding.candidates),
        url=None if newest is None else run_url(newest),
    )


async def _newer_runs(
    client: BoltClient, request: TriggerRequest, intent: TriggerIntent, clock: Clock
) -> dict[int, Fit]:
    fits: dict[int, Fit] = {}
    records = await _listed_records(client, request, intent.latest_run_id)
    behind = records == []
    if not records:
        records = await _latest_record(client, request, intent.latest_run_id)
    for record in records:
        how = fit(intent, record, ())
        began = record.start_dttm
        if how is not Fit.NO:
            status = await client.get_bolt_run(record.id, logs=False)
            began = began or status.started_at
            how = fit(intent, record, [command.command for command in status.commands])
        if behind and how is Fit.YES:
            # `listBoltRuns` does not have the run yet, so its actor, branch and parent are unknown.
            how = Fit.OPEN
        late = begun_too_late(intent, began.timestamp() if began else None, clock.wall(), client.bolt_time())
        if late is not Fit.NO:
            fits[record.id] = late if late is not None and how is not Fit.NO else how
    return fits


async def _listed_records(
    client: BoltClient, request: TriggerRequest, than: int
) -> list[BoltRunRecord] | None:
    """Return the schedule's runs that are newer than the run `than`; None if the backend has no `listBoltRuns`.

    Raises:
        BoltUnavailable: The schedule has too many newer runs to check all of them.
    """
    found: list[BoltRunRecord] = []
    received = 0
    try:
        while True:
            page = await client.list_bolt_runs(request.schedule_name, offset=received, limit=_PAGE)
            found += page.runs
            received += page.received
            # Bolt lists the newest runs first.
            if page.received < _PAGE or (page.runs and page.runs[-1].id <= than):
                break
            if received >= _MOST_RUNS:
                msg = f"The schedule has had more than {received} runs since the trigger."
                raise BoltUnavailable(msg, operation="ListBoltRuns")
    except (BoltUnsupported, BoltRequestError):
        return None
    return [record for record in found if record.id > than]


async def _latest_record(client: BoltClient, request: TriggerRequest, than: int) -> list[BoltRunRecord]:
    """Return the schedule's latest run, if it is newer than the run `than`. `listBoltRuns` may not list it yet."""
    latest = (await client.get_bolt_schedule(request.schedule_name)).latest_run_id
    if latest is None or latest <= than:
        return []
    # This query does not return the run's parent. If we asked for a retry, the run is assumed to be that retry.
    return [BoltRunRecord(id=latest, state=BoltRunState.RUNNING, parent_schedule_run_id=request.retry_of)]
