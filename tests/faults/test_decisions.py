"""The decisions without I/O: which run fits, what a search finds, when to poll next, when time is up."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paradime_blocks import polling
from paradime_blocks.errors import (
    BoltAlreadyRunning,
    BoltAuthError,
    BoltRequestError,
    BoltUnavailable,
    BoltUnsupported,
)
from paradime_blocks.models import BoltRunRecord, BoltRunState, BoltRunStatus
from paradime_blocks.polling import Clock, Deadline, observe
from paradime_blocks.trigger.request import TriggerIntent, TriggerRequest, fingerprint_of
from paradime_blocks.trigger.search import (
    Finding,
    Fit,
    began_too_late,
    first_of,
    fit,
    judge,
)
from paradime_blocks.trigger.send import may_have_started

RUN, TEST = "dbt run", "dbt test"


class FakeClock:
    """A clock that moves when it sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wall = 1_800_000_000.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.wall += seconds

    @property
    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.now, wall=lambda: self.wall, sleep=self.sleep)


def record(branch: str | None = None, commit: str | None = None, parent: int | None = None) -> BoltRunRecord:
    return BoltRunRecord.model_validate(
        {
            "id": 8,
            "state": "RUNNING",
            "parentScheduleRunId": parent,
            "gitInfo": {"branch": branch, "commitHash": commit},
        }
    )


@pytest.mark.parametrize(
    "commands,seen,expected",
    [
        pytest.param((RUN, TEST), (RUN, TEST), Fit.YES, id="the same"),
        pytest.param((RUN, TEST), (RUN,), Fit.YES, id="its commands so far"),
        pytest.param((RUN, TEST), ("git clone x", "dbt deps", RUN), Fit.YES, id="after Bolt's own two"),
        pytest.param(
            (RUN, TEST), ("git clone x", "dbt deps"), Fit.OPEN, id="only Bolt's own commands so far"
        ),
        pytest.param((RUN, TEST), (), Fit.OPEN, id="none so far"),
        pytest.param((), (RUN,), Fit.OPEN, id="the schedule's commands are unknown"),
        pytest.param(
            ("dbt deps", RUN),
            ("git clone x", "dbt deps", RUN),
            Fit.YES,
            id="the schedule has its own dbt deps",
        ),
        pytest.param((RUN,), ("dbt   run ",), Fit.YES, id="other spaces"),
        pytest.param((RUN, TEST), (TEST,), Fit.NO, id="others"),
        pytest.param((RUN,), (RUN, TEST), Fit.NO, id="more than requested"),
    ],
)
def test_commands_identify_our_run(commands, seen, expected) -> None:
    """A run fits if its commands so far are the requested ones; Bolt's own commands before them do not count."""
    intent = TriggerIntent(7, 0.0, tuple(map(fingerprint_of, commands)))
    assert fit(TriggerRequest("daily"), intent, record(), seen) is expected


@pytest.mark.parametrize(
    "asked,branch,commit,expected",
    [
        pytest.param(None, "main", None, Fit.YES, id="nothing requested"),
        pytest.param("dev", "dev", "abc", Fit.YES, id="the branch"),
        pytest.param("dev", "main", "abc", Fit.NO, id="another branch"),
        pytest.param("e987a71", None, "e987a71966bf", Fit.YES, id="a shortened commit"),
        pytest.param("e987a71", "main", "0123456", Fit.NO, id="another commit"),
        pytest.param("dev", None, None, Fit.YES, id="unknown"),
    ],
)
def test_the_branch_identifies_our_run(asked, branch, commit, expected) -> None:
    """A run on another branch or commit than requested is not ours."""
    request, intent = (
        TriggerRequest("daily", {"branch": asked}),
        TriggerIntent(7, 0.0, (fingerprint_of(RUN),)),
    )
    assert fit(request, intent, record(branch, commit), [RUN]) is expected


@pytest.mark.parametrize(
    "parent,retry_of,expected",
    [
        pytest.param(None, None, Fit.YES, id="neither"),
        pytest.param(5, 5, Fit.YES, id="the run to be retried"),
        pytest.param(4, 5, Fit.NO, id="another run's retry"),
        pytest.param(None, 5, Fit.NO, id="not a retry"),
        pytest.param(5, None, Fit.NO, id="a retry, but none was requested"),
    ],
)
def test_the_retried_run_identifies_our_run(parent, retry_of, expected) -> None:
    """A retry is identified by the run that it retries."""
    request, intent = (
        TriggerRequest("daily", retry_of=retry_of),
        TriggerIntent(7, 0.0, (fingerprint_of(RUN),)),
    )
    assert fit(request, intent, record(parent=parent), [RUN]) is expected


