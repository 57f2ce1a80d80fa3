"""Triggering at most once: Bolt offers no idempotency key, so a lost answer is looked into, never guessed.

The schedule's latest run is read before the trigger. After a lost answer only newer runs can be ours; branch,
commands and parent are compared. One that fits is adopted, none at all within the window is proof that
nothing started, anything else is `BoltTriggerUnknown`.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from paradime_blocks.errors import (
    BoltAlreadyRunning,
    BoltAuthError,
    BoltError,
    BoltRequestError,
    BoltTriggerUnknown,
    BoltUnavailable,
    BoltUnsupported,
)
from paradime_blocks.inputs import trigger_variables
from paradime_blocks.models import BoltRunRecord, BoltRunState, run_url
from paradime_blocks.observation import Clock, Deadline, system_clock
from paradime_blocks.text import one_line

if TYPE_CHECKING:
    from paradime_blocks.client import BoltClient
    from paradime_blocks.trail import Trail

_SENDS_AT_MOST = 3
_LOOK_DELAYS = (0.5, 1.0, 2.0, 3.0)
# A trigger starts its run within this time, or not at all; later runs are somebody else's.
_LONGEST_START_SECONDS = 600.0
_PAGE = 50
_RUNS_LOOKED_AT = 200
_REFUSAL_WINDOW_SECONDS = 6.0
_TOLD_CHARACTERS = 300
_COMMIT = re.compile(r"[0-9a-f]{7,64}", re.IGNORECASE)
_BY_THE_CLOCK = re.compile(r"\bcron|schedul", re.IGNORECASE)
SETUP_COMMANDS = ("git clone", "dbt deps")


@dataclass(frozen=True)
class TriggerRequest:
    """What to trigger: a schedule, or the retry of a run.

    Attributes:
        schedule_name: The schedule's name.
        slug: Its slug, in place of its name.
        commands: Commands in place of the schedule's own.
        command_configs: The same with their `continueOnError`, in place of `commands`.
        branch: Branch or commit in place of the schedule's own.
        pr_number: The pull request that the run belongs to.
        reason: Who or what triggers.
        continue_on_error: Whether the run goes on after a command that failed.
        retry_of: A run to retry from its failure, in place of a new run of the schedule.
        retry_everything: Whether the retry runs all commands again.
    """

    schedule_name: str | None = None
    slug: str | None = None
    commands: tuple[str, ...] | None = None
    command_configs: tuple[dict[str, object], ...] | None = None
    branch: str | None = None
    pr_number: int | None = None
    reason: str | None = None
    continue_on_error: bool | None = None
    retry_of: int | None = None
    retry_everything: bool = False

    def __post_init__(self) -> None:
        """Refuse bad input before anything is sent.

        Raises:
            BoltRequestError: Something of it is bad, or does not go together.
        """
        trigger_variables(self.schedule_name, slug=self.slug, **self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "commands": self.commands,
            "command_configs": self.command_configs,
            "branch": self.branch,
            "pr_number": self.pr_number,
            "reason": self.reason,
            "continue_on_error": self.continue_on_error,
        }

    @property
    def label(self) -> str:
        """The schedule's name or slug, for a person."""
        return self.schedule_name or self.slug or ""

    async def send(self, client: BoltClient) -> int:
        """Send the mutation and return the id of the run that it started."""
        if self.retry_of is not None:
            return await client.retry_bolt_run(self.retry_of, everything=self.retry_everything)
        return await client.trigger_bolt_run(self.schedule_name, slug=self.slug, **self._options())


@dataclass(frozen=True)
class TriggerIntent:
    """What was known when a trigger was about to be sent; enough to look for its run later.

    Attributes:
        latest_run_id: The schedule's latest run before it; 0 for none.
        intended_at: When, in seconds since the epoch, by our own clock.
        commands: The commands that the run is to have, the schedule's own unless others were given.
        branch: Branch or commit that was asked for.
        retry_of: The run that is to be retried.
        bolt_time: When, by Bolt's clock; None if Bolt does not tell it.
    """

    latest_run_id: int
    intended_at: float
    commands: tuple[str, ...] = ()
    branch: str | None = None
    retry_of: int | None = None
    bolt_time: float | None = None


