"""The fault matrix: which fault x in which operation x at which call, for runs with each kind of end."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from faults.bench import FIRST, LOG_OF, Stepping, bolt, is_clear, run_flow
from support.in_process import BoltInProcess

from paradime_blocks.errors import (
    BoltCancelUnconfirmed,
    BoltRunFailed,
    BoltRunTimedOut,
    BoltTriggerUnknown,
    BoltUnavailable,
)
from paradime_blocks.testing import faults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from faults.bench import Outcome

    from paradime_blocks.testing import BoltSimulator
    from paradime_blocks.testing.faults import Fault

PATIENCE = 0.5
"""The time limit of a request where an answer hangs, in seconds."""
# Live logs and the slot in Prefect would double the time; the logs have cases of their own.
QUICK = {"live_logs": "off", "one_at_a_time": False}
PARAMETERS: dict[str, dict[str, Any]] = {
    "success": {"timeout_seconds": 3600.0, **QUICK},
    "failure": {"timeout_seconds": 3600.0, **QUICK},
    "recovery": {"timeout_seconds": 3600.0, "retries": 1, "retry_delay_seconds": 0.0, **QUICK},
    "timeout": {"timeout_seconds": 20.0, **QUICK},
}
KINDS: dict[str, Callable[..., Fault]] = {
    "500": lambda **at: faults.Status(500, **at),
    "503-retry-after": lambda **at: faults.Status(503, retry_after=1, **at),
    "504": lambda **at: faults.Status(504, **at),
    "429": lambda **at: faults.Status(429, retry_after=1, **at),
    "cut": faults.CutConnection,
    "hang": lambda **at: faults.Hang(1.5 * PATIENCE, **at),
    "slow": lambda **at: faults.Slow(0.3 * PATIENCE, **at),
    "garbage": faults.Garbage,
    "truncated": faults.Truncated,
    "truncated-mid-transfer": lambda **at: faults.Truncated(mid_transfer=True, **at),
    "graphql-error": lambda **at: faults.GraphQLError("Internal server error", **at),
    "no-data": lambda **at: faults.MissingData("data", **at),
    "empty": lambda **at: faults.MissingData("empty", **at),
    "no-field": lambda **at: faults.MissingData("field", **at),
    "nulls": lambda **at: faults.MissingData("nulls", **at),
    "not-ok": lambda **at: faults.MissingData("not_ok", **at),
    "redirect": lambda **at: faults.Redirect("https://elsewhere.example.com/", **at),
    "duplicated": lambda **at: faults.Duplicated(hears="first", **at),
}
# Bolt clearly refuses: nothing was executed, so that ends the flow run.
REFUSALS = {"graphql-error", "not-ok", "redirect"}
# The server may have acted or not, so each comes before and after the action. 429 and redirects never act.
UNCLEAR = ["500", "503-retry-after", "504", "cut", "hang", "garbage", "truncated", "truncated-mid-transfer"]
UNCLEAR += ["graphql-error", "no-data", "empty", "no-field", "nulls", "not-ok"]
# Faults of a download, which is not GraphQL.
OF_ANY_HTTP = [
    "500",
    "503-retry-after",
    "504",
    "429",
    "cut",
    "hang",
    "slow",
    "truncated",
    "truncated-mid-transfer",
]
ENDINGS = ("success", "failure", "timeout")


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        ending: The run's end without the fault: success, failure, timeout; recovery fails once and then succeeds.
        operation: The operation that the fault hits.
        kind: The kind of fault.
        place: The call that it hits: first, middle, last; for a status also `end` (the first after the run's end)
            and `result` (the one after it).
        acts: Whether the server acts before the answer is lost.
        lost_trigger: Whether the answer to the trigger was lost earlier, so that the run is searched for.
    """

    ending: str
    operation: str
    kind: str
    place: str = "first"
    acts: bool = False
    lost_trigger: bool = False

    @property
    def id(self) -> str:
        acts = "-acts" if self.acts else ""
        return f"{self.ending}-{self.operation}-{self.place}-{self.kind}{acts}"

    @property
    def counts_from_the_end(self) -> bool:
        """Whether only calls after the run's end count."""
        return self.operation == "boltRunStatus" and self.place in {"end", "result", "last"}

    def call(self, usual: Mapping[str, int]) -> int:
        """Which call of the operation it is, given the usual number of calls without faults."""
        whole = usual.get("after the end" if self.counts_from_the_end else self.operation, 1)
        by_place = {"first": 1, "end": 1, "result": 2, "last": whole, "middle": (whole + 1) // 2}
        # The number of polls before the time limit varies.
        return 3 if (self.operation, self.place) == ("boltRunStatus", "middle") else by_place[self.place]

    async def run(
        self,
        usual: Mapping[str, int],
        run_flow: Callable[..., Awaitable[Outcome]] = run_flow,
        simulator_class: type[BoltSimulator] = BoltInProcess,
    ) -> Outcome:
        """Run the flow and let the fault hit it.

        Args:
            usual: The number of calls of each operation without faults.
            run_flow: Runs the flow; by default in memory.
            simulator_class: The kind of simulator to run it against.
        """
        at: dict[str, Any] = {"operation": self.operation, "nth": self.call(usual)}
        if self.acts:
            at["after_acting"] = True
        fault = KINDS[self.kind](**at)
        simulator = bolt(self.ending, simulator_class=simulator_class)
        in_status = self.operation == "boltRunStatus"
        stepping = Stepping(
            simulator,
            fault if in_status else None,
            self.call(usual),
            ended=self.counts_from_the_end,
            operation="boltRunStatus",
        )
        simulator.inject(stepping)
        if not in_status:
            simulator.inject(fault)
        if self.lost_trigger:
            simulator.inject(faults.CutConnection(operation="triggerBoltRun", after_acting=True))
        patience = PATIENCE if self.kind == "hang" else 8.0
        with simulator:
            parameters = PARAMETERS[self.ending]
            if self.operation == "boltCommandLogs":
                parameters = {**parameters, "live_logs": "all"}
            outcome = await run_flow(simulator, request_timeout_seconds=patience, **parameters)
        assert stepping.has_hit if in_status else fault not in simulator.pending_faults, outcome
        return outcome


def _cases() -> Iterator[Case]:
    """Every kind of fault in every operation at every place, for runs with each kind of end."""
    places = {
        "boltRunStatus": ("first", "middle", "end", "result", "last"),
        "boltCommand": ("first", "middle", "last"),
        "boltResourceUrl": ("first", "middle", "last"),
        faults.RESOURCE: ("first", "last"),
        "boltScheduleName": ("first",),
        "listBoltRuns": ("first",),
        "boltCommandLogs": ("first",),
    }
    for (operation, at), kind, ending in itertools.product(places.items(), KINDS, ENDINGS):
        if operation == faults.RESOURCE and kind not in OF_ANY_HTTP:
            continue
        for place in at:
            # After a time-out, the cancel sees the run's end first, and then the archive.
            once = (operation, ending, place) == ("boltRunStatus", "timeout", "result")
            lost = operation == "listBoltRuns"
            yield Case(ending, operation, kind, "end" if once else place, lost_trigger=lost)
    for operation, endings in (
        ("triggerBoltRun", ENDINGS),
        ("cancelBoltRun", ("timeout",)),
        ("retryBoltRun", ("recovery",)),
    ):
        for ending, kind in itertools.product(endings, KINDS):
            yield Case(ending, operation, kind)
            if kind in UNCLEAR:
                yield Case(ending, operation, kind, acts=True)


CASES = sorted(set(_cases()), key=lambda case: case.id)


def judge(case: Case, outcome: Outcome) -> None:
    """Check for one Bolt run, or none and a clear error; the end is reported, and no run is left over."""
    expected = 2 if case.ending == "recovery" else 1
    assert len(outcome.runs) <= expected, outcome
    assert not outcome.active or _is_told(outcome), outcome
    assert outcome.summary, outcome
    if not _harmless(case):
        _check_the_end_of(case, outcome)
        return
    assert len(outcome.runs) == expected, outcome
    _check_the_end_of(case, outcome)
    # The archive reports what it could not fetch; everything else still works.
    spoken = outcome.runs[-1].commands
    missing = {each.command for each in spoken if LOG_OF.get(each.command, "?") in each.stdout} - outcome.logs
    # The archive requests the first one again. After a time-out, though, the archive is the first to request it.
    first = (case.operation, case.place) == ("boltCommand", "first") and case.ending != "timeout"
    refused = case.kind in REFUSALS and not first
    if refused and case.operation in {"boltCommand", "boltResourceUrl"}:
        assert len(missing) <= 1, outcome
    elif not (refused and (case.operation, case.place) == ("boltRunStatus", "last")):
        assert not missing, outcome
    assert not missing or "not archived" in outcome.summary.lower(), outcome


def _harmless(case: Case) -> bool:
    """Whether the fault may show only in the decision log."""
    before_anything = case.operation == "boltScheduleName" and case.kind in REFUSALS
    # The request may still reach the server, or the server refused it: nothing is sent again.
    not_sent_again = case.operation in {"triggerBoltRun", "retryBoltRun"} and (
        not case.acts and case.kind in {"504", "redirect"}
    )
    return not (before_anything or not_sent_again)


def _is_told(outcome: Outcome) -> bool:
    """Whether the caller and the sweeper know of a run that is left over."""
    told = isinstance(outcome.error, BoltTriggerUnknown | BoltCancelUnconfirmed | BoltUnavailable)
    return told and outcome.record is not None and outcome.record.is_open


def _check_the_end_of(case: Case, outcome: Outcome) -> None:
    """The flow run reports the Bolt run's end, or why it could not."""
    assert outcome.record is not None
    if (
        not outcome.runs
        or outcome.active
        or (isinstance(outcome.error, BoltTriggerUnknown) and not _harmless(case))
    ):
        assert outcome.state.is_failed(), outcome
        assert is_clear(outcome.error), outcome
        return
    last = outcome.runs[-1]
    if last.state == "SUCCESS":
        assert outcome.state.is_completed(), outcome
        assert outcome.result.run_id == last.id
        assert [command.command for command in outcome.result.commands][:1] == [
            FIRST
        ] or case.ending == "recovery"
    else:
        error = {"FAILED": BoltRunFailed, "CANCELED": BoltRunTimedOut}[last.state]
        if not (case.ending == "recovery" and not _harmless(case)):
            assert isinstance(outcome.error, error), outcome
            assert outcome.error.run_id == last.id
        assert outcome.state.is_failed(), outcome
    # A retry that Bolt refused with an unclear error may still have started its run: the sweeper searches again.
    looked_for = not _harmless(case) and outcome.record.run_id is None
    assert looked_for or not outcome.record.is_open, outcome
