"""The phases of an intent, and who has started its Bolt run. `decide` uses them, so nothing here does I/O."""

from __future__ import annotations

from enum import Enum


class Phase(str, Enum):
    """How far an intent has come."""

    TAKEN = "taken"  # No trigger was sent to Bolt, or the trigger has started no Bolt run.
    SENDING = "sending"  # A trigger is about to be sent, or was sent, and its Bolt run is unknown.
    RUNNING = "running"  # The Bolt run is known and tracked.
    ENDED = "ended"  # The Bolt run has ended, and its end was not reported. A later execution reports it.
    RELEASED = "released"  # The Bolt run was left running on purpose. A later execution resumes it.
    REPORTED = "reported"  # The end was reported as the flow run's outcome. A later execution starts anew.


class Relation(str, Enum):
    """Who has started the Bolt run of an intent. Only a Bolt run that is `OURS` may be cancelled."""

    OURS = "ours"  # Our trigger has started the Bolt run, or will start it.
    MAYBE_OURS = "maybe ours"  # Our trigger may have started the Bolt run, or another client.
    ATTACHED = "attached"  # Another client has started it. We wait for its end, as `on_already_running` says.
