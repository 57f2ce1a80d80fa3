"""Searches for the run that a trigger may have started.

Bolt has no idempotency key. So each newer run is compared with the intent and the request.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from paradime_blocks.errors import BoltError, BoltRequestError, BoltTriggerUnknown, BoltUnavailable
from paradime_blocks.models import BoltGitInfo, BoltRunRecord, BoltRunState, run_url
from paradime_blocks.models.ends import count_setup
from paradime_blocks.polling import Deadline, system_clock
from paradime_blocks.trigger.request import TriggerIntent, TriggerRequest, fingerprint_of

if TYPE_CHECKING:
    from paradime_blocks.client import BoltClient

# A trigger starts its run within this time, or never.
_LONGEST_START_SECONDS = 600.0
_MOST_RUNS = 200
_COMMIT = re.compile(r"[0-9a-f]{7,64}", re.IGNORECASE)
_BY_THE_CLOCK = re.compile(r"\bcron|schedul", re.IGNORECASE)


class Fit(Enum):
    """How well a run fits an intent: it fits (YES), may fit (OPEN), probably does not (DOUBTFUL), does not (NO)."""

    YES = "yes"
    OPEN = "open"
    DOUBTFUL = "doubtful"
    NO = "no"


@dataclass(frozen=True)
class Finding:
    """The result of a search: the run, or that there is none, or that it cannot be told."""

    run_id: int | None = None
    is_absent: bool = False
    # The runs that the trigger may have started. If Bolt did not answer, there are none.
    candidates: Sequence[int] = ()
    fits: Mapping[int, Fit] = field(default_factory=dict, compare=False, repr=False)

    def unknown_trigger(self, what: str, schedule: str) -> BoltTriggerUnknown:
        """Return the error for a trigger whose run is unknown. The sentence `what` says what happened."""
        newest_url = run_url(self.candidates[-1]) if self.candidates else None
        return BoltTriggerUnknown(what, schedule_name=schedule, candidates=self.candidates, url=newest_url)


def fit(
    request: TriggerRequest, intent: TriggerIntent, record: BoltRunRecord, commands: Sequence[str]
) -> Fit:
    """Return how well a newer run fits an intent. `commands` are the run's commands so far."""
    # Bolt may return 0 for a run without a parent.
    if (record.parent_schedule_run_id or None) != request.retry_of:
        return Fit.NO
    if request.retry_of is not None:
        return Fit.YES
    source = checked_out(request.branch, record.git_info)
    is_open = not intent.commands or count_setup(commands) == len(commands)
    if source is Fit.NO or not (is_open or first_of(intent.commands, commands) is not None):
        return Fit.NO
    if _BY_THE_CLOCK.search(record.actor or ""):
        # Bolt's timer seems to have started the run. But our key may be named like a timer.
        return Fit.DOUBTFUL
    return Fit.OPEN if is_open else source


def checked_out(asked: str | None, git: BoltGitInfo | None) -> Fit:
    """Return whether a run has checked out the requested branch or commit."""
    # Bolt does not always show the branch and the commit.
    if asked is None or git is None or not (git.branch or git.commit_hash):
        return Fit.YES
    branch, commit = (git.branch or "").removeprefix("refs/heads/"), git.commit_hash or ""
    if asked.removeprefix("refs/heads/") in {branch, commit} or commit.startswith(asked):
        return Fit.YES
    # Bolt may report the commit instead of the branch's name.
    return Fit.OPEN if not branch or _COMMIT.fullmatch(branch) else Fit.NO


def first_of(asked: Sequence[str], shown: Sequence[str]) -> int | None:
    """Return the index of the first requested command in a run's commands; None if the commands do not match.

    `asked` are fingerprints. Bolt's own commands come first in `shown`. The first requested command may be equal to one
    of them, such as `dbt deps`.
    """
    seen = [*map(fingerprint_of, shown)]
    places = range(count_setup(shown), -1, -1)
    return next((start for start in places if seen[start:] == [*asked[: len(seen) - start]]), None)