@pytest.mark.parametrize(
    "fits,early,late",
    [
        pytest.param({}, None, Finding(is_absent=True, candidates=[]), id="nothing"),
        pytest.param(
            {8: Fit.YES}, Finding(8, candidates=[8]), Finding(8, candidates=[8]), id="one that fits"
        ),
        pytest.param({8: Fit.OPEN}, None, Finding(8, candidates=[8]), id="one that may fit"),
        pytest.param({8: Fit.NO}, None, Finding(candidates=[8]), id="one that seems not to fit"),
        pytest.param({8: Fit.YES, 9: Fit.YES}, None, Finding(candidates=[8, 9]), id="two that fit"),
        pytest.param({8: Fit.YES, 9: Fit.OPEN}, None, Finding(candidates=[8, 9]), id="a second may fit"),
        pytest.param(
            {8: Fit.NO, 9: Fit.YES},
            Finding(9, candidates=[9]),
            Finding(9, candidates=[9]),
            id="another's beside",
        ),
        pytest.param(
            {8: Fit.NO, 9: Fit.OPEN},
            None,
            Finding(9, candidates=[9]),
            id="another client's run, and one that may fit",
        ),
    ],
)
def test_a_run_is_adopted_only_when_it_is_the_only_one(fits, early, late) -> None:
    """One run that fits is ours. Only the whole window proves absence. Of two that fit, none is chosen."""
    assert judge(fits, window_is_over=False) == early
    assert judge(fits, window_is_over=True) == late


@pytest.mark.parametrize(
    "asked,shown,first",
    [
        pytest.param(
            ["dbt run", "dbt test"],
            ["git clone x", "dbt deps", "dbt  run"],
            2,
            id="after Bolt's own commands",
        ),
        pytest.param(["dbt run"], ["dbt run"], 0, id="nothing before"),
        pytest.param(
            ["dbt deps", "dbt run"],
            ["git clone x", "dbt deps", "dbt deps", "dbt run"],
            2,
            id="begins like Bolt's own",
        ),
        pytest.param(
            ["dbt deps", "dbt run"],
            ["dbt deps", "dbt run"],
            0,
            id="begins like Bolt's own, with nothing before",
        ),
        pytest.param(["dbt run"], ["git clone x"], 1, id="only Bolt's own commands so far"),
        pytest.param(["dbt run"], ["git clone x", "dbt build"], None, id="something else"),
    ],
)
def test_finds_the_first_requested_command(asked, shown, first) -> None:
    """Bolt adds its own commands in front, and a schedule's own commands may look the same."""
    assert first_of([*map(fingerprint_of, asked)], shown) == first


@pytest.mark.parametrize(
    "began,now,bolt_time,bolt_now,expected",
    [
        pytest.param(100.0, 100.0, 50.0, 100.0, False, id="in time"),
        pytest.param(9000.0, 300.0, None, None, False, id="no time has passed by our clock"),
        pytest.param(9000.0, -5000.0, None, None, False, id="our clock was set back"),
        pytest.param(9000.0, 9100.0, None, None, True, id="late by our clock, where Bolt's is unknown"),
        pytest.param(9000.0, 100.0, 50.0, 9100.0, True, id="late by Bolt's own clock"),
        pytest.param(300.0, 9100.0, 50.0, 9100.0, False, id="late by our clock, in time by Bolt's"),
        pytest.param(None, 100.0, 50.0, 9100.0, True, id="it has not started yet"),
    ],
)
def test_a_run_that_started_too_late_is_not_ours(began, now, bolt_time, bolt_now, expected) -> None:
    """Bolt's clock decides, where its time is known."""
    assert began_too_late(TriggerIntent(7, 60.0, bolt_time=bolt_time), began, now, bolt_now) is expected


@given(st.dictionaries(st.integers(1, 99), st.sampled_from(Fit), max_size=5), st.booleans())
def test_the_verdict_is_never_a_guess(fits, over) -> None:
    """In any case: found means that no other run can be ours, absent means that no run exists."""
    finding = judge(fits, window_is_over=over)
    possible = [run_id for run_id, how in fits.items() if how is not Fit.NO]
    if finding is None:
        assert not over
    elif finding.run_id is not None:
        assert possible == [finding.run_id]
    elif finding.is_absent:
        assert over
        assert not fits
    else:
        assert finding.candidates


@pytest.mark.parametrize(
    "error,expected",
    [
        pytest.param(BoltUnavailable("cut"), True, id="answer lost"),
        pytest.param(BoltUnavailable("refused", may_have_acted=False), False, id="never arrived"),
        pytest.param(
            BoltRequestError("Internal error", operation="TriggerBoltRun"), True, id="GraphQL error"
        ),
        pytest.param(BoltRequestError("bad input"), False, id="refused before it was sent"),
        pytest.param(BoltUnsupported("no such field", operation="RetryBoltRun"), False, id="not validated"),
        pytest.param(BoltAlreadyRunning("runs"), False, id="runs already"),
        pytest.param(BoltAuthError("no"), False, id="wrong credentials"),
        pytest.param(RuntimeError("?"), True, id="anything else"),
    ],
)
def test_which_errors_prove_that_nothing_started(error, expected) -> None:
    """Nothing was started only if the error proves it."""
    assert may_have_started(error) is expected


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_jump_of_the_wall_clock_does_not_move_the_deadline(jump) -> None:
    """A deadline uses a clock that does not jump."""
    fake = FakeClock()
    deadline = Deadline(60, fake.clock)
    fake.wall += jump
    assert deadline.remaining == 60
    assert not deadline.passed
    fake.now += 60
    assert deadline.passed
    assert Deadline(None, fake.clock).remaining is None


