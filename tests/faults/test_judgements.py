"""The judgements, without any I/O: what fits, what is found, when to look again, when time is up."""

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
from paradime_blocks.polling import Clock, Deadline, next_poll_delay, observe
from paradime_blocks.trigger.request import TriggerIntent
from paradime_blocks.trigger.search import Finding, Fit, Verdict, begun_too_late, first_of, fit, judge
from paradime_blocks.trigger.send import may_have_started

RUN, TEST = "dbt run", "dbt test"


class FakeClock:
    """A clock whose sleep adds to its own time."""

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
        pytest.param((RUN, TEST), (RUN,), Fit.YES, id="as far as it has come"),
        pytest.param((RUN, TEST), ("git clone x", "dbt deps", RUN), Fit.YES, id="after Bolt's own two"),
        pytest.param((RUN, TEST), ("git clone x", "dbt deps"), Fit.OPEN, id="only Bolt's own so far"),
        pytest.param((RUN, TEST), (), Fit.OPEN, id="none so far"),
        pytest.param((), (RUN,), Fit.OPEN, id="none known of the schedule"),
        pytest.param(("dbt deps", RUN), ("git clone x", "dbt deps", RUN), Fit.YES, id="dbt deps of its own"),
        pytest.param((RUN,), ("dbt   run ",), Fit.YES, id="other spaces"),
        pytest.param((RUN, TEST), (TEST,), Fit.NO, id="others"),
        pytest.param((RUN,), (RUN, TEST), Fit.NO, id="more than asked for"),
    ],
)
def test_commands_tell_whose_run_it_is(commands, seen, expected) -> None:
    """A run fits as far as its commands are those asked for, whatever Bolt puts before them."""
    assert fit(TriggerIntent(7, 0.0, commands), record(), seen) is expected


@pytest.mark.parametrize(
    "asked,branch,commit,expected",
    [
        pytest.param(None, "main", None, Fit.YES, id="nothing asked for"),
        pytest.param("dev", "dev", "abc", Fit.YES, id="the branch"),
        pytest.param("dev", "main", "abc", Fit.NO, id="another branch"),
        pytest.param("e987a71", None, "e987a71966bf", Fit.YES, id="a commit, shortened"),
        pytest.param("e987a71", "main", "0123456", Fit.NO, id="another commit"),
        pytest.param("dev", None, None, Fit.YES, id="unknown"),
    ],
)
def test_the_branch_tells_whose_run_it_is(asked, branch, commit, expected) -> None:
    """A run on another branch or commit than was asked for is not ours."""
    assert fit(TriggerIntent(7, 0.0, (RUN,), asked), record(branch, commit), [RUN]) is expected


@pytest.mark.parametrize(
    "parent,retry_of,expected",
    [
        pytest.param(None, None, Fit.YES, id="neither"),
        pytest.param(5, 5, Fit.YES, id="the run to be retried"),
        pytest.param(4, 5, Fit.NO, id="another run's retry"),
        pytest.param(None, 5, Fit.NO, id="no retry at all"),
        pytest.param(5, None, Fit.NO, id="a retry where none was asked for"),
    ],
)
def test_the_parent_tells_whose_run_it_is(parent, retry_of, expected) -> None:
    """A retry is known by the run that it retries."""
    assert fit(TriggerIntent(7, 0.0, (RUN,), retry_of=retry_of), record(parent=parent), [RUN]) is expected


@pytest.mark.parametrize(
    "fits,early,late",
    [
        pytest.param({}, None, Finding(Verdict.ABSENT), id="nothing"),
        pytest.param(
            {8: Fit.YES}, Finding(Verdict.FOUND, [8]), Finding(Verdict.FOUND, [8]), id="one that fits"
        ),
        pytest.param({8: Fit.OPEN}, None, Finding(Verdict.FOUND, [8]), id="one that may fit"),
        pytest.param({8: Fit.NO}, None, Finding(Verdict.UNSURE, [8]), id="one that does not seem to fit"),
        pytest.param({8: Fit.YES, 9: Fit.YES}, None, Finding(Verdict.UNSURE, [8, 9]), id="two that fit"),
        pytest.param({8: Fit.YES, 9: Fit.OPEN}, None, Finding(Verdict.UNSURE, [8, 9]), id="a second may fit"),
        pytest.param(
            {8: Fit.NO, 9: Fit.YES},
            Finding(Verdict.FOUND, [9]),
            Finding(Verdict.FOUND, [9]),
            id="another's beside",
        ),
        pytest.param({8: Fit.DOUBTFUL}, None, Finding(Verdict.UNSURE, [8]), id="one that may be another's"),
        pytest.param(
            {8: Fit.YES, 9: Fit.DOUBTFUL},
            None,
            Finding(Verdict.UNSURE, [8, 9]),
            id="one that fits, and a doubt",
        ),
        pytest.param(
            {8: Fit.NO, 9: Fit.OPEN}, None, Finding(Verdict.FOUND, [9]), id="another's, and one that may"
        ),
    ],
)
def test_a_run_is_adopted_only_when_it_is_the_only_one(fits, early, late) -> None:
    """One run that fits is ours; absence takes the whole window; two that fit are never guessed between."""
    assert judge(fits, window_is_over=False) == early
    assert judge(fits, window_is_over=True) == late