def judge(fits: dict[int, Fit], *, window_is_over: bool) -> Finding | None:
    """Return the finding of a search after one look at the newer runs; None if the search must look again."""
    possible = [run_id for run_id, how in fits.items() if how is not Fit.NO]
    how = fits[possible[0]] if len(possible) == 1 else Fit.DOUBTFUL
    if how is Fit.YES or (how is Fit.OPEN and window_is_over):
        return Finding(possible[0], candidates=possible, fits=fits)
    if not window_is_over:
        return None
    # If no run seems to fit, one of them may still be ours: Bolt may spell a command differently.
    return Finding(is_absent=not fits, candidates=sorted(possible or fits), fits=fits)


def longest_request_seconds(request_timeout_seconds: float) -> float:
    """Return for how long a server may work on a trigger: longer than the client waits for the answer."""
    return max(60.0, 2 * request_timeout_seconds)


def began_too_late(intent: TriggerIntent, began: float | None, now: float, bolt_now: float | None) -> bool:
    """Whether a run began too late for an intent, by Bolt's clock, or else by ours. None: it has not begun yet."""
    intended = intent.intended_at
    if intent.bolt_time is not None and bolt_now is not None:
        intended, now = intent.bolt_time, bolt_now
    # Until the longest start time is over, no run can have begun too late, even if our clock is wrong.
    return min(now, now if began is None else began) > intended + _LONGEST_START_SECONDS


async def find_triggered_run(
    client: BoltClient,
    request: TriggerRequest,
    intent: TriggerIntent,
    window_seconds: float,
    max_outage_seconds: float,
    *,
    of_others: Callable[[], Awaitable[Collection[int]]] | None = None,
) -> Finding:
    """Search until `window_seconds` after Bolt's first answer, or until an outage of `max_outage_seconds`.

    `of_others` returns the runs that other triggers are known to have started.
    """
    outage = Deadline(max_outage_seconds)
    window: Deadline | None = None
    delay = 0.5
    while True:
        try:
            fits = await _newer_runs(client, request, intent)
            others = await of_others() if of_others is not None and fits else ()
            fits = {run_id: fit for run_id, fit in fits.items() if run_id not in others}
        except BoltError:
            # A gateway can refuse credentials for a while that Bolt accepts.
            if outage.passed:
                return Finding()
        else:
            outage = Deadline(max_outage_seconds)
            window = window or Deadline(window_seconds)
            finding = judge(fits, window_is_over=window.passed)
            if finding is not None:
                return finding
        await outage.clock.sleep(delay)
        delay = min(2 * delay, 3.0)


async def _newer_runs(client: BoltClient, request: TriggerRequest, intent: TriggerIntent) -> dict[int, Fit]:
    """Return how well each run fits that is newer than the intent and has not begun too late for it."""
    listed: list[BoltRunRecord] = []
    # Some backends cannot list runs.
    with suppress(BoltRequestError):
        page = await client.list_bolt_runs(request.schedule_name, limit=_MOST_RUNS)
        listed = [record for record in page.runs if record.id > intent.latest_run_id]
    if len(listed) == _MOST_RUNS:
        raise BoltUnavailable(f"The schedule has had more than {_MOST_RUNS} runs since the trigger.")
    records = listed
    if not listed:
        # The schedule itself may name a newer run. Its actor, branch and parent are unknown. If we asked for a retry,
        # the run is assumed to be that retry.
        latest = (await client.get_bolt_schedule(request.schedule_name)).latest_run_id or 0
        if latest > intent.latest_run_id:
            parent, state = request.retry_of, BoltRunState.RUNNING
            records = [BoltRunRecord(id=latest, state=state, parent_schedule_run_id=parent)]
    # A run that does not fit without its commands is not asked for: Bolt may refuse to show it.
    possible = [record.id for record in records if fit(request, intent, record, ()) is not Fit.NO]
    statuses = await client.get_bolt_runs(possible) if possible else {}
    now, bolt_now = system_clock().wall(), client.bolt_time()
    fits: dict[int, Fit] = {}
    for record in records:
        status = statuses.get(record.id)
        began = record.start_dttm or (status and status.started_at)
        if not began_too_late(intent, began.timestamp() if began else None, now, bolt_now):
            commands = status.commands if status else []
            how = fit(request, intent, record, [command.command for command in commands])
            fits[record.id] = Fit.OPEN if how is Fit.YES and not listed else how
    return fits
