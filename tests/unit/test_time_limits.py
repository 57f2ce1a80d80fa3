"""The package's times, and how other times are handed in."""

from __future__ import annotations

import asyncio
import contextvars
import threading

from paradime_flows.time_limits import DEFAULT_TIMING, Timing, times, use_timing


async def test_other_times_apply_only_to_calls_inside() -> None:
    """This includes tasks and threads started inside; outside, the usual times hold."""
    quick = Timing(beat_seconds=0.5)
    seen: list[Timing] = []

    async def look_later() -> Timing:
        await asyncio.sleep(0)
        return times()

    beside = asyncio.create_task(look_later())
    with use_timing(quick):
        within = asyncio.create_task(look_later())
        thread = threading.Thread(target=contextvars.copy_context().run, args=(lambda: seen.append(times()),))
        thread.start()
        thread.join()
    assert (await beside, await within, seen, times()) == (DEFAULT_TIMING, quick, [quick], DEFAULT_TIMING)


def test_heartbeat_limits_follow_from_the_heartbeat_interval() -> None:
    """A live process writes another heartbeat before it counts as silent."""
    quick = Timing(beat_seconds=0.5)
    assert quick.beat_seconds < quick.next_beat_seconds < quick.stale_seconds < DEFAULT_TIMING.beat_seconds