class RunLedger(Protocol):
    """Where intents and run ids are written before and after a trigger, so that other processes find them."""

    async def intend(self, request: TriggerRequest, intent: TriggerIntent) -> None:
        """Write down that a trigger is about to be sent."""

    async def started(self, run_id: int, *, adopted: bool) -> None:
        """Write down which run the trigger started; `adopted` if it was found rather than told."""

    async def withdraw(self) -> None:
        """Write down that the trigger has started nothing, and will not."""


class Verdict(Enum):
    """What looking for a run came to."""

    FOUND = "found"
    ABSENT = "absent"
    UNSURE = "unsure"


@dataclass(frozen=True)
class Finding:
    """What looking for a run came to, and the runs that it was about."""

    verdict: Verdict
    candidates: Sequence[int] = ()

    @property
    def run_id(self) -> int:
        """The run that was found."""
        return self.candidates[0]


def may_have_started(error: BaseException) -> bool:
    """Judge whether a trigger that failed like this may have started a run all the same."""
    if isinstance(error, BoltUnavailable):
        return error.may_have_acted
    if isinstance(error, (BoltUnsupported, BoltAlreadyRunning, BoltAuthError)):
        return False
    if isinstance(error, BoltRequestError):
        # Without an operation it was refused before it was sent. GraphQL resolvers can fail after their work.
        return error.operation is not None
    return not isinstance(error, BoltError)


class Fit(Enum):
    """How well a run fits an intent: it does, nothing speaks against it, it may or may not, or something does."""

    YES = "yes"
    OPEN = "open"
    DOUBTFUL = "doubtful"
    NO = "no"


def fit(intent: TriggerIntent, record: BoltRunRecord, commands: Sequence[str]) -> Fit:
    """Judge whether a run can be the one that an intent started.

    Args:
        intent: The intent.
        record: The run, newer than the intent's latest run.
        commands: The run's commands so far.
    """
    if record.parent_schedule_run_id != intent.retry_of and (
        record.parent_schedule_run_id or intent.retry_of
    ):
        return Fit.NO
    if intent.retry_of is not None:
        return Fit.YES
    checked_out = _checked_out(intent, record)
    how = Fit.NO if checked_out is Fit.NO else _commands_fit(intent.commands, commands)
    if how is not Fit.NO and _BY_THE_CLOCK.search(record.actor or ""):
        # An inference from its name: enough not to take the run for ours, but no proof that it is not.
        return Fit.DOUBTFUL
    return Fit.OPEN if how is Fit.YES and checked_out is Fit.OPEN else how


def _checked_out(intent: TriggerIntent, record: BoltRunRecord) -> Fit:
    """Judge whether a run has checked out what was asked for."""
    git = record.git_info
    if intent.branch is None or git is None or not (git.branch or git.commit_hash):
        return Fit.YES
    branch, commit = (git.branch or "").removeprefix("refs/heads/"), git.commit_hash or ""
    if intent.branch.removeprefix("refs/heads/") in {branch, commit} or commit.startswith(intent.branch):
        return Fit.YES
    # A branch that was asked for can be shown as the commit that it stood at.
    return Fit.OPEN if not branch or _COMMIT.fullmatch(branch) else Fit.NO


def _commands_fit(asked: Sequence[str], shown: Sequence[str]) -> Fit:
    """Judge whether a run's commands so far are the beginning of what was asked for."""
    if not asked or count_setup(shown) == len(shown):
        return Fit.OPEN
    return Fit.NO if first_of(asked, shown) is None else Fit.YES


def count_setup(shown: Sequence[str]) -> int:
    """Return how many of a run's commands are such as Bolt puts before those of the schedule (`facts.md`)."""
    return next((n for n, one in enumerate(shown) if not one.startswith(SETUP_COMMANDS)), len(shown))


def first_of(asked: Sequence[str], shown: Sequence[str]) -> int | None:
    """Return which of a run's commands is the first that was asked for; None if it does not do what was asked.

    Args:
        asked: The commands that were asked for; they may begin as Bolt's own do.
        shown: The run's commands so far, with Bolt's own before them.
    """
    expected = [" ".join(command.split()) for command in asked]
    seen = [" ".join(command.split()) for command in shown]
    places = range(count_setup(shown), -1, -1)
    return next((start for start in places if seen[start:] == expected[: len(seen) - start]), None)