@pytest.mark.parametrize(
    "asked,shown,first",
    [
        pytest.param(
            ["dbt run", "dbt test"], ["git clone x", "dbt deps", "dbt  run"], 2, id="behind Bolt's own"
        ),
        pytest.param(["dbt run"], ["dbt run"], 0, id="nothing before"),
        pytest.param(
            ["dbt deps", "dbt run"], ["git clone x", "dbt deps", "dbt deps", "dbt run"], 2, id="begins alike"
        ),
        pytest.param(["dbt deps", "dbt run"], ["dbt deps", "dbt run"], 0, id="begins alike, nothing before"),
        pytest.param(["dbt run"], ["git clone x"], 1, id="only Bolt's own so far"),
        pytest.param(["dbt run"], ["git clone x", "dbt build"], None, id="something else"),
    ],
)
def test_which_command_is_the_first_that_was_asked_for(asked, shown, first) -> None:
    """Bolt puts its own commands before them, and a schedule's own may look the same."""
    assert first_of(asked, shown) == first


@pytest.mark.parametrize(
    "began,now,bolt_time,bolt_now,expected",
    [
        pytest.param(100.0, 100.0, 50.0, 100.0, None, id="in time"),
        pytest.param(9000.0, 300.0, None, None, None, id="no time has passed, whatever the run's clock says"),
        pytest.param(9000.0, -5000.0, None, None, None, id="our clock has been set back"),
        pytest.param(9000.0, 9100.0, None, None, Fit.DOUBTFUL, id="late by our clock, which may be wrong"),
        pytest.param(9000.0, 100.0, 50.0, 9100.0, Fit.NO, id="late by Bolt's own clock"),
        pytest.param(300.0, 9100.0, 50.0, 9100.0, None, id="long past, and in time"),
        pytest.param(None, 100.0, 50.0, 9100.0, Fit.NO, id="it has not begun yet"),
    ],
)
def test_a_run_that_began_too_late_is_not_ours(began, now, bolt_time, bolt_now, expected) -> None:
    """By Bolt's clock that is certain; by our own it is no more than a doubt."""
    intent = TriggerIntent(7, 60.0, bolt_time=bolt_time)
    assert begun_too_late(intent, began, now, bolt_now) is expected


@given(st.dictionaries(st.integers(1, 99), st.sampled_from(Fit), max_size=5), st.booleans())
def test_no_guess_is_ever_made(fits, over) -> None:
    """Whatever is seen: found means that no other run can be it, absent means that there is none."""
    finding = judge(fits, window_is_over=over)
    possible = [run_id for run_id, how in fits.items() if how is not Fit.NO]
    if finding is None:
        assert not over
    elif finding.verdict is Verdict.FOUND:
        assert possible == [finding.run_id]
    elif finding.verdict is Verdict.ABSENT:
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
        pytest.param(BoltAuthError("no"), False, id="not let in"),
        pytest.param(RuntimeError("?"), True, id="anything else"),
    ],
)
def test_what_may_have_started_a_run(error, expected) -> None:
    """Only what proves that nothing was started counts as such."""
    assert may_have_started(error) is expected


@given(st.floats(0, 1e7), st.floats(0.5, 3600), st.one_of(st.none(), st.floats(-1e6, 1e6)), st.floats(0, 1e6))
def test_a_sleep_is_bounded_and_never_shortens_with_time(elapsed, ceiling, remaining, more) -> None:
    """Never longer than the ceiling, never past the deadline, never negative; longer as the run goes on."""
    delay = next_poll_delay(elapsed, ceiling, remaining)
    assert 0 <= delay <= ceiling
    if remaining is not None:
        assert delay <= max(0.0, remaining)
    assert next_poll_delay(elapsed + more, ceiling, remaining) >= delay


def test_the_end_of_a_run_is_seen_late_by_a_tenth_at_most() -> None:
    """Half a second at first, a tenth of the time waited later, the ceiling at last."""
    assert [next_poll_delay(elapsed, 15, None) for elapsed in (0, 4, 60, 3600)] == [0.5, 0.5, 6, 15]


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_wall_clock_that_jumps_does_no_harm(jump) -> None:
    """A deadline goes by time that does not jump."""
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


async def test_the_last_sleep_ends_at_the_deadline_which_is_tested_after_looking() -> None:
    """The run that ends in the very last moment has ended, not timed out."""
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


async def test_an_outage_is_counted_from_the_last_look_that_succeeded() -> None:
    """It counts on while looks fail and is over with the first that succeeds."""
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
async def test_bolt_is_left_alone_as_long_as_it_asks(asked, slept) -> None:
    """`Retry-After` counts in the wait as it does in a call, whatever the poll interval."""
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


async def test_the_deadline_comes_before_what_bolt_asks_for() -> None:
    """The last sleep ends at it, and the last look is made then."""
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


async def test_a_refusal_is_an_outage_but_for_refused_credentials() -> None:
    """The run exists, whatever Bolt says; but a key that nothing was ever read with is not tried again."""
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


async def test_a_look_that_hangs_does_not_hold_up_the_deadline(monkeypatch) -> None:
    """It is broken off at the deadline, or as soon after as one answer may take."""
    monkeypatch.setattr(polling, "_LEAST_LOOK_SECONDS", 0.2)
    began = anyio.current_time()
    observations = observe(lambda: anyio.sleep(60), poll_interval_seconds=1, deadline=Deadline(0.1))  # type: ignore[arg-type]
    seen = await anext(observations)
    assert seen.status is None
    assert seen.past_deadline
    assert anyio.current_time() - began < 5
    await observations.aclose()  # type: ignore[attr-defined]


async def test_a_run_of_an_unknown_state_is_waited_for_on() -> None:
    """A state that nobody has heard of is not an end."""
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
