"""All time limits and intervals of this package, in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """All time limits and intervals of this package, in seconds.

    Attributes:
        signal_interval_seconds: The interval between two checks for a signal that Prefect does not pass to a thread.
        watch_interval_seconds: The interval at which the states of the flow runs of this process are read from Prefect
            while there is no event stream.
        rarely_seconds: The interval at which these states are read while there is an event stream, because not every
            change has an event.
        stream_pause_seconds: The longest pause before a broken event stream is opened again.
        observer_idle_seconds: How long a process keeps its event stream if no flow run needs the stream.
        prefect_answer_seconds: How long we wait for one answer from Prefect if there is no time for retries.
        shared_read_seconds: How long a read of flow runs waits at most for the end of the read before it, which other
            callers share.
        other_writes_seconds: To change a flow run's labels, Prefect's server reads all of them and then stores them.
            This is the longest time that we expect between the two. If we read our labels back after this time, no
            write that began before ours can undo ours any more.
        locked_seconds: The pause before a request is sent again for the first time, if a Prefect server could not write
            because another write had locked its database.
        beat_seconds: The interval between two heartbeats of a flow run's process.
        cancel_seconds: The time limit for the cancel of a Bolt run. Prefect gives a cancelled flow run 30 s to clean
            up. In this time, the flow run first cancels the Bolt run and then archives the Bolt run.
        archive_seconds: The time limit for the archive of a Bolt run that the flow run has cancelled.
        search_seconds: The time limit for the search for the Bolt run to cancel, if Bolt did not answer the trigger.
        bolt_time_seconds: The time limit for the request that reads the time of Bolt's clock.
        left_for_retry_seconds: The sweeper gives a retry at least this time to resume a Bolt run that was left for the
            retry.
        sign_rounding_seconds: The largest error in the time of a heartbeat, because the time is stored in whole
            seconds.
        lease_seconds: The length of a lease on a concurrency slot. Prefect accepts no shorter lease. After a SIGKILL
            of the process, the slot is free when the lease has ended.
        slot_dead_seconds: If a flow run has held a slot for longer than this, its process is alive. A killed flow run
            loses the slot when the lease has ended and Prefect has cleaned up. Prefect cleans up at intervals.
        slot_try_seconds: The time limit for the request for a slot, if the flow run does not wait for a slot. This
            time is enough for one answer from Prefect.
        slot_log_after_seconds: How long a flow run waits for a slot before it logs that it waits. A slow Prefect takes
            seconds to give a slot that is free.
        slot_release_seconds: The time limit for the request that releases a slot.
        conflict_appears_seconds: If Bolt refuses a trigger because of another Bolt run, the other Bolt run may take
            this long to appear in Bolt's list of runs.
        conflict_poll_seconds: After Bolt has refused a trigger, the interval between two searches for the conflicting
            Bolt run.
        conflict_setup_seconds: How long the check-out and `dbt deps` of a Bolt run usually take.
        log_fetch_seconds: The time limit for fetching new output of a command. After the limit, the next poll fetches
            this output.
        log_pause_seconds: The pause between two fetches of the output of running commands, if there is new output.
        log_longest_pause_seconds: The longest pause between two fetches. The pause grows while there is no new output.
        log_batch_seconds: How long log lines wait for more log lines before all of them are sent to Prefect, at the
            beginning of a Bolt run.
        log_longest_batch_seconds: How long log lines wait at most when the Bolt run has lasted for a while.
        log_quick_seconds: If a fetch of a command's whole output takes longer than this, the next fetch is delayed.
        log_precision_seconds: The largest error in the time of a log record when a Prefect server stores the record.
        drain_seconds: The time limit for fetching the rest of the output of a Bolt run that has ended.
        drain_quiet_seconds: If a Bolt run has ended and Bolt returns no output for this time, the log counts as
            complete.
        drain_outage_seconds: How long Bolt or Prefect may be unreachable while the rest of the output is fetched.
        drain_pause_seconds: The pause between two fetches of the rest of the output.
        output_patience_seconds: How long we wait for the end of a fetch of output that we have cancelled.
        last_fetch_seconds: The time limit for the last fetch of output, if the flow stops waiting before the Bolt run
            ends.
        last_status_seconds: The time limit for reading the state of the Bolt run before the last fetch of output.
        command_output_seconds: How long the task run of a command that has ended waits for the command's output in the
            log.
        task_run_seconds: The time limit for the beginning or the end of a task run that shows a piece of work.
        progress_after_seconds: How long we wait for a Bolt run before its progress is shown as an artifact.
        progress_interval_seconds: The shortest interval between two updates of the progress artifact.
        schedule_search_seconds: The time limit for finding the schedule of a Bolt run that is archived.
        held_seconds: How long a flow run that may be suspended first waits in its process. Then it decides again.
        worth_suspending_seconds: If the usual end of a Bolt run is nearer than this time, the flow run is not
            suspended.
        suspension_margin_seconds: If nobody has resumed a suspended flow run, Prefect fails it this long after the time
            limit of its Bolt run.
        event_memory_seconds: How long a repetition of an event triggers no automation. Prefect's server remembers an
            event for half an hour.
        event_poll_seconds: The interval between two questions to Prefect whether it has stored events.
        event_stored_seconds: How long Prefect may take to store an event. Prefect writes events every five seconds.
        webhook_body_seconds: How long the body of a webhook may take to arrive.
        webhook_again_seconds: If a webhook came and its Bolt run has not ended, Bolt is asked once more after this
            time: Bolt may send a webhook before its API shows the end.
        webhook_retry_seconds: The longest pause between two attempts to do the work of webhooks, while Bolt or Prefect
            is unreachable.
        webhook_outage_seconds: How long the flow `report_run` waits for the end of an outage of Bolt.
        webhook_stop_seconds: How long the receiver of webhooks may take for the work that is left when it is stopped.
        step_stop_seconds: The time limit for a pipeline step to cancel and archive its Bolt run. The pipeline aborts a
            step that takes longer.
        step_interrupt_seconds: The time limit for a pipeline step to cancel and archive its Bolt run after an
            interrupt of the process.
        step_release_seconds: The time limit for a pipeline step to release its Bolt run to another process.
    """

    signal_interval_seconds: float = 0.25
    watch_interval_seconds: float = 3.0
    rarely_seconds: float = 30.0
    stream_pause_seconds: float = 60.0
    observer_idle_seconds: float = 10.0
    prefect_answer_seconds: float = 3.0
    shared_read_seconds: float = 1.0
    other_writes_seconds: float = 0.1
    locked_seconds: float = 0.1
    beat_seconds: float = 30.0
    cancel_seconds: float = 12.0
    archive_seconds: float = 8.0
    search_seconds: float = 6.0
    bolt_time_seconds: float = 5.0
    left_for_retry_seconds: float = 900.0
    sign_rounding_seconds: float = 1.0
    lease_seconds: float = 60.0
    slot_dead_seconds: float = 75.0
    slot_try_seconds: float = 3.0
    slot_log_after_seconds: float = 10.0
    slot_release_seconds: float = 10.0
    conflict_appears_seconds: float = 8.0
    conflict_poll_seconds: float = 1.0
    conflict_setup_seconds: float = 30.0
    log_fetch_seconds: float = 5.0
    log_pause_seconds: float = 2.0
    log_longest_pause_seconds: float = 10.0
    log_batch_seconds: float = 2.0
    log_longest_batch_seconds: float = 10.0
    log_quick_seconds: float = 0.5
    log_precision_seconds: float = 0.001
    drain_seconds: float = 300.0
    drain_quiet_seconds: float = 3.0
    drain_outage_seconds: float = 10.0
    drain_pause_seconds: float = 0.3
    output_patience_seconds: float = 2.0
    last_fetch_seconds: float = 10.0
    last_status_seconds: float = 5.0
    command_output_seconds: float = 30.0
    task_run_seconds: float = 2.0
    progress_after_seconds: float = 10.0
    progress_interval_seconds: float = 30.0
    schedule_search_seconds: float = 30.0
    held_seconds: float = 60.0
    worth_suspending_seconds: float = 120.0
    suspension_margin_seconds: float = 86_400.0
    event_memory_seconds: float = 1500.0
    event_poll_seconds: float = 1.0
    event_stored_seconds: float = 30.0
    webhook_body_seconds: float = 5.0
    webhook_again_seconds: float = 10.0
    webhook_retry_seconds: float = 30.0
    webhook_outage_seconds: float = 900.0
    webhook_stop_seconds: float = 10.0
    step_stop_seconds: float = 60.0
    step_interrupt_seconds: float = 25.0
    step_release_seconds: float = 10.0

    @property
    def stale_seconds(self) -> float:
        """If a flow run has sent no heartbeat for this time, its process may be gone."""
        # The automation in `deployments/prefect.yaml` starts the sweeper at least a minute after the last heartbeat.
        return 2 * self.beat_seconds

    @property
    def next_beat_seconds(self) -> float:
        """A process that is alive sends another heartbeat within this time, even if Prefect is slow."""
        return 1.5 * self.beat_seconds


# These times apply if no caller has set other times.
DEFAULT_TIMING = Timing()
_timing: ContextVar[Timing] = ContextVar("timing", default=DEFAULT_TIMING)


def times() -> Timing:
    """Return the times that the innermost `use_timing` block sets, or else the default times."""
    return _timing.get()


@contextmanager
def use_timing(other: Timing) -> Iterator[None]:
    """Set other time limits and intervals for the `with` block, also for threads that are started in the block."""
    token = _timing.set(other)
    try:
        yield
    finally:
        _timing.reset(token)