def status(state: str) -> BoltRunStatus:
    return BoltRunStatus(state=BoltRunState(state), commands=[])


async def test_the_last_poll_is_at_the_deadline() -> None:
    """A run that ends at the last moment counts as ended, not as timed out."""
    fake = FakeClock()
    deadline = Deadline(10, fake.clock)

    async def look() -> BoltRunStatus:
        return status("SUCCESS" if fake.now >= 1010 else "RUNNING")

    seen = [
        each async for each in observe(look, poll_interval_seconds=15, deadline=deadline, clock=fake.clock)
    ]
    assert fake.now == 1010
    assert seen[-1].status is not None
    assert seen[-1].status.state is BoltRunState.SUCCESS
    assert [each.past_deadline for each in seen] == [False] * (len(seen) - 1) + [True]


async def test_an_outage_counts_from_the_last_successful_poll() -> None:
    """It grows while polls fail, and the first successful poll ends it."""
    fake = FakeClock()
    answers = iter(["RUNNING", None, None, "RUNNING", None, "SUCCESS"])

    async def look() -> BoltRunStatus:
        answer = next(answers)
        if answer is None:
            raise BoltUnavailable("out")
        return status(answer)

    seen = [
        each
        async for each in observe(
            look, poll_interval_seconds=15, deadline=Deadline(None, fake.clock), clock=fake.clock
        )
    ]
    assert [each.outage_seconds for each in seen] == [0, 0.5, 1.0, 0, 0.5, 0]
    assert [each.error is not None for each in seen] == [False, True, True, False, True, False]


@pytest.mark.parametrize(
    "asked, slept",
    [
        pytest.param(20, [20, 20, 20], id="as asked"),
        pytest.param(0, [0.5, 0.5, 0.5], id="at once"),
        pytest.param(3600, [60, 60, 60], id="a minute at most"),
    ],
)
async def test_polling_waits_as_long_as_bolt_asks(asked, slept) -> None:
    """`Retry-After` counts during a wait as it does in a call, whatever the poll interval."""
    fake = FakeClock()

    async def look() -> BoltRunStatus:
        if len(fake.slept) == len(slept):
            return status("SUCCESS")
        raise BoltUnavailable("too many", retry_after_seconds=asked)

    async for _ in observe(
        look, poll_interval_seconds=15, deadline=Deadline(None, fake.clock), clock=fake.clock
    ):
        pass
    assert fake.slept == slept


async def test_the_deadline_overrides_retry_after() -> None:
    """The last sleep ends at the deadline, and the last poll follows."""
    fake = FakeClock()
    looks = []

    async def look() -> BoltRunStatus:
        looks.append(fake.now - 1000)
        raise BoltUnavailable("too many", retry_after_seconds=20)

    observations = observe(
        look, poll_interval_seconds=15, deadline=Deadline(30, fake.clock), clock=fake.clock
    )
    async for seen in observations:
        if seen.past_deadline:
            break
    assert looks == [0, 20, 30]


async def test_a_refused_poll_counts_as_an_outage_unless_credentials_are_wrong() -> None:
    """The run exists, whatever Bolt says. But a key that has never read anything is not tried again."""
    fake = FakeClock()
    errors = iter([BoltRequestError("no such run"), BoltAuthError("no")])

    async def look() -> BoltRunStatus:
        raise next(errors)

    observations = observe(
        look, poll_interval_seconds=1, deadline=Deadline(None, fake.clock), clock=fake.clock
    )
    assert isinstance((await anext(observations)).error, BoltRequestError)
    with pytest.raises(BoltAuthError):
        await anext(observations)


async def test_a_poll_that_hangs_does_not_delay_the_deadline(monkeypatch) -> None:
    """It is stopped at the deadline, or as soon after it as one response may take."""
    monkeypatch.setattr(polling, "_LEAST_POLL_SECONDS", 0.2)
    began = anyio.current_time()
    observations = observe(lambda: anyio.sleep(60), poll_interval_seconds=1, deadline=Deadline(0.1))  # type: ignore[arg-type]
    seen = await anext(observations)
    assert seen.status is None
    assert seen.past_deadline
    assert anyio.current_time() - began < 5
    await observations.aclose()  # type: ignore[attr-defined]


async def test_waiting_continues_while_the_state_is_unknown() -> None:
    """A state that we do not know is not an end."""
    fake = FakeClock()
    states = iter(["STARTING", "POLISHING", "SKIPPED"])

    async def look() -> BoltRunStatus:
        return status(next(states))

    seen = [
        each
        async for each in observe(
            look, poll_interval_seconds=1, deadline=Deadline(None, fake.clock), clock=fake.clock
        )
    ]
    assert len(seen) == 3
