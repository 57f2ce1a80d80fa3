"""All time limits and intervals of this package, in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """All times, in seconds.

    Attributes:
        signal_interval_seconds: The interval of the checks for a signal that Prefect does not pass to a thread.
        watch_interval_seconds: The interval of the polls of our own flow run while it waits for a Bolt run.
        prefect_answer_seconds: The limit for one answer from Prefect, if there is no time for retries.
        beat_seconds: The interval of the heartbeats of a flow run's process.
        hooks_seconds: How long the data of a flow run that has ended in this process is kept for its hooks.
        beat_poll_seconds: The interval of the polls of the flow run, if nothing else in its process polls it. For
            example, the flow run waits for a retry, or the flow does other work.
        cancel_seconds: The limit for the cancel of a Bolt run. Prefect gives a cancelled flow run 30 s to clean up. In
            this time, the flow run first cancels the Bolt run and then archives it.
        archive_seconds: The limit for the archive after the cancel.
        search_seconds: The limit for the search for a Bolt run before its cancel, if the trigger was not answered.
        bolt_time_seconds: The limit for the request that reads the time of Bolt's clock.
        takeover_pause_seconds: If two flow runs take over the same intent at once, one of them pauses for at most this
            time.
        left_for_retry_seconds: The sweeper leaves a Bolt run for a retry for at least this time.
        sign_rounding_seconds: The error of the time of a heartbeat, because the time is written in whole seconds.
        lease_seconds: The lease of a concurrency slot, the shortest that Prefect accepts. After a SIGKILL, the slot is
            free when the lease has ended.
        slot_dead_seconds: A flow run that has held a slot for longer than this is alive. A killed flow run loses the
            slot when the lease has ended and Prefect has cleaned up. Prefect cleans up at intervals.
        slot_try_seconds: The limit for the request of a slot, if the flow run does not wait for a slot. It is enough
            for one answer from Prefect.
        slot_log_after_seconds: How long a flow run waits for a slot before it logs that it waits.
        slot_release_seconds: The limit for releasing a slot.
        conflict_appears_seconds: If Bolt refuses a trigger because of another Bolt run, the other run may take this
            long to appear in Bolt's list of runs.
        conflict_poll_seconds: The interval of the searches for this other run.
        conflict_setup_seconds: The usual time of a Bolt run's check-out and `dbt deps`.
        log_fetch_seconds: The limit for fetching new output of a command. The next poll fetches again.
        log_batch_seconds: How long a batch of lines may wait to be filled.
        log_quick_seconds: If a fetch of the whole output takes longer than this, the next fetch is delayed.
        log_precision_seconds: A server may store the time of a log record with an error of this size.
        drain_seconds: The limit for fetching the rest of the output of a Bolt run that has ended.
        drain_quiet_seconds: If the run has ended and Bolt returns no output for this time, its log counts as finished.
        drain_outage_seconds: How long Bolt or Prefect may be unreachable while the rest of the output is fetched.
        drain_pause_seconds: The pause between two fetches of the rest of the output.
        output_patience_seconds: How long a fetch of output may delay the next poll of the Bolt run's state.
        last_fetch_seconds: The limit for the last fetch, if the flow stops waiting before the Bolt run ends.
        last_status_seconds: The limit for reading the state of the Bolt run before this last fetch.
        progress_interval_seconds: The shortest interval between two updates of the progress artifact.
        schedule_search_seconds: The limit for finding the schedule of a Bolt run that is archived.
        step_stop_seconds: The limit for a pipeline step to cancel and archive its Bolt run. A step that takes longer
            is aborted.
        step_interrupt_seconds: The same limit if the process was interrupted.
        step_release_seconds: The same limit if the step leaves its Bolt run to another process.
    """

    signal_interval_seconds: float = 0.25
    watch_interval_seconds: float = 3.0
    prefect_answer_seconds: float = 3.0
    beat_seconds: float = 10.0
    hooks_seconds: float = 60.0
    beat_poll_seconds: float = 3.0
    cancel_seconds: float = 12.0
    archive_seconds: float = 8.0
    search_seconds: float = 6.0
    bolt_time_seconds: float = 5.0
    takeover_pause_seconds: float = 1.0
    left_for_retry_seconds: float = 900.0
    sign_rounding_seconds: float = 1.0
    lease_seconds: float = 60.0
    slot_dead_seconds: float = 75.0
    slot_try_seconds: float = 3.0
    slot_log_after_seconds: float = 2.0
    slot_release_seconds: float = 10.0
    conflict_appears_seconds: float = 8.0
    conflict_poll_seconds: float = 1.0
    conflict_setup_seconds: float = 30.0
    log_fetch_seconds: float = 5.0
    log_batch_seconds: float = 2.0
    log_quick_seconds: float = 0.5
    log_precision_seconds: float = 0.001
    drain_seconds: float = 300.0
    drain_quiet_seconds: float = 3.0
    drain_outage_seconds: float = 10.0
    drain_pause_seconds: float = 0.3
    output_patience_seconds: float = 2.0
    last_fetch_seconds: float = 10.0
    last_status_seconds: float = 5.0
    progress_interval_seconds: float = 2.0
    schedule_search_seconds: float = 30.0
    step_stop_seconds: float = 60.0
    step_interrupt_seconds: float = 25.0
    step_release_seconds: float = 10.0

    @property
    def stale_seconds(self) -> float:
        """If a flow run has sent no heartbeat for this time, its process may be gone."""
        return 3 * self.beat_seconds

    @property
    def two_beats_seconds(self) -> float:
        """Within this time, a process that is alive sends another heartbeat, whatever the clocks say."""
        return 2.5 * self.beat_seconds


# These times apply if a caller sets no others.
DEFAULT_TIMING = Timing()
_timing: ContextVar[Timing] = ContextVar("timing", default=DEFAULT_TIMING)


def times() -> Timing:
    """Return the times set by the nearest `use_timing` block, or else the defaults."""
    return _timing.get()


@contextmanager
def use_timing(other: Timing) -> Iterator[None]:
    """Apply other times during the `with` block, also in threads that are started in the block."""
    token = _timing.set(other)
    try:
        yield
    finally:
        _timing.reset(token)
