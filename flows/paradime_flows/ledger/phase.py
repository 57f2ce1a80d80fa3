"""The phases of an intent, and who has started its Bolt run. This module imports nothing that does I/O."""

from __future__ import annotations

from enum import Enum


class Phase(str, Enum):
    """How far an intent has come.

    Attributes:
        TAKEN: No trigger was sent to Bolt, or the trigger has started no Bolt run.
        SENDING: A trigger is about to be sent, or was sent, and its Bolt run is unknown.
        RUNNING: The Bolt run is known and tracked.
        ENDED: The Bolt run has ended, and its end was not reported. A later execution reports it.
        RELEASED: The Bolt run was left running on purpose. A later execution resumes it.
        REPORTED: The end of the Bolt run was reported as the flow run's outcome. A later execution starts anew.
    """

    TAKEN = "taken"
    SENDING = "sending"
    RUNNING = "running"
    ENDED = "ended"
    RELEASED = "released"
    REPORTED = "reported"


class Relation(str, Enum):
    """Who has started the Bolt run of an intent.

    Only a Bolt run that is `OURS` may be cancelled. In all three cases, no second Bolt run is triggered beside it.

    Attributes:
        OURS: Our trigger has started the Bolt run, or will start it.
        MAYBE_OURS: Our trigger may have started the Bolt run. Another client may also have started it.
        ATTACHED: Another client has started the Bolt run. We wait for its end, because `on_already_running` says so.
    """

    OURS = "ours"
    MAYBE_OURS = "maybe ours"
    ATTACHED = "attached"
