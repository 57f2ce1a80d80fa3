"""Reads only the ids of commands from the body of a webhook: all else is read from Bolt. This module does no I/O."""

from __future__ import annotations

import json
from typing import Final

# The largest body, in bytes. A webhook about fifty commands with ten files each has 100 kB.
LARGEST_BODY: Final = 1_000_000
# The vendor's example has 10 commands. One command is enough to find the Bolt run.
MOST_COMMANDS: Final = 50
_LARGEST_ID: Final = 2**31 - 1


def command_ids(body: bytes) -> tuple[int, ...]:
    """Return the ids of the commands that a webhook names, each once; an empty tuple if it names none.

    Args:
        body: The body of the webhook.

    Raises:
        ValueError: The body is no JSON object.
    """
    try:
        found = json.loads(body)
    except RecursionError:
        msg = "The body is nested too deeply."
        raise ValueError(msg) from None
    if not isinstance(found, dict):
        msg = "The body is no JSON object."
        raise ValueError(msg)  # noqa: TRY004 - for the sender, it is a wrong value
    commands = found.get("commands")
    if not isinstance(commands, list):
        return ()
    ids = [each.get("id") for each in commands if isinstance(each, dict)]
    # True is an integer, too.
    valid = (id_ for id_ in ids if isinstance(id_, int) and id_ is not True and 0 < id_ <= _LARGEST_ID)
    return tuple(dict.fromkeys(valid))[:MOST_COMMANDS]
