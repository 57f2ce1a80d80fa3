"""The times that the package goes by, and how others are handed in."""

from __future__ import annotations

import asyncio
import contextvars
import threading

from paradime_flows.prefect_api.timing import DEFAULT_TIMING, Timing, going_by, times


async def test_other_times_hold_for_what_is_called_within_and_nobody_else() -> None:
    """Also for tasks and threads that are begun there; beside it, the usual ones hold."""
    quick = Timing(beat_seconds=0.5)
    seen: list[Timing] = []

    async def look_later() -> Timing:
        await asyncio.sleep(0)
        return times()

    beside = asyncio.create_task(look_later())
    with going_by(quick):
        within = asyncio.create_task(look_later())
        thread = threading.Thread(target=contextvars.copy_context().run, args=(lambda: seen.append(times()),))
        thread.start()
        thread.join()
    assert (await beside, await within, seen, times()) == (DEFAULT_TIMING, quick, [quick], DEFAULT_TIMING)


def test_what_follows_from_the_signs_of_life_follows_from_their_time() -> None:
    """A process is silent after three signs that have not come, and has given another within two."""
    quick = Timing(beat_seconds=0.5)
    assert quick.two_beats_seconds < quick.stale_seconds < DEFAULT_TIMING.two_beats_seconds