def judge(fits: dict[int, Fit], *, window_is_over: bool) -> Finding | None:
    """Judge what was seen in one look; None means to look again.

    Args:
        fits: The runs that are newer than the intent's latest run, and how well each fits.
        window_is_over: Whether there has been time enough for a run to show itself.
    """
    certain = [run_id for run_id, how in fits.items() if how is Fit.YES]
    possible = [run_id for run_id, how in fits.items() if how is not Fit.NO]
    if len(certain) == 1 and len(possible) == 1:
        return Finding(Verdict.FOUND, certain)
    if not window_is_over:
        return None
    if len(possible) == 1 and fits[possible[0]] is not Fit.DOUBTFUL:
        # Nothing speaks against it, and it is the only one.
        return Finding(Verdict.FOUND, possible)
    if not fits:
        return Finding(Verdict.ABSENT)
    # Runs that do not seem to fit are no proof of absence: Bolt may write a command otherwise than we do.
    return Finding(Verdict.UNSURE, sorted(possible or fits))


def begun_too_late(
    intent: TriggerIntent, began: float | None, now: float, bolt_now: float | None
) -> Fit | None:
    """Judge whether a run began too late to be the one that an intent started; None if it did not.

    Args:
        intent: The intent.
        began: When the run began, by Bolt's clock; None if it has not yet.
        now: The time by our own clock, which can be wrong.
        bolt_now: The time by Bolt's; None if Bolt does not tell it.
    """
    certain = intent.bolt_time is not None and bolt_now is not None
    intended, present = (intent.bolt_time, bolt_now) if certain else (intent.intended_at, now)
    if intended is None or present is None or present <= intended + _LONGEST_START_SECONDS:
        # There has been no time yet for a run to begin too late, whatever its clock says.
        return None
    if (present if began is None else began) <= intended + _LONGEST_START_SECONDS:
        return None
    return Fit.NO if certain else Fit.DOUBTFUL


async def find_triggered_run(
    client: BoltClient,
    request: TriggerRequest,
    intent: TriggerIntent,
    *,
    window_seconds: float,
    max_outage_seconds: float,
    clock: Clock | None = None,
) -> Finding:
    """Look for the run that a trigger may have started.

    Args:
        client: An open client.
        request: What was to be triggered.
        intent: What was known before.
        window_seconds: How long to look until absence is believed, from the first look that succeeds.
        max_outage_seconds: How long to go on while looks fail.
        clock: The time; for tests.

    Returns:
        The finding; `UNSURE` with no candidates when Bolt could not be asked at all.

    Raises:
        BoltAuthError: The credentials are refused.
    """
    clock = clock or system_clock()
    outage = Deadline(max_outage_seconds, clock)
    window: Deadline | None = None
    looks = 0
    while True:
        try:
            fits = await _newer_runs(client, request, intent, clock)
        except BoltAuthError:
            raise
        except BoltError:
            if outage.passed:
                return Finding(Verdict.UNSURE)
        else:
            outage = Deadline(max_outage_seconds, clock)
            window = window or Deadline(window_seconds, clock)
            finding = judge(fits, window_is_over=window.passed)
            if finding is not None:
                return finding
        await clock.sleep(_LOOK_DELAYS[min(looks, len(_LOOK_DELAYS) - 1)])
        looks += 1


async def _newer_runs(
    client: BoltClient, request: TriggerRequest, intent: TriggerIntent, clock: Clock
) -> dict[int, Fit]:
    fits: dict[int, Fit] = {}
    for record in await _newer_records(client, request, intent.latest_run_id):
        how = fit(intent, record, ())
        began = record.start_dttm
        if how is not Fit.NO:
            status = await client.get_bolt_run(record.id, logs=False)
            began = began or status.started_at
            how = fit(intent, record, [command.command for command in status.commands])
        late = begun_too_late(intent, began.timestamp() if began else None, clock.wall(), client.bolt_time())
        if late is not Fit.NO:
            fits[record.id] = late if late is not None and how is not Fit.NO else how
    return fits


async def _newer_records(client: BoltClient, request: TriggerRequest, than: int) -> list[BoltRunRecord]:
    """Return the schedule's runs newer than one; on a backend without `listBoltRuns`, the very latest at most.

    Raises:
        BoltUnavailable: There are more than can be looked at, so that none can be told to be missing.
    """
    found: list[BoltRunRecord] = []
    try:
        while True:
            page = (
                await client.list_bolt_runs(request.slug or request.label, offset=len(found), limit=_PAGE)
            ).runs
            found += page
            # Newest first (`facts.md`).
            if len(page) < _PAGE or page[-1].id <= than:
                break
            if len(found) >= _RUNS_LOOKED_AT:
                msg = f"The schedule has had more than {len(found)} runs since."
                raise BoltUnavailable(msg, operation="ListBoltRuns")
    except (BoltUnsupported, BoltRequestError):
        latest = (await client.get_bolt_schedule(request.schedule_name, slug=request.slug)).latest_run_id
        # Its parent is not shown here either, so that a retry's run must be taken on trust.
        parent = request.retry_of
        found = [BoltRunRecord(id=latest or 0, state=BoltRunState.RUNNING, parent_schedule_run_id=parent)]
    return [record for record in found if record.id > than]


