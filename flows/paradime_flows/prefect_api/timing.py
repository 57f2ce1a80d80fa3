"""How long things may take, and how often is looked: all times of this package, in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """All times, in seconds.

    Attributes:
        signal_interval_seconds: Between two looks for a signal that Prefect does not hand to a thread.
        watch_interval_seconds: Between two looks at the own flow run while a Bolt run is waited for.
        prefect_answer_seconds: For one answer of Prefect's, where there is no time for its client's own retries.
        beat_seconds: Between two signs of life of a flow run's process.
        hooks_seconds: For the hooks of a flow run that has ended here: so long it is remembered.
        beat_look_seconds: Between two looks at the flow run, where nobody else in its process looks: while a retry
            is awaited, or a flow does something else than wait.
        cancel_seconds: For cancelling a Bolt run. Prefect gives a cancelled flow run 30 s to clean up: the cancel goes
            first and must fit, then the archive.
        archive_seconds: For archiving it after that.
        search_seconds: For finding a run whose trigger was not answered, before that.
        bolt_time_seconds: For an answer of Bolt's that tells its clock.
        takeover_pause_seconds: The longest pause of one of two flow runs that take the same place at once.
        left_for_retry_seconds: For so long at least a run that is to be left for a retry is left, however soon the
            sweeper is sent.
        sign_rounding_seconds: A sign of life is written in whole seconds.
        lease_seconds: The lease of a concurrency slot. The shortest that Prefect takes: after a SIGKILL the slot is
            free again when the lease has ended.
        slot_dead_seconds: Who holds a slot for longer lives: one that was killed loses it when its lease has ended,
            and Prefect frees what such leases held in rounds of its own.
        slot_try_seconds: For getting a slot without waiting for it: long enough for one answer of Prefect's.
        slot_told_after_seconds: How long a slot is waited for before that is told.
        slot_release_seconds: For giving a slot back.
        conflict_appears_seconds: Until Bolt shows the run for which it has refused a trigger.
        conflict_look_seconds: Between two looks for it.
        conflict_setup_seconds: For a run's check-out and `dbt deps`, as a rule.
        log_fetch_seconds: For fetching new output of a command; the next look fetches again by itself.
        log_batch_seconds: How long a batch of lines may wait to be filled.
        log_quick_seconds: A fetch of all output that takes longer is followed by a rest.
        log_precision_seconds: A server may keep times less exactly than we write them.
        drain_seconds: For fetching what is left of a run that has ended, as long as it keeps coming.
        drain_quiet_seconds: How long nothing may come before Bolt's log is taken for finished.
        drain_outage_seconds: How long Bolt or Prefect may be out of reach then.
        drain_pause_seconds: Between two fetches then.
        output_patience_seconds: How long a look at the run's state may be kept waiting for its output.
        last_fetch_seconds: For the last fetch of a run whose end was not waited for.
        last_status_seconds: For asking such a run's state.
        progress_interval_seconds: Between two updates of the progress artifact.
        schedule_search_seconds: For finding the schedule of a run that is archived.
        step_stop_seconds: For a step of a pipeline that is asked to stop: it cancels its Bolt run and archives it; one
            that hangs there is broken off.
        step_interrupt_seconds: The same when the process was interrupted.
        step_release_seconds: The same where it leaves its Bolt run to another process.
    """

    signal_interval_seconds: float = 0.25
    watch_interval_seconds: float = 3.0
    prefect_answer_seconds: float = 3.0
    beat_seconds: float = 10.0
    hooks_seconds: float = 60.0
    beat_look_seconds: float = 3.0
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
    slot_told_after_seconds: float = 2.0
    slot_release_seconds: float = 10.0
    conflict_appears_seconds: float = 8.0
    conflict_look_seconds: float = 1.0
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
        """After so much silence, a flow run's process may be gone."""
        return 3 * self.beat_seconds

    @property
    def two_beats_seconds(self) -> float:
        """Within so much time, whoever lives has given another sign of life, whatever the clocks say."""
        return 2.5 * self.beat_seconds


# What all goes by that is handed nothing else.
DEFAULT_TIMING = Timing()
_timing: ContextVar[Timing] = ContextVar("timing", default=DEFAULT_TIMING)


def times() -> Timing:
    """Return the times that the caller goes by."""
    return _timing.get()


@contextmanager
def going_by(other: Timing) -> Iterator[None]:
    """Let what is called within go by other times, in the threads that it starts, too."""
    token = _timing.set(other)
    try:
        yield
    finally:
        _timing.reset(token)
