"""Like `call.py`, but at a task's third status request for a run, the process gets SIGTERM, and Prefect's handler
raises immediately, inside that task."""

import os
import signal
import sys

import call

from paradime_blocks import BoltClient

get_bolt_run = BoltClient.get_bolt_run
asked = 0


async def interrupted(self, *args, **options):
    global asked  # noqa: PLW0603 - the program is this small
    asked += 1
    if asked == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return await get_bolt_run(self, *args, **options)


if __name__ == "__main__":
    BoltClient.get_bolt_run = interrupted
    call.main(*sys.argv[1:])