async def make_intent(client: BoltClient, request: TriggerRequest, clock: Clock) -> TriggerIntent:
    """Read what must be known before a trigger is sent.

    Raises:
        BoltError: The schedule does not exist, or Bolt cannot be reached; nothing has been sent.
    """
    schedule = await client.get_bolt_schedule(request.schedule_name, slug=request.slug)
    commands = request.commands
    if commands is None and request.command_configs is not None:
        commands = tuple(str(config["command"]) for config in request.command_configs)
    return TriggerIntent(
        latest_run_id=schedule.latest_run_id or 0,
        intended_at=clock.wall(),
        bolt_time=client.bolt_time(),
        commands=tuple(schedule.commands) if commands is None else commands,
        branch=request.branch,
        retry_of=request.retry_of,
    )


@dataclass
class Trigger:
    """Sends a trigger at most once per intent.

    Attributes:
        client: An open client.
        request: What to trigger.
        ledger: Where intent and run id are written.
        trail: Where decisions are told.
        window_seconds: How long absence must last to be believed after a lost answer.
        max_outage_seconds: How long to look on while Bolt cannot be reached.
        interrupt_seconds: How long an interrupted trigger is waited for, so that its run is known.
        clock: The time; for tests.
    """

    client: BoltClient
    request: TriggerRequest
    ledger: RunLedger
    trail: Trail
    window_seconds: float = 20.0
    max_outage_seconds: float = 600.0
    interrupt_seconds: float = 15.0
    clock: Clock = field(default_factory=system_clock)

    async def run(self) -> int:
        """Trigger, and return the id of the run.

        Raises:
            BoltAlreadyRunning: The schedule runs already, and the run is not ours.
            BoltTriggerUnknown: The answer was lost, and looking did not tell.
            BoltError: Nothing was started.
        """
        intent = await make_intent(self.client, self.request, self.clock)
        try:
            await self.ledger.intend(self.request, intent)
        except BaseException:
            # It may have been written down all the same; then a run that somebody else starts would be taken for it.
            with anyio.CancelScope(shield=True):
                await self.ledger.withdraw()
            raise
        self.trail.note(f"{self._told()}, whose latest run was {intent.latest_run_id or 'none'}.")
        answer_was_lost = False
        for _ in range(_SENDS_AT_MOST):
            try:
                run_id = await self._send_shielded()
            except BoltError as error:
                found = await self._look_after(error, intent, answer_was_lost=answer_was_lost)
                answer_was_lost = True
                if found is None:
                    self.trail.note("No run has started; the trigger is sent again.")
                    continue
                self.trail.note(f"Bolt run {found} is the one that our trigger started; it is adopted.")
                await self._started(found, adopted=True)
                return found
            self.trail.note(f"Bolt run {run_id} was started.")
            await self._started(run_id, adopted=False)
            return run_id
        msg = (
            f"The trigger was sent {_SENDS_AT_MOST} times; each time the answer was lost and no run started."
        )
        raise BoltUnavailable(msg, schedule_name=self.request.label, operation="TriggerBoltRun")

    def _told(self) -> str:
        """Say what is sent."""
        request = self.request
        if request.retry_of is not None:
            what = "all of it" if request.retry_everything else "what failed"
            return f"Bolt is asked to retry {what} of run {request.retry_of} of schedule {request.label!r}"
        configured = [str(config["command"]) for config in request.command_configs or ()]
        commands = [*(request.commands or ()), *configured]
        asked = [f"branch or commit {request.branch}"] if request.branch else []
        asked += [f"commands {', '.join(commands)}"] if commands else []
        told = f" ({one_line('; '.join(asked), _TOLD_CHARACTERS)})" if asked else ""
        return f"Bolt is asked to run schedule {request.label!r}{told}"

    async def _look_after(
        self, error: BoltError, intent: TriggerIntent, *, answer_was_lost: bool
    ) -> int | None:
        """Return the run that a failed trigger started all the same; None if it may be sent again."""
        window: float | None = None
        if isinstance(error, BoltAlreadyRunning):
            if not answer_was_lost:
                raise error.with_facts(schedule_name=self.request.label) from error
            self.trail.note("Bolt says that the schedule runs already; looking whether that is our own run.")
        elif not may_have_started(error):
            raise error
        elif isinstance(error, BoltUnavailable):
            self.trail.note(f"The answer to the trigger was lost ({error.what}); looking for its run.")
        else:
            # A trigger that has begun its run can end in an error, too; it was answered, so the run shows soon.
            self.trail.note(
                f"Bolt refused the trigger ({error.what}); looking whether a run began all the same."
            )
            window = _REFUSAL_WINDOW_SECONDS
        finding = await self._look(intent, window)
        if finding.verdict is Verdict.FOUND:
            return finding.run_id
        # After a time-out the request may still lie with the server: what is not there now can come.
        may_come = isinstance(error, BoltUnavailable) and error.may_still_act
        if finding.verdict is Verdict.UNSURE or may_come:
            raise self._unknown(finding) from error
        if isinstance(error, BoltUnavailable):
            return None
        raise error

    async def _look(self, intent: TriggerIntent, window_seconds: float | None = None) -> Finding:
        try:
            return await find_triggered_run(
                self.client,
                self.request,
                intent,
                window_seconds=self.window_seconds if window_seconds is None else window_seconds,
                max_outage_seconds=self.max_outage_seconds,
                clock=self.clock,
            )
        except BoltAuthError as error:
            # Credentials that end now say nothing of the trigger that was sent with them before.
            self.trail.note(f"Bolt could not be asked: {error.what}")
            return Finding(Verdict.UNSURE)

    def _unknown(self, finding: Finding) -> BoltTriggerUnknown:
        self.trail.note("It cannot be told which run is ours, if any; nothing is sent a second time.")
        return BoltTriggerUnknown(
            "The answer to the trigger was lost, and it cannot be told whether a run started.",
            schedule_name=self.request.label,
            candidates=tuple(finding.candidates),
            url=run_url(finding.candidates[-1]) if finding.candidates else None,
        )

    async def _started(self, run_id: int, *, adopted: bool) -> None:
        # From here on there is a run to answer for: no cancel may come between it and its record.
        with anyio.CancelScope(shield=True):
            await self.ledger.started(run_id, adopted=adopted)

    async def _send_shielded(self) -> int:
        """Send from a thread of its own: no cancel of the caller, of either kind, can lose the answer."""
        called_off = threading.Event()
        future = _in_thread(lambda: asyncio.run(self._send_once(called_off)))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            # It may be waiting to try again; what is on its way already can only be waited for.
            called_off.set()
            with anyio.CancelScope(shield=True):
                await self._settle(future)
            raise

    async def _send_once(self, called_off: threading.Event) -> int:
        async with self.client.clone(may_send=lambda: not called_off.is_set()) as client:
            return await self.request.send(client)

    async def _settle(self, future: Future[int]) -> None:
        """Learn, after an interrupt, which run the trigger started, so that it can be cancelled.

        Without an answer the intent stays open: whoever settles it looks for the run.
        """
        self.trail.note("Interrupted while the trigger was under way; waiting for its answer.")
        with anyio.move_on_after(self.interrupt_seconds):
            while not future.done():  # noqa: ASYNC110 - the answer comes from a thread that knows no event loop
                await anyio.sleep(0.05)
        if not future.done():
            return
        error = future.exception()
        if error is None:
            run_id = future.result()
            self.trail.note(f"Bolt run {run_id} had been started.")
            await self.ledger.started(run_id, adopted=False)
        elif not may_have_started(error):
            self.trail.note("The trigger had started nothing.")
            await self.ledger.withdraw()


def _in_thread(work: Callable[[], int]) -> Future[int]:
    """Start work in a daemon thread: at the interpreter's end it is not waited for."""
    future: Future[int] = Future()
    # Otherwise the cancel of the waiting coroutine would cancel the future and its result be dropped.
    future.set_running_or_notify_cancel()

    def target() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed over to the waiting side
            future.set_exception(error)

    threading.Thread(target=target, name="bolt-trigger", daemon=True).start()
    return future
